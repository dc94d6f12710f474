"""The native engine: policy here, rows in the Rust kernel.

Which snapshot, which log files and which bookkeeping rows matter is decided by the same code that serves the reference
engine; every file with rows in it is parsed a second time, independently, by the kernel (`seiops._native`). Scans run on
threads of their own without the interpreter lock; progress is polled.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from seiops import _native
from seiops.digest.boundary import BoundaryStatus, MigrationBoundary, MigrationState, migration_state
from seiops.digest.engine import (
    CompositeStore,
    FlatkvStore,
    Inspection,
    InspectQuery,
    MemiavlStore,
    OpenOptions,
    ScanHooks,
    Shard,
    ShardTree,
)
from seiops.digest.errors import DigestError, ReferenceOnlyError
from seiops.digest.files import clean_path, join_path
from seiops.digest.flatkv.blocks import StateLog, open_block_log
from seiops.digest.flatkv.layout import CHURNING, SnapshotLayout, describe_snapshot, not_a_store, select_snapshot
from seiops.digest.flatkv.lthash import IDENTITY, LtHash
from seiops.digest.flatkv.meta import DatabaseMeta, ModuleStats, check_sums, load_meta
from seiops.digest.keys import BOUNDARY_MARKER, BUCKETS, VERSION_MARKER, Bucket
from seiops.digest.memiavl.changelog import list_segments
from seiops.digest.memiavl.replay import base_directory
from seiops.digest.memiavl.snapshot import EVM_TREE, read_multi_tree_metadata
from seiops.digest.memiavl.source import SnapshotTree
from seiops.digest.model import ZERO_WORD, Backend, Normalization, OpenMode, Progress, Row, Tally, Totals, Verification

POLL_SECONDS = 0.2
OPEN_ATTEMPTS = 3
_QUEUED_BATCHES = 16
_MIGRATED_NOTHING = b""
_HEADER_AT_ZERO = bytes(9)
T = TypeVar("T")
_RowTuple = tuple[int, bytes, bytes, bytes, int | None]
_TallyTuple = tuple[bytes, int]


def _scan(source: Backend, hooks: ScanHooks, run: Callable[[_native.Progress], T]) -> T:
    """Run a kernel scan; with a progress hook on a thread of its own, so that the hook is called while it runs."""
    counters = _native.Progress()
    if hooks.on_progress is None:
        return _translated(lambda: run(counters))
    outcome: list[T | BaseException] = []

    def work() -> None:
        try:
            outcome.append(_translated(lambda: run(counters)))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work, name="digest-scan")
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            hooks.on_progress(Progress(source, counters.rows, {}, 0, 0))
    except BaseException:
        counters.cancel()
        thread.join()
        raise
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _translated(call: Callable[[], T]) -> T:
    try:
        return call()
    except ValueError as error:
        raise DigestError(str(error)) from error
    except OverflowError as error:
        raise DigestError("a version of the store is negative or beyond 64 bits; its metadata is damaged") from error


def _row(row: _RowTuple) -> Row:
    bucket, key, payload, stored, height = row
    return Row(BUCKETS[bucket], key, payload, stored, height)


def _as_translated(row: Row) -> Row:
    """The row as the importer would store it: FlatKV's encoding at height 0 (docs/contracts/digest.md 1.8)."""
    payload = row.payload
    if row.bucket is Bucket.ACCOUNT and payload.endswith(ZERO_WORD):
        payload = payload[:-32]
    return row._replace(stored=_HEADER_AT_ZERO + payload)


def _worded(normalization: Normalization) -> Callable[[Row], Row]:
    return _as_translated if normalization is Normalization.TRANSLATOR else _unchanged


def _unchanged(row: Row) -> Row:
    return row


def _tally(value: _TallyTuple) -> Tally:
    return Tally(int.from_bytes(value[0], "big"), value[1])


def _totals(found: _native.ScanTotals) -> Totals:
    totals = Totals(input_rows=found["input_rows"])
    for bucket, tally in zip(BUCKETS, found["buckets"], strict=True):
        totals.tallies[bucket] = _tally(tally)
    for marker, row_hash in ((VERSION_MARKER, found["version_marker"]), (BOUNDARY_MARKER, found["boundary_marker"])):
        if row_hash is not None:
            totals.markers[marker] = row_hash
    return totals


