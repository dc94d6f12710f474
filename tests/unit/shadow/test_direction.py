"""Who is ahead, held all along a run and not only at its start (docs/contracts/shadow.md T7, 9.5)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from seiops.shadow.direction import ADVICE, canonical_is_ahead
from seiops.shadow.loop import Course
from seiops.sidecar.task import TaskError
from seiops.sidecar.tasks import result_export
from support.shadow_nodes import Heard, Node, comparator_for, loop_for, pages_in, request_for, serving, shelf_in
from support.task_context import context_for

WARNING = "canonical node is no longer ahead"


@pytest.mark.parametrize(
    ("shadow", "canonical", "end", "right"),
    [(500, 600, 0, True), (500, 599, 0, False), (500, 500, 500, True), (500, 499, 500, False), (700, 500, 500, True)],
)
def test_canonical_is_ahead_by_a_page_or_holds_the_whole_run(
    shadow: int, canonical: int, end: int, right: bool
) -> None:
    assert canonical_is_ahead(shadow, canonical, end) is right


class _Moving(Heard):
    """After each page the canonical node's head stands somewhere else."""

    def __init__(self, canonical: Node, heads: list[int]) -> None:
        super().__init__()
        self._canonical, self._heads = canonical, heads

    def published(self, start: int, end: int) -> None:
        super().published(start, end)
        if self._heads:
            self._canonical.latest = self._heads.pop(0)


async def _followed(tmp_path: Path, direction: str, heads: list[int]) -> tuple[Any, _Moving, str]:
    """A survey over three pages of a shadow at 310; it is stopped behind them unless it ends by itself."""
    shadow, canonical = Node(latest=310), Node(latest=700, identity="other")
    heard = _Moving(canonical, heads)
    async with serving(shadow, canonical) as session:
        comparator = comparator_for(request_for(shadow, canonical, migration=True), session)
        course = Course(start=1, survey=True, poll_s=0.01, direction=direction)
        loop = loop_for(comparator, shelf_in(tmp_path), shadow, heard, course)
        running = asyncio.ensure_future(loop.run())
        reached = asyncio.ensure_future(heard.reached[310].wait())
        await asyncio.wait({running, reached}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        reached.cancel()
        if running.done():
            return loop, heard, running.result()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        return loop, heard, "stopped"


async def test_strict_run_ends_behind_the_page_after_which_it_was_overtaken(tmp_path: Path) -> None:
    loop, heard, reason = await _followed(tmp_path, "strict", [700, 409, 700])
    assert (reason, loop.overtaken_at) == ("overtaken", 200)
    assert heard.pages == [(1, 100), (101, 200)]
    assert list(pages_in(tmp_path)) == ["1-100.compare.ndjson.gz", "101-200.compare.ndjson.gz"]


async def test_run_that_warns_says_it_once_each_time_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop, heard, reason = await _followed(tmp_path, "warn", [320, 330, 320])
    assert (reason, loop.overtaken_at, heard.canonical_head) == ("stopped", 100, 320)
    assert heard.pages[:3] == [(1, 100), (101, 200), (201, 300)]
    assert [record.message for record in caplog.records].count(WARNING) == 1
    caplog.clear()
    await _followed(tmp_path / "again", "warn", [320, 700, 320])
    assert [record.message for record in caplog.records].count(WARNING) == 2


async def test_direction_is_not_looked_at_where_preflight_is_off(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop, _, reason = await _followed(tmp_path, "off", [320, 320, 320])
    assert (reason, loop.overtaken_at) == ("stopped", None)
    assert WARNING not in caplog.text


async def test_task_that_was_overtaken_fails_with_what_it_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held(*_: object) -> dict[str, Any]:
        return {}

    monkeypatch.setattr(result_export, "_preflight", held)
    shadow, canonical = Node(latest=310), Node(latest=320, identity="other")
    async with serving(shadow, canonical) as session:
        params = {
            "bucket": f"file://{tmp_path}/bucket", "region": "r", "prefix": "run", "rpcEndpoint": shadow.comet_url,
            "canonicalRpc": canonical.comet_url, "preflight": "strict", "migrationMode": True,
            "continueOnDivergence": True,
        }  # fmt: skip
        with pytest.raises(TaskError) as failed:
            await result_export.run(context_for(tmp_path / "home", session), params)
    assert str(failed.value) == (
        f"result-export: right-direction: the canonical node was not ahead any more after height 100; {ADVICE}"
    )
    assert failed.value.retryable is True
    assert failed.value.result is not None
    assert (failed.value.result["lastHeight"], failed.value.result["overtakenAt"]) == (100, 100)
    entries = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "bucket").rglob("manifest/*/*.json"))]
    assert [entry["kind"] for entry in entries] == ["run", "page", "end"]
    assert (entries[-1]["info"]["reason"], entries[-1]["info"]["overtakenAt"]) == ("overtaken", 100)
