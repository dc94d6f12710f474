"""Metric families: recorded names, types, labels and buckets, and what upstream's got wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from seiops.api.node import SeiNode
from seiops.api.status import FailedTaskDetail, PlannedTask, TaskPlan
from seiops.controller.metrics import ControllerMetrics
from unit.controller import recorded

NODE_FAMILIES = [
    family
    for family in recorded.pack()["metrics"]
    if family["name"].startswith(("sei_controller_seinode_", "sei_controller_plan_"))
]


def node(phase: str = "", *, since: datetime | None = None) -> SeiNode:
    found = SeiNode.decode({"metadata": {"name": "n0", "namespace": "ns"}, "spec": {"chainId": "gold-1"}})
    found.status.phase = phase
    found.status.phase_transition_time = since
    return found


def active_plan() -> TaskPlan:
    task = PlannedTask(type="mark-ready", id="i", status="Pending", submitted_at=datetime.now(UTC))
    return TaskPlan(id="p", phase="Active", tasks=[task])


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> ControllerMetrics:
    return ControllerMetrics(registry)


def exercise(metrics: ControllerMetrics) -> None:
    running = node("Running", since=datetime.now(UTC))
    plan = active_plan()
    metrics.plan_started(running, plan)
    plan.phase = "Complete"
    metrics.plan_ended(running, plan)
    metrics.phase(node("Initializing", since=datetime.now(UTC)), "")
    metrics.phase(running, "Initializing")
    metrics.probed("ns", "n0", "ready")


@pytest.mark.parametrize("family", NODE_FAMILIES, ids=lambda family: family["name"])
def test_families_are_those_recorded(
    family: dict[str, object], metrics: ControllerMetrics, registry: CollectorRegistry
) -> None:
    exercise(metrics)
    name = str(family["name"])
    ours = {found.name: found for found in registry.collect()}[name.removesuffix("_total")]
    assert ours.type == family["type"]
    assert ours.samples
    sample = ours.samples[0]
    assert sample.name in (name, f"{name}_bucket")
    assert sorted(label for label in sample.labels if label != "le") == family["labels"]
    bounds = [float(s.labels["le"]) for s in ours.samples if s.name.endswith("_bucket")]
    assert sorted(set(bounds)) == sorted(float(str(bound)) for bound in family["buckets"])  # type: ignore[attr-defined]


def test_d10_active_plans_are_counted_once(metrics: ControllerMetrics, registry: CollectorRegistry) -> None:
    def active() -> float | None:
        return registry.get_sample_value("sei_controller_plan_active", {"controller": "seinode", "namespace": "ns"})

    running, plan = node("Running", since=datetime.now(UTC)), active_plan()
    metrics.plan_started(running, plan)
    running.status.plan = plan
    for _ in range(5):
        metrics.phase(running, "Running")
    assert active() == 1
    plan.phase = "Complete"
    metrics.plan_ended(running, plan)
    metrics.plan_ended(running, plan)
    assert active() == 0


def test_d10_active_plans_of_another_process_are_counted(
    metrics: ControllerMetrics, registry: CollectorRegistry
) -> None:
    taken_over = node("Initializing", since=datetime.now(UTC))
    taken_over.status.plan = active_plan()
    metrics.phase(taken_over, "Initializing")
    labels = {"controller": "seinode", "namespace": "ns"}
    assert registry.get_sample_value("sei_controller_plan_active", labels) == 1


def test_d10_a_phase_lasts_as_long_as_the_node_was_in_it(
    metrics: ControllerMetrics, registry: CollectorRegistry
) -> None:
    began = datetime(2024, 1, 1, tzinfo=UTC)
    metrics.phase(node("Initializing", since=began), "Initializing")
    metrics.phase(node("Running", since=began + timedelta(seconds=90)), "Initializing")
    labels = {"namespace": "ns", "chain_id": "gold-1", "phase": "Initializing"}
    assert registry.get_sample_value("sei_controller_seinode_phase_duration_seconds_sum", labels) == 90


def test_d10_series_of_a_deleted_node_are_removed(metrics: ControllerMetrics, registry: CollectorRegistry) -> None:
    exercise(metrics)
    metrics.probed("ns", "n0", "unreachable")
    metrics.forget("ns", "n0")
    metrics.forget("ns", "n0")
    left = [s for f in registry.collect() for s in f.samples if "n0" in (s.labels.get("name"), s.labels.get("node"))]
    assert left == []


def test_one_phase_is_current(metrics: ControllerMetrics, registry: CollectorRegistry) -> None:
    metrics.phase(node("Running", since=datetime.now(UTC)), "Running")
    values = {
        phase: registry.get_sample_value(
            "sei_controller_seinode_phase", {"namespace": "ns", "name": "n0", "phase": phase}
        )
        for phase in ("Pending", "Initializing", "Running", "Failed", "Terminating")
    }
    assert values == {"Pending": 0, "Initializing": 0, "Running": 1, "Failed": 0, "Terminating": 0}


def test_failures_that_alerts_ask_for(metrics: ControllerMetrics, registry: CollectorRegistry) -> None:
    plan = active_plan()
    plan.phase = "Failed"
    plan.failed_task_detail = FailedTaskDetail(type="config-apply", id="i", error="e")
    metrics.plan_ended(node("Failed"), plan)
    metrics.failed("ns")
    metrics.probed("ns", "n0", "unreachable")
    labels = {"controller": "seinode", "namespace": "ns"}
    failed_tasks = {**labels, "task_type": "config-apply"}
    assert registry.get_sample_value("sei_controller_task_failures_total", failed_tasks) == 1
    assert registry.get_sample_value("sei_controller_reconcile_errors_total", labels) == 1
    unreachable = {"namespace": "ns", "node": "n0"}
    assert registry.get_sample_value("sei_controller_sidecar_unreachable_total", unreachable) == 1
    outcome = {**labels, "plan_type": "mark-ready-reapply", "outcome": "failed"}
    assert registry.get_sample_value("sei_controller_plan_duration_seconds_count", outcome) == 1
