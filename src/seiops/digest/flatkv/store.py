"""A FlatKV store opened at one height: snapshot, bookkeeping checks, replay to exactly that height.

Nothing is cloned and nothing below the root is touched; a snapshot is immutable, and one pruned while it is being opened
is chosen again (docs/contracts/digest.md 4.6).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from pathlib import Path

from seiops.digest.boundary import MigrationState, migration_state
from seiops.digest.errors import DigestError
from seiops.digest.files import clean_path, join_path
from seiops.digest.flatkv.blocks import BlockLog, open_block_log
from seiops.digest.flatkv.layout import CHURNING, SnapshotLayout, describe_snapshot, not_a_store, select_snapshot
from seiops.digest.flatkv.meta import DatabaseMeta, check_sums, checked_rows, load_meta
from seiops.digest.flatkv.overlay import Overlay, StoredRow
from seiops.digest.flatkv.values import payload_of
from seiops.digest.keys import BOUNDARY_MARKER, VERSION_MARKER, Bucket
from seiops.digest.model import Verification
from seiops.digest.pebble.database import Database

OPEN_ATTEMPTS = 3


@dataclass(slots=True)
class OpenDatabase:
    name: str
    database: Database
    meta: DatabaseMeta


@dataclass(slots=True)
class FlatkvAtHeight:
    """The four databases of a snapshot under the overlay of the replayed blocks."""

    version: int
    layout: SnapshotLayout
    databases: list[OpenDatabase]
    overlay: Overlay
    verification: Verification

    def rows(self) -> Iterator[StoredRow]:
        """Every stored row but bookkeeping, in key order over all databases."""
        return merge(*(self._database_rows(opened) for opened in self.databases))

    def _database_rows(self, opened: OpenDatabase) -> Iterator[StoredRow]:
        rows = checked_rows(opened.name, opened.database, opened.meta, self.verification)
        return self.overlay.over(opened.name, rows)

    def migration_state(self) -> MigrationState:
        return migration_state(self._marker(VERSION_MARKER), self._marker(BOUNDARY_MARKER))

    def _marker(self, key: bytes) -> bytes | None:
        """Payload of a marker row, or None when it is absent."""
        if key in self.overlay.misc:
            return self.overlay.misc[key][0]
        stored = self.databases[-1].database.get(key)
        return None if stored is None else payload_of(Bucket.MISC, stored)

    @property
    def bytes_total(self) -> int:
        return sum(opened.database.bytes_total for opened in self.databases)

    def close(self) -> None:
        for opened in self.databases:
            opened.database.close()


def open_at_height(root: str, height: int, verification: Verification) -> FlatkvAtHeight:
    """Open below `root` at `height` (0 = latest). Raises DigestError with the text behind `open flatkv read-only: `."""
    root = clean_path(root)
    for _ in range(OPEN_ATTEMPTS - 1):
        version, name = select_snapshot(root, height)
        try:
            return _open(root, version, name, height, verification)
        except (DigestError, FileNotFoundError):
            if Path(join_path(root, name)).is_dir():
                raise
    version, name = select_snapshot(root, height)
    return _open(root, version, name, height, verification)


def _open(root: str, version: int, name: str, height: int, verification: Verification) -> FlatkvAtHeight:
    layout = describe_snapshot(root, version, name)
    log = open_block_log(Path(join_path(root, "changelog")))
    if log.range is not None and log.range[1] > version and log.range[0] > version + 1:
        raise DigestError(
            f"{CHURNING}flatkv source kept churning during clone: cloned WAL starts at version {log.range[0]} "
            f"but snapshot is {version} (truncated past snapshot mid-clone)"
        )
    try:
        databases, oldest = _open_databases(layout)
        reached, overlay = _replay(log, oldest, height)
        _check_reached(databases, reached, reached != oldest, height)
    except DigestError as error:
        raise DigestError(f"failed to open FlatKV at version {height}: {error}") from error
    if reached == 0 and not layout.present:
        raise not_a_store(layout.path)
    return FlatkvAtHeight(reached, layout, databases, overlay, verification)


def _open_databases(layout: SnapshotLayout) -> tuple[list[OpenDatabase], int]:
    """The four databases and the oldest version any of them, the metadata database included, is at."""
    opened: list[OpenDatabase] = []
    try:
        for name in layout.databases:
            database = _open_database(layout, name)
            opened.append(OpenDatabase(name, database, load_meta(name, database)))
        versions = [one.meta.version for one in opened]
        if layout.metadata is not None:
            versions.append(load_meta(layout.metadata, _open_database(layout, layout.metadata)).version)
        if layout.per_module_hashes:
            for one in opened:
                check_sums(one.name, one.meta)
    except DigestError as error:
        raise DigestError(f"readonly open: {error}") from error
    return opened, min(versions)


def _open_database(layout: SnapshotLayout, name: str) -> Database:
    path = layout.database_path(name)
    try:
        return Database(path)
    except DigestError as error:
        raise DigestError(f"failed to open {name} DB: open {path}: failed to open database: {error}") from error


def _replay(log: BlockLog, oldest: int, height: int) -> tuple[int, Overlay]:
    """Version reached and the overlay of the blocks behind `oldest`."""
    overlay = Overlay()
    stored = log.range
    if stored is None:
        return oldest, overlay
    first, last = stored
    end = min(last, height) if height > 0 else last
    start = oldest + 1
    if end < start:
        return oldest, overlay
    if first > start:
        raise DigestError(
            f"readonly: WAL starts at block {first} but replay must start at block {start}: "
            f"blocks {start}-{first - 1} are missing (data loss or corruption)"
        )
    current = oldest
    blocks = log.changes(start, end)
    while True:
        try:
            block = next(blocks, None)
        except DigestError as error:
            raise DigestError(f"readonly: WAL iterate: {error}") from error
        if block is None:
            return current, overlay
        current = _apply(overlay, current, *block)


def _apply(
    overlay: Overlay, current: int, number: int, changes: list[tuple[str, list[tuple[bytes, bytes | None]]]]
) -> int:
    try:
        if number != current + 1:
            raise DigestError(f"flatkv: apply version {number} must be committed version {current} plus one")
        overlay.apply(number, changes)
    except DigestError as error:
        raise DigestError(f"readonly: replay block {number}: apply v{number}: {error}") from error
    return number


def _check_reached(databases: list[OpenDatabase], reached: int, replayed: bool, height: int) -> None:
    """Every database must be at the version reached; replaying a block brings all four to it."""
    for opened in databases:
        at = reached if replayed else opened.meta.version
        if at != reached:
            raise DigestError(
                f"flatkv: store is at version {reached} after replay but {opened.name} at {at}; the write-ahead log "
                "did not bring every data DB to the same version (restore from a snapshot, or re-sync)"
            )
    if height > 0 and reached != height:
        raise DigestError(f"readonly version mismatch: requested {height}, reached {reached}")
