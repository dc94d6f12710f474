"""The `evm` tree of one complete snapshot, read front to back from its `kvs` file (docs/contracts/digest.md 3.7).

seidb's snapshot mode needs `metadata` and `kvs` only, so a snapshot with nothing else must still be readable; what else
is there is used to check them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seiops.digest.errors import DigestError
from seiops.digest.files import MappedFile, clean_path, join_path, read_small, system_text
from seiops.digest.memiavl.hashes import verified
from seiops.digest.memiavl.snapshot import (
    EVM_TREE,
    METADATA_LENGTH,
    RECORD_LENGTH,
    Leaf,
    TreeFiles,
    check_metadata,
    leaf_versions,
    read_multi_tree_metadata,
    scan_kvs,
    snapshot_name,
)
from seiops.digest.model import Verification


class SnapshotTree:
    """Opening reads `metadata`; a missing `kvs` shows when the scan begins, as it does upstream."""

    def __init__(self, root: str, height: int, verification: Verification) -> None:
        self._base = join_path(clean_path(root), "current" if height == 0 else snapshot_name(height))
        self.tree_dir = join_path(self._base, EVM_TREE)
        self._verification = verification
        self.version = self._read_version(height)
        self._kvs = _try_open(join_path(self.tree_dir, "kvs"))
        self._leaves = _try_open(join_path(self.tree_dir, "leaves"))

    def _read_version(self, height: int) -> int:
        path = join_path(self.tree_dir, "metadata")
        try:
            data = read_small(path)
        except OSError as error:
            raise DigestError("read metadata: " + system_text("open", path, error)) from error
        if len(data) < METADATA_LENGTH:
            raise DigestError(f"metadata too short: {len(data)} bytes")
        version = check_metadata(data)
        wanted = snapshot_name(height) if height else _link_target(self._base)
        if wanted is not None and snapshot_name(version) != wanted:
            raise DigestError(f"{path}: says version {version}, but its snapshot is {wanted}; the file is damaged")
        return version

    def iterate(self) -> Iterator[Leaf]:
        """Leaves in file order, without versions."""
        if self._verification is Verification.FULL:
            yield from self._verified()
            return
        kvs = _opened(self._kvs, "kvs")
        count = 0
        for leaf in scan_kvs(kvs):
            count += 1
            yield leaf
        self._check_count(kvs, count)

    def _verified(self) -> Iterator[Leaf]:
        files = TreeFiles(self.tree_dir)
        try:
            yield from verified(files, read_multi_tree_metadata(self._base))
        finally:
            files.close()

    def _check_count(self, kvs: MappedFile, count: int) -> None:
        """More leaf records than leaves means that `kvs` was cut between two of them."""
        if isinstance(self._leaves, MappedFile) and self._leaves.size // RECORD_LENGTH > count:
            raise DigestError(
                f"{kvs.path}: ends after {count} leaves, but {self._leaves.path} lists "
                f"{self._leaves.size // RECORD_LENGTH}; the file was cut, restore the snapshot"
            )

    def iterate_with_versions(self) -> Iterator[Leaf]:
        """Leaves with their version stamps, from a joint walk of `kvs` and `leaves`."""
        kvs, leaves = _opened(self._kvs, "kvs"), _opened(self._leaves, "leaves")
        versions = leaf_versions(leaves)
        for leaf in scan_kvs(kvs):
            yield Leaf(leaf.key, leaf.value, next(versions))

    def close(self) -> None:
        for file in (self._kvs, self._leaves):
            if isinstance(file, MappedFile):
                file.close()


def _link_target(path: str) -> str | None:
    """Snapshot a `current` link names, where it is a link to one."""
    try:
        target = str(Path(path).readlink())
    except OSError:
        return None
    return target if target.startswith("snapshot-") else None


def _try_open(path: str) -> MappedFile | DigestError:
    try:
        return MappedFile(path)
    except OSError as error:
        return DigestError(f"{path}: {system_text('open', path, error)}")


def _opened(file: MappedFile | DigestError, name: str) -> MappedFile:
    if isinstance(file, DigestError):
        raise DigestError(f"open {name} {file}")
    return file
