"""Packs the genesis files of the public chains into the package: `python -m seidev.genesis FILE_OR_DIR ...`.

Each file is recognised by its SHA-256 (docs/contracts/seid-config.md 11), whatever its name; any other is left alone.
"""

from __future__ import annotations

import hashlib
import lzma
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from seiops.seid.schema import load_schema

TARGET = Path(__file__).resolve().parents[2] / "src" / "seiops" / "seid" / "genesis"


def pack(sources: Iterable[Path], target: Path = TARGET) -> list[str]:
    """Writes `<chain id>.json.xz` for every known genesis among the sources; the chain ids found."""
    wanted = {entry["genesis_sha256"]: chain for chain, entry in load_schema().chains.items()}
    found = []
    for path in _files(sources):
        data = path.read_bytes()
        chain = wanted.get(hashlib.sha256(data).hexdigest())
        if chain is not None:
            target.mkdir(parents=True, exist_ok=True)
            (target / f"{chain}.json.xz").write_bytes(lzma.compress(data, preset=9))
            found.append(chain)
    return found


def _files(sources: Iterable[Path]) -> Iterator[Path]:
    for source in sources:
        if source.is_dir():
            yield from (path for path in sorted(source.rglob("*.json")) if path.is_file())
        else:
            yield source


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        found = pack(map(Path, arguments))
    except OSError as error:
        print(f"seidev.genesis: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"packed {chain}" for chain in found) or "none of these files is the genesis of a known chain")
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
