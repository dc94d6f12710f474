"""Reaching a memiavl height that has no snapshot: leaves of a base snapshot under the last writes of its changelog.

The digest needs no tree, only the leaves, so replay is an overlay: the last write per key of tree `evm` over all
entries behind the snapshot (docs/contracts/digest.md 3.7). Where upstream silently stops short (a log that starts too
late, a hole, a height behind the end) this reader refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from pathlib import Path
from typing import NamedTuple

from seiops.digest.changes import Span, TreeNameUpgrade, pairs
from seiops.digest.errors import DigestError
from seiops.digest.files import clean_path, join_path
from seiops.digest.memiavl.changelog import Changelog, LogEntry
from seiops.digest.memiavl.hashes import verified
from seiops.digest.memiavl.snapshot import (
    EVM_TREE,
    Leaf,
    MultiTreeMetadata,
    TreeFiles,
    read_multi_tree_metadata,
    snapshot_name,
    snapshot_versions,
)
from seiops.digest.model import Verification
from seiops.digest.wire import WireError

Overlay = dict[bytes, tuple[bytes | None, int]]
"""Last write per raw key: (value, version stamp), value None for a deletion."""


class Write(NamedTuple):
    """One write of a replayed block to the followed tree; `value` is None for a deletion."""

    key: bytes
    value: bytes | None
    version: int


@dataclass(slots=True)
class ReplayedTree:
    """The `evm` tree at `version`: its base files under an overlay."""

    version: int
    tree_dir: str
    metadata: MultiTreeMetadata
    files: TreeFiles | None
    overlay: Overlay
    verification: Verification

    def iterate(self) -> Iterator[Leaf]:
        """Leaves in key order, with their versions; on FULL those of the base snapshot are checked against its hashes."""
        base = self._base()
        if not self.overlay:
            yield from base
            return
        overlay = self.overlay
        kept = (leaf for leaf in base if leaf.key not in overlay)
        written = (Leaf(key, value, version) for key, (value, version) in sorted(overlay.items()) if value is not None)
        yield from merge(kept, written)

    iterate_with_versions = iterate

    def _base(self) -> Iterator[Leaf]:
        if self.files is None:
            return iter(())
        if self.verification is Verification.FULL:
            return verified(self.files, self.metadata)
        return self.files.iterate()

    def close(self) -> None:
        if self.files is not None:
            self.files.close()


def base_directory(root: str, height: int) -> str:
    """Directory of the snapshot that replay to `height` starts from."""
    if height <= 0:
        return join_path(root, "current")
    candidates = [version for version in snapshot_versions(root) if version <= height]
    if not candidates:
        raise DigestError(f"fail to seek snapshot: target version is pruned: {height}")
    return join_path(root, snapshot_name(candidates[-1]))


@dataclass(slots=True)
class Replay:
    """How a height is reached: the snapshot it starts from, the tree followed from there, the log behind it.

    `version` is the version reached; `tree` the directory of the followed tree in the snapshot, None if it was added later.
    """

    version: int
    base: str
    metadata: MultiTreeMetadata
    tree: str | None
    _log: _LogRange | None = None
    _track: _Track | None = None

    def writes(self) -> Iterator[Write]:
        """Writes of the replayed blocks to the followed tree, in order. Raises DigestError for entries that do not parse."""
        if self._log is None or self._track is None:
            return
        counter = self._track.counter
        for entry in self._log.entries():
            version = entry.entry.version
            name = self._track.name_at(version)
            if name is None:
                continue
            for changed, span in entry.entry.changesets:
                if changed == name:
                    yield from _writes(entry, span, counter + 1)
            counter = version


def plan_replay(root: str, height: int, tree: str) -> Replay:
    """Follow `tree` of the store below `root` to `height` (0 = the end of the log).

    Raises DigestError with the text that follows `open memiavl read-only replay: `.
    """
    root = clean_path(root)
    base = base_directory(root, height)
    metadata = read_multi_tree_metadata(base)
    names = tree_names(base)
    check_trees(base, names)
    log = Changelog(Path(root) / "changelog")
    span = _log_range(log, metadata, height)
    lineage = _Lineage(names, metadata.version)
    if span is not None:
        for entry in span.entries_checked_to_the_end():
            lineage.upgrade(entry.entry.version, entry.entry.upgrades)
            lineage.check_names(entry)
    if height != 0 and lineage.version != height:
        raise DigestError(f"version mismatch: requested {height}, reached {lineage.version}; the changelog ends there")
    track = lineage.track_of(tree)
    if track is None:
        raise MissingTreeError(f'memiavl tree "{tree}" not found')
    directory = join_path(base, track.base) if track.base is not None else None
    return Replay(lineage.version, base, metadata, directory, span, track)


def open_replayed(root: str, height: int, verification: Verification) -> ReplayedTree:
    """The `evm` tree of the store below `root` at `height` (0 = the end of the log). Raises as `plan_replay` does."""
    replay = plan_replay(root, height, EVM_TREE)
    overlay = {key: (value, version) for key, value, version in replay.writes()}
    files = TreeFiles(replay.tree) if replay.tree is not None else None
    return ReplayedTree(replay.version, join_path(replay.base, EVM_TREE), replay.metadata, files, overlay, verification)


class MissingTreeError(DigestError):
    """The height is reachable, but no tree `evm` exists there."""


def tree_names(snapshot_dir: str) -> list[str]:
    return sorted(entry.name for entry in Path(snapshot_dir).iterdir() if entry.is_dir())


def check_trees(snapshot_dir: str, names: list[str]) -> None:
    """Check the files of every tree, as the upstream opener loads them all."""
    for name in names:
        TreeFiles(join_path(snapshot_dir, name)).close()


@dataclass(slots=True)
class _LogRange:
    """The entries between a snapshot and a height (0 = no upper end)."""

    log: Changelog
    start: int
    delta: int
    height: int

    def entries(self) -> Iterator[LogEntry]:
        """Entries up to the height, each exactly one version behind the last."""
        expected = self.start
        for entry in self.log.entries_from(self.start):
            if entry.index != expected or entry.entry.version != expected + self.delta:
                raise DigestError(
                    f"read log failed, changelog entry {entry.index} holds version {entry.entry.version}, "
                    f"want entry {expected} with version {expected + self.delta}"
                )
            if self.height and entry.entry.version > self.height:
                return
            expected += 1
            yield entry

    def entries_checked_to_the_end(self) -> Iterator[LogEntry]:
        """The same entries; then the rest of the log is walked, because a hole behind the height is damage as well."""
        yield from self.entries()
        for _ in self.log.entries_from(self.start):
            pass


def _log_range(log: Changelog, base: MultiTreeMetadata, height: int) -> _LogRange | None:
    """The part of the log that replay needs, None when it needs none. Raises DigestError when the log begins too late."""
    if height != 0 and height <= base.version:
        return None
    try:
        first = log.first_entry()
    except DigestError as error:
        raise DigestError(f"failed to compute WAL index delta: {error}") from error
    if first is None:
        return None
    delta = first.entry.version - first.index
    if first.entry.version > base.next_version:
        raise DigestError(
            f"{log.directory}: the changelog starts at version {first.entry.version}, but replay must start at "
            f"{base.next_version}; versions {base.next_version} to {first.entry.version - 1} are missing"
        )
    if base.version < first.entry.version < base.next_version:
        raise DigestError(
            f"{log.directory}: holds version {first.entry.version}, but the database begins at version {base.next_version}"
        )
    return _LogRange(log, base.next_version - delta, delta, height)


def _writes(entry: LogEntry, span: Span, version: int) -> Iterator[Write]:
    try:
        for key, value in pairs(entry.data, span):
            yield Write(key, value, version)
    except WireError as error:
        raise DigestError(f"read log failed, changelog entry {entry.index}: {error}") from error


@dataclass(slots=True)
class _Track:
    """Names one tree bore over time: the last of `names` whose version is not above the one asked for."""

    base: str | None
    counter: int
    names: list[tuple[int, str]]

    def name_at(self, version: int) -> str | None:
        current = None
        for since, name in self.names:
            if since > version:
                break
            current = name
        return current


class _Lineage:
    """Follows tree additions, renames and deletions, so that `evm` is found under whatever name it was written to."""

    def __init__(self, names: list[str], version: int) -> None:
        self.version = version
        self._trees = {name: _Track(name, version, [(version, name)]) for name in names}

    def upgrade(self, version: int, upgrades: list[TreeNameUpgrade]) -> None:
        self.version = version
        added: list[str] = []
        for change in upgrades:
            if change.delete:
                self._take(change.name)
            elif change.rename_from:
                track = self._take(change.rename_from)
                track.names.append((version, change.name))
                self._put(change.name, track, added)
            else:
                self._put(change.name, _Track(None, 0, [(version, change.name)]), added)
        if added:
            raise DigestError(f"process log failed, memiavl tree name conflicts: {added[0]}")

    def _take(self, name: str) -> _Track:
        if name not in self._trees:
            raise DigestError(f"process log failed, unknown tree name {name}")
        return self._trees.pop(name)

    def _put(self, name: str, track: _Track, conflicts: list[str]) -> None:
        if name in self._trees:
            conflicts.append(name)
        self._trees[name] = track

    def check_names(self, entry: LogEntry) -> None:
        for name, _ in entry.entry.changesets:
            if name not in self._trees:
                raise DigestError(
                    f"process log failed, unknown tree name {name} during WAL replay "
                    "(missing initial stores / upgrades)"
                )

    def track_of(self, name: str) -> _Track | None:
        return self._trees.get(name)
