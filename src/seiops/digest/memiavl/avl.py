"""The AVL tree behind memiavl's root hashes, reproduced move by move (docs/contracts/digest.md 3.7).

The digest never needs it. The root hash does: it is what a node committed, so recomputing it at a replayed height proves
snapshot and log against consensus. Memory is proportional to the tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct

from seiops.digest.memiavl.hashes import EMPTY_ROOT, branch_hash, leaf_hash
from seiops.digest.memiavl.replay import plan_replay
from seiops.digest.memiavl.snapshot import RECORD_LENGTH, TreeFiles

_NODE = Struct("<BBHIII32s")


@dataclass(slots=True, eq=False)
class Node:
    """A leaf (no children, `value` set) or a branch, whose key is the smallest of its right subtree."""

    key: bytes
    version: int
    value: bytes = b""
    left: Node | None = None
    right: Node | None = None
    height: int = 0
    size: int = 1
    digest: bytes | None = None

    @property
    def children(self) -> tuple[Node, Node]:
        assert self.left is not None
        assert self.right is not None
        return self.left, self.right


def _branch(key: bytes, version: int, left: Node, right: Node) -> Node:
    return Node(key, version, b"", left, right, 1 + max(left.height, right.height), left.size + right.size)


def _balance(node: Node) -> int:
    if node.left is None:
        return 0
    left, right = node.children
    return left.height - right.height


class Tree:
    """A tree at one version after the other; `set` and `delete` stamp the nodes they touch."""

    def __init__(self, root: Node | None = None) -> None:
        self.root = root

    def set(self, key: bytes, value: bytes, version: int) -> None:
        leaf = Node(key, version, value)
        self.root = leaf if self.root is None else _set(self.root, leaf)[0]

    def delete(self, key: bytes, version: int) -> None:
        if self.root is not None:
            found, root, _ = _delete(self.root, key, version)
            if found:
                self.root = root

    @property
    def root_hash(self) -> bytes:
        return EMPTY_ROOT if self.root is None else _hash(self.root)


def _hash(node: Node) -> bytes:
    if node.digest is None:
        if node.left is None:
            node.digest = leaf_hash(node.version, node.key, node.value)
        else:
            left, right = node.children
            node.digest = branch_hash(node.height, node.size, node.version, _hash(left), _hash(right))
    return node.digest


def _set(node: Node, leaf: Node) -> tuple[Node, bool]:
    """The subtree with the leaf in it, and whether the leaf replaced one of the same key."""
    if node.left is None:
        if leaf.key == node.key:
            return leaf, True
        if leaf.key < node.key:
            return _branch(node.key, leaf.version, leaf, node), False
        return _branch(leaf.key, leaf.version, node, leaf), False
    left, right = node.children
    if leaf.key < node.key:
        left, replaced = _set(left, leaf)
    else:
        right, replaced = _set(right, leaf)
    changed = _branch(node.key, leaf.version, left, right)
    return (changed if replaced else _rebalanced(changed, leaf.version)), replaced


def _delete(node: Node, key: bytes, version: int) -> tuple[bool, Node | None, bytes | None]:
    """(found, what is left of the subtree, new split key for the nearest ancestor it was the leftmost key of)."""
    if node.left is None:
        return (True, None, None) if node.key == key else (False, node, None)
    left, right = node.children
    if key < node.key:
        found, rest, split = _delete(left, key, version)
        if not found:
            return False, node, None
        if rest is None:
            return True, right, node.key
        return True, _rebalanced(_branch(node.key, version, rest, right), version), split
    found, rest, split = _delete(right, key, version)
    if not found:
        return False, node, None
    if rest is None:
        return True, left, None
    return True, _rebalanced(_branch(split if split is not None else node.key, version, left, rest), version), None


def _rebalanced(node: Node, version: int) -> Node:
    balance = _balance(node)
    left, right = node.children
    if balance > 1:
        if _balance(left) < 0:
            node = _branch(node.key, version, _rotated_left(left, version), right)
        return _rotated_right(node, version)
    if balance < -1:
        if _balance(right) > 0:
            node = _branch(node.key, version, left, _rotated_right(right, version))
        return _rotated_left(node, version)
    return node


def _rotated_right(node: Node, version: int) -> Node:
    left, right = node.children
    outer, inner = left.children
    return _branch(left.key, version, outer, _branch(node.key, version, inner, right))


def _rotated_left(node: Node, version: int) -> Node:
    left, right = node.children
    inner, outer = right.children
    return _branch(right.key, version, _branch(node.key, version, left, inner), outer)


def load_tree(files: TreeFiles) -> Tree:
    """The tree of a snapshot, from its leaves and branch records."""
    leaves = [Node(leaf.key, leaf.version, leaf.value) for leaf in files.iterate()]
    stack: list[Node] = []
    next_leaf = 0
    for index in range(files.nodes.size // RECORD_LENGTH):
        _, waiting, _, version, _, key_leaf, stored = _NODE.unpack_from(files.nodes.data, index * RECORD_LENGTH)
        while next_leaf <= min(index + waiting + 1, len(leaves) - 1):
            stack.append(leaves[next_leaf])
            next_leaf += 1
        right, left = stack.pop(), stack.pop()
        branch = _branch(leaves[key_leaf].key, version, left, right)
        branch.digest = stored
        stack.append(branch)
    if not stack and leaves:
        stack = leaves
    return Tree(stack[0] if stack else None)


def root_hash(root: str, height: int, tree: str) -> tuple[int, bytes]:
    """Version reached and root hash of one tree of the store below `root` at `height` (0 = the end of the log)."""
    replay = plan_replay(root, height, tree)
    state = Tree()
    if replay.tree is not None:
        files = TreeFiles(replay.tree)
        try:
            state = load_tree(files)
        finally:
            files.close()
    for key, value, version in replay.writes():
        if value is None:
            state.delete(key, version)
        else:
            state.set(key, value, version)
    return replay.version, state.root_hash
