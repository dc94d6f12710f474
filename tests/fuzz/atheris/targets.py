"""What coverage-guided fuzzing calls: every parser of the pure-Python engine and of the texts other programs hand us.

Each target takes any bytes. It may refuse them with the error its callers expect; anything else that escapes is a finding.
Checksums count as right, so that what lies behind them is reached. `run.py` drives them with atheris, `test_python_parsers.py`
for some seconds with plain mutations.
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from seiops.digest.boundary import decode_boundary
from seiops.digest.changes import pairs
from seiops.digest.child import add_tree_line
from seiops.digest.errors import DigestError
from seiops.digest.flatkv import seiwal
from seiops.digest.flatkv.blocks import decode_payload
from seiops.digest.flatkv.seiwal import StateWal, read_records
from seiops.digest.flatkv.values import decode_row
from seiops.digest.keys import BUCKETS, Bucket
from seiops.digest.localize import decode_tree, open_row_file
from seiops.digest.memiavl.changelog import Changelog
from seiops.digest.memiavl.hashes import verified
from seiops.digest.memiavl.snapshot import MultiTreeMetadata, TreeFiles, read_multi_tree_metadata
from seiops.digest.model import Backend
from seiops.digest.pebble import block, records
from seiops.digest.pebble.batch import read_logs
from seiops.digest.pebble.directory import LogFile
from seiops.digest.pebble.manifest import read_manifest
from seiops.digest.pebble.records import RecordReader
from seiops.digest.pebble.table import Table
from seiops.digest.seidb_report import parse_report
from seiops.digest.side import from_wire
from seiops.digest.wire import WireError
from seiops.shadow.rawjson import BadJsonError, compact

SCRATCH = Path(tempfile.mkdtemp(prefix="seiops-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
LOG_NUMBER = 7


class AnyChecksum(int):
    """Equals whatever it is compared with."""

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = int.__hash__


def any_checksum(*_: object) -> AnyChecksum:
    return AnyChecksum(1)


@contextmanager
def trusted_checksums() -> Iterator[None]:
    """Every checksum is right."""
    with (
        patch.object(records, "masked_crc32c", any_checksum),
        patch.object(block.BlockReader, "_checksum", any_checksum),
        patch.object(seiwal, "zlib", SimpleNamespace(crc32=any_checksum)),
    ):
        yield


@contextmanager
def refused(*expected: type[Exception]) -> Iterator[None]:
    """A refusal is fine."""
    with suppress(DigestError, *expected):
        yield


def on_disk(name: str, data: bytes) -> Path:
    path = SCRATCH / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def changelog(data: bytes) -> None:
    path = on_disk("changelog/00000000000000000001", data)
    with refused():
        for entry in Changelog(path.parent).entries_from(1):
            for _, span in entry.entry.changesets:
                with refused(WireError):
                    list(pairs(entry.data, span))


def tree(data: bytes) -> None:
    """Two bytes say where `leaves` begins behind `kvs`; `nodes` has the size it must have."""
    if len(data) < 2:
        return
    (cut,) = struct.unpack_from("<H", data)
    kvs, leaves = data[2 : 2 + cut], data[2 + cut :]
    leaves = leaves[: len(leaves) // 48 * 48]
    on_disk("tree/metadata", struct.pack("<III", 1280721225, 0, 7))
    for name, content in (("kvs", kvs), ("leaves", leaves), ("nodes", leaves[: max(0, len(leaves) - 48)])):
        on_disk(f"tree/{name}", content)
    with refused():
        files = TreeFiles(str(SCRATCH / "tree"))
        try:
            for reading in (files.iterate, lambda: verified(files, MultiTreeMetadata())):
                with refused():
                    list(reading())
        finally:
            files.close()


def metadata(data: bytes) -> None:
    on_disk("snapshot/__metadata", data)
    with refused():
        read_multi_tree_metadata(str(SCRATCH / "snapshot"))


def record_chunks(data: bytes) -> None:
    for number in (None, LOG_NUMBER):
        list(RecordReader(data, number))


def manifest(data: bytes) -> None:
    with refused():
        read_manifest(on_disk("MANIFEST-000001", data), SCRATCH)


def batches(data: bytes) -> None:
    with refused():
        read_logs([LogFile(LOG_NUMBER, 0, on_disk("000007.log", data))])


def table(data: bytes) -> None:
    path = on_disk("000001.sst", data)
    with refused():
        opened = Table(path)
        try:
            for point in opened.points():
                opened.may_contain(point.key)
            list(opened.points(b"b", b"y"))
            list(opened.range_deletions)
        finally:
            opened.close()


def state_log(data: bytes) -> None:
    """The first byte is the kernel's target's, so that both take the same corpus."""
    path = on_disk("wal/0.wal.u", data[1:])
    with refused():
        for _, payload in read_records(data[1:]).records:
            state_payload(payload)
    with refused():
        wal = StateWal(path.parent)
        if wal.range is not None:
            list(wal.blocks(*wal.range))


def state_payload(data: bytes) -> None:
    with refused():
        for _, span in decode_payload(data):
            list(span)


def values(data: bytes) -> None:
    for bucket in BUCKETS:
        with refused():
            decode_row(bucket, b"evm/k", data)
    with refused():
        decode_boundary(data)


def report(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    for backend in (Backend.FLATKV, Backend.MEMIAVL):
        with refused():
            parse_report(text, backend, 100)


def child_lines(data: bytes) -> None:
    """Lines of our own child, and a shard tree: JSON of any shape."""
    try:
        members: Any = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(members, dict):
        return
    with refused():
        add_tree_line({}, members)
    with refused():
        from_wire(members)
    with refused():
        decode_tree(members, "tree.json")


def row_file(data: bytes) -> None:
    with refused():
        for row in open_row_file(on_disk("rows.jsonl", data)).rows():
            assert isinstance(row.bucket, Bucket)


def raw_json(data: bytes) -> None:
    """A JSON value keeps its value; what is none may be refused."""
    try:
        value = json.loads(data.decode())  # bytes would be taken for UTF-16 where they hold zeros
    except (ValueError, RecursionError):
        value = refused
    with suppress(BadJsonError):
        found = compact(data)
        assert value is refused or repr(json.loads(found.decode())) == repr(value)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "changelog": changelog,
    "tree": tree,
    "metadata": metadata,
    "records": record_chunks,
    "manifest": manifest,
    "batches": batches,
    "table": table,
    "state_log": state_log,
    "state_payload": state_payload,
    "values": values,
    "report": report,
    "child_lines": child_lines,
    "row_file": row_file,
    "raw_json": raw_json,
}
