"""Reads pages many at a time and in order, and gathers what they say.

A page is downloaded, unpacked and judged line by line: memory holds a few pages' findings with shortened values, never a
run. What cannot be read is a problem of that page, and its heights stay holes; only the store's own refusals end the work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from seiops.digest.published import check_record, pair_problems
from seiops.evidence.blocks import CODES, Finding, Line, LineError, judge, parse_line, settled
from seiops.evidence.catalog import Item, Stock, Watch
from seiops.evidence.reader import Kind, LongLineError, Reading
from seiops.evidence.summary import Digest, Summary, shortened
from seiops.objectstore import Store, StoreError
from seiops.shadow.pipeline import in_order

PAGES_AT_ONCE = 8
LINES_OF_A_PAGE = 100_000
_PROBLEMS_OF_A_PAGE = 3


@dataclass(slots=True)
class Page:
    """What one page says. `seal`: True where it is the one its manifest promised, None where nothing was promised."""

    item: Item
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seal: bool | None = None


async def read_page(store: Store, item: Item, promised: frozenset[str]) -> Page:
    """Raises StoreError where the store refuses; damage is a problem of the page."""
    page = Page(item)
    reading = Reading(store, item.key)
    number = 0
    try:
        async for batch in reading.lines():
            for raw in batch:
                number += 1
                _take_line(page, raw, number)
            if number > LINES_OF_A_PAGE:
                raise LongLineError(f"more than {LINES_OF_A_PAGE} lines, which no page has")
    except (StoreError, LongLineError) as error:
        if isinstance(error, StoreError) and error.code not in ("BadGzip", "NoSuchKey"):
            raise
        page.problems.append(f"{item.key}: {error}")
        return page
    if promised:
        page.seal = reading.sha256 in promised
        if not page.seal:
            told = " or ".join(sorted(promised))
            page.problems.append(f"{item.key}: its seal is {reading.sha256}, the manifest promises {told}")
    return page


def _take_line(page: Page, raw: bytes, number: int) -> None:
    try:
        finding = judge(parse_line(raw))
        if not page.item.recheck and not page.item.first <= finding.height <= page.item.last:
            raise LineError(f"speaks of block {finding.height}, outside the heights of its name")
        if finding.height < 0:
            raise LineError(f"speaks of block {finding.height}")
    except LineError as error:
        if len(page.problems) < _PROBLEMS_OF_A_PAGE:
            page.problems.append(f"{page.item.key}: line {number}: {error}")
        return
    finding.differences = [shortened(one) for one in finding.differences]
    page.findings.append(finding)


async def pages(store: Store, stock: Stock, items: Sequence[Item], watch: Watch) -> AsyncIterator[Page]:
    """The pages in the order given. Raises StoreError."""
    done = 0
    source = in_order(
        items, lambda item: read_page(store, item, stock.seals.get(item.key, frozenset())), width=PAGES_AT_ONCE
    )
    try:
        async for _, page in source:
            done += 1
            yield page
            watch(done, len(items))
    finally:
        await source.aclose()


async def gather(store: Store, stock: Stock, watch: Watch = lambda done, total: None) -> Summary:
    """The summary of a folder whose manifests are read. Raises StoreError."""
    summary = Summary(store.url(stock.name), stock.runs, wanted=_wanted(stock))
    for problem in (*stock.problems, *(text for run in stock.runs for text in run.problems)):
        summary.problem(problem)
    second = await _second_looks(store, stock, summary)
    async for page in pages(store, stock, stock.of(Kind.COMPARE), watch):
        summary.pages += 1
        _seal(summary, page)
        for finding in page.findings:
            summary.add(_settled(finding, second, summary))
    await _digests(store, stock, summary)
    return summary


def _seal(summary: Summary, page: Page) -> None:
    summary.seals_held += page.seal is True
    for problem in page.problems:
        summary.problem(problem)


async def _second_looks(store: Store, stock: Stock, summary: Summary) -> dict[int, Finding]:
    """Blocks that were compared again because they could not be decided (docs/contracts/shadow.md 9.3); what no manifest
    names beside those that do decides nothing."""
    found: dict[int, Finding] = {}
    again = [item for item in stock.of(Kind.RECHECK) if item.key not in stock.strange]
    async for page in pages(store, stock, again, lambda done, total: None):
        _seal(summary, page)
        for finding in page.findings:
            before = found.get(finding.height)
            found[finding.height] = finding if before is None else _of_both(before, finding)
    return found


def _settled(finding: Finding, second: dict[int, Finding], summary: Summary) -> Finding:
    again = second.get(finding.height)
    if again is None or _of_both(finding, again) is finding:
        return finding
    summary.rechecked += 1
    return again


def _of_both(first: Finding, again: Finding) -> Finding:
    return first if settled(first.verdict, again.verdict) == first.verdict else again


async def _digests(store: Store, stock: Stock, summary: Summary) -> None:
    items = stock.of(Kind.DIGEST)
    all_checked = []
    async for item, checked in in_order(items, lambda item: check_record(store, item.key, ""), width=PAGES_AT_ONCE):
        promised = stock.seals.get(item.key)
        if promised and not checked.problems and checked.sha256 not in promised:
            told = " or ".join(sorted(promised))
            checked.problems.append(f"its seal is {checked.sha256}, the manifest promises {told}")
        record = checked.record
        whole = not checked.problems
        summary.digests.append(
            Digest(item.key, item.first, str(record.get("normalization", "")), checked.match if whole else None,
                   checked.differing if whole and not checked.match else [], "; ".join(checked.problems))
        )  # fmt: skip
        for problem in checked.problems:
            summary.problem(f"{item.key}: {problem}")
        all_checked.append(checked)
    for problem in pair_problems(all_checked):
        summary.problem(problem)


def _wanted(stock: Stock) -> tuple[int, int] | None:
    """The range the runs were asked for, where they were asked for an end and none of them was to stop before it."""
    asked = [run for run in stock.runs if run.sealed and run.kind == "comparison"]
    ends = [end for run in asked if isinstance(end := run.params.get("end_height"), int) and not run.tripped]
    starts = [start for run in asked if (start := run.params.get("start_height") or run.first)]
    return (min(starts), max(ends)) if ends and starts and min(starts) <= max(ends) else None


# --- one block, many blocks -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filters:
    """Which blocks a list shows; empty ones let everything pass. Verdicts: see `NOT_CLEAN`. Texts ignore case."""

    first: int = 0
    last: int = 0
    layers: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    contracts: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ("diverged",)

    def covers(self, item: Item) -> bool:
        return item.last >= self.first and (not self.last or item.first <= self.last)

    def admits(self, finding: Finding) -> bool:
        if finding.height < self.first or (self.last and finding.height > self.last):
            return False
        if finding.verdict not in self.verdicts:
            return False
        if self.layers and not set(self.layers) & {*finding.layers, *finding.undecided}:
            return False
        if self.kinds and not any(one.kind.casefold() in self.kinds for one in finding.differences):
            return False
        places = [one.place.casefold() for one in finding.differences]
        return not self.contracts or any(wanted in place for wanted in self.contracts for place in places)


async def matching(store: Store, stock: Stock, filters: Filters, summary: Summary, watch: Watch) -> None:
    """Adds the blocks that pass the filters to the summary, and every problem met. Raises StoreError."""
    second = await _second_looks(store, stock, summary)
    items = [item for item in stock.of(Kind.COMPARE) if filters.covers(item)]
    async for page in pages(store, stock, items, watch):
        summary.pages += 1
        _seal(summary, page)
        for finding in page.findings:
            settled = _settled(finding, second, summary)
            if filters.admits(settled):
                summary.add(settled)


@dataclass(slots=True)
class Said:
    """What one object says of a block, in full: its raw line and the line read."""

    key: str
    raw: bytes
    line: Line
    finding: Finding


async def block_at(store: Store, stock: Stock, height: int) -> list[Said]:
    """Every line about a block, the gravest first, second looks included. Raises StoreError, LineError."""
    said = []
    for item in [*stock.of(Kind.RECHECK), *(one for one in stock.of(Kind.COMPARE) if one.first <= height <= one.last)]:
        try:
            async for batch in Reading(store, item.key).lines():
                said += [one for raw in batch if (one := _said_of(height, item.key, raw)) is not None]
        except LongLineError as error:
            raise LineError(f"{item.key}: {error}") from None
    return sorted(said, key=lambda one: -CODES[one.finding.verdict])


def _said_of(height: int, key: str, raw: bytes) -> Said | None:
    """A line that cannot be read is passed over here: the summary tells of it."""
    try:
        line = parse_line(raw)
    except LineError:
        return None
    return Said(key, raw, line, judge(line)) if line.height == height else None