def _report_found(found: _native.ScanTotals, hooks: ScanHooks, wording: Callable[[Row], Row] = _unchanged) -> None:
    if hooks.on_found is not None:
        for row in found["found"]:
            hooks.on_found(wording(_row(row)))


def _tree(found: dict[tuple[int, int], _TallyTuple]) -> ShardTree:
    return {Shard(BUCKETS[bucket], index): _tally(value) for (bucket, index), value in found.items()}


def _inspection(found: tuple[int, int, dict[bytes, _TallyTuple]]) -> Inspection:
    rows, matched, shards = found
    return Inspection(rows, matched, {shard: _tally(value) for shard, value in shards.items()})


def _query(query: InspectQuery) -> tuple[int, int, bytes, int]:
    return BUCKETS.index(query.bucket), query.key_offset, query.key_prefix, query.shard_next_bytes


def _shard_numbers(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    return [(BUCKETS.index(shard.bucket), shard.index) for shard in shards]


def _listed(
    run: Callable[[_native.Progress, Callable[[list[_RowTuple]], None]], int], on_row: Callable[[Row], None]
) -> Inspection:
    """Hand every row the kernel selects to `on_row`."""
    outcome = Inspection()

    def take(batch: list[_RowTuple]) -> None:
        outcome.matched += len(batch)
        for row in batch:
            on_row(_row(row))

    outcome.input_rows = _translated(lambda: run(_native.Progress(), take))
    return outcome


def _streamed(run: Callable[[_native.Progress, Callable[[list[_RowTuple]], None]], int]) -> Iterator[Row]:
    """Rows as an iterator over a bounded queue, so that an export of any size needs little memory."""
    batches: queue.Queue[list[_RowTuple] | BaseException | None] = queue.Queue(_QUEUED_BATCHES)
    counters = _native.Progress()
    stopped = threading.Event()

    def put(item: list[_RowTuple] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                batches.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            _translated(lambda: run(counters, put))
        except BaseException as error:
            put(error)
        else:
            put(None)

    thread = threading.Thread(target=work, name="digest-rows")
    thread.start()
    try:
        while (batch := batches.get()) is not None:
            if isinstance(batch, BaseException):
                raise batch
            yield from map(_row, batch)
    finally:
        stopped.set()
        counters.cancel()
        thread.join()


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
        return _translated(
            lambda: migration_state(self.state.marker(VERSION_MARKER), self.state.marker(BOUNDARY_MARKER))
        )

    def digest(self, hooks: ScanHooks) -> Totals:
        self.verify()
        found = _scan(
            Backend.FLATKV, hooks, lambda counters: self.state.digest(counters, self._options.threads, hooks.find)
        )
        for database, seen in zip(self._databases, found["statistics"], strict=True):
            database.check_statistics(seen)
        _report_found(found, hooks)
        return _totals(found)

    def verify(self) -> None:
        """With full verification: every row of the snapshot against its database's hashes."""
        if self._options.verification is Verification.FULL:
            for number, database in enumerate(self._databases):
                database.check_hashes(
                    _translated(lambda number=number: self.state.lattice_hashes(_native.Progress(), number))  # type: ignore[misc]
                )

    def inspect(self, query: InspectQuery, on_row: Callable[[Row], None] | None) -> Inspection:
        if on_row is None:
            return _inspection(
                _translated(lambda: self.state.inspect(_native.Progress(), self._options.threads, _query(query)))
            )
        return _listed(lambda counters, take: self.state.inspect_rows(counters, _query(query), take), on_row)

    def shard_tree(self) -> ShardTree:
        return _tree(_translated(lambda: self.state.shard_tree(_native.Progress(), self._options.threads)))

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]:
        return _streamed(lambda counters, take: self.state.rows(counters, _shard_numbers(shards), take))

    def close(self) -> None:
        """Files are closed with the kernel's objects."""


class NativeMemiavl:
    """MemiavlStore over the kernel."""

    def __init__(
        self, state: _native.MemiavlState, mode: OpenMode, tree_dir: str, root_hash: bytes | None, options: OpenOptions
    ) -> None:
        self.state = state
        self.version = state.version
        self.mode = mode
        self.tree_dir = tree_dir
        self._root_hash = root_hash
        self._options = options

    def digest(self, normalizations: Sequence[Normalization], hooks: ScanHooks) -> list[Totals]:
        """One pass for all normalizations: they refuse the same leaves and accept the same rows (1.8)."""
        self.verify()
        wording = normalizations[0].value
        found = _scan(
            Backend.MEMIAVL,
            hooks,
            lambda counters: self.state.digest(counters, wording, self._options.threads, hooks.find),
        )
        for normalization in normalizations:
            _report_found(found, hooks, _worded(normalization))
        totals = _totals(found)
        totals.memiavl_rows = totals.input_rows
        return [_copy(totals) for _ in normalizations]

    def verify(self) -> None:
        """With full verification: every hash of the snapshot's tree, up to the root in its metadata."""
        if self._options.verification is not Verification.FULL:
            return
        root = _translated(lambda: self.state.verify(_native.Progress()))
        if root is not None and self._root_hash is not None and root != self._root_hash:
            raise DigestError(
                f"{self.tree_dir}: root hash is {root.hex()}, but __metadata says {self._root_hash.hex()}; the snapshot is damaged"
            )

    def inspect(
        self, query: InspectQuery, normalization: Normalization, on_row: Callable[[Row], None] | None
    ) -> Inspection:
        wording = "inspect" if normalization is Normalization.SEMANTIC else normalization.value
        if on_row is None:
            return _inspection(
                _translated(
                    lambda: self.state.inspect(_native.Progress(), wording, self._options.threads, _query(query))
                )
            )
        worded = _worded(normalization)
        return _listed(
            lambda counters, take: self.state.inspect_rows(counters, wording, _query(query), take),
            lambda row: on_row(worded(row)),
        )

    def storage_details(self, query: InspectQuery, on_row: Callable[[Row], None]) -> Inspection:
        if query.key_offset < len(b"evm/"):
            raise DigestError("--details storage memiavl requires --key-offset >= 4")
        return _listed(
            lambda counters, take: self.state.storage_details(counters, query.key_offset, query.key_prefix, take),
            on_row,
        )

    def shard_tree(self, normalization: Normalization) -> ShardTree:
        return _tree(
            _translated(lambda: self.state.shard_tree(_native.Progress(), normalization.value, self._options.threads))
        )

    def rows(self, shards: Sequence[Shard], normalization: Normalization) -> Iterator[Row]:
        rows = _streamed(
            lambda counters, take: self.state.rows(counters, normalization.value, _shard_numbers(shards), take)
        )
        return map(_worded(normalization), rows)

    def close(self) -> None:
        """Files are closed with the kernel's objects."""


def _copy(totals: Totals) -> Totals:
    tallies = {bucket: Tally(tally.accumulator, tally.count) for bucket, tally in totals.tallies.items()}
    return Totals(tallies, dict(totals.markers), totals.input_rows, totals.memiavl_rows, totals.consumed_rows)


class NativeComposite:
    """CompositeStore over the kernel."""

    def __init__(self, flatkv: NativeFlatkv, memiavl: NativeMemiavl) -> None:
        self.flatkv: FlatkvStore = flatkv
        self.memiavl: MemiavlStore = memiavl
        self._threads = flatkv._options.threads
        self._verify = (flatkv.verify, memiavl.verify)
        boundary = flatkv.migration_state().boundary
        start = _first_unmigrated(boundary)
        self._state = _native.CompositeState(flatkv.state, memiavl.state, start)
        # leaves that are all migrated are still counted, unless the migration is over and memiavl is not looked at
        self._only_counted = memiavl.state if start is None and boundary.status is not BoundaryStatus.COMPLETE else None

    def digest(self, hooks: ScanHooks) -> Totals:
        for verify in self._verify:
            verify()
        found = _scan(Backend.FLATKV, hooks, lambda counters: self._state.digest(counters, self._threads, hooks.find))
        _report_found(found, hooks)
        totals = _totals(found)
        totals.memiavl_rows = found["memiavl_rows"]
        if (state := self._only_counted) is not None:
            totals.memiavl_rows = _translated(lambda: state.count(_native.Progress()))
        totals.consumed_rows = found["consumed_rows"]
        return totals

    def shard_tree(self) -> ShardTree:
        return _tree(_translated(lambda: self._state.shard_tree(_native.Progress(), self._threads)))

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]:
        return _streamed(lambda counters, take: self._state.rows(counters, _shard_numbers(shards), take))


