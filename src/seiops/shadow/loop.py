"""The comparison loop: waits for blocks, compares many at once, publishes in order, and ends as its mode says.

Tripwire ends at the first block that is not a match; survey goes on until it is stopped. The comparison itself is the
same in both (docs/contracts/shadow.md 1.3, 4.5 to 4.7).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from seiops.objectstore import StoreError
from seiops.seid.comet import CometError
from seiops.shadow import reports
from seiops.shadow.compare import Comparator
from seiops.shadow.direction import ADVICE, canonical_is_ahead
from seiops.shadow.manifest import What
from seiops.shadow.pages import COMPARE_PAGE, Shelf, compare_key, now, report_key
from seiops.shadow.pipeline import carried_through, groups, in_order
from seiops.shadow.verdicts import Compared, Gap, Unread

POLL_S = 5.0
FLUSH_BUDGET_S = 10.0
GROUP = 5
"""Heights of a group: block and results of five heights fill one batch of ten."""
WINDOW = 16
STUCK_S = 300.0
"""After so long at one height the loop says so, loudly."""
NOT_READY_S = 60.0
"""How long results of a stored block may be missing before that is a finding."""
OVERTAKEN = "overtaken"
"""Why a strict run ended whose canonical node is no longer ahead."""


class Watcher(Protocol):
    """Who hears what happens: metrics, logs, the progress of the task."""

    def compared(self, block: Compared) -> None: ...
    def diverged(self, layer: int) -> None: ...
    def stuck(self, height: int, error: str) -> None: ...
    def passed_over(self, height: int) -> None: ...
    def published(self, start: int, end: int) -> None: ...
    def heads(self, shadow: int, canonical: int | None) -> None: ...


class FlushError(Exception):
    """A page was not stored and the run cannot go on without growing; `cause` is the store's refusal."""

    def __init__(self, what: str, cause: StoreError) -> None:
        super().__init__(f"{what}: {cause}")
        self.what = what
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Course:
    """From where to where, and what ends it. `end` 0 follows the chain. `gap_after_s`: pass over a height that could
    not be read for so long (0: never), in a survey only. `poll_s`: the wait for new blocks. `direction`: whether a canonical
    node that is no longer ahead after a page is not looked at (`off`), said (`warn`), or ends the run (`strict`).
    """

    start: int
    end: int = 0
    survey: bool = False
    gap_after_s: float = 0.0
    poll_s: float = POLL_S
    direction: str = "off"


@dataclass(slots=True)
class _Stuck:
    height: int = 0
    since: float = 0.0
    told: bool = False

    def at(self, height: int) -> float:
        """Seconds for which this height has not been readable."""
        if self.height != height:
            self.height, self.since, self.told = height, time.monotonic(), False
        return time.monotonic() - self.since


Settle = Callable[[int], Awaitable[Compared | Unread | None]]
"""What the hash log says of a height: a finished comparison, or None to look deeper."""
Annotate = Callable[[Compared], None]


