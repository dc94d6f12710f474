"""Compares the stored states of one object with the recorded ones (ruling 1).

Two sequences agree if they can be walked through side by side, each step forward on one side or both, such that the two
states under the feet are always equal: how often a state was stored again does not count, which states there were and in
which order does. Listed differences may make two states equal, or let one side step over a state of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from replay import sequence
from replay.compare import deviations, shown
from replay.differences import CaseRules
from replay.sequence import Incarnation, PlanNumbers

STREAM = "status"
_Cell = tuple[int, int]
"""Numbers of a recorded and of a produced state, from 0; -1 is the place before the first."""
_START: _Cell = (-1, -1)


@dataclass
class Verdict:
    """`number`: line of our state at which the recording ended; `cut`: ours went on after that. `alone`: a listed
    difference says that the object's life is another one from somewhere on. `plans`: recorded plan -> ours."""

    parted: list[str] = field(default_factory=list)
    number: int = 0
    cut: bool = False
    alone: bool = False
    plans: dict[str, str] = field(default_factory=dict)


def compare_states(theirs: Incarnation, ours: Incarnation, rules: CaseRules) -> Verdict:
    recorded = [sequence.comparable(line) for line in theirs.lines]
    produced = [sequence.comparable(line) for line in ours.lines]
    if any(rules.stands_alone(STREAM, state) for state in produced):
        return Verdict(alone=True)
    walk = _Walk(sequence.sequence_of(recorded), sequence.sequence_of(produced), rules.silent())
    end = walk.end()
    if end is None:
        whole, (walk, end) = walk, _divergence(walk, produced, rules)
        if end is None:
            return Verdict([f"{theirs.key}: {whole.where_they_part()}"])
    path = walk.path_to(end)
    for cell in path:
        walk.settle(cell, rules)
    matched = [cell for cell in path if cell not in walk.steps_over]
    last = matched[-1][1] if matched else 0
    cut = last < len(ours.lines) - 1
    alone = len(walk.ours) < len(produced)
    left_out = walk.left_out(path)
    kept = [state for number, state in enumerate(recorded[: end[0] + 1]) if number not in left_out[0]]
    made = [state for number, state in enumerate(produced[: last + 1]) if number not in left_out[1]]
    parted = list(_followed(theirs.key, kept, made, cut))
    return Verdict(parted, ours.lines[last]["n"], cut, alone, _plan_pairs(theirs, ours, matched))


class _Walk:
    """All ways to walk through both sequences, found cell by cell."""

    def __init__(self, theirs: list[dict[str, Any]], ours: list[dict[str, Any]], rules: CaseRules) -> None:
        self.theirs = theirs
        self.ours = ours
        self._rules = rules
        self._from: dict[_Cell, _Cell] = {}
        self.steps_over: set[_Cell] = set()

    def end(self) -> _Cell | None:
        """The cell at which the comparison ends, or None if no way leads there."""
        self._explore()
        whole = (len(self.theirs) - 1, len(self.ours) - 1)
        if whole in self._from:
            return whole
        if self.theirs and _goes_on(self.theirs[-1]):
            return max((cell for cell in self._from if cell[0] == whole[0]), default=None)
        return None

    def end_of_ours(self) -> _Cell | None:
        """The furthest cell of the recording at which all of ours is used up."""
        self._explore()
        return max((cell for cell in self._from if cell[1] == len(self.ours) - 1), default=None)

    def path_to(self, end: _Cell) -> list[_Cell]:
        path = [end]
        while self._from[path[-1]] != _START:
            path.append(self._from[path[-1]])
        return path[::-1]

    def left_out(self, path: list[_Cell]) -> tuple[set[int], set[int]]:
        """Numbers of the states on either side that a listed difference stepped over."""
        theirs, ours = set(), set()
        for cell in path:
            if cell in self.steps_over and self._from[cell][1] != cell[1]:
                ours.add(cell[1])
            elif cell in self.steps_over:
                theirs.add(cell[0])
        return theirs, ours

    def settle(self, cell: _Cell, rules: CaseRules) -> None:
        """Note the listed differences that this step of the way needed."""
        if cell not in self.steps_over:
            rules.compare(STREAM, self.theirs[cell[0]], self.ours[cell[1]])
            return
        before = self._from[cell]
        if before[1] != cell[1]:
            rules.may_be_extra(STREAM, self.ours[cell[1]], self._before(cell[1]))
        else:
            rules.may_be_missing(STREAM, self.theirs[cell[0]])

    def _explore(self) -> None:
        self._from = {}
        reachable = {_START}
        for i in range(-1, len(self.theirs)):
            for j in range(-1, len(self.ours)):
                if (i, j) != _START and (step := self._step_to((i, j), reachable)) is not None:
                    reachable.add((i, j))
                    self._from[(i, j)] = step

    def _step_to(self, cell: _Cell, reachable: set[_Cell]) -> _Cell | None:
        i, j = cell
        if i >= 0 and j >= 0 and self._equal(i, j):
            for before in ((i - 1, j - 1), (i, j - 1), (i - 1, j)):
                if before in reachable and before[0] >= -1 and before[1] >= -1 and _starts_together(before, cell):
                    return before
        if j >= 0 and (i, j - 1) in reachable and self._rules.may_be_extra(STREAM, self.ours[j], self._before(j)):
            self.steps_over.add(cell)
            return (i, j - 1)
        if i >= 0 and (i - 1, j) in reachable and self._rules.may_be_missing(STREAM, self.theirs[i]):
            self.steps_over.add(cell)
            return (i - 1, j)
        return None

    def _before(self, j: int) -> dict[str, Any] | None:
        return self.ours[j - 1] if j > 0 else None

    def _equal(self, i: int, j: int) -> bool:
        return not self._rules.compare(STREAM, self.theirs[i], self.ours[j])

    def where_they_part(self) -> str:
        """At the furthest place that any way reaches."""
        i, j = max(self._from, default=_START)
        where = f"state {i + 2} of {len(self.theirs)}"
        if i + 1 >= len(self.theirs):
            return f"state {j + 2} is one more than recorded: {_title(self.ours[j + 1])}"
        if j + 1 >= len(self.ours):
            return f"{where} ({_title(self.theirs[i + 1])}) was never reached"
        theirs, ours = self.theirs[i + 1], self.ours[j + 1]
        left = self._rules.compare(STREAM, theirs, ours) or list(deviations(theirs, ours))
        return f"{where} ({_title(theirs)}; ours: {_title(ours)}): {'; '.join(map(str, left[:3]))}"


