"""FlatKV on the kernel: which snapshot, log files and bookkeeping rows matter is decided here, rows are read there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seiops import _native
from seiops.digest.boundary import MigrationState, migration_state
from seiops.digest.engine import Inspection, InspectQuery, OpenOptions, ScanHooks, Shard, ShardTree
from seiops.digest.errors import DigestError
from seiops.digest.files import join_path
from seiops.digest.flatkv.blocks import StateLog, open_block_log
from seiops.digest.flatkv.layout import CHURNING, SnapshotLayout, describe_snapshot, not_a_store, select_snapshot
from seiops.digest.flatkv.lthash import IDENTITY, LtHash
from seiops.digest.flatkv.meta import DatabaseMeta, ModuleStats, check_sums, load_meta
from seiops.digest.keys import BOUNDARY_MARKER, VERSION_MARKER
from seiops.digest.memiavl.changelog import list_segments
from seiops.digest.model import Backend, Row, Totals, Verification
from seiops.digest.native.bridge import (
    HELD_WRITES,
    digested,
    inspection_of,
    listed,
    query_tuple,
    report_found,
    scanned,
    shard_numbers,
    spill_directory,
    streamed,
    totals_of,
    translated,
)
from seiops.digest.pebble.directory import survey

OPEN_ATTEMPTS = 3


@dataclass(slots=True)
class NativeDatabase:
    """One of a snapshot's databases: the kernel's handle and what its bookkeeping rows say."""

    name: str
    path: Path
    handle: _native.Database
    meta: DatabaseMeta

    def check_statistics(self, seen: dict[bytes, tuple[int, int]]) -> None:
        """Counts and bytes of a complete scan must be those of the meta rows (docs/contracts/digest.md 4.4)."""
        if not self.meta.module_stats:
            return
        for module in sorted(seen.keys() | self.meta.module_stats.keys()):
            want = self.meta.module_stats.get(module, ModuleStats(0, 0))
            rows, size = seen.get(module, (0, 0))
            if (rows, size) != (want.rows, want.bytes):
                raise DigestError(
                    f"{self.path}: module {module.decode('utf-8', 'replace')} has {rows} rows with {size} bytes, but its "
                    f"statistics say {want.rows} rows with {want.bytes} bytes; the {self.name} database is damaged"
                )

    def check_hashes(self, found: dict[bytes, bytes]) -> None:
        """LtHash sums of a complete scan must be those of the meta rows (docs/contracts/digest.md 4.9)."""
        if not self.meta.module_hashes:
            total = LtHash()
            for value in found.values():
                total.add_hash(value)
            if self.meta.root is not None and total.digest() != self.meta.root:
                raise DigestError(
                    f"{self.path}: LtHash of all rows is not the stored one; the {self.name} database is damaged"
                )
            return
        for module in sorted(found.keys() | self.meta.module_hashes.keys()):
            if found.get(module, IDENTITY) != self.meta.module_hashes.get(module, IDENTITY):
                raise DigestError(
                    f"{self.path}: LtHash of module {module.decode('utf-8', 'replace')} is not the stored one; "
                    f"the {self.name} database is damaged"
                )


class NativeFlatkv:
    """FlatkvStore over the kernel."""

    def __init__(self, state: _native.FlatkvState, databases: list[NativeDatabase], options: OpenOptions) -> None:
        self.state = state
        self.version = state.version
        self._databases = databases
        self._options = options

    def migration_state(self) -> MigrationState:
        return translated(
            lambda: migration_state(self.state.marker(VERSION_MARKER), self.state.marker(BOUNDARY_MARKER))
        )

    def digest(self, hooks: ScanHooks) -> Totals:
        self.verify(hooks)
        threads = self._options.threads
        found = digested(
            Backend.FLATKV,
            hooks,
            lambda counters: self.state.digest(counters, threads, hooks.find),
            lambda counters: self.state.survey(counters, threads),
        )
        for database, seen in zip(self._databases, found["statistics"], strict=True):
            database.check_statistics(seen)
        report_found(found, hooks)
        return totals_of(found)

    def verify(self, hooks: ScanHooks) -> None:
        """With full verification: every row of the snapshot against its database's hashes."""
        if self._options.verification is Verification.FULL:
            found = scanned(
                Backend.FLATKV, hooks, lambda counters: self.state.lattice_hashes(counters, self._options.threads)
            )
            for database, hashes in zip(self._databases, found, strict=True):
                database.check_hashes(hashes)

    def inspect(self, query: InspectQuery, on_row: Callable[[Row], None] | None) -> Inspection:
        if on_row is None:
            return inspection_of(
                translated(lambda: self.state.inspect(_native.Progress(), self._options.threads, query_tuple(query)))
            )
        return listed(lambda counters, take: self.state.inspect_rows(counters, query_tuple(query), take), on_row)

    def shard_tree(self) -> ShardTree:
        trees: list[ShardTree] = []
        self.digest(ScanHooks(on_tree=trees.append))
        return trees[0]

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]:
        return streamed(lambda counters, take: self.state.rows(counters, shard_numbers(shards), take))

    def close(self) -> None:
        """Files are closed with the kernel's objects."""