@dataclass(slots=True)
class Loop:
    """One run. `latest` and `canonical_latest` ask a node for its height and raise CometError. Call `run` once."""

    comparator: Comparator
    shelf: Shelf
    course: Course
    latest: Callable[[], Awaitable[int]]
    canonical_latest: Callable[[], Awaitable[int]]
    watcher: Watcher
    log: logging.Logger
    settle: Settle | None = None
    annotate: Annotate | None = None
    page: list[Compared | Gap] = field(default_factory=list)
    height: int = 0
    reports: list[str] = field(default_factory=list)
    report_errors: list[str] = field(default_factory=list)
    own_results: dict[str, int] = field(default_factory=lambda: {"checked": 0, "shadow": 0, "canonical": 0})
    """Headers held against the receipts of the block before, and how often each side's own did not fit."""
    overtaken_at: int | None = None
    """The first height after whose page the canonical node was not ahead (T7)."""
    _behind: bool = False
    _stuck: _Stuck = field(default_factory=_Stuck)
    _before: Compared | None = None

    async def run(self) -> str:
        """Why it ended: `end-height`, `divergence`, `indeterminate` or `overtaken`. Raises FlushError, CancelledError.

        When cancelled, a survey publishes its trailing page first, within ten seconds; the cancellation goes on from there.
        """
        self.height = self.course.start
        try:
            return await self._run()
        except asyncio.CancelledError:
            if self.course.survey and self.page:
                await self._last_page()
            raise

    async def _last_page(self) -> None:
        flushing = self._flush("flushing final survey page on shutdown")
        try:
            stored = await carried_through(flushing, FLUSH_BUDGET_S)
        except FlushError as error:
            self._warn("final page was not stored; its blocks will be compared again", {"err": str(error)})
            return
        if stored:
            attrs = {"last-height": self.shelf.progress.last}
            self.log.info("survey stopped; completing", extra={"attrs": attrs})
        else:
            self._warn("final page was not stored in time; its blocks will be compared again", {})

    async def _run(self) -> str:
        while not self.course.end or self.height <= self.course.end:
            limit = await self._wait_for_blocks()
            ended = await self._compare_up_to(limit)
            if ended:
                return ended
        if self.page:
            await self._flush("flushing final comparison page")
        if self.course.survey:
            await self._second_pass()
        return "end-height"

    async def _second_pass(self) -> None:
        """What could not be decided may be decidable now; heights that still cannot be read stay undecided (9.3)."""
        heights = sorted(self.shelf.progress.undecided)
        if heights:
            self.log.info("second pass over undecided heights", extra={"attrs": {"blocks": len(heights)}})
        for at in range(0, len(heights), COMPARE_PAGE):
            page = heights[at : at + COMPARE_PAGE]
            parts = [page[first : first + GROUP] for first in range(0, len(page), GROUP)]
            found = [one for part in parts for one in await self._settled_or(part, self._last_look)]
            blocks = [one for one in found if isinstance(one, Compared)]
            if not blocks:
                continue
            try:
                await self.shelf.put_recheck(blocks)
            except StoreError as error:
                raise FlushError("flushing recheck page", error) from error

    async def _wait_for_blocks(self) -> int:
        while True:
            try:
                latest, _ = await self._heads()
            except Exception as error:
                self.log.debug("shadow RPC unavailable, will retry", extra={"attrs": {"err": str(error)}})
            else:
                if self.height <= latest:
                    return min(latest, self.course.end or latest)
            await asyncio.sleep(self.course.poll_s)

    async def _heads(self) -> tuple[int, int | None]:
        """Both nodes' latest heights, None for a canonical node that does not tell. Raises what `latest` raises."""
        shadow, canonical = await asyncio.gather(self.latest(), self.canonical_latest(), return_exceptions=True)
        if isinstance(shadow, BaseException):
            raise shadow
        known = canonical if isinstance(canonical, int) else None
        self.watcher.heads(shadow, known)
        return shadow, known

    async def _recheck_direction(self) -> str:
        """`overtaken` where that ends the run. What a node does not tell is judged after the next page."""
        if self.course.direction == "off":
            return ""
        try:
            shadow, canonical = await self._heads()
        except CometError:
            return ""
        if canonical is None:
            return ""
        was_behind, self._behind = self._behind, not canonical_is_ahead(shadow, canonical, self.course.end)
        if not self._behind:
            return ""
        if not was_behind:
            attrs = {"shadow": shadow, "canonical": canonical, "advice": ADVICE}
            self._warn("canonical node is no longer ahead", attrs)
        if self.overtaken_at is None:
            self.overtaken_at = self.height - 1
        return OVERTAKEN if self.course.direction == "strict" else ""

    async def _compare_up_to(self, limit: int) -> str:
        """Compares up to `limit` or the first height that cannot be read; a text when the run is over."""
        unread: Unread | None = None
        window = in_order(groups(self.height, limit, GROUP), self._group, width=WINDOW)
        try:
            async for _, outcomes in window:
                for outcome in outcomes:
                    if isinstance(outcome, Unread):
                        unread = outcome
                        break
                    if ended := await self._take(outcome):
                        return ended
                if unread is not None:
                    break
        finally:
            await window.aclose()
        return await self._bear_with(unread) if unread is not None else ""

    async def _group(self, heights: Sequence[int]) -> list[Compared | Unread]:
        return await self._settled_or(heights, self._deeper)

    async def _settled_or(
        self, heights: Sequence[int], look_deeper: Callable[[Sequence[int]], Awaitable[list[Compared | Unread]]]
    ) -> list[Compared | Unread]:
        settled: list[Compared | Unread | None] = [None] * len(heights)
        if self.settle is not None:
            settled = [await self.settle(height) for height in heights]
        deeper = [height for height, one in zip(heights, settled, strict=True) if one is None]
        answers = iter(await look_deeper(deeper)) if deeper else iter(())
        return [one if one is not None else next(answers) for one in settled]

    async def _deeper(self, heights: Sequence[int]) -> list[Compared | Unread]:
        patient_no_more = self._stuck.height in heights and self._stuck.at(self._stuck.height) > NOT_READY_S
        found = await self.comparator.group(heights, settle=patient_no_more)
        if self.annotate is not None:
            for one in found:
                if isinstance(one, Compared):
                    self.annotate(one)
        return found

    async def _last_look(self, heights: Sequence[int]) -> list[Compared | Unread]:
        return await self.comparator.group(heights, settle=True)

    async def _bear_with(self, unread: Unread) -> str:
        """A height that could not be evaluated is no result: the same height again after a pause (D-27 bounds it)."""
        seconds = self._stuck.at(unread.height)
        self._warn("comparison failed, will retry", {"height": unread.height, "err": unread.error})
        if seconds > STUCK_S and not self._stuck.told:
            self._stuck.told = True
            self.watcher.stuck(unread.height, unread.error)
        if self.course.survey and 0 < self.course.gap_after_s <= seconds:
            gap = Gap(unread.height, now(), self.comparator.depth.migration, unread.error)
            self.watcher.stuck(unread.height, unread.error)
            self.watcher.passed_over(unread.height)
            return await self._add(gap)
        await asyncio.sleep(self.course.poll_s)
        return ""

    async def _take(self, block: Compared) -> str:
        self._hold_against_the_block_before(block)
        self.watcher.compared(block)
        layer = block.divergence_layer
        if layer is None or (block.expected_gap and not self.course.survey):
            return await self._add(block)
        self.watcher.diverged(layer)
        if self.course.survey:
            attrs = {"height": block.height, "divergence-layer": layer}
            self.log.info("divergence recorded; continuing (survey mode)", extra={"attrs": attrs})
            return await self._add(block)
        await self._halt(block, layer)
        return "indeterminate" if block.verdict == "indeterminate" else "divergence"

    def _hold_against_the_block_before(self, block: Compared) -> None:
        """A header shows what the receipts of the block before have to hash to, on each node's own account (9.1)."""
        before, self._before = self._before, block
        headers = (block.layer0.shadow.last_results_hash, block.layer0.canonical.last_results_hash)
        if before is None or before.height != block.height - 1 or before.roots is None or not all(headers):
            return
        fits = (before.roots[0] == headers[0], before.roots[1] == headers[1])
        block.layer0.own_results = fits
        self.own_results["checked"] += 1
        for side, fit in zip(("shadow", "canonical"), fits, strict=True):
            self.own_results[side] += not fit

    async def _add(self, block: Compared | Gap) -> str:
        """A text when the page it filled was the run's last."""
        self.page.append(block)
        self.height = block.height + 1
        if len(self.page) < COMPARE_PAGE:
            return ""
        await self._flush("flushing comparison page")
        return await self._recheck_direction()

    async def _flush(self, what: str) -> None:
        start, end = self.page[0].height, self.page[-1].height
        attrs = {"key": compare_key(self.shelf.prefix, start, end), "blocks": len(self.page)}
        self.log.info("flushing comparison page", extra={"attrs": attrs})
        try:
            await self.shelf.put_compare_page(self.page)
        except StoreError as error:
            raise FlushError(what, error) from error
        self.page = []
        self.watcher.published(start, end)

    async def _halt(self, block: Compared, layer: int) -> None:
        layer0 = block.layer0
        attrs = {
            "height": block.height,
            "divergence-layer": layer,
            "verdict": block.verdict,
            "shadow-app-hash": layer0.shadow.app_hash,
            "canonical-app-hash": layer0.canonical.app_hash,
        }
        self.log.info("app-hash divergence detected", extra={"attrs": attrs})
        await self._report(block)
        self.page.append(block)
        self.height = block.height + 1
        await self._flush("flushing final comparison page")

    async def _report(self, block: Compared) -> None:
        """A report that cannot be stored does not stop the page from being stored; the task's result says so (D-17)."""
        key = report_key(self.shelf.prefix, block.height)
        try:
            document = await reports.build(block, self.comparator.shadow, self.comparator.canonical)
            what = What("report", now(), (block.height, block.height))
            await self.shelf.put(key, reports.payload(document), what)
        except StoreError as error:
            self.report_errors.append(f"{key}: {error}")
            self._warn("failed to upload divergence report, continuing", {"err": str(error)})
        else:
            self.reports.append(key)

    def _warn(self, text: str, attrs: dict[str, Any]) -> None:
        self.log.warning(text, extra={"attrs": attrs})