def _first_unmigrated(boundary: MigrationBoundary) -> bytes | None:
    """First raw key of `evm` that memiavl still owns; None when it owns none (docs/contracts/digest.md 1.9)."""
    evm = EVM_TREE.encode()
    if boundary.status is BoundaryStatus.COMPLETE:
        return None
    if boundary.status is BoundaryStatus.NOT_STARTED or boundary.module < evm:
        return _MIGRATED_NOTHING
    if boundary.module == evm:
        return boundary.key + b"\0"
    return None


class NativeEngine:
    """Engine over the Rust kernel."""

    name = "native"

    def __init__(self) -> None:
        self.version = _native.__version__

    def open_flatkv(self, root: str, height: int, options: OpenOptions) -> FlatkvStore:
        try:
            return _open_flatkv(clean_path(root), height, options)
        except DigestError as error:
            raise type(error)(f"open flatkv read-only: {error}") from error

    def open_memiavl(self, root: str, height: int, mode: OpenMode, options: OpenOptions) -> MemiavlStore:
        if mode is OpenMode.SNAPSHOT:
            return _open_snapshot(root, height, options)
        try:
            return _open_replayed(clean_path(root), height, options)
        except DigestError as error:
            raise type(error)(f"open memiavl read-only replay: {error}") from error

    def composite(self, flatkv: FlatkvStore, memiavl: MemiavlStore) -> CompositeStore:
        if not isinstance(flatkv, NativeFlatkv) or not isinstance(memiavl, NativeMemiavl):
            raise TypeError("both stores have to be opened by the native engine")
        return NativeComposite(flatkv, memiavl)


