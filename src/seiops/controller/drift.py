"""From a node without an active plan to the plan it needs, and from an ended plan to its outcome.

(docs/contracts/controller-behaviour.md 2.6, 3.3, 3.14; D11, D23)
"""

from __future__ import annotations

import time

from seiops.api.node import NodeCondition, NodeEndpoint, SeiNode, SidecarReason, UpdateReason
from seiops.api.status import NodePhase, PlanPhase, TaskPlan
from seiops.controller import statesync
from seiops.controller.conditions import FALSE, TRUE, UNKNOWN, condition, is_status, now, set_condition
from seiops.controller.executor import execute
from seiops.controller.intervals import IMMEDIATE
from seiops.controller.memory import NodeMemory
from seiops.controller.plan import PlanContext, build, image_drift
from seiops.controller.sidecar_client import Health, Probe
from seiops.controller.world import World


async def advance(node: SeiNode, world: World) -> float | None:
    """Probes a Running node, settles an ended plan, builds or runs the next. Returns when the node wants to go on.

    A plan is never run in the pass that builds it: it must be stored first. Raises PlanInvalidError.
    """
    memory = world.memory.of((node.namespace, node.name), node.metadata.uid)
    if node.status.phase == NodePhase.RUNNING.value:
        await _probe(node, memory, world)
    plan = node.status.plan
    if plan is None or plan.phase != PlanPhase.ACTIVE.value:
        wait = _wait_after_failure(node, plan, memory, world)
        if wait > 0:
            return wait
        return _replace(node, plan, world)
    wait = await execute(node, plan, world)
    if plan.phase != PlanPhase.ACTIVE.value:
        _note_end(node, plan, memory, world)
        world.metrics.plan_ended(node, plan)
    if node.status.phase == NodePhase.RUNNING.value:
        node.status.endpoint = endpoint(node)
    return wait


async def _probe(node: SeiNode, memory: NodeMemory, world: World) -> None:
    """Asks the sidecar unless the prober has just done so; its answer counts until a pass has stored it."""
    probe = memory.probe
    if probe is None:
        probe = await world.sidecars.health((node.namespace, node.name))
        world.metrics.probed(node.namespace, node.name, probe.health)
    memory.probed_at = time.monotonic()
    set_sidecar_ready(node, probe)


def set_sidecar_ready(node: SeiNode, probe: Probe) -> None:
    kind = NodeCondition.SIDECAR_READY
    match probe.health:
        case Health.READY:
            set_condition(node, kind, TRUE, SidecarReason.READY, "sidecar returned 200")
        case Health.NOT_READY:
            message = "sidecar returned 503, re-issuing mark-ready"
            set_condition(node, kind, FALSE, SidecarReason.NOT_READY, message)
        case Health.UNREACHABLE:
            message = f"sidecar Healthz error: {probe.error}"
            set_condition(node, kind, UNKNOWN, SidecarReason.UNREACHABLE, message)


def _wait_after_failure(node: SeiNode, plan: TaskPlan | None, memory: NodeMemory, world: World) -> float:
    """Seconds for which a failed plan of a Running node stays where it is: its failure must be seen, and a plan that
    keeps failing must not keep the sidecar busy (D23). A changed spec is tried at once, and what is not needed any more
    is dropped at once."""
    if plan is None or plan.phase != PlanPhase.FAILED.value or memory.plan_generation != node.metadata.generation:
        return 0.0
    sidecar = condition(node, NodeCondition.SIDECAR_READY)
    needed = image_drift(node, world.settings.platform) or is_status(sidecar, FALSE, SidecarReason.NOT_READY)
    return memory.plan_not_before - time.monotonic() if needed else 0.0


def _replace(node: SeiNode, ended: TaskPlan | None, world: World) -> float | None:
    """Drops the ended plan and stores the next one, if the node needs any."""
    if ended is not None:
        _settle_update(node, ended)
        node.status.plan = None
    if statesync.blocks_plan(node):
        return None
    platform = world.settings.platform
    plan = build(node, PlanContext(platform))
    if plan is None:
        return None
    node.status.plan = plan
    if node.status.phase in ("", NodePhase.PENDING.value):
        node.status.phase = NodePhase.INITIALIZING.value
        node.status.phase_transition_time = now()
    if node.status.phase == NodePhase.RUNNING.value and (message := image_drift(node, platform)):
        set_condition(node, NodeCondition.NODE_UPDATE_IN_PROGRESS, TRUE, UpdateReason.UPDATE_STARTED, message)
    world.metrics.plan_started(node, plan)
    return IMMEDIATE


def _settle_update(node: SeiNode, ended: TaskPlan) -> None:
    """The outcome of an update, told once its plan is dropped."""
    found = condition(node, NodeCondition.NODE_UPDATE_IN_PROGRESS)
    if found is None or found.status != TRUE.value:
        return
    kind = NodeCondition.NODE_UPDATE_IN_PROGRESS
    if ended.phase == PlanPhase.COMPLETE.value:
        set_condition(node, kind, FALSE, UpdateReason.UPDATE_COMPLETE, f"plan {ended.id} completed")
        return
    detail = ended.failed_task_detail
    why = f"task {detail.type}: {detail.error}" if detail is not None else "unknown"
    set_condition(node, kind, FALSE, UpdateReason.UPDATE_FAILED, f"plan {ended.id} failed: {why}")


def _note_end(node: SeiNode, plan: TaskPlan, memory: NodeMemory, world: World) -> None:
    if plan.phase == PlanPhase.COMPLETE.value:
        memory.plan_failures = 0
        return
    if node.status.phase != NodePhase.RUNNING.value:
        return
    _settle_update(node, plan)
    memory.plan_failures += 1
    memory.plan_generation = node.metadata.generation
    memory.plan_not_before = time.monotonic() + world.intervals.failed_plan(memory.plan_failures)


def endpoint(node: SeiNode) -> NodeEndpoint | None:
    """URLs of nodes that serve clients: full nodes and archives."""
    if node.spec.full_node is None and node.spec.archive is None:
        return node.status.endpoint
    host = f"{node.name}.{node.namespace}.svc"
    return NodeEndpoint(
        tendermint_rpc=f"http://{host}:26657",
        tendermint_rest=f"http://{host}:1317",
        evm_json_rpc=f"http://{host}:8545",
        evm_ws=f"ws://{host}:8546",
    )
