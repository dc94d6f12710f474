"""What an area gets to work with: the recordings' folder, the case filter, the listed differences, how wide to run."""

from __future__ import annotations

import fnmatch
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay.differences import DifferenceBook

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_GOLDEN = ROOT.parent / "shared" / "golden"
AREAS = ("admission", "objects", "flows", "sidecar", "stores", "chain")


@dataclass(frozen=True)
class ReplayContext:
    """One invocation of the harness.

    `golden` is a folder laid out like the recordings, `case_glob` an `fnmatch` pattern on case names (None = all), `names`
    the cases of a second try,
    `scratch` a directory the area may fill (one sub-directory per area; removed at the end), `lanes` how many
    independent set-ups (API server, controller, stand-ins) may run at once.
    """

    golden: Path
    differences: DifferenceBook
    scratch: Path
    case_glob: str | None = None
    names: frozenset[str] | None = None
    lanes: int = 2
    root: Path = ROOT
    python: str = field(default_factory=lambda: sys.executable)

    def area_dir(self, area: str) -> Path:
        return self.golden / area

    def wants(self, case: str) -> bool:
        if self.names is not None:
            return case in self.names
        return self.case_glob is None or fnmatch.fnmatchcase(case, self.case_glob)


def read_jsonl(path: Path) -> list[Any]:
    """All values of a JSON-lines file; blank lines are skipped. A broken line is an error that names file and line."""
    return list(iterate_jsonl(path))


def iterate_jsonl(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not JSON: {error}") from error
