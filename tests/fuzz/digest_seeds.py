"""Seeds for the fuzz targets of the kernel, one folder a target: files of stores made by the test writer.

PYTHONPATH=tools:tests python tests/fuzz/digest_seeds.py native/fuzz/corpus
cargo +nightly fuzz run --fuzz-dir native/fuzz table
"""

from __future__ import annotations

import struct
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

from support.digest_stores import History, histories, write_flatkv_store, write_memiavl_store


def write_seeds(target: Path, examples: int) -> None:
    """Lay `examples` random stores out as seeds below `target`."""
    number = 0

    @seed(1)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=[*HealthCheck])
    @given(histories())
    def store(history: History) -> None:
        nonlocal number
        number += 1
        with tempfile.TemporaryDirectory() as scratch:
            write_memiavl_store(Path(scratch, "m"), history)
            write_flatkv_store(Path(scratch, "f"), history)
            for path in sorted(Path(scratch).rglob("*")):
                if path.is_file() and not path.is_symlink():
                    _seed(target, path, number)

    store()


def _seed(target: Path, path: Path, number: int) -> None:
    data = path.read_bytes()
    name = f"{number}-{path.parent.name}-{path.name}"
    for kind, content in _inputs(path, data):
        folder = target / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _inputs(path: Path, data: bytes) -> list[tuple[str, bytes]]:
    if path.suffix == ".sst":
        return [("table", data)]
    if path.name.startswith("MANIFEST"):
        return [("manifest", data), ("records", data)]
    if path.suffix == ".log":
        # the target reads log number 7
        return [("batches", data.replace(path.stem.encode(), b"000007")), ("records", data)]
    if path.suffix in (".wal", ".u"):
        return [("state_log", b"\xfe" + data)]
    if path.parent.name == "changelog":
        return [("changelog", data), ("state_log", b"\xff" + data), ("wire", data[2:])]
    if path.name == "kvs":
        return [("tree", struct.pack("<H", len(data)) + data + (path.parent / "leaves").read_bytes())]
    return []


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]), 30)
