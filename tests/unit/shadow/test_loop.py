"""Acceptance, loop: tripwire, survey, pages, persistence, stopping (docs/contracts/shadow.md 10.3)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from seiops.objectstore import StoreError, open_store
from seiops.shadow import progress
from seiops.shadow.loop import Course, FlushError, Loop
from seiops.shadow.manifest import read_chain
from seiops.shadow.pages import COMPARE_PAGE
from support.shadow_nodes import (
    EvmFault,
    Heard,
    Node,
    block,
    comparator_for,
    loop_for,
    pages_in,
    receipt,
    reports_in,
    request_for,
    results,
    serving,
    shelf_in,
    with_state,
)

POLL = 0.01


@asynccontextmanager
async def looping(
    shadow: Node, canonical: Node, home: Path, heard: Heard, *, store: Any = None, depth: Any = None, state: bool = False,
    migration: bool = True, **course: Any,
) -> AsyncIterator[Loop]:  # fmt: skip
    async with serving(shadow, canonical) as session:
        extra = with_state(shadow, canonical) if state else {}
        request = request_for(shadow, canonical, migration=migration, **extra)
        comparator = comparator_for(request, session, **(depth or {}))
        given = {"start": 1, "poll_s": POLL} | course
        yield loop_for(comparator, shelf_in(home, store), shadow, heard, Course(**given))


def _last(home: Path) -> int | None:
    try:
        found: int = json.loads((home / progress.LEGACY_FILE).read_text())["lastExportedHeight"]
    except FileNotFoundError:
        return None
    return found


async def _buffered(loop: Loop, height: int) -> None:
    """Once a block was told it is in the page after the next turn of the event loop, unless its page is just being stored."""
    async with asyncio.timeout(10):
        while not loop.page or loop.page[-1].height != height:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def _stop(running: asyncio.Task[str]) -> None:
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _diverging(height: int) -> Node:
    node = Node(latest=30)
    node.plant("block_results", height, results(height, [receipt(height, 0, code=7), receipt(height, 1)]))
    return node


async def test_tripwire_halts_at_the_first_divergence(tmp_path: Path) -> None:
    heard = Heard()
    async with looping(_diverging(7), Node(latest=30), tmp_path, heard) as loop:
        assert await loop.run() == "divergence"
    assert {name: [line["height"] for line in lines] for name, lines in pages_in(tmp_path).items()} == {
        "1-7.compare.ndjson.gz": list(range(1, 8))
    }
    (report,) = reports_in(tmp_path).values()
    assert report["comparison"]["divergenceLayer"] == 1
    assert report["shadow"]["blockResults"]["txs_results"][0]["code"] == 7
    assert list(report) == ["height", "timestamp", "comparison", "shadow", "canonical"]
    assert (_last(tmp_path), heard.layers) == (7, [1])
    assert len([one for one in heard.blocks if one.height <= 7]) == 7


async def test_tripwire_resumes_behind_the_divergence(tmp_path: Path) -> None:
    async with looping(_diverging(7), Node(latest=30), tmp_path, Heard()) as loop:
        await loop.run()
    start = progress.begin(tmp_path, loop.shelf.progress.key, asked=None)
    assert start.height == 8
    async with looping(_diverging(7), Node(latest=30), tmp_path, Heard(), start=start.height, end=12) as loop:
        assert await loop.run() == "end-height"
    assert "8-12.compare.ndjson.gz" in pages_in(tmp_path)


async def test_report_captures_what_is_there_and_names_the_rest(tmp_path: Path) -> None:
    canonical = Node(latest=30, batches=False)
    canonical.plant("block_results", 7, results(7), (500, "boom"))
    async with looping(_diverging(7), canonical, tmp_path, Heard()) as loop:
        await loop.run()
    (report,) = reports_in(tmp_path).values()
    assert report["canonical"]["blockResults"] is None
    assert report["canonical"]["block"]["block"]["header"]["height"] == "7"
    assert report["captureErrors"] == ["capturing canonical snapshot at height 7: block_results: HTTP 500: boom"]


async def test_survey_passes_over_divergences_without_reports(tmp_path: Path) -> None:
    heard = Heard()
    async with looping(_diverging(7), Node(latest=30), tmp_path, heard, survey=True, end=20) as loop:
        assert await loop.run() == "end-height"
    lines = pages_in(tmp_path)["1-20.compare.ndjson.gz"]
    assert [line["height"] for line in lines if not line["match"]] == [7]
    assert not reports_in(tmp_path)
    assert loop.shelf.progress.counts == {"clean": 19, "diverged": 1}


async def test_250_blocks_are_two_pages_and_50_buffered_and_cancel_flushes_once(tmp_path: Path) -> None:
    heard = Heard()
    async with looping(Node(latest=250), Node(latest=250), tmp_path, heard, survey=True) as loop:
        running = asyncio.ensure_future(loop.run())
        await asyncio.wait_for(heard.reached[250].wait(), 30)
        assert heard.pages == [(1, 100), (101, 200)]
        await _buffered(loop, 250)
        await _stop(running)
    assert heard.pages == [(1, 100), (101, 200), (201, 250)]
    assert list(pages_in(tmp_path)) == [
        "1-100.compare.ndjson.gz",
        "101-200.compare.ndjson.gz",
        "201-250.compare.ndjson.gz",
    ]
    assert _last(tmp_path) == 250


async def test_told_twice_to_stop_it_still_publishes_what_it_has(tmp_path: Path) -> None:
    """Deleted, and the process stopped while the trailing page was under way."""
    inner = open_store(f"file://{tmp_path}/bucket")
    under_way, go_on = asyncio.Event(), asyncio.Event()

    class Slow(_Denying):
        async def put(self, key: str, data: bytes, *, content_type: str = "") -> None:
            under_way.set()
            await go_on.wait()
            await inner.put(key, data, content_type=content_type)

    async with looping(Node(latest=30), Node(latest=30), tmp_path, Heard(), survey=True, store=Slow(inner)) as loop:
        running = asyncio.ensure_future(loop.run())
        await _buffered(loop, 30)
        running.cancel()
        await asyncio.wait_for(under_way.wait(), 10)
        running.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert _last(tmp_path) == 30
    entries = [entry async for entry, _ in read_chain(open_store(f"file://{tmp_path}/bucket/run"), "run-1")]
    assert [entry.key for entry in entries] == ["1-30.compare.ndjson.gz"]


async def test_tripwire_cancel_flushes_nothing(tmp_path: Path) -> None:
    heard = Heard()
    async with looping(Node(latest=150), Node(latest=150), tmp_path, heard) as loop:
        running = asyncio.ensure_future(loop.run())
        await asyncio.wait_for(heard.reached[150].wait(), 30)
        await _stop(running)
    assert list(pages_in(tmp_path)) == ["1-100.compare.ndjson.gz"]
    assert _last(tmp_path) == 100


async def test_survey_goes_on_where_it_was_stopped_without_gap_or_double(tmp_path: Path) -> None:
    heights: list[int] = []
    start = 1
    for stop_at in (37, 120, 150):
        heard = Heard()
        node = Node(latest=stop_at)
        async with looping(node, Node(latest=200), tmp_path, heard, survey=True, start=start) as loop:
            own = progress.load(tmp_path, loop.shelf.progress.key)
            if own.last is not None:
                loop.shelf.progress = own
                loop.shelf.writer.head = own.manifest
            running = asyncio.ensure_future(loop.run())
            await asyncio.wait_for(heard.reached[stop_at].wait(), 30)
            await _buffered(loop, stop_at)
            await _stop(running)
        start = progress.begin(tmp_path, loop.shelf.progress.key, asked=None).height
    for lines in sorted(pages_in(tmp_path).values(), key=lambda lines: lines[0]["height"]):
        heights += [line["height"] for line in lines]
    assert heights == list(range(1, 151))
    assert progress.load(tmp_path, loop.shelf.progress.key).counts == {"clean": 150}
    store = open_store(f"file://{tmp_path}/bucket/run")
    entries = [entry async for entry, _ in read_chain(store, "run-1")]
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))


class _Denying:
    """A store that refuses every page."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def put(self, key: str, data: bytes, *, content_type: str = "") -> None:
        raise StoreError("AccessDenied", "access denied")


