"""The controller's own metric families, under the names and labels that dashboards and alerts already use.

What upstream's said wrongly is right here (difference D10): active plans are a true count, a phase's duration is the
time really spent in it, series of deleted nodes go, and families that alerts refer to exist and are counted
(docs/contracts/controller-behaviour.md 1.8, docs/contracts/controller-api.md 6.4).
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from seiops.api.node import SeiNode
from seiops.api.status import NodePhase, PlanPhase, TaskPlan
from seiops.controller.plan import plan_type

CONTROLLER = "seinode"
"""Value of the label `controller` for everything about SeiNodes."""

PHASE_BUCKETS = (10, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)
PLAN_BUCKETS = (1, 5, 10, 30, 60, 120, 300, 600, 1800)

NodeKey = tuple[str, str]


class ControllerMetrics:
    """All families about SeiNodes in one registry. What is kept per node goes with `forget`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._phase = Gauge(
            "sei_controller_seinode_phase",
            "1 for the phase a node is in, 0 for the others",
            ["namespace", "name", "phase"],
            registry=registry,
        )
        self._transitions = Counter(
            "sei_controller_seinode_phase_transitions",
            "Changes of a node's phase",
            ["controller", "namespace", "from_phase", "to_phase"],
            registry=registry,
        )
        self._phase_seconds = Histogram(
            "sei_controller_seinode_phase_duration_seconds",
            "Time a node spent in the phase it left",
            ["namespace", "chain_id", "phase"],
            buckets=PHASE_BUCKETS,
            registry=registry,
        )
        self._plan_seconds = Histogram(
            "sei_controller_plan_duration_seconds",
            "Time from the first task of a plan to its end",
            ["controller", "namespace", "plan_type", "outcome"],
            buckets=PLAN_BUCKETS,
            registry=registry,
        )
        self._active_plans = Gauge(
            "sei_controller_plan_active",
            "Plans that are being executed",
            ["controller", "namespace"],
            registry=registry,
        )
        self._probes = Counter(
            "sei_controller_seinode_sidecar_health_probes",
            "Health questions to sidecars by outcome",
            ["controller", "namespace", "outcome"],
            registry=registry,
        )
        self._ready = Gauge(
            "sei_controller_seinode_sidecar_ready",
            "1 if the node's sidecar said that it is ready",
            ["namespace", "name"],
            registry=registry,
        )
        self._unreachable = Counter(
            "sei_controller_sidecar_unreachable",
            "Health questions that got no usable answer",
            ["namespace", "node"],
            registry=registry,
        )
        self._task_failures = Counter(
            "sei_controller_task_failures",
            "Tasks that failed their plan",
            ["controller", "namespace", "task_type"],
            registry=registry,
        )
        self._errors = Counter(
            "sei_controller_reconcile_errors",
            "Passes that ended with an error",
            ["controller", "namespace"],
            registry=registry,
        )
        self._since: dict[NodeKey, datetime] = {}
        self._active: dict[str, set[str]] = {}

    def phase(self, node: SeiNode, before: str) -> None:
        """The node's stored status after a pass; `before` is the phase the pass began with."""
        key = (node.namespace, node.name)
        current = node.status.phase
        self._note_plan(node)
        # a node without a phase has its series too, all 0: that is how an alert sees one that is held at the gate
        for phase in NodePhase:
            self._phase.labels(*key, phase.value).set(phase.value == current)
        if not current:
            return
        entered = node.status.phase_transition_time or datetime.now(UTC)
        if current != before:
            self._transitions.labels(CONTROLLER, node.namespace, before, current).inc()
            self._observe_left(node, before, entered)
            self._since[key] = entered
        # A Running node's time is stamped anew by every update; the phase goes on.
        self._since.setdefault(key, entered)

    def plan_started(self, node: SeiNode, plan: TaskPlan) -> None:
        """A plan was built for the node."""
        if plan.phase == PlanPhase.ACTIVE.value:
            self._set_active(node.namespace, node.name)

    def plan_ended(self, node: SeiNode, plan: TaskPlan) -> None:
        """A plan has just become Complete or Failed."""
        self._set_inactive(node.namespace, node.name)
        kind = plan_type([task.type for task in plan.tasks])
        outcome = "complete" if plan.phase == PlanPhase.COMPLETE.value else "failed"
        started = next((task.submitted_at for task in plan.tasks if task.submitted_at is not None), None)
        if started is not None:
            seconds = (datetime.now(UTC) - started).total_seconds()
            self._plan_seconds.labels(CONTROLLER, node.namespace, kind, outcome).observe(max(0.0, seconds))
        if plan.failed_task_detail is not None:
            self._task_failures.labels(CONTROLLER, node.namespace, plan.failed_task_detail.type).inc()

    def probed(self, namespace: str, name: str, outcome: str) -> None:
        """One health question was answered: `ready`, `not_ready` or `unreachable`."""
        self._probes.labels(CONTROLLER, namespace, outcome).inc()
        self._ready.labels(namespace, name).set(outcome == "ready")
        if outcome == "unreachable":
            self._unreachable.labels(namespace, name).inc()

    def failed(self, namespace: str) -> None:
        """A pass over a node of this namespace ended with an error."""
        self._errors.labels(CONTROLLER, namespace).inc()

    def forget(self, namespace: str, name: str) -> None:
        """The node is gone: its series go with it."""
        self._since.pop((namespace, name), None)
        self._set_inactive(namespace, name)
        for phase in NodePhase:
            _remove(self._phase, namespace, name, phase.value)
        _remove(self._ready, namespace, name)
        _remove(self._unreachable, namespace, name)

    def _observe_left(self, node: SeiNode, left: str, entered: datetime) -> None:
        """Upstream reads the time after it has been stamped anew; we remember when the phase that is left began."""
        since = self._since.get((node.namespace, node.name))
        if since is None and not left:
            since = node.metadata.creation_timestamp
        if since is not None:
            seconds = max(0.0, (entered - since).total_seconds())
            self._phase_seconds.labels(node.namespace, node.spec.chain_id, left).observe(seconds)

    def _note_plan(self, node: SeiNode) -> None:
        """Keeps the count right for plans that another process began."""
        plan = node.status.plan
        if plan is not None and plan.phase == PlanPhase.ACTIVE.value:
            self._set_active(node.namespace, node.name)
        else:
            self._set_inactive(node.namespace, node.name)

    def _set_active(self, namespace: str, name: str) -> None:
        active = self._active.setdefault(namespace, set())
        active.add(name)
        self._active_plans.labels(CONTROLLER, namespace).set(len(active))

    def _set_inactive(self, namespace: str, name: str) -> None:
        active = self._active.get(namespace)
        if active is None or name not in active:
            return
        active.discard(name)
        self._active_plans.labels(CONTROLLER, namespace).set(len(active))


def _remove(family: Gauge | Counter, *labels: str) -> None:
    # Removal by exact labels: by a part of them it would look through the series of the whole fleet.
    with suppress(KeyError):
        family.remove(*labels)
