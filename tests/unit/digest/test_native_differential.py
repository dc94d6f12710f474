"""Native against reference: on random stores, written by neither, both engines must say the same of every row.

SEIOPS_DIFFERENTIAL_EXAMPLES lengthens the search (default: a few seconds of it).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seiops.digest.engine import Engine, InspectQuery, OpenOptions, ScanHooks, Shard, ShardTree
from seiops.digest.keys import BUCKETS, Bucket
from seiops.digest.model import Normalization, OpenMode, Row, Totals, Verification, entry_hash
from seiops.digest.native import NativeEngine
from seiops.digest.reference import ReferenceEngine
from support.digest_stores import (
    ADDRESSES,
    BASE,
    BOUNDARY_KEY,
    History,
    flat_rows,
    histories,
    raw_keys,
    tree_renamed_in_log,
    with_markers,
    write_flatkv_store,
    write_memiavl_store,
)

NATIVE, REFERENCE = NativeEngine(), ReferenceEngine()
BOTH: tuple[Engine, ...] = (REFERENCE, NATIVE)
EXAMPLES = int(os.environ.get("SEIOPS_DIFFERENTIAL_EXAMPLES", "40"))
NORMALIZATIONS = (Normalization.SEMANTIC, Normalization.TRANSLATOR)
searched = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def options(threads: int) -> OpenOptions:
    return OpenOptions(verification=Verification.FULL, threads=threads)


def summary(totals: Totals) -> tuple[object, ...]:
    tallies = {bucket: (tally.hex, tally.count) for bucket, tally in totals.tallies.items()}
    return tallies, totals.markers, totals.input_rows, totals.memiavl_rows, totals.consumed_rows, totals.final_hex


def expected(history: History, height: int) -> dict[Bucket, tuple[int, int]]:
    """Accumulator and count of each bucket, straight from the state."""
    tallies = dict.fromkeys(BUCKETS, (0, 0))
    for key, value in flat_rows(history.state(height)).items():
        shape = (key[4:5], len(key) - 4)
        bucket = {
            (b"\x0a", 21): Bucket.ACCOUNT,
            (b"\x07", 21): Bucket.CODE,
            (b"\x03", 53): Bucket.STORAGE,
        }.get(shape, Bucket.MISC)
        payload = value[9:]
        if bucket is Bucket.ACCOUNT:
            payload = payload.ljust(72, b"\0")
        accumulator, count = tallies[bucket]
        tallies[bucket] = (accumulator ^ int.from_bytes(entry_hash(key, payload), "big"), count + 1)
    return tallies


def tallies(totals: Totals) -> dict[Bucket, tuple[int, int]]:
    return {bucket: (tally.accumulator, tally.count) for bucket, tally in totals.adjusted().items()}


def queries() -> st.SearchStrategy[InspectQuery]:
    prefix = st.one_of(st.just(b""), raw_keys().map(lambda key: (b"evm/" + key)[:7]), st.just(ADDRESSES[2][:3]))
    return st.builds(
        InspectQuery,
        bucket=st.sampled_from(BUCKETS),
        key_offset=st.sampled_from([0, 0, 4, 5, 25, 60]),
        key_prefix=prefix,
        shard_next_bytes=st.integers(0, 4),
    )


def logical(rows: Sequence[Row]) -> list[tuple[object, ...]]:
    return sorted((row.bucket, row.key, row.payload, row.stored, row.height or 0) for row in rows)


@searched
@given(history=histories(), query=queries(), threads=st.integers(1, 3))
def test_memiavl(history: History, query: InspectQuery, threads: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "memiavl")
        write_memiavl_store(root, history)
        views = [
            (OpenMode.SNAPSHOT, 0),
            (OpenMode.SNAPSHOT, history.last),
            (OpenMode.REPLAY, BASE),
            (OpenMode.REPLAY, 0),
        ]
        views += [(OpenMode.REPLAY, height) for height in range(BASE + 1, history.last)]
        for mode, height in views:
            said = [memiavl_says(engine, root, height, mode, query, threads) for engine in BOTH]
            assert said[0] == said[1], (mode, height)
        for mode, height in views:
            at = height or (BASE if mode is OpenMode.SNAPSHOT else history.last)
            found = NATIVE.open_memiavl(str(root), height, mode, options(threads)).digest(NORMALIZATIONS, ScanHooks())
            assert [tallies(totals) for totals in found] == [expected(history, at)] * 2


def memiavl_says(
    engine: Engine, root: Path, height: int, mode: OpenMode, query: InspectQuery, threads: int
) -> list[object]:
    store = engine.open_memiavl(str(root), height, mode, options(threads))
    said: list[object] = [store.version, store.tree_dir]
    for normalization in NORMALIZATIONS:
        totals = store.digest([normalization], ScanHooks())[0]
        tree = store.shard_tree(normalization)
        trees: list[ShardTree] = []
        said.append(summary(store.digest([normalization], ScanHooks(on_tree=trees.append))[0]))
        assert trees == [tree]
        rows = list(store.rows(sorted(tree, key=lambda shard: (shard.bucket, shard.index))[::2], normalization))
        said += [summary(totals), tree, logical(rows)]
        hooks_found: list[Row] = []
        if rows:
            first = min(rows, key=lambda row: row.key)
            wanted = entry_hash(first.key, first.payload)
            store.digest([normalization], ScanHooks(find=wanted, on_found=hooks_found.append))
        said.append([(row.key, row.payload, row.stored) for row in hooks_found])
        inspection = store.inspect(query, normalization, None)
        said.append((inspection.input_rows, inspection.matched, inspection.shards))
        if mode is OpenMode.SNAPSHOT:
            listed: list[Row] = []
            store.inspect(query, normalization, listed.append)
            order = sorted if query.bucket is Bucket.ACCOUNT else list
            said.append(order((row.key, row.payload) for row in listed))
    if mode is OpenMode.SNAPSHOT and query.key_offset >= 4:
        details: list[Row] = []
        outcome = store.storage_details(query, details.append)
        said.append((outcome.input_rows, outcome.matched, [(row.key, row.payload, row.height) for row in details]))
    store.close()
    return said


@searched
@given(history=histories(), threads=st.integers(1, 3))
def test_tree_born_and_renamed_in_the_log(history: History, threads: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "memiavl")
        tree_renamed_in_log(root, history)
        query = InspectQuery(Bucket.STORAGE)
        for height in range(BASE + 2, history.last + 2):
            said = [memiavl_says(engine, root, height, OpenMode.REPLAY, query, threads) for engine in BOTH]
            assert said[0] == said[1], height


@searched
@given(history=histories(), query=queries(), threads=st.integers(1, 3))
def test_flatkv(history: History, query: InspectQuery, threads: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "flatkv")
        write_flatkv_store(root, history)
        for height in range(BASE, history.last + 1):
            said = [flatkv_says(engine, root, height, query, threads) for engine in BOTH]
            assert said[0] == said[1], height
            totals = NATIVE.open_flatkv(str(root), height, options(threads)).digest(ScanHooks())
            assert tallies(totals) == expected(history, height)


def flatkv_says(engine: Engine, root: Path, height: int, query: InspectQuery, threads: int) -> list[object]:
    store = engine.open_flatkv(str(root), height, options(threads))
    totals = store.digest(ScanHooks())
    tree = store.shard_tree()
    trees: list[ShardTree] = []
    assert summary(store.digest(ScanHooks(on_tree=trees.append))) == summary(totals)
    assert trees == [tree]
    rows = list(store.rows(sorted(tree, key=lambda shard: (shard.bucket, shard.index))[::2]))
    inspection = store.inspect(query, None)
    listed: list[Row] = []
    store.inspect(query, listed.append)
    said = [store.version, str(store.migration_state()), summary(totals), tree, [tuple(row) for row in rows]]
    said += [inspection.matched, inspection.shards, [tuple(row) for row in listed]]
    store.close()
    return said


def boundaries() -> st.SearchStrategy[dict[bytes, bytes]]:
    def in_progress(module: bytes, key: bytes) -> dict[bytes, bytes]:
        return {BOUNDARY_KEY: b"\x01" + len(module).to_bytes(4, "big") + module + key}

    inside = raw_keys().map(lambda key: in_progress(b"evm", key))
    outside = st.sampled_from([b"bank", b"gov", b""]).map(lambda module: in_progress(module, b"x"))
    version = {b"migration/migration-version": (1).to_bytes(8, "big")}
    return st.one_of(inside, inside, outside, st.sampled_from([{}, version, version | in_progress(b"bank", b"")]))


@searched
@given(history=histories(), markers=boundaries(), threads=st.integers(1, 3))
def test_composite(history: History, markers: dict[bytes, bytes], threads: int) -> None:
    history = with_markers(history, markers)
    with tempfile.TemporaryDirectory() as scratch:
        flat, tree = Path(scratch, "flatkv"), Path(scratch, "memiavl")
        write_flatkv_store(flat, history)
        write_memiavl_store(tree, history)
        for height in (BASE, history.last):
            said = [composite_says(engine, flat, tree, height, threads) for engine in BOTH]
            assert said[0] == said[1], height


def composite_says(engine: Engine, flat: Path, tree: Path, height: int, threads: int) -> list[object]:
    flatkv = engine.open_flatkv(str(flat), height, options(threads))
    memiavl = engine.open_memiavl(str(tree), height, OpenMode.REPLAY, options(threads))
    store = engine.composite(flatkv, memiavl)
    shards = store.shard_tree()
    trees: list[ShardTree] = []
    assert summary(store.digest(ScanHooks(on_tree=trees.append))) == summary(store.digest(ScanHooks()))
    assert trees == [shards]
    wanted: list[Shard] = sorted(shards, key=lambda shard: (shard.bucket, shard.index))[1::2]
    said = [summary(store.digest(ScanHooks())), shards, logical(list(store.rows(wanted)))]
    flatkv.close()
    memiavl.close()
    return said


@pytest.mark.parametrize("engine", BOTH, ids=["reference", "native"])
def test_a_height_behind_the_log_is_refused(engine: Engine, tmp_path: Path) -> None:
    history = History(
        [[(b"\x01", b"a")]],
        [[(b"\x01", b"b")]],
        [[]],
        [],
        {name: [] for name in ("account", "code", "storage", "misc")},
        [],
        None,
    )
    write_memiavl_store(tmp_path, history)
    with pytest.raises(Exception, match="requested 40, reached 21"):
        engine.open_memiavl(str(tmp_path), 40, OpenMode.REPLAY, options(1))
