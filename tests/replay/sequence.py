"""Status sequences of one object, made comparable by ruling 1: consecutive states of a plan that differ only in task
progress, `submittedAt` or `observedGeneration` are one state, and a poll that found nothing is none.

Two kinds of fields tell when the controller looked rather than what it did, and are followed each on its own, apart
from the sequence of states: what running tasks stamp (images, the gates' conditions: pass boundaries inside a plan
depend on timing) and `SidecarReady`, which samples a Pod that is being replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from replay.texts import names_refused_endpoint, without_foreign_words

TASK_STAMPED = ("currentImage", "currentSidecarImage")
GATE_CONDITIONS = ("ImportPVCReady", "SigningKeyReady", "NodeKeyReady", "OperatorKeyringReady")
PROBE = "SidecarReady"
GATE = "StateSyncReady"
_PLAN = re.compile(r"<(?P<task>task:)?plan-(?P<number>[^>/]+)(?P<rest>/[^>]*)?>")


@dataclass(frozen=True)
class Incarnation:
    """All states of one object from its creation on: `key` is `Kind/name`, with `#2` for a second one of the name."""

    key: str
    lines: list[dict[str, Any]]


def incarnations(lines: Iterable[dict[str, Any]]) -> list[Incarnation]:
    current: dict[str, Incarnation] = {}
    counts: dict[str, int] = {}
    found: list[Incarnation] = []
    for line in lines:
        name = f"{line['kind']}/{line['name']}"
        if line["event"] == "ADDED" or name not in current:
            counts[name] = counts.get(name, 0) + 1
            key = name if counts[name] == 1 else f"{name}#{counts[name]}"
            current[name] = Incarnation(key, [])
            found.append(current[name])
        current[name].lines.append(line)
    return found


def comparable(line: dict[str, Any]) -> dict[str, Any]:
    """A stored state as it is compared: conditions by type, progress and times taken out, all else verbatim."""
    status = dict(without_foreign_words(line.get("status") or {}))
    conditions = conditions_by_type(status.pop("conditions", []))
    plan = status.get("plan")
    if plan is not None:
        status["plan"] = _plan(plan)
    gate: dict[str, Any] = next((c for c in (line.get("status") or {}).get("conditions", []) if c["type"] == GATE), {})
    return {
        "refusesEndpoint": names_refused_endpoint(gate.get("message", "")),
        "object": f"{line['kind']}/{line['name']}",
        "deleted": line["event"] == "DELETED",
        "deleting": bool(line.get("deleting")),
        "finalizers": line["finalizers"],
        "status": {**status, "conditions": conditions},
    }


def conditions_by_type(conditions: Iterable[dict[str, Any]]) -> dict[str, Any]:
    left_out = ("type", "observedGeneration", "lastTransitionTime")
    return {c["type"]: {name: value for name, value in c.items() if name not in left_out} for c in conditions}


def _plan(plan: dict[str, Any]) -> dict[str, Any]:
    left_out = {"submittedAt"}
    if plan["phase"] == "Active":
        left_out |= {"status", "error", "retryCount"}
    tasks = [{name: value for name, value in task.items() if name not in left_out} for task in plan["tasks"]]
    return {**plan, "tasks": tasks}


def sequence_of(states: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The states without what is followed apart, plans numbered from 1."""
    numbering = PlanNumbers()
    return [numbering.apply(_without_followed(state)) for state in states]


def _without_followed(state: dict[str, Any]) -> dict[str, Any]:
    status = dict(state["status"])
    left_out = {PROBE}
    if _plan_phase(status) == "Active":
        left_out |= set(GATE_CONDITIONS)
        for name in TASK_STAMPED:
            status.pop(name, None)
    status["conditions"] = {name: value for name, value in status["conditions"].items() if name not in left_out}
    return {**state, "status": status}


def followed(states: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """The distinct values, in order, of each field that is followed apart."""
    states = list(states)
    found: dict[str, list[Any]] = {}
    for name in TASK_STAMPED:
        found[name] = _changes(state["status"].get(name) for state in states)
    for name in GATE_CONDITIONS:
        found[name] = _changes(_condition(state, name) for state in states if not _waits_for_binding(state, name))
    found[PROBE] = _changes(_condition(state, PROBE) for state in states if not _samples_a_moment(state))
    return found


def _waits_for_binding(state: dict[str, Any], name: str) -> bool:
    """A claim that the cluster has not bound yet: whether a pass falls into that moment is chance."""
    message = (_condition(state, name) or {}).get("message", "")
    return '" phase is "Pending"' in message


def _samples_a_moment(state: dict[str, Any]) -> bool:
    """A probe that ran out of time, which we ask for once more, or met no Pod."""
    message = (_condition(state, PROBE) or {}).get("message", "")
    return message.endswith("context deadline exceeded") or _pod_is_away(state)


def _pod_is_away(state: dict[str, Any]) -> bool:
    """A probe that met the gap between two Pods, or a Pod that an update plan has just replaced."""
    status = state["status"]
    probe = _condition(state, PROBE) or {}
    if probe.get("reason") == "Unreachable" and "no such host" in probe.get("message", ""):
        return True
    replaces = any(task["type"] == "replace-pod" for task in (status.get("plan") or {}).get("tasks", []))
    return replaces and probe.get("status") != "True"


def _condition(state: dict[str, Any], name: str) -> Any:
    return state["status"]["conditions"].get(name)


def _plan_phase(status: dict[str, Any]) -> str | None:
    plan = status.get("plan")
    return None if plan is None else plan["phase"]


def _changes(values: Iterable[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if not kept or kept[-1] != value:
            kept.append(value)
    return kept


class PlanNumbers:
    """Numbers plans from 1 in the order in which they are met here, so that another object's plans do not count."""

    def __init__(self) -> None:
        self._numbers: dict[str, str] = {}

    @property
    def known(self) -> dict[str, str]:
        """From the number in the record to the number here."""
        return self._numbers

    def apply(self, value: Any) -> Any:
        if isinstance(value, str):
            return _PLAN.sub(self._renamed, value) if "plan-" in value else value
        if isinstance(value, dict):
            # The plan before the conditions that speak of it or of the one before it: messages name older plans.
            return {name: self.apply(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.apply(item) for item in value]
        return value

    def _renamed(self, found: re.Match[str]) -> str:
        number = self._numbers.setdefault(found["number"], str(len(self._numbers) + 1))
        return f"<{found['task'] or ''}plan-{number}{found['rest'] or ''}>"
