"""What the parts of the sidecar replay share: where the recordings are, which cases are wanted, where results go."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay.differences import DifferenceBook
from replay.report import CaseResult
from replay.sidecar_compare import Comparison
from replay.sidecar_stage import Stage
from seiops.sidecar import tasks

NOT_YET = "not yet in scope"


@dataclass
class World:
    golden: Path
    scratch: Path
    pattern: str
    book: DifferenceBook
    emit: Callable[[CaseResult], None]

    def wants(self, case: str) -> bool:
        return fnmatch.fnmatchcase(case, self.pattern)

    def comparison(self, case: str, content: Sequence[Any] = ()) -> Comparison:
        """`content`: requests and steps as the case recorded them, for differences that depend on them."""
        return Comparison(f"sidecar/{case}", self.book.for_case("sidecar", case, content), self.book)

    def skip(self, case: str, reason: str) -> None:
        self.emit(CaseResult(f"sidecar/{case}", "skip", reason))

    def stage(self, name: str) -> Stage:
        return Stage(self.scratch, name.replace("/", "-").replace(" ", "-"))


def offered(task_type: str) -> bool:
    """Whether our registry can run tasks of this type."""
    return tasks.find(task_type) is not None
