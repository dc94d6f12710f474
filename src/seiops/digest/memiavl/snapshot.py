"""Snapshots of memiavl: finding one, checking its files, walking its leaves (docs/contracts/digest.md 3.1 to 3.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from seiops.digest.errors import DigestError
from seiops.digest.files import MappedFile, join_path, read_small, system_text
from seiops.digest.wire import BYTES, VARINT, WireError, fields, signed

MAGIC = 1280721225
FORMAT = 0
METADATA_LENGTH = 12
RECORD_LENGTH = 48
EVM_TREE = "evm"

_LE32 = Struct("<I")
_METADATA = Struct("<III")
_LEAF = Struct("<IIQ32s")
_SNAPSHOT_NAME = re.compile(r"snapshot-(.{20})", re.DOTALL)


class Leaf(NamedTuple):
    """One leaf; `version` is the stamp of its last write, 0 where it was not asked for."""

    key: bytes
    value: bytes
    version: int = 0


class LeafRecord(NamedTuple):
    version: int
    key_length: int
    offset: int
    hash: bytes


def snapshot_name(version: int) -> str:
    return f"snapshot-{version:020d}"


def snapshot_versions(root: str) -> list[int]:
    """Versions of the snapshots below `root`, ascending. A 29-byte name that is no number is an error upstream too."""
    versions = []
    try:
        entries = sorted(Path(root).iterdir())
    except OSError as error:
        raise DigestError("fail to seek snapshot: " + system_text("open", root, error)) from error
    for entry in entries:
        match = _SNAPSHOT_NAME.fullmatch(entry.name)
        if match is None or entry.is_symlink() or not entry.is_dir():
            continue
        digits = match[1]
        if not (digits.isascii() and digits.isdigit()) or int(digits) >= 1 << 32:
            raise DigestError(f"fail to seek snapshot: invalid snapshot name: {entry.name}")
        versions.append(int(digits))
    return sorted(versions)


@dataclass(frozen=True, slots=True)
class MultiTreeMetadata:
    """`__metadata` of a snapshot: its version, the chain's first height, and the root hash of every tree."""

    version: int = 0
    initial_version: int = 0
    roots: dict[str, bytes] = field(default_factory=dict)

    @property
    def next_version(self) -> int:
        """Version of the block behind the snapshot (docs/contracts/digest.md 3.8)."""
        return self.initial_version if self.version == 0 and self.initial_version > 1 else self.version + 1


def read_multi_tree_metadata(snapshot_dir: str) -> MultiTreeMetadata:
    path = join_path(snapshot_dir, "__metadata")
    try:
        data = read_small(path)
    except OSError as error:
        raise DigestError(system_text("open", path, error)) from error
    try:
        return _decode_multi_tree(data)
    except (WireError, UnicodeDecodeError) as error:
        raise DigestError("unexpected EOF") from error


def _decode_multi_tree(data: bytes) -> MultiTreeMetadata:
    version = initial_version = 0
    roots: dict[str, bytes] = {}
    for number, kind, a, b in fields(data, 0, len(data)):
        if number == 2 and kind == VARINT:
            initial_version = signed(a)
        if number != 1 or kind != BYTES:
            continue
        for inner, inner_kind, c, d in fields(data, a, b):
            if inner == 1 and inner_kind == VARINT:
                version = signed(c)
            elif inner == 2 and inner_kind == BYTES:
                name, root = _decode_store_info(data, c, d)
                roots[name] = root
    return MultiTreeMetadata(version, initial_version, roots)


def _decode_store_info(data: bytes, start: int, end: int) -> tuple[str, bytes]:
    name, root = "", b""
    for number, kind, a, b in fields(data, start, end):
        if number == 1 and kind == BYTES:
            name = data[a:b].decode()
        elif number == 2 and kind == BYTES:
            for inner, inner_kind, c, d in fields(data, a, b):
                if inner == 2 and inner_kind == BYTES:
                    root = data[c:d]
    return name, root


def check_metadata(data: bytes) -> int:
    """Version from a tree's 12-byte `metadata`; raises with the replay opener's texts (docs/contracts/digest.md 3.7)."""
    if len(data) != METADATA_LENGTH:
        raise DigestError(f"wrong metadata file size, expcted: {METADATA_LENGTH}, found: {len(data)}")
    magic, layout, version = _METADATA.unpack(data)
    if magic != MAGIC:
        raise DigestError(f"invalid metadata file magic: {magic}")
    if layout != FORMAT:
        raise DigestError(f"unknown snapshot format: {layout}")
    return int(version)


