"""What is inside an object, checked as it streams by: shapes, heights, and verdicts that follow from their own layers.

One checker a kind of object. A checker is fed batches of lines and keeps numbers, never lines; objects of programs that
write no manifest are held to the same rules (docs/contracts/shadow.md 5).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import msgspec

from seiops.evidence.blocks import Line, LineError, judge, parse_line
from seiops.evidence.findings import Finding, Name
from seiops.evidence.reader import Kind, Named
from seiops.shadow.hashlog import BLOCK

LARGEST_DOCUMENT = 512 << 20
_FINDINGS_KEPT = 1000

Outline = tuple[str, bool, int | None, str]
"""What a report and a page must agree on: time, match, layer and stated verdict of a block."""


class Checker(Protocol):
    """`take` is called with every batch of lines, `end` once; both may run in a worker thread."""

    findings: list[Finding]
    lines: int
    counts: Counter[str]

    def take(self, lines: Sequence[bytes]) -> None: ...
    def end(self) -> None: ...


class _Heights:
    """Lines that hold one height each, from the first of the object's name to its last."""

    def __init__(self, key: str, name: Named) -> None:
        self.key = key
        self.name = name
        self.findings: list[Finding] = []
        self.lines = 0
        self.counts: Counter[str] = Counter()

    def found(self, name: Name, text: str) -> None:
        if len(self.findings) < _FINDINGS_KEPT:
            self.findings.append(Finding(name, self.key, text))

    def at(self, height: int) -> None:
        expected = self.name.start + self.lines
        if height != expected:
            self.found(Name.HEIGHTS_DIFFER, f"line {self.lines + 1} is of height {height}, expected {expected}")

    def end(self) -> None:
        wanted = self.name.end - self.name.start + 1
        if self.lines != wanted:
            self.found(Name.HEIGHTS_DIFFER, f"holds {self.lines} lines, its name says {wanted}")


class ComparePage(_Heights):
    """Compared blocks. `unmatched`: the first height that is not a match; `halted`: whether the last line is none.

    `outlines` and `verdicts` are kept of the heights somebody wants to hold against a report or a recheck.
    """

    def __init__(self, key: str, name: Named, wanted: frozenset[int] = frozenset()) -> None:
        super().__init__(key, name)
        self._wanted = wanted
        self.outlines: dict[int, Outline] = {}
        self.verdicts: dict[int, str] = {}
        self.unmatched: int | None = None
        self.halted = False

    def take(self, lines: Sequence[bytes]) -> None:
        for raw in lines:
            try:
                line = parse_line(raw)
            except LineError as error:
                self.found(Name.CONTENT_INVALID, f"line {self.lines + 1}: {error}")
            else:
                self._line(line)
            self.lines += 1

    def _line(self, line: Line) -> None:
        self.at(line.height)
        finding = judge(line)
        self.counts[finding.verdict] += 1
        if finding.contradiction:
            self.found(Name.VERDICT_CONTRADICTS, f"height {line.height}: {finding.contradiction}")
        self.halted = not line.match
        if not line.match and self.unmatched is None:
            self.unmatched = line.height
        if line.height in self._wanted:
            self.outlines[line.height] = outline(line)
            self.verdicts[line.height] = finding.verdict


class Recheck(ComparePage):
    """Blocks that could not be decided, compared once more: any heights, ascending. `verdicts` holds all of them."""

    _last = -1

    def _line(self, line: Line) -> None:
        self._wanted = frozenset((line.height,))
        super()._line(line)

    def at(self, height: int) -> None:
        if height <= self._last:
            self.found(Name.HEIGHTS_DIFFER, f"line {self.lines + 1} is of height {height}, which does not ascend")
        self._last = max(self._last, height)

    def end(self) -> None:
        if not self.lines:
            self.found(Name.CONTENT_INVALID, "holds no line")


def outline(line: Line) -> Outline:
    return line.timestamp, line.match, line.divergence_layer, line.verdict


class _Results(msgspec.Struct):
    height: str | int | None = None


class _Body(msgspec.Struct):
    """A node's answer with or without its envelope; an error that came with status 200 has neither height."""

    height: str | int | None = None
    result: _Results | None = None


