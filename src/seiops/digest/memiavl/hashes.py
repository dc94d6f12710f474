"""Hashes of a memiavl tree, for `--verify`: leaves, branches, root (docs/contracts/digest.md 3.2).

The nodes of a snapshot lie in post-order, so one pass over `nodes` with a stack of subtrees recomputes the root in
memory proportional to the tree's depth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from struct import Struct

from seiops.digest.errors import DigestError
from seiops.digest.memiavl.snapshot import RECORD_LENGTH, Leaf, MultiTreeMetadata, TreeFiles
from seiops.digest.wire import encode_uvarint, encode_varint

EMPTY_ROOT = hashlib.sha256(b"").digest()
_HASH_LENGTH = encode_uvarint(32)
_NODE = Struct("<BBHIII32s")


def leaf_hash(version: int, key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(
        b"\x00\x02"
        + encode_varint(version)
        + encode_uvarint(len(key))
        + key
        + _HASH_LENGTH
        + hashlib.sha256(value).digest()
    ).digest()


def branch_hash(height: int, size: int, version: int, left: bytes, right: bytes) -> bytes:
    head = encode_varint(height) + encode_varint(size) + encode_varint(version)
    return hashlib.sha256(head + _HASH_LENGTH + left + _HASH_LENGTH + right).digest()


def verified(files: TreeFiles, metadata: MultiTreeMetadata) -> Iterator[Leaf]:
    """Leaves of a tree, each checked against its record; at the end the branches and the root. Raises DigestError."""
    previous = None
    for index, leaf in enumerate(files.iterate()):
        if leaf_hash(leaf.version, leaf.key, leaf.value) != files.leaf_record(index).hash:
            raise DigestError(f"{files.kvs.path}: leaf {index} does not match its hash; the snapshot is damaged")
        if previous is not None and leaf.key <= previous:
            raise DigestError(f"{files.kvs.path}: leaf {index} is out of order; the snapshot is damaged")
        previous = leaf.key
        yield leaf
    root = _root(files)
    expected = metadata.roots.get(files.tree_dir.rsplit("/", 1)[-1])
    if expected != root:
        raise DigestError(
            f"{files.tree_dir}: root hash {root.hex()}, but __metadata says "
            f"{expected.hex() if expected else 'nothing'}; the snapshot is damaged"
        )


def _root(files: TreeFiles) -> bytes:
    """Root hash, every branch record checked on the way."""
    if files.leaf_count == 0:
        return EMPTY_ROOT
    stack: list[tuple[int, bytes]] = []
    next_leaf = 0
    for index in range(files.nodes.size // RECORD_LENGTH):
        height, waiting, _, version, size, _, stored = _NODE.unpack_from(files.nodes.data, index * RECORD_LENGTH)
        last_leaf = min(index + waiting + 1, files.leaf_count - 1)
        while next_leaf <= last_leaf:
            stack.append((1, files.leaf_record(next_leaf).hash))
            next_leaf += 1
        if len(stack) < 2 or stack[-1][0] + stack[-2][0] != size:
            raise DigestError(f"{files.nodes.path}: branch {index} does not fit the leaves; the snapshot is damaged")
        right, left = stack.pop(), stack.pop()
        if branch_hash(height, size, version, left[1], right[1]) != stored:
            raise DigestError(f"{files.nodes.path}: branch {index} does not match its hash; the snapshot is damaged")
        stack.append((size, stored))
    return stack[0][1] if stack else files.leaf_record(0).hash
