"""One SeiNode as a row: what it is, where its plan stands, what holds it up. Pure functions of the stored object."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from seiops.api import UndecodableError
from seiops.api.meta import rfc3339
from seiops.api.node import SeiNode
from seiops.api.status import PlannedTask, TaskPlan, TaskStatus
from seiops.controller.plan import plan_type, retry_budget
from seiops.controller.resources import role
from seiops.kube import Key, Obj


@dataclass(frozen=True, slots=True)
class PlanStep:
    """Where a stored plan stands. ``attempt`` counts from 1, ``attempts`` is how many the budget allows in total."""

    plan: str
    phase: str
    done: int
    total: int
    task: str
    status: str
    attempt: int
    attempts: int
    error: str
    submitted: datetime | None

    def wire(self) -> dict[str, Any]:
        found: dict[str, Any] = {"type": self.plan, "phase": self.phase, "done": self.done, "total": self.total}
        if self.task:
            found |= {"task": self.task, "taskStatus": self.status, "attempt": self.attempt, "attempts": self.attempts}
        if self.error:
            found["error"] = self.error
        if self.submitted is not None:
            found["submittedAt"] = rfc3339(self.submitted)
        return found


@dataclass(frozen=True, slots=True)
class NodeView:
    """``unreadable`` names the fields of an object that cannot be decoded; the rest is then what could be read."""

    node: SeiNode
    unreadable: str
    step: PlanStep | None

    @property
    def key(self) -> Key:
        return self.node.namespace, self.node.name

    @property
    def chain(self) -> str:
        return self.node.spec.chain_id

    @property
    def role(self) -> str:
        return role(self.node).value

    @property
    def phase(self) -> str:
        if self.node.metadata.deletion_timestamp is not None:
            return "Terminating"
        return self.node.status.phase

    @property
    def since(self) -> datetime | None:
        """When the phase began; a node without one waits since its creation."""
        return self.node.status.phase_transition_time or self.node.metadata.creation_timestamp


def view(raw: Obj) -> NodeView:
    """The object as far as it can be read."""
    try:
        node, unreadable = SeiNode.decode(raw), ""
        if not isinstance(raw.get("spec"), dict):
            unreadable = "spec: nothing where a spec belongs"
    except UndecodableError as error:
        node, unreadable = _readable(raw), error.detail
    return NodeView(node, unreadable, step_of(node.status.plan))


def step_of(plan: TaskPlan | None) -> PlanStep | None:
    if plan is None:
        return None
    done = sum(task.status == TaskStatus.COMPLETE.value for task in plan.tasks)
    kind = plan_type([task.type for task in plan.tasks])
    task = current_task(plan)
    if task is None:
        return PlanStep(kind, plan.phase, done, len(plan.tasks), "", "", 0, 0, "", None)
    attempts = 1 + retry_budget(task.type, task.max_retries)
    return PlanStep(
        kind, plan.phase, done, len(plan.tasks), task.type, task.status, task.retry_count + 1, attempts, task.error,
        task.submitted_at,
    )  # fmt: skip


def current_task(plan: TaskPlan) -> PlannedTask | None:
    """The first task that is not complete."""
    return next((task for task in plan.tasks if task.status != TaskStatus.COMPLETE.value), None)


def _readable(raw: Obj) -> SeiNode:
    """Metadata and status of an object whose spec (or status) holds what does not fit; the chain where it is a text."""
    spec = raw.get("spec")
    chain = spec.get("chainId") if isinstance(spec, dict) else None
    kept = {"chainId": chain} if isinstance(chain, str) else {}
    status = raw.get("status") or {}
    for candidate in (status, {"phase": status.get("phase"), "conditions": status.get("conditions") or []}, {}):
        try:
            return SeiNode.decode({**raw, "spec": kept, "status": candidate})
        except UndecodableError:
            continue
    metadata = {name: raw["metadata"].get(name) or "" for name in ("name", "namespace")}
    return SeiNode.decode({"metadata": metadata})


def elapsed(moment: datetime | None, now: datetime | None = None) -> str:
    """As kubectl writes ages: 45s, 12m, 3h40m, 6d."""
    if moment is None:
        return ""
    seconds = max(0, int(((now or datetime.now(UTC)) - moment).total_seconds()))
    if seconds < 120:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{hours // 24}d"