def _divergence(walk: _Walk, produced: list[dict[str, Any]], rules: CaseRules) -> tuple[_Walk, _Cell | None]:
    """The walk up to the first place where a listed difference lets ours leave the recording, if there is one."""
    for at, state in enumerate(produced):
        if not any(rules.silent().diverges(STREAM, state, other) for other in (*walk.theirs, None)):
            continue
        shorter = _Walk(walk.theirs, walk.ours[:at], rules.silent())
        end = shorter.end_of_ours()
        after = None if end is None or end[0] + 1 >= len(walk.theirs) else walk.theirs[end[0] + 1]
        if end is not None and rules.diverges(STREAM, state, after):
            return shorter, end
    return walk, None


def _starts_together(before: _Cell, cell: _Cell) -> bool:
    """Only the diagonal leads out of the start: a state can be stored again once it was reached on both sides."""
    return -1 not in before or before == (cell[0] - 1, cell[1] - 1)


def _goes_on(last: dict[str, Any]) -> bool:
    """The recording ends with a plan that is not cleaned up yet, and with a node that did not fail: we requeue at once
    when a plan is done (D11), so ours goes on where the recording stopped."""
    plan = last["status"].get("plan")
    return not last["deleted"] and plan is not None and plan["phase"] in ("Active", "Complete")


def _title(state: dict[str, Any]) -> str:
    plan = state["status"].get("plan")
    words = ["deleted" if state["deleted"] else state["status"].get("phase", "no phase")]
    if plan is not None:
        words.append(f"{plan['id']} {plan['phase']}")
    return " ".join(words)


def _followed(key: str, theirs: list[dict[str, Any]], ours: list[dict[str, Any]], cut: bool) -> Iterator[str]:
    recorded, produced = (PlanNumbers().apply(sequence.followed(states)) for states in (theirs, ours))
    for name, values in recorded.items():
        if values != produced[name] and not (cut and _is_beginning(values, produced[name])):
            yield f"{key}: {name} went {shown(values, 600)}, ours {shown(produced[name], 600)}"


def _is_beginning(values: list[Any], others: list[Any]) -> bool:
    shorter = min(len(values), len(others))
    return values[:shorter] == others[:shorter]


def _plan_pairs(theirs: Incarnation, ours: Incarnation, matched: list[_Cell]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for i, j in matched:
        recorded, produced = _plan(theirs.lines[i]), _plan(ours.lines[j])
        if recorded and produced:
            pairs.setdefault(recorded, produced)
    return pairs


def _plan(line: dict[str, Any]) -> str | None:
    plan = (line.get("status") or {}).get("plan")
    return None if plan is None else str(plan["id"]).removeprefix("<").removesuffix(">")