async def test_persistent_upload_failure_fails_the_run_with_a_bounded_buffer(tmp_path: Path) -> None:
    store = _Denying(open_store(f"file://{tmp_path}/bucket"))
    async with looping(Node(latest=900), Node(latest=900), tmp_path, Heard(), survey=True, store=store) as loop:
        with pytest.raises(FlushError, match="flushing comparison page: access denied"):
            await loop.run()
    assert len(loop.page) <= COMPARE_PAGE
    assert _last(tmp_path) is None


async def test_tripwire_without_a_storable_report_still_stores_the_page(tmp_path: Path) -> None:
    inner = open_store(f"file://{tmp_path}/bucket")

    class NoReports(_Denying):
        async def put(self, key: str, data: bytes, *, content_type: str = "") -> None:
            if key.endswith(".report.json.gz"):
                raise StoreError("AccessDenied", "access denied")
            await inner.put(key, data, content_type=content_type)

    async with looping(_diverging(7), Node(latest=30), tmp_path, Heard(), store=NoReports(inner)) as loop:
        assert await loop.run() == "divergence"
    assert list(pages_in(tmp_path)) == ["1-7.compare.ndjson.gz"]
    assert loop.report_errors == ["run/divergence-7.report.json.gz: access denied"]


async def test_same_height_again_when_it_cannot_be_read(tmp_path: Path) -> None:
    canonical = Node(latest=30, batches=False)
    canonical.plant("block", 5, *[(500, "boom")] * 7, block(5))
    async with looping(Node(latest=30), canonical, tmp_path, Heard(), end=8) as loop:
        assert await loop.run() == "end-height"
    assert [line["height"] for line in pages_in(tmp_path)["1-8.compare.ndjson.gz"]] == list(range(1, 9))