def _open_snapshot(root: str, height: int, options: OpenOptions) -> NativeMemiavl:
    source = SnapshotTree(root, height, Verification.CHEAP)
    source.close()
    base = str(Path(source.tree_dir).parent)
    _require_index_files(source.tree_dir)
    root_hash = _stored_root(base) if options.verification is Verification.FULL else None
    state = _translated(lambda: _native.MemiavlState.open(base, EVM_TREE, source.version, [], None))
    return NativeMemiavl(state, OpenMode.SNAPSHOT, source.tree_dir, root_hash, options)


def _require_index_files(tree_dir: str) -> None:
    """The kernel finds its way by `leaves` and `nodes`; a snapshot without sound ones is left to the reference engine."""
    try:
        leaves, nodes = (Path(tree_dir, name).stat().st_size for name in ("leaves", "nodes"))
    except FileNotFoundError as error:
        raise ReferenceOnlyError(f"{error.filename}: missing, the native engine needs it") from error
    record = 48
    if leaves % record or nodes % record or max(leaves - record, 0) != nodes:
        raise ReferenceOnlyError(
            f"{tree_dir}: leaves ({leaves} bytes) and nodes ({nodes} bytes) do not fit together, the native engine needs both"
        )


def _stored_root(base: str) -> bytes | None:
    return read_multi_tree_metadata(base).roots.get(EVM_TREE)


def _open_replayed(root: str, height: int, options: OpenOptions) -> NativeMemiavl:
    base = base_directory(root, height)
    metadata = read_multi_tree_metadata(base)
    needs_log = height == 0 or height > metadata.version
    segments = list_segments(Path(root) / "changelog") if needs_log else []
    state = _translated(
        lambda: _native.MemiavlState.open(
            base,
            EVM_TREE,
            metadata.version,
            [(str(segment.path), segment.index) for segment in segments],
            height if height > 0 else None,
            options.threads,
        )
    )
    if height != 0 and state.version != height:
        raise DigestError(f"version mismatch: requested {height}, reached {state.version}; the changelog ends there")
    root_hash = metadata.roots.get(EVM_TREE)
    return NativeMemiavl(state, OpenMode.REPLAY, join_path(base, EVM_TREE), root_hash, options)


def _open_flatkv(root: str, height: int, options: OpenOptions) -> NativeFlatkv:
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
        state = _translated(
            lambda: _native.FlatkvState.open(
                [database.handle for database in databases],
                files if end > oldest else [],
                log_format,
                oldest,
                end,
                options.threads,
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
        handle = _translated(lambda: _native.Database.open(str(path)))
    except DigestError as error:
        raise DigestError(f"failed to open {name} DB: open {path}: failed to open database: {error}") from error
    return NativeDatabase(name, path, handle, load_meta(name, _MetaRows(handle)))


@dataclass(slots=True)
class _MetaRows:
    """The face of a database that bookkeeping is read through."""

    handle: _native.Database

    def rows(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        return iter(_translated(lambda: self.handle.rows(low, high)))


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
