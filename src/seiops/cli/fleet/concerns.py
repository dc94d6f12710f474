"""What is wrong with a node and what to do about it, worst first.

Each rule reads the node and what surrounds it and yields concerns. The fleet's table shows the first one of a node,
`seiops explain` all of them. Reasons are those of the conditions (docs/contracts/controller-api.md 2.5), so that what
is read here can be looked up there; ``page`` is the place in docs/ that has the whole story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from seiops.api.names import data_claim_name, pod_name
from seiops.api.node import (
    NodeCondition,
    NodeWorkflowReason,
    SidecarReason,
    SpecReason,
    StateSyncReason,
    UpdateReason,
)
from seiops.api.status import Condition, ConditionStatus, NodePhase, PlanPhase, TaskStatus
from seiops.cli.fleet.view import NodeView, elapsed
from seiops.controller.plan import TaskType
from seiops.kube import Obj

UNSEEN_SECONDS = 30.0
"""A controller that runs has looked at a new node long before."""
STUCK_DELETION_SECONDS = 60.0
CONTROLLER_LOG = "kubectl logs -n sei-k8s-controller-system deploy/sei-k8s-controller-manager"


class Severity(IntEnum):
    """In the order in which a person wants to hear of them."""

    STOPPED = 0
    """Nothing more happens until somebody acts."""
    BLOCKED = 1
    """Waits for something outside; goes on by itself when that is there."""
    FAILING = 2
    """Is tried again and again and fails."""
    NOTE = 3
    """Worth knowing."""


@dataclass(frozen=True, slots=True)
class Concern:
    severity: Severity
    reason: str
    what: str
    do: tuple[str, ...] = ()
    page: str = ""

    def wire(self) -> dict[str, Any]:
        return {
            "severity": self.severity.name.lower(),
            "reason": self.reason,
            "what": self.what,
            "do": list(self.do),
            "page": self.page,
        }


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Objects around the node. None: there is none, or (see ``seen``) nobody looked."""

    seen: bool = False
    pod: Obj | None = None
    claim: Obj | None = None
    stateful_set: Obj | None = None
    unreadable: tuple[str, ...] = field(default=())
    """What could not be read, with the API server's words."""


def concerns(view: NodeView, around: Surroundings, now: datetime | None = None) -> list[Concern]:
    """All concerns, worst first; within one severity in the order of the rules."""
    found = (concern for rule in _RULES for concern in rule(view, around, now or datetime.now(UTC)))
    return sorted(found, key=lambda concern: concern.severity)


def _condition(view: NodeView, kind: NodeCondition) -> Condition | None:
    return next((found for found in view.node.status.conditions if found.type == kind.value), None)


def _flags(view: NodeView) -> str:
    return f"{view.node.name} -n {view.node.namespace}"


