"""How results are said: one line a case as it ends, and the three counts alone on the last line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

Outcome = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class CaseResult:
    """`detail` is the first difference of a failed case or the reason of a skipped one, `more` its other differences;
    `differences` are the ids of listed differences that a passed case needed."""

    name: str
    outcome: Outcome
    detail: str = ""
    differences: Sequence[str] = ()
    more: Sequence[str] = ()

    def line(self) -> str:
        parts = [f"{self.outcome:<4} {self.name}"]
        if self.detail:
            parts.append(": " + " ".join(self.detail.split("\n")))
        if self.differences:
            parts.append(" [listed: " + ", ".join(sorted(set(self.differences))) + "]")
        return "".join(parts)


class Report:
    """`every` prints all differences of a failed case, indented under its line, not only the first."""

    def __init__(self, out: TextIO, every: bool = False) -> None:
        self._out = out
        self._every = every
        self._counts: Counter[str] = Counter()

    def add(self, result: CaseResult) -> None:
        self._counts[result.outcome] += 1
        print(result.line(), file=self._out, flush=True)
        if self._every:
            for difference in result.more:
                print(f"       {difference}", file=self._out, flush=True)

    def finish(self) -> int:
        """Print the counts; the process's exit code."""
        passed, failed, skipped = (self._counts[outcome] for outcome in ("pass", "fail", "skip"))
        print(f"{passed} passed, {failed} failed, {skipped} skipped", file=self._out, flush=True)
        return 1 if failed else 0