class TreeFiles:
    """The four files of one tree, opened together so that a snapshot pruned meanwhile stays readable.

    Opening checks sizes against each other; `kvs` must reach as far as the last leaf record says, which upstream finds
    out by crashing.
    """

    def __init__(self, tree_dir: str) -> None:
        self.tree_dir = tree_dir
        self.version = self._metadata()
        self.kvs = self._open("kvs")
        self.leaves = self._open("leaves")
        self.nodes = self._open("nodes")
        self.leaf_count = self._check_sizes()

    def _metadata(self) -> int:
        path = join_path(self.tree_dir, "metadata")
        try:
            return check_metadata(read_small(path))
        except OSError as error:
            raise DigestError(system_text("open", path, error)) from error

    def _open(self, name: str) -> MappedFile:
        path = join_path(self.tree_dir, name)
        try:
            return MappedFile(path)
        except OSError as error:
            raise DigestError(system_text("open", path, error)) from error

    def _check_sizes(self) -> int:
        leaves, odd = divmod(self.leaves.size, RECORD_LENGTH)
        if odd:
            raise DigestError(f"corrupted snapshot, leaves file size {self.leaves.size} is not a multiple of 48")
        nodes, odd = divmod(self.nodes.size, RECORD_LENGTH)
        if odd:
            raise DigestError(f"corrupted snapshot, nodes file size {self.nodes.size} is not a multiple of 48")
        if nodes + 1 != leaves and not nodes == leaves == 0:
            raise DigestError(f"corrupted snapshot, branch nodes size {nodes} don't match leaves size {leaves}")
        check_reach(self.kvs, self.leaves, leaves)
        return leaves

    def iterate(self) -> Iterator[Leaf]:
        """Leaves in key order, with their versions. Together they are the whole of `kvs`, one behind the other."""
        data, records = self.kvs.data, self.leaves.data
        value_end = 0
        for index in range(self.leaf_count):
            version, key_length, offset, _ = _LEAF.unpack_from(records, index * RECORD_LENGTH)
            if offset != value_end:
                raise DigestError(
                    f"{self.leaves.path}: leaf {index} begins at {offset} of kvs, but the one before it ends at {value_end}"
                )
            if offset + 4 + key_length + 4 > self.kvs.size:
                raise DigestError(f"{self.kvs.path}: leaf {index} lies outside the file")
            if _LE32.unpack_from(data, offset)[0] != key_length:
                raise DigestError(f"{self.kvs.path}: leaf {index} and its record disagree on the key's length")
            key_end = offset + 4 + key_length
            value_end = key_end + 4 + _LE32.unpack_from(data, key_end)[0]
            if value_end > self.kvs.size:
                raise DigestError(f"{self.kvs.path}: the value of leaf {index} lies outside the file")
            yield Leaf(data[offset + 4 : key_end], data[key_end + 4 : value_end], version)
        if value_end != self.kvs.size:
            raise DigestError(f"{self.kvs.path}: bytes from {value_end} on belong to no leaf")

    def leaf_record(self, index: int) -> LeafRecord:
        return LeafRecord(*_LEAF.unpack_from(self.leaves.data, index * RECORD_LENGTH))

    def close(self) -> None:
        for file in (self.kvs, self.leaves, self.nodes):
            file.close()


def check_reach(kvs: MappedFile, leaves: MappedFile, count: int) -> None:
    """Refuse a `kvs` that ends before its last leaf does."""
    if count == 0:
        return
    _, key_length, offset, _ = _LEAF.unpack_from(leaves.data, (count - 1) * RECORD_LENGTH)
    key_end = offset + 4 + key_length
    if key_end + 4 <= kvs.size and key_end + 4 + _LE32.unpack_from(kvs.data, key_end)[0] <= kvs.size:
        return
    raise DigestError(
        f"{kvs.path}: holds {kvs.size} bytes, but the last of its {count} leaves lies behind that end; "
        "the file was cut, restore the snapshot"
    )


def scan_kvs(kvs: MappedFile) -> Iterator[Leaf]:
    """Leaves of a `kvs` file from front to back, without versions; errors name the field that is cut off."""
    data, size, unpack = kvs.data, kvs.size, _LE32.unpack_from
    position = 0
    while position < size:
        if size - position < 4:
            raise DigestError("read key len: unexpected EOF")
        key_start = position + 4
        key_end = key_start + unpack(data, position)[0]
        if key_end > size:
            raise DigestError("read key: " + _cut(key_start, size))
        if key_end + 4 > size:
            raise DigestError("read val len: " + _cut(key_end, size))
        value_start = key_end + 4
        position = value_start + unpack(data, key_end)[0]
        if position > size:
            raise DigestError("read val: " + _cut(value_start, size))
        yield Leaf(data[key_start:key_end], data[value_start:position])


def _cut(start: int, size: int) -> str:
    return "EOF" if start >= size else "unexpected EOF"


def leaf_versions(leaves: MappedFile) -> Iterator[int]:
    """Version stamps in file order, ending in seidb's error when the file ends inside or before a record."""
    position = 0
    while True:
        if leaves.size - position < RECORD_LENGTH:
            raise DigestError("read leaf metadata: " + _cut(position, leaves.size))
        yield _LEAF.unpack_from(leaves.data, position)[0]
        position += RECORD_LENGTH