def _deletion(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    asked = view.node.metadata.deletion_timestamp
    if asked is None:
        return
    if (now - asked).total_seconds() < STUCK_DELETION_SECONDS:
        yield Concern(Severity.NOTE, "Terminating", f"is being deleted, for {elapsed(asked, now)}")
        return
    what = f"deletion was asked for {elapsed(asked, now)} ago and the finalizer is still there"
    do = ("Is the controller running, and has it its Role in this namespace?", CONTROLLER_LOG)
    yield Concern(Severity.STOPPED, "Terminating", what, do, "troubleshooting.md#a-node-does-not-go-away")


def _unseen(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    node = view.node
    created = node.metadata.creation_timestamp
    if node.status.conditions or node.status.phase or created is None:
        return
    if (now - created).total_seconds() < UNSEEN_SECONDS:
        return
    what = f"no controller has looked at it in {elapsed(created, now)}"
    do = (
        "kubectl get deploy,pods -n sei-k8s-controller-system",
        f"Does a controller that runs with --namespaces leave {node.namespace} out? Does it hold its Role here?",
        CONTROLLER_LOG,
    )
    yield Concern(Severity.STOPPED, "Unseen", what, do, "troubleshooting.md#nothing-happens-to-a-new-node")


def _unreadable(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    if not view.unreadable:
        return
    do = (f"kubectl edit seinode {_flags(view)}", "Bring the named fields into range; it is taken up at once.")
    page = "failure-modes.md#a-spec-that-cannot-be-carried-out"
    yield Concern(Severity.STOPPED, SpecReason.UNDECODABLE.value, view.unreadable, do, page)


def _failed(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    status = view.node.status
    if status.phase != NodePhase.FAILED.value:
        return
    detail = status.plan.failed_task_detail if status.plan is not None else None
    cause = f"task {detail.type} failed: {detail.error}" if detail is not None else "its first plan failed"
    volume = view.node.spec.data_volume
    kept = volume is not None and volume.import_ is not None
    claim = "The imported claim stays." if kept else f"The claim {data_claim_name(view.node.name)} goes with it."
    do = (
        *_advice_for(detail.type if detail is not None else "", view),
        f"kubectl get seinode {_flags(view)} -o yaml > node.yaml; kubectl delete seinode {_flags(view)}; "
        "kubectl create -f node.yaml (without status)",
        claim,
    )
    yield Concern(Severity.STOPPED, "Failed", cause, do, "failure-modes.md#a-node-fails-for-good")


def _spec(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    found = _condition(view, NodeCondition.SPEC_VALID)
    if found is None or found.status != ConditionStatus.FALSE.value or view.unreadable:
        return
    page = "failure-modes.md#a-spec-that-cannot-be-carried-out"
    do = (f"kubectl edit seinode {_flags(view)}", "A changed spec is looked at again at once.")
    yield Concern(Severity.STOPPED, found.reason, found.message, do, page)


def _paused(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    if not view.node.spec.paused:
        return
    do = (f"""kubectl patch seinode {_flags(view)} --type=merge -p '{{"spec":{{"paused":false}}}}'""",)
    what = "spec.paused is set: no Pod, and nothing is done"
    yield Concern(Severity.STOPPED, "Paused", what, do, "troubleshooting.md#pausing-a-node")


def _syncers(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    found = _condition(view, NodeCondition.STATE_SYNC_READY)
    if found is None or found.status == ConditionStatus.TRUE.value:
        return
    if found.reason not in (StateSyncReason.NO_SYNCERS_CONFIGURED.value, StateSyncReason.SYNCER_SOURCE_ERROR.value):
        return
    chain = view.chain
    if found.reason == StateSyncReason.SYNCER_SOURCE_ERROR.value:
        do: tuple[str, ...] = (
            "Correct what the message names in the controller's config file; it is read again at once.",
            "seiops controller check-config FILE",
        )
        page = "failure-modes.md#the-syncer-list-cannot-be-read"
    else:
        do = (
            f"Register at least two syncers under stateSync.syncers.{chain}, checked with: seiops syncers check FILE",
            f"or declare at least two rpcServers in this node's snapshot (seiops syncers check --node {_flags(view)})",
        )
        page = "failure-modes.md#a-chain-has-no-syncers"
    if view.node.status.phase == NodePhase.RUNNING.value:
        what = f"runs, but could not state-sync again: {found.message}"
        yield Concern(Severity.NOTE, found.reason, what, do, page)
    else:
        yield Concern(Severity.BLOCKED, found.reason, found.message, do, page)


_GATES = (
    (NodeCondition.IMPORT_PVC_READY, "validators.md#importing-a-volume"),
    (NodeCondition.SIGNING_KEY_READY, "validators.md#the-keys"),
    (NodeCondition.NODE_KEY_READY, "validators.md#the-keys"),
    (NodeCondition.OPERATOR_KEYRING_READY, "validators.md#the-operator-keyring"),
)


def _gates(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    for kind, page in _GATES:
        found = _condition(view, kind)
        if found is None or found.status == ConditionStatus.TRUE.value:
            continue
        final = found.reason.endswith("Invalid")
        do = ("Correct what the message names." if final else "It is looked at again every few seconds.",)
        yield Concern(Severity.STOPPED if final else Severity.BLOCKED, found.reason, found.message, do, page)


def _task(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    step = view.step
    if step is None or step.phase != PlanPhase.ACTIVE.value or not step.error:
        return
    if step.status == TaskStatus.PENDING.value and step.attempt == 1:
        what = f"the sidecar refuses task {step.task}: {step.error}"
    else:
        what = f"task {step.task} failed, attempt {step.attempt} of {step.attempts}: {step.error}"
    page = "failure-modes.md#a-task-keeps-failing"
    yield Concern(Severity.FAILING, "TaskError", what, tuple(_advice_for(step.task, view)), page)


def _update(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    found = _condition(view, NodeCondition.NODE_UPDATE_IN_PROGRESS)
    if found is None or found.reason != UpdateReason.UPDATE_FAILED.value:
        return
    do = (
        "It is tried again, at growing intervals up to ten minutes, and at once when the spec changes.",
        f"""To go back: kubectl patch seinode {_flags(view)} --type=merge -p '{{"spec":{{"image":"{view.node.status.current_image}"}}}}'""",
    )
    yield Concern(Severity.FAILING, found.reason, found.message, do, "failure-modes.md#an-update-fails")


def _workflow(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    found = _condition(view, NodeCondition.WORKFLOW_IN_PROGRESS)
    adopted = view.node.status.adopted_workflow
    if found is None or adopted is None:
        return
    if found.reason == NodeWorkflowReason.FAILED_HELD.value:
        do = (f"kubectl describe seinodetaskworkflow {adopted.name} -n {view.node.namespace}",)
        yield Concern(Severity.STOPPED, found.reason, found.message, do)
    else:
        yield Concern(Severity.NOTE, found.reason, found.message)


def _sidecar(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    found = _condition(view, NodeCondition.SIDECAR_READY)
    if found is None or found.status == ConditionStatus.TRUE.value or view.phase != NodePhase.RUNNING.value:
        return
    since = elapsed(found.last_transition_time, now)
    if found.reason == SidecarReason.NOT_READY.value:
        what = f"the sidecar has restarted and holds seid back until it is marked ready again, for {since}"
        yield Concern(Severity.FAILING, found.reason, what, (), "failure-modes.md#a-sidecar-restarts")
        return
    do = (
        f"kubectl get pod {pod_name(view.node.name)} -n {view.node.namespace}",
        f"kubectl logs {pod_name(view.node.name)} -n {view.node.namespace} -c sei-sidecar",
        "401 or 403 in the message: the component node-namespace is not applied in this namespace.",
    )
    page = "failure-modes.md#a-sidecar-cannot-be-reached"
    yield Concern(Severity.FAILING, found.reason, f"for {since}: {found.message}", do, page)


def _stale(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    generation = view.node.metadata.generation
    found = _condition(view, NodeCondition.PAUSED)
    if found is None or found.observed_generation in (0, generation):
        return
    what = f"the controller has seen generation {found.observed_generation} of the spec, not yet {generation}"
    yield Concern(Severity.NOTE, "StaleStatus", what, (CONTROLLER_LOG,))


def _pod(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    if not around.seen or around.stateful_set is None:
        return
    name, page = pod_name(view.node.name), "troubleshooting.md#the-pod-does-not-start"
    describe = f"kubectl describe pod {name} -n {view.node.namespace}"
    if around.pod is None:
        if not view.node.spec.paused:
            what = f"the StatefulSet has no Pod {name}"
            do = (f"kubectl describe statefulset {_flags(view)}",)
            yield Concern(Severity.BLOCKED, "NoPod", what, do, page)
        return
    status = around.pod.get("status") or {}
    for found in status.get("conditions") or ():
        if found["type"] == "PodScheduled" and found["status"] != "True":
            what = f"Pod {name} has no machine: {found.get('message') or found.get('reason', '')}"
            yield Concern(Severity.BLOCKED, found.get("reason") or "Unscheduled", what, (describe,), page)
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    for container in containers:
        yield from _container(container, view, page)


def _container(container: Obj, view: NodeView, page: str) -> Iterator[Concern]:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason = str(waiting.get("reason") or "")
    name = container["name"]
    if reason and reason not in ("PodInitializing", "ContainerCreating"):
        last = ((container.get("lastState") or {}).get("terminated")) or {}
        ended = f", last exit {last['exitCode']} ({last.get('reason', '')})" if "exitCode" in last else ""
        what = f"container {name}: {reason}: {waiting.get('message', '')}{ended}".rstrip(": ")
        do = (f"kubectl logs {pod_name(view.node.name)} -n {view.node.namespace} -c {name} --previous",)
        yield Concern(Severity.FAILING, reason, what, do, page)


def _claim(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    if around.claim is None:
        return
    phase = (around.claim.get("status") or {}).get("phase", "")
    name = around.claim["metadata"]["name"]
    if phase == "Lost":
        yield Concern(Severity.STOPPED, "ClaimLost", f"the volume behind claim {name} is gone", (), "")
    elif phase == "Pending" and around.pod is not None:
        do = (f"kubectl describe pvc {name} -n {view.node.namespace}",)
        what = f"claim {name} has no volume yet (class {around.claim['spec'].get('storageClassName', 'default')})"
        page = "troubleshooting.md#the-pod-does-not-start"
        yield Concern(Severity.BLOCKED, "ClaimPending", what, do, page)


def _old_template(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    if around.pod is None or around.stateful_set is None:
        return
    wanted = (around.stateful_set.get("status") or {}).get("updateRevision")
    runs = (around.pod["metadata"].get("labels") or {}).get("controller-revision-hash")
    if not wanted or not runs or wanted == runs:
        return
    what = "the Pod runs on an older template than the StatefulSet has; it is replaced at the next image change"
    do = (f"To replace it now: kubectl delete pod {pod_name(view.node.name)} -n {view.node.namespace}",)
    yield Concern(Severity.NOTE, "OlderTemplate", what, do, "takeover.md#one-revision-no-restart")


def _blind(view: NodeView, around: Surroundings, now: datetime) -> Iterator[Concern]:
    for what in around.unreadable:
        yield Concern(Severity.NOTE, "NotRead", what, (), "kubectl-plugin.md#rights")


_Rule = Callable[[NodeView, Surroundings, datetime], Iterable[Concern]]
_RULES: tuple[_Rule, ...] = (
    _deletion, _unreadable, _failed, _spec, _paused, _unseen, _syncers, _gates, _task, _update, _workflow,
    _pod, _claim, _sidecar, _stale, _old_template, _blind,
)  # fmt: skip


def _advice_for(task: str, view: NodeView) -> Iterator[str]:
    """What usually is behind a failure of that task."""
    pod = f"{pod_name(view.node.name)} -n {view.node.namespace}"
    match task:
        case TaskType.CONFIGURE_STATE_SYNC:
            syncers = ", ".join(view.node.status.resolved_state_syncers) or "none"
            yield f"Its witnesses: {syncers}. Check them: seiops syncers check --node {_flags(view)}"
        case TaskType.SNAPSHOT_RESTORE:
            yield "Is there a snapshot of the chain in the bucket, may the Pod read it, is the volume large enough?"
            yield f"kubectl logs {pod} -c sei-sidecar"
        case TaskType.CONFIGURE_GENESIS:
            yield "Is the chain's genesis in the genesis bucket, or built into the sidecar for this chain id?"
        case TaskType.CONFIG_APPLY | TaskType.CONFIG_VALIDATE | TaskType.CONFIG_PATCH:
            yield "Compare spec.overrides with the keys of the configuration; the error names the key."
        case TaskType.VALIDATE_SIGNING_KEY | TaskType.VALIDATE_NODE_KEY | TaskType.VALIDATE_OPERATOR_KEYRING:
            yield "Correct the Secret it names."
        case TaskType.ENSURE_DATA_PVC:
            yield f"kubectl describe pvc {data_claim_name(view.node.name)} -n {view.node.namespace}"
        case TaskType.REPLACE_POD | TaskType.OBSERVE_IMAGE:
            yield f"kubectl describe pod {pod}"
        case TaskType.AWAIT_BOOTSTRAP_COMPLETE | TaskType.DEPLOY_BOOTSTRAP_JOB:
            yield f"kubectl logs job/{view.node.name}-bootstrap -n {view.node.namespace} --all-containers"
        case _:
            yield f"kubectl logs {pod} -c sei-sidecar"