class _ExportLine(msgspec.Struct):
    height: int
    block_results: _Body


_export_line = msgspec.json.Decoder(_ExportLine)


class ExportPage(_Heights):
    """Exported results, one block a line."""

    def take(self, lines: Sequence[bytes]) -> None:
        for raw in lines:
            try:
                line = _export_line.decode(raw)
            except (msgspec.MsgspecError, RecursionError) as error:
                self.found(Name.CONTENT_INVALID, f"line {self.lines + 1}: not the exported results of a block: {error}")
            else:
                self._line(line)
            self.lines += 1
        self.counts["exported"] = self.lines

    def _line(self, line: _ExportLine) -> None:
        self.at(line.height)
        body = line.block_results
        told = body.result.height if body.result is not None else body.height
        if told is None:
            text = "the node's answer has no height: it is an error that was archived as results"
            self.found(Name.CONTENT_INVALID, f"height {line.height}: {text}")
        elif str(told) != str(line.height):
            self.found(Name.HEIGHTS_DIFFER, f"height {line.height}: the node's answer is of height {told}")


class HashLogSlice(_Heights):
    """A slice of a hash log: a header line, then one row a height."""

    def __init__(self, key: str, name: Named) -> None:
        super().__init__(key, name)
        self._column: int | None = None

    def take(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            cells = line.decode("ascii", "replace").rstrip("\r").split(",")
            if self._column is None:
                if BLOCK not in cells:
                    self.found(Name.CONTENT_INVALID, f"the first line names no column {BLOCK}")
                self._column = cells.index(BLOCK) if BLOCK in cells else 0
                continue
            told = cells[self._column] if self._column < len(cells) else ""
            if told.isascii() and told.isdigit():
                self.at(int(told))
            else:
                self.found(Name.CONTENT_INVALID, f"row {self.lines + 1}: {BLOCK} is {told!r}")
            self.lines += 1


class _Report(msgspec.Struct):
    height: int
    comparison: Line
    shadow: dict[str, msgspec.Raw]
    canonical: dict[str, msgspec.Raw]


class Report:
    """A divergence report: one JSON document, which has to be held whole to be read."""

    def __init__(self, key: str, name: Named) -> None:
        self.key = key
        self.name = name
        self.findings: list[Finding] = []
        self.lines = 0
        self.counts: Counter[str] = Counter()
        self.outline: Outline | None = None
        self._parts: list[bytes] | None = []
        self._held = 0

    def take(self, lines: Sequence[bytes]) -> None:
        if self._parts is None:
            return
        self._parts += lines
        self._held += sum(map(len, lines))
        if self._held > LARGEST_DOCUMENT:
            self._parts = None

    def end(self) -> None:
        if self._parts is None:
            self._found(Name.CONTENT_INVALID, f"larger than {LARGEST_DOCUMENT} bytes, which no report is")
            return
        try:
            found = msgspec.json.decode(b"\n".join(self._parts), type=_Report)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._found(Name.CONTENT_INVALID, f"not a divergence report: {error}")
            return
        finally:
            self._parts = []
        if not found.height == found.comparison.height == self.name.start:
            text = f"is of height {found.height} and compares {found.comparison.height}: its name says otherwise"
            self._found(Name.HEIGHTS_DIFFER, text)
        if found.comparison.match:
            self._found(Name.REPORT_CONTRADICTS, "reports a divergence, but its comparison is a match")
        self.outline = outline(found.comparison)

    def _found(self, name: Name, text: str) -> None:
        self.findings.append(Finding(name, self.key, text))


def checker(key: str, name: Named | None, reported: frozenset[int]) -> Checker | None:
    """The checker of an object by its name; None for one whose content is not ours to judge. `reported`: heights with a report."""
    if name is None:
        return None
    match name.kind:
        case Kind.COMPARE:
            return ComparePage(key, name, reported)
        case Kind.RECHECK:
            return Recheck(key, name)
        case Kind.EXPORT:
            return ExportPage(key, name)
        case Kind.HASHLOG:
            return HashLogSlice(key, name)
        case Kind.REPORT:
            return Report(key, name)
        case Kind.DIGEST | Kind.TREE:
            return None
