"""Which heights a run covers and with what verdict, exactly: one byte a height, kept only where a line was read.

From it follow the counts, the holes, and the columns of a chart, however pages overlap (docs/contracts/shadow.md 9.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from seiops.evidence.blocks import CODES, SEVERITY

_CHUNK = 4096
_RUN = re.compile(rb"(.)\1*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Span:
    """Heights `start` to `end`, both included, with one verdict."""

    start: int
    end: int
    verdict: str

    @property
    def blocks(self) -> int:
        return self.end - self.start + 1


@dataclass(frozen=True, slots=True)
class Column:
    """A part of the range and how many of its heights have which verdict; `missing` are those nothing speaks of."""

    start: int
    end: int
    counts: dict[str, int]

    @property
    def blocks(self) -> int:
        return self.end - self.start + 1


@dataclass(slots=True)
class Ledger:
    _chunks: dict[int, bytearray] = field(default_factory=dict)
    first: int = 0
    last: int = 0

    def enter(self, height: int, verdict: str) -> str:
        """Records a verdict; a graver one that is there stays. Returns what was there before (`missing` for nothing)."""
        number, offset = divmod(height, _CHUNK)
        chunk = self._chunks.get(number)
        if chunk is None:
            chunk = self._chunks[number] = bytearray(_CHUNK)
            self.first = height if len(self._chunks) == 1 else self.first
        before, code = chunk[offset], CODES[verdict]
        chunk[offset] = max(before, code)
        self.first, self.last = min(self.first, height), max(self.last, height)
        return SEVERITY[before]

    @property
    def blocks(self) -> int:
        return sum(_CHUNK - chunk.count(0) for chunk in self._chunks.values())

    def counts(self) -> dict[str, int]:
        """Every verdict but `missing`, also those that did not occur."""
        return {
            name: sum(chunk.count(code) for chunk in self._chunks.values())
            for name, code in CODES.items()
            if name != "missing"
        }

    def spans(self) -> Iterator[Span]:
        """The range from the first to the last height in spans of equal verdict, holes included, in order."""
        if not self._chunks:
            return
        open_span: Span | None = None
        for start, end, code in self._pieces():
            verdict = SEVERITY[code]
            if open_span is not None and open_span.verdict == verdict and open_span.end + 1 == start:
                open_span = Span(open_span.start, end, verdict)
                continue
            if open_span is not None:
                yield open_span
            open_span = Span(start, end, verdict)
        if open_span is not None:
            yield open_span

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        at = self.first
        for number in sorted(self._chunks):
            base = number * _CHUNK
            if at < base:
                yield at, base - 1, 0
                at = base
            end = min(base + _CHUNK - 1, self.last)
            for run in _RUN.finditer(self._chunks[number], at - base, end - base + 1):
                yield base + run.start(), base + run.end() - 1, run.group()[0]
            at = end + 1

    def columns(self, wanted: int) -> list[Column]:
        """The range in at most `wanted` parts of equal width (the last may be narrower)."""
        if not self._chunks:
            return []
        width = -(-(self.last - self.first + 1) // wanted)
        return [
            self._column(start, min(start + width - 1, self.last)) for start in range(self.first, self.last + 1, width)
        ]

    def _column(self, start: int, end: int) -> Column:
        counts = dict.fromkeys(SEVERITY, 0)
        # only chunks that exist are visited: a range may be far wider than what was read of it
        numbers = range(start // _CHUNK, end // _CHUNK + 1)
        present = numbers if len(numbers) <= len(self._chunks) else [n for n in self._chunks if n in numbers]
        for number in present:
            chunk = self._chunks.get(number)
            if chunk is None:
                continue
            base = number * _CHUNK
            low, high = max(start - base, 0), min(end - base + 1, _CHUNK)
            for name, code in CODES.items():
                counts[name] += chunk.count(code, low, high)
        known = sum(count for name, count in counts.items() if name != "missing")
        counts["missing"] = end - start + 1 - known
        return Column(start, end, counts)
