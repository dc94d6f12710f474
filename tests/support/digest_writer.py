"""Writes memiavl stores of any shape, from the format's description and not from our readers: what a test builds here and both
engines read must come out as the plain dictionary it was built from (docs/contracts/digest.md 3)."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

Pair = tuple[bytes, bytes | None]
"""Key and value of one write; None deletes."""
NamedSet = tuple[str, list[Pair]]


def uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def framed(data: bytes) -> bytes:
    return uvarint(len(data)) + data


def proto_bytes(number: int, data: bytes) -> bytes:
    return uvarint(number << 3 | 2) + framed(data)


def proto_varint(number: int, value: int) -> bytes:
    return uvarint(number << 3) + uvarint(value) if value else b""


@dataclass(frozen=True)
class Upgrade:
    name: str
    rename_from: str = ""
    delete: bool = False


@dataclass
class Block:
    """What one height writes."""

    version: int
    changes: list[NamedSet] = field(default_factory=list)
    upgrades: list[Upgrade] = field(default_factory=list)


def named_changeset(name: str, pairs: Iterable[Pair]) -> bytes:
    body = b""
    for key, value in pairs:
        pair = proto_varint(1, value is None) + proto_bytes(2, key)
        if value:
            pair += proto_bytes(3, value)
        body += proto_bytes(1, pair)
    return proto_bytes(1, body) + proto_bytes(2, name.encode())


def changelog_entry(block: Block) -> bytes:
    entry = proto_varint(1, block.version)
    for name, pairs in block.changes:
        entry += proto_bytes(2, named_changeset(name, pairs))
    for upgrade in block.upgrades:
        body = proto_bytes(1, upgrade.name.encode()) if upgrade.name else b""
        if upgrade.rename_from:
            body += proto_bytes(2, upgrade.rename_from.encode())
        entry += proto_bytes(3, body + proto_varint(3, upgrade.delete))
    return entry


@dataclass(frozen=True)
class Subtree:
    """Root of a finished subtree: height and hash."""

    height: int
    digest: bytes


class TreeWriter:
    """Lays a tree's leaves, branches and hashes out as four flat files; the tree is balanced, which readers do not need."""

    def __init__(self, leaves: Sequence[tuple[bytes, bytes, int]], version: int) -> None:
        self._leaves = leaves
        self._version = version
        self.kvs, self.records, self.nodes = bytearray(), bytearray(), bytearray()
        self._written = 0

    def write(self, directory: Path) -> bytes:
        """Write the files; the root hash."""
        root = self._subtree(0, len(self._leaves)).digest if self._leaves else hashlib.sha256().digest()
        directory.mkdir(parents=True)
        (directory / "kvs").write_bytes(self.kvs)
        (directory / "leaves").write_bytes(self.records)
        (directory / "nodes").write_bytes(self.nodes)
        (directory / "metadata").write_bytes(struct.pack("<III", 1280721225, 0, self._version))
        return root

    def _subtree(self, first: int, last: int) -> Subtree:
        if last - first == 1:
            return self._leaf(first)
        waiting = self._written - len(self.nodes) // 48
        middle = (first + last) // 2
        left, right = self._subtree(first, middle), self._subtree(middle, last)
        height = max(left.height, right.height) + 1
        size = last - first
        head = uvarint(height * 2) + uvarint(size * 2) + uvarint(self._version * 2)
        digest = hashlib.sha256(head + b"\x20" + left.digest + b"\x20" + right.digest).digest()
        self.nodes += struct.pack("<BBHIII", height, waiting, 0, self._version, size, middle) + digest
        return Subtree(height, digest)

    def _leaf(self, index: int) -> Subtree:
        key, value, version = self._leaves[index]
        head = b"\x00\x02" + uvarint(version * 2) + framed(key)
        digest = hashlib.sha256(head + b"\x20" + hashlib.sha256(value).digest()).digest()
        self.records += struct.pack("<IIQ", version, len(key), len(self.kvs)) + digest
        self.kvs += struct.pack("<I", len(key)) + key + struct.pack("<I", len(value)) + value
        self._written += 1
        return Subtree(0, digest)


def write_snapshot(
    root: Path, version: int, trees: dict[str, dict[bytes, tuple[bytes, int]]], initial_version: int = 0
) -> Path:
    """One snapshot directory; `trees` is name => {key: (value, version of the last write)}."""
    directory = root / f"snapshot-{version:020d}"
    stores = b""
    for name in sorted(trees):
        leaves = [(key, value, stamp) for key, (value, stamp) in sorted(trees[name].items())]
        digest = TreeWriter(leaves, version).write(directory / name)
        commit = proto_varint(1, version) + proto_bytes(2, digest)
        stores += proto_bytes(2, proto_bytes(1, name.encode()) + proto_bytes(2, commit))
    directory.mkdir(parents=True, exist_ok=True)
    commit_info = proto_bytes(1, proto_varint(1, version) + stores)
    (directory / "__metadata").write_bytes(commit_info + proto_varint(2, initial_version))
    return directory


def point_current(root: Path, version: int) -> None:
    (root / "current").symlink_to(f"snapshot-{version:020d}")


def write_changelog(root: Path, blocks: Sequence[Block], cuts: Sequence[int], first_index: int = 1) -> None:
    """Segments of a changelog; a new one begins at each position in `cuts`."""
    directory = root / "changelog"
    directory.mkdir(parents=True)
    edges = [0, *sorted(set(cuts)), len(blocks)]
    for start, end in pairwise(edges):
        data = b"".join(framed(changelog_entry(block)) for block in blocks[start:end])
        (directory / f"{first_index + start:020d}").write_bytes(data)