def open_flatkv(root: str, height: int, options: OpenOptions) -> NativeFlatkv:
    for attempt in range(OPEN_ATTEMPTS):
        version, name = select_snapshot(root, height)
        try:
            return _open_flatkv_snapshot(root, version, name, height, options)
        except DigestError:
            if attempt == OPEN_ATTEMPTS - 1 or Path(join_path(root, name)).is_dir():
                raise
    raise AssertionError("the last attempt returns or raises")


def _open_flatkv_snapshot(root: str, version: int, name: str, height: int, options: OpenOptions) -> NativeFlatkv:
    layout = describe_snapshot(root, version, name)
    log = open_block_log(Path(join_path(root, "changelog")))
    stored = log.range
    if stored is not None and stored[1] > version and stored[0] > version + 1:
        raise DigestError(
            f"{CHURNING}flatkv source kept churning during clone: cloned WAL starts at version {stored[0]} "
            f"but snapshot is {version} (truncated past snapshot mid-clone)"
        )
    try:
        databases, oldest = _open_databases(layout)
        end = _replay_end(stored, oldest, height)
        files, log_format = _log_files(log, Path(join_path(root, "changelog")))
        state = translated(
            lambda: _native.FlatkvState.open(
                [database.handle for database in databases],
                files if end > oldest else [],
                log_format,
                oldest,
                end,
                spill_directory(options),
                options.threads,
                HELD_WRITES,
            )
        )
        _check_reached(databases, state.version, oldest, height)
    except DigestError as error:
        raise type(error)(f"failed to open FlatKV at version {height}: {error}") from error
    if state.version == 0 and not layout.present:
        raise not_a_store(layout.path)
    return NativeFlatkv(state, databases, options)


def _open_databases(layout: SnapshotLayout) -> tuple[list[NativeDatabase], int]:
    try:
        databases = [_open_database(layout, name) for name in layout.databases]
        versions = [database.meta.version for database in databases]
        if layout.metadata is not None:
            versions.append(_open_database(layout, layout.metadata).meta.version)
        if layout.per_module_hashes:
            for database in databases:
                check_sums(database.name, database.meta)
    except DigestError as error:
        raise type(error)(f"readonly open: {error}") from error
    return databases, min(versions)


def _open_database(layout: SnapshotLayout, name: str) -> NativeDatabase:
    path = layout.database_path(name)
    try:
        survey(path)  # markers, format and comparer: what is refused for its format is refused by both engines
        handle = translated(lambda: _native.Database.open(str(path)))
    except DigestError as error:
        raise type(error)(f"failed to open {name} DB: open {path}: failed to open database: {error}") from error
    return NativeDatabase(name, path, handle, load_meta(name, _MetaRows(handle)))


@dataclass(slots=True)
class _MetaRows:
    """The face of a database that bookkeeping is read through."""

    handle: _native.Database

    def rows(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(translated(lambda: self.handle.rows(low, high)))


def _replay_end(stored: tuple[int, int] | None, oldest: int, height: int) -> int:
    if stored is None:
        return oldest
    first, last = stored
    end = min(last, height) if height > 0 else last
    start = oldest + 1
    if end < start:
        return oldest
    if first > start:
        raise DigestError(
            f"readonly: WAL starts at block {first} but replay must start at block {start}: "
            f"blocks {start}-{first - 1} are missing (data loss or corruption)"
        )
    return end


def _log_files(log: object, directory: Path) -> tuple[list[tuple[str, bool, int, int, int]], str]:
    if isinstance(log, StateLog):
        return [(str(file.path), file.sealed, file.sequence, file.first, file.last) for file in log.files], "seiwal"
    segments = list_segments(directory)
    last = len(segments) - 1
    return [(str(one.path), at != last, one.index, 0, 0) for at, one in enumerate(segments)], "changelog"


def _check_reached(databases: list[NativeDatabase], reached: int, oldest: int, height: int) -> None:
    for database in databases:
        at = reached if reached != oldest else database.meta.version
        if at != reached:
            raise DigestError(
                f"flatkv: store is at version {reached} after replay but {database.name} at {at}; the write-ahead log "
                "did not bring every data DB to the same version (restore from a snapshot, or re-sync)"
            )
    if height > 0 and reached != height:
        raise DigestError(f"readonly version mismatch: requested {height}, reached {reached}")
