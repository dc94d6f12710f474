"""Between the kernel's tuples and this package's types: scans with progress, rows in batches, totals, errors."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from seiops import _native
from seiops.digest.engine import Inspection, InspectQuery, OpenOptions, ScanHooks, Shard, ShardTree
from seiops.digest.errors import DigestError
from seiops.digest.keys import BOUNDARY_MARKER, BUCKETS, VERSION_MARKER, Bucket
from seiops.digest.model import ZERO_WORD, Backend, Normalization, Progress, Row, Tally, Totals

POLL_SECONDS = 0.2
HELD_WRITES = 1 << 23
"""Writes of a log that wait in memory, 32 bytes each; what is more spills."""
_QUEUED_BATCHES = 16
_HEADER_AT_ZERO = bytes(9)
T = TypeVar("T")
FoundT = TypeVar("FoundT", bound="_native.ScanTotals")
_RowTuple = tuple[int, bytes, bytes, bytes, int | None]
_TallyTuple = tuple[bytes, int]


def scanned(source: Backend, hooks: ScanHooks, run: Callable[[_native.Progress], T]) -> T:
    """Run a kernel scan; with a progress hook on a thread of its own, so that the hook is called while it runs."""
    counters = _native.Progress()
    if hooks.on_progress is None:
        return translated(lambda: run(counters))
    outcome: list[T | BaseException] = []

    def work() -> None:
        try:
            outcome.append(translated(lambda: run(counters)))
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


def translated(call: Callable[[], T]) -> T:
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


def worded_for(normalization: Normalization) -> Callable[[Row], Row]:
    return _as_translated if normalization is Normalization.TRANSLATOR else _unchanged


def _unchanged(row: Row) -> Row:
    return row


def _tally(value: _TallyTuple) -> Tally:
    return Tally(int.from_bytes(value[0], "big"), value[1])


def totals_of(found: _native.ScanTotals) -> Totals:
    totals = Totals(input_rows=found["input_rows"])
    for bucket, tally in zip(BUCKETS, found["buckets"], strict=True):
        totals.tallies[bucket] = _tally(tally)
    for marker, row_hash in ((VERSION_MARKER, found["version_marker"]), (BOUNDARY_MARKER, found["boundary_marker"])):
        if row_hash is not None:
            totals.markers[marker] = row_hash
    return totals


def report_found(found: _native.ScanTotals, hooks: ScanHooks, wording: Callable[[Row], Row] = _unchanged) -> None:
    if hooks.on_found is not None:
        for row in found["found"]:
            hooks.on_found(wording(_row(row)))


def spill_directory(options: OpenOptions) -> str:
    """Not /tmp by default: where that is memory, a spill would be no relief."""
    return str(options.spill_dir or os.environ.get("TMPDIR") or "/var/tmp")


def digested(
    source: Backend,
    hooks: ScanHooks,
    digest: Callable[[_native.Progress], FoundT],
    survey: Callable[[_native.Progress], FoundT],
) -> FoundT:
    """Run the scan the hooks ask for: one that also makes the shard tree, or one that looks for a hash."""
    if hooks.on_tree is None:
        return scanned(source, hooks, digest)
    found = scanned(source, hooks, survey)
    hooks.on_tree(tree_of(found["shards"]))
    return found


def tree_of(found: dict[tuple[int, int], _TallyTuple]) -> ShardTree:
    return {Shard(BUCKETS[bucket], index): _tally(value) for (bucket, index), value in found.items()}


def inspection_of(found: tuple[int, int, dict[bytes, _TallyTuple]]) -> Inspection:
    rows, matched, shards = found
    return Inspection(rows, matched, {shard: _tally(value) for shard, value in shards.items()})


def query_tuple(query: InspectQuery) -> tuple[int, int, bytes, int]:
    return BUCKETS.index(query.bucket), query.key_offset, query.key_prefix, query.shard_next_bytes


def shard_numbers(shards: Sequence[Shard]) -> list[tuple[int, int]]:
    return [(BUCKETS.index(shard.bucket), shard.index) for shard in shards]


def listed(
    run: Callable[[_native.Progress, Callable[[list[_RowTuple]], None]], int], on_row: Callable[[Row], None]
) -> Inspection:
    """Hand every row the kernel selects to `on_row`."""
    outcome = Inspection()

    def take(batch: list[_RowTuple]) -> None:
        outcome.matched += len(batch)
        for row in batch:
            on_row(_row(row))

    outcome.input_rows = translated(lambda: run(_native.Progress(), take))
    return outcome


def streamed(run: Callable[[_native.Progress, Callable[[list[_RowTuple]], None]], int]) -> Iterator[Row]:
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
            translated(lambda: run(counters, put))
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
