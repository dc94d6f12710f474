"""Conditions of a node: set if changed, and compared with what stood there when the pass began.

(docs/contracts/controller-behaviour.md 0, 2.3; D26: upstream compared a condition with itself)
"""

from __future__ import annotations

from datetime import UTC, datetime

from seiops.api.node import (
    NodeCondition,
    NodeWorkflowReason,
    PausedReason,
    SeiNode,
    SpecReason,
    UpdateReason,
)
from seiops.api.status import Condition, ConditionStatus

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def now() -> datetime:
    """The time as the wire has it: UTC, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def condition(node: SeiNode, kind: NodeCondition) -> Condition | None:
    """A copy: what it says stays what it said when asked."""
    found = _find(node, kind)
    return found.model_copy() if found is not None else None


def set_condition(node: SeiNode, kind: NodeCondition, status: ConditionStatus, reason: str, message: str) -> None:
    """The transition time moves only with the status; the rest is overwritten."""
    found = _find(node, kind)
    if found is None:
        found = Condition(type=kind.value, status="")
        node.status.conditions.append(found)
    if found.status != status.value:
        found.status = status.value
        found.last_transition_time = now()
    found.reason = str(reason)
    found.message = message
    found.observed_generation = node.metadata.generation


def is_status(found: Condition | None, status: ConditionStatus, reason: str) -> bool:
    return found is not None and found.status == status.value and found.reason == reason


def set_paused(node: SeiNode) -> None:
    if node.spec.paused:
        message = "spec.paused is true; reconciliation is frozen"
        set_condition(node, NodeCondition.PAUSED, TRUE, PausedReason.PAUSED, message)
    else:
        message = "spec.paused is unset or false"
        set_condition(node, NodeCondition.PAUSED, FALSE, PausedReason.NOT_PAUSED, message)


def seed_update(node: SeiNode) -> None:
    """D18: the condition stands from the first pass on, so that a tool may wait for it on any node."""
    if _find(node, NodeCondition.NODE_UPDATE_IN_PROGRESS) is None:
        kind = NodeCondition.NODE_UPDATE_IN_PROGRESS
        set_condition(node, kind, FALSE, UpdateReason.NO_UPDATE, "no update has been necessary so far")


def seed_workflow(node: SeiNode) -> None:
    """Stands from the first pass of a Running node on; later it changes only with a workflow."""
    kind = NodeCondition.WORKFLOW_IN_PROGRESS
    if _find(node, kind) is None:
        set_condition(node, kind, FALSE, NodeWorkflowReason.NO_WORKFLOW, "no workflow adopted")


def set_spec_valid(node: SeiNode) -> None:
    set_condition(node, NodeCondition.SPEC_VALID, TRUE, SpecReason.VALID, "the spec can be carried out")


def set_spec_invalid(node: SeiNode, reason: SpecReason, message: str) -> None:
    set_condition(node, NodeCondition.SPEC_VALID, FALSE, reason, message)


def _find(node: SeiNode, kind: NodeCondition) -> Condition | None:
    for found in node.status.conditions:
        if found.type == kind.value:
            return found
    return None
