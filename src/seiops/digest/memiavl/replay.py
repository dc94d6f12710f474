"""Reaching a memiavl height that has no snapshot: leaves of a base snapshot under the last writes of its changelog.

The digest needs no tree, only the leaves, so replay is an overlay: the last write per key of tree `evm` over all
entries behind the snapshot (docs/contracts/digest.md 3.7). Where upstream silently stops short (a log that starts too
late, a hole, a height behind the end) this reader refuses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path

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


@dataclass(slots=True)
class TreeState:
    """What replay knows of one tree: the snapshot directory it started from (None if it was added on the way)."""

    base: str | None
    counter: int
    overlay: Overlay = field(default_factory=dict)


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


def open_replayed(root: str, height: int, verification: Verification) -> ReplayedTree:
    """The `evm` tree of the store below `root` at `height` (0 = the end of the log).

    Raises DigestError with the text that follows `open memiavl read-only replay: `.
    """
    root = clean_path(root)
    base = base_directory(root, height)
    metadata = read_multi_tree_metadata(base)
    names = tree_names(base)
    check_trees(base, names)
    version, state = _replay(Path(root) / "changelog", metadata, names, height)
    if height != 0 and version != height:
        raise DigestError(f"version mismatch: requested {height}, reached {version}; the changelog ends there")
    if state is None:
        raise MissingTreeError(f'memiavl tree "{EVM_TREE}" not found')
    files = TreeFiles(join_path(base, state.base)) if state.base is not None else None
    return ReplayedTree(version, join_path(base, EVM_TREE), metadata, files, state.overlay, verification)


class MissingTreeError(DigestError):
    """The height is reachable, but no tree `evm` exists there."""


def tree_names(snapshot_dir: str) -> list[str]:
    return sorted(entry.name for entry in Path(snapshot_dir).iterdir() if entry.is_dir())


def check_trees(snapshot_dir: str, names: list[str]) -> None:
    """Check the files of every tree, as the upstream opener loads them all."""
    for name in names:
        TreeFiles(join_path(snapshot_dir, name)).close()


def _replay(
    directory: Path, metadata: MultiTreeMetadata, names: list[str], height: int
) -> tuple[int, TreeState | None]:
    """Version reached and the state of `evm` there, None when the tree does not exist."""
    base_version = metadata.version
    untouched = TreeState(EVM_TREE, base_version) if EVM_TREE in names else None
    log = Changelog(directory)
    if height != 0 and height <= base_version:
        return base_version, untouched
    try:
        first = log.first_entry()
    except DigestError as error:
        raise DigestError(f"failed to compute WAL index delta: {error}") from error
    if first is None:
        return base_version, untouched
    delta = first.entry.version - first.index
    start = base_version + 1 - delta
    if first.entry.version > base_version + 1:
        raise DigestError(
            f"{directory}: the changelog starts at version {first.entry.version}, but replay must start at "
            f"{base_version + 1}; versions {base_version + 1} to {first.entry.version - 1} are missing"
        )
    lineage = _Lineage(names, base_version)
    for entry in _checked(log.entries_from(start), start, delta, height):
        lineage.upgrade(entry.entry.version, entry.entry.upgrades)
        lineage.check_names(entry)
    track = lineage.track_of(EVM_TREE)
    if track is None:
        return lineage.version, None
    return lineage.version, _apply(log, start, delta, height, track)


def _checked(entries: Iterator[LogEntry], start: int, delta: int, height: int) -> Iterator[LogEntry]:
    """Entries up to `height`, each of them exactly one version behind the last; the rest is read for holes only."""
    expected = start
    for entry in entries:
        if entry.index != expected or entry.entry.version != expected + delta:
            raise DigestError(
                f"read log failed, changelog entry {entry.index} holds version {entry.entry.version}, "
                f"want entry {expected} with version {expected + delta}"
            )
        expected += 1
        if height == 0 or entry.entry.version <= height:
            yield entry


def _apply(log: Changelog, start: int, delta: int, height: int, track: _Track) -> TreeState:
    state = TreeState(track.base, track.counter)
    for entry in _checked(log.entries_from(start), start, delta, height):
        version = entry.entry.version
        name = track.name_at(version)
        if name is None:
            continue
        stamp = state.counter + 1
        for changed, span in entry.entry.changesets:
            if changed == name:
                _overlay(state.overlay, entry, span, stamp)
        state.counter = version
        if version == height:
            break
    return state


def _overlay(overlay: Overlay, entry: LogEntry, span: Span, stamp: int) -> None:
    try:
        for key, value in pairs(entry.data, span):
            overlay[key] = (value, stamp)
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