async def test_height_that_never_comes_is_passed_over_where_asked(tmp_path: Path) -> None:
    canonical = Node(latest=30, batches=False)
    canonical.plant("block", 5, {"code": -32603, "message": "Internal error", "data": "gone"})
    heard = Heard()
    async with looping(Node(latest=30), canonical, tmp_path, heard, survey=True, end=8, gap_after_s=0.05) as loop:
        assert await loop.run() == "end-height"
    lines = pages_in(tmp_path)["1-8.compare.ndjson.gz"]
    assert [line["verdict"] for line in lines] == ["clean"] * 4 + ["gap"] + ["clean"] * 3
    assert lines[4]["match"] is False
    assert heard.stuck_at == [5]
    assert len(heard.blocks) == len({one.height for one in heard.blocks}) == 7


async def test_waits_for_blocks_that_are_not_there_yet(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=5), Node(latest=5)
    heard = Heard()
    async with looping(shadow, canonical, tmp_path, heard, end=9) as loop:
        running = asyncio.ensure_future(loop.run())
        await asyncio.wait_for(heard.reached[5].wait(), 30)
        shadow.latest = canonical.latest = 9
        assert await asyncio.wait_for(running, 30) == "end-height"
    assert [line["verdict"] for line in pages_in(tmp_path)["1-9.compare.ndjson.gz"]] == ["clean"] * 9


async def test_shadow_that_is_ahead_waits_for_the_canonical_node(tmp_path: Path) -> None:
    canonical = Node(latest=4)
    heard = Heard()
    async with looping(Node(latest=30), canonical, tmp_path, heard, end=8) as loop:
        running = asyncio.ensure_future(loop.run())
        await asyncio.wait_for(heard.reached[4].wait(), 30)
        canonical.latest = 30
        await asyncio.wait_for(running, 30)
    assert heard.layers == []


async def test_tripwire_ends_indeterminate_not_diverged(tmp_path: Path) -> None:
    canonical = Node(latest=30)
    canonical.plant_state("debug_traceBlockByNumber", 6, EvmFault("tracer broke"))
    async with looping(Node(latest=30), canonical, tmp_path, Heard(), state=True) as loop:
        assert await loop.run() == "indeterminate"
    assert pages_in(tmp_path)["1-6.compare.ndjson.gz"][-1]["verdict"] == "indeterminate"


async def test_first_block_after_a_snapshot_does_not_trip(tmp_path: Path) -> None:
    canonical = Node(latest=30)
    canonical.plant_state(
        "debug_traceBlockByNumber", 1, EvmFault("failed to load validators for block 0 from tendermint")
    )
    depth = {"after_snapshot": 1}
    async with looping(Node(latest=30), canonical, tmp_path, Heard(), state=True, depth=depth, end=10) as loop:
        assert await loop.run() == "end-height"
    assert [line["verdict"] for line in pages_in(tmp_path)["1-10.compare.ndjson.gz"]] == ["indeterminate"] + [
        "clean"
    ] * 9


async def test_verdict_does_not_depend_on_the_mode(tmp_path: Path) -> None:
    lines = {}
    for survey in (False, True):
        home = tmp_path / str(survey)
        async with looping(_diverging(7), Node(latest=30), home, Heard(), survey=survey, end=7) as loop:
            await loop.run()
        (page,) = pages_in(home).values()
        lines[survey] = [{**line, "timestamp": ""} for line in page]
    assert lines[False] == lines[True]
