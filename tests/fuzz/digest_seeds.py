"""Seeds for the fuzz targets of the kernel and of the Python parsers, one folder a target: files of stores made by the test
writer, and texts.

PYTHONPATH=src:tools:tests python tests/fuzz/digest_seeds.py native/fuzz/corpus
cargo +nightly fuzz run --fuzz-dir native/fuzz table
PYTHONPATH=src:tools:tests python tests/fuzz/atheris/run.py table native/fuzz/corpus/table
"""

from __future__ import annotations

import json
import struct
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

from seiops.digest.localize import ROWS_FORMAT, TREE_FORMAT
from support.digest_reports import report
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
    name = f"{number}-{path.parent.name}-{path.name}"
    for kind, content in inputs_of(path):
        folder = target / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def inputs_of(path: Path) -> list[tuple[str, bytes]]:
    """A store's file as inputs: (target, bytes)."""
    data = path.read_bytes()
    if path.suffix == ".sst":
        return [("table", data)]
    if path.name.startswith("MANIFEST"):
        return [("manifest", data), ("records", data)]
    if path.suffix == ".log":
        # the target reads log number 7
        return [("batches", data.replace(path.stem.encode(), b"000007")), ("records", data)]
    if path.suffix in (".wal", ".u"):
        return [("state_log", b"\xfe" + data), ("state_payload", b"\x01" + data[9:]), ("values", data[-50:])]
    if path.parent.name == "changelog":
        return [("changelog", data), ("state_log", b"\xff" + data), ("wire", data[2:])]
    if path.name == "kvs":
        return [("tree", struct.pack("<H", len(data)) + data + (path.parent / "leaves").read_bytes())]
    if path.name == "__metadata":
        return [("metadata", data)]
    return []


def texts() -> list[tuple[str, bytes]]:
    """Inputs that come from no store."""
    tally = [3, 2, "AB" * 32]
    buckets = {
        name: {"count": 2, "digest": "AB" * 32, "shards": [tally]} for name in ("account", "code", "storage", "misc")
    }
    tree = {
        "format": TREE_FORMAT,
        "shard_bits": 10,
        "origin": "o",
        "version": 1,
        "engine": "e",
        "final": "",
        "buckets": buckets,
    }
    side = {"version": 1, "final": "AB" * 32, "count": 8, "fourth": "misc", "seconds": 0.5, "buckets": buckets}
    rows = [
        {"format": ROWS_FORMAT, "origin": "o", "version": 1, "shards": [["code", 3]]},
        {"bucket": "code", "key": "65766d2f07", "value": "00", "height": 4},
    ]
    return [
        ("report", report("flatkv").encode()),
        ("report", report("memiavl", fourth="legacy").encode()),
        ("child_lines", json.dumps(tree).encode()),
        ("child_lines", json.dumps(side).encode()),
        ("child_lines", json.dumps({"bucket": "misc", "tallies": [tally]}).encode()),
        ("row_file", b"\n".join(json.dumps(row).encode() for row in rows)),
        ("raw_json", b'{"a": [1, -2.5e3, "\\ud800<&>"], "b": {"c": null, "d": true}}'),
    ]


if __name__ == "__main__":
    corpus = Path(sys.argv[1])
    write_seeds(corpus, 30)
    for at, (kind, content) in enumerate(texts()):
        (corpus / kind).mkdir(parents=True, exist_ok=True)
        (corpus / kind / f"text-{at}").write_bytes(content)
