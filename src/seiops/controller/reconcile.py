"""The story of one SeiNode, top to bottom: gate, StatefulSet, peers, plan, one status patch.

Each stage changes the status in memory; only its edges talk to the API server. Whatever a stage could not do is written
into the status as well, before the pass ends in an error (docs/contracts/controller-behaviour.md 2.4; D5).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import structlog

from seiops.api import FieldProblem, UndecodableError
from seiops.api.names import FieldOwner, Finalizer
from seiops.api.node import NodeCondition, NodeEvent, SeiNode, SidecarReason, SpecReason
from seiops.api.status import Condition, NodePhase, PlanPhase
from seiops.controller import deletion, drift, statefulset, statesync
from seiops.controller.conditions import (
    FALSE,
    TRUE,
    condition,
    is_status,
    seed_update,
    seed_workflow,
    set_paused,
    set_spec_invalid,
    set_spec_valid,
)
from seiops.controller.executor import awaits_stateful_set
from seiops.controller.kinds import SEI_NODES
from seiops.controller.memory import NodeMemory, Unstored
from seiops.controller.merge import merge_patch
from seiops.controller.peering import static_problems
from seiops.controller.plan import PlanInvalidError, awaits_bootstrap, validate
from seiops.controller.resources import RenderError, proxy_config, service
from seiops.controller.statefulset import StatefulSetError
from seiops.controller.world import World
from seiops.kube import Key, Obj, key_of
from seiops.kube.client.resource import CONFIG_MAPS, SERVICES
from seiops.kube.manager import ExpectedError

MANAGER = FieldOwner.MANAGER.value
_SPEC_FAULTS = ("Invalid", "BadRequest", "Forbidden", "RequestEntityTooLarge")
"""Refusals of the API server that the spec or the configuration has to answer for."""

log = structlog.get_logger("seinode")


@dataclass(frozen=True, slots=True)
class _Before:
    """What was stored when the pass began."""

    status: dict[str, Any]
    phase: str
    sync: Condition | None
    sidecar: Condition | None


async def reconcile(key: Key, world: World) -> float | None:
    """One pass. Returns the seconds until the node wants the next one, None if only a change should bring it back."""
    raw = world.caches.nodes.get(key)
    if raw is None:
        world.memory.forget(key)
        world.metrics.forget(*key)
        return None
    if raw["metadata"].get("deletionTimestamp"):
        await deletion.finalize(raw, world)
        return None
    if Finalizer.NODE.value not in (raw["metadata"].get("finalizers") or ()):
        raw = await _add_finalizer(raw, world)
    try:
        node = _decode(raw)
    except UndecodableError as error:
        await _mark_undecodable(raw, error, world)
        return None
    return await _reconcile_node(node, raw, world)


async def _reconcile_node(node: SeiNode, raw: Obj, world: World) -> float | None:
    before = _Before(
        node.status.wire(),
        node.status.phase,
        condition(node, NodeCondition.STATE_SYNC_READY),
        condition(node, NodeCondition.SIDECAR_READY),
    )
    set_paused(node)
    seed_update(node)
    statesync.resolve(node, world.syncers)
    memory = world.memory.of((node.namespace, node.name), node.metadata.uid)
    probe = memory.probe
    _recall(node, memory)
    try:
        wait = await _stages(node, raw, world)
    except StatefulSetError as error:
        message = f"Cannot render the StatefulSet: {error}"
        world.events.event(raw, "Warning", NodeEvent.STATEFUL_SET_RENDER_FAILED.value, message)
        if isinstance(error.cause, RenderError) or getattr(error.cause, "reason", "") in _SPEC_FAULTS:
            set_spec_invalid(node, SpecReason.RENDER_FAILED, str(error))
        await _flush(node, raw, before, world)
        raise ExpectedError(str(error)) from error
    except PlanInvalidError as error:
        set_spec_invalid(node, SpecReason.PLAN_INVALID, str(error))
        await _flush(node, raw, before, world)
        raise ExpectedError(str(error)) from error
    if (hold := _hold_back(node, before, memory, world)) > 0:
        return hold if wait is None else min(wait, hold)
    await _flush(node, raw, before, world)
    memory.unstored = None
    if memory.probe is probe:
        memory.probe = None
    return wait


async def _stages(node: SeiNode, raw: Obj, world: World) -> float | None:
    status = node.status
    if status.phase == NodePhase.FAILED.value:
        await _scale_failed(node, world)
        return None
    if not _is_held(node):
        await statefulset.sync(node, world)
    if node.spec.paused:
        _tell_spec(node)
        return None
    if status.phase == NodePhase.RUNNING.value:
        await _keep_companions(node, world)
        seed_workflow(node)
    peering = await world.peers.resolve(node)
    if peering.sorted() != status.resolved_peers:
        status.resolved_peers = peering.sorted()
    if status.adopted_workflow is not None:
        # Another controller's workflow works on the node; nothing of ours may run beside it.
        return world.intervals.steady
    wait = await drift.advance(node, world)
    _tell_spec(node)
    if status.phase == NodePhase.RUNNING.value and status.endpoint is None:
        status.endpoint = drift.endpoint(node)
    return _next_pass(node, wait, peering.unresolved, world)


def _tell_spec(node: SeiNode) -> None:
    """Whether the spec could be carried out, also where nobody asks: a paused node, or one whose plan is older than an
    edit. What is wrong with peers alone holds nothing up."""
    try:
        validate(node)
    except PlanInvalidError as error:
        set_spec_invalid(node, SpecReason.PLAN_INVALID, str(error))
        return
    if problems := static_problems(node):
        set_spec_invalid(node, SpecReason.PEERS_INVALID, "; ".join(problems))
    else:
        set_spec_valid(node)


def _is_held(node: SeiNode) -> bool:
    """The StatefulSet must not be made yet: no witnesses (2.4), or the volume still belongs to the bootstrap Job (D2)."""
    if node.status.stateful_set is None and statesync.blocks_plan(node):
        return True
    return awaits_bootstrap(node)


async def _keep_companions(node: SeiNode, world: World) -> None:
    """Service and proxy configuration come back when somebody deletes them (D29)."""
    await world.ensure(SERVICES, service(node))
    await world.ensure(CONFIG_MAPS, proxy_config(node))


async def _scale_failed(node: SeiNode, world: World) -> None:
    """A failed node is left as it failed, but pausing it must free its machine, and unpausing must give it back (D18)."""
    kept = world.caches.stateful_sets.get((node.namespace, node.name))
    wanted = 0 if node.spec.paused else 1
    if kept is not None and kept["spec"].get("replicas") != wanted:
        await statefulset.scale(node, wanted, world)


def _next_pass(node: SeiNode, wait: float | None, peers_unresolved: bool, world: World) -> float | None:
    """The earliest of what the stages ask for. A healthy node asks for little: probes run outside of passes (ruling 16)."""
    intervals = world.intervals
    waits = [intervals.resync] if wait is None else [wait]
    if peers_unresolved:
        waits.append(intervals.steady)
    return min(waits)


def _hold_back(node: SeiNode, before: _Before, memory: NodeMemory, world: World) -> float:
    """Seconds for which the pass's outcome need not be stored, because it is nothing but an update on its way to
    `replace-pod`. The StatefulSet's controller answers in no time, but not in the same pass: a write for each node that
    rolls, of a state nobody can make use of."""
    plan = node.status.plan
    if plan is None or not awaits_stateful_set(plan):
        return 0.0
    patch = merge_patch(before.status, node.status.wire())
    if patch.keys() != {"plan"} or patch["plan"].keys() != {"tasks"}:
        return 0.0
    known = memory.unstored
    since = known.since if known is not None and known.plan == plan.id else time.monotonic()
    memory.unstored = Unstored(since, plan.id, plan.tasks)
    return since + world.intervals.steady - time.monotonic()


def _recall(node: SeiNode, memory: NodeMemory) -> None:
    """Progress that was held back is part of the node."""
    plan, known = node.status.plan, memory.unstored
    if plan is not None and known is not None and plan.id == known.plan and plan.phase == PlanPhase.ACTIVE.value:
        plan.tasks = known.tasks


async def _flush(node: SeiNode, raw: Obj, before: _Before, world: World) -> None:
    """The pass's one status patch, guarded by the version that was read; then what the change is worth telling."""
    patch = merge_patch(before.status, node.status.wire())
    if patch:
        await _store_status(raw, patch, world)
    _tell(node, raw, before, world)
    world.metrics.phase(node, before.phase)


async def _store_status(raw: Obj, patch: dict[str, Any], world: World) -> None:
    namespace, name = key_of(raw)
    stored = await world.client.patch(
        SEI_NODES,
        name,
        namespace,
        {"status": patch},
        field_manager=MANAGER,
        subresource="status",
        resource_version=raw["metadata"]["resourceVersion"],
    )
    world.caches.nodes.record(stored)


def _tell(node: SeiNode, raw: Obj, before: _Before, world: World) -> None:
    """Events of what has changed since the pass began: on every change into a state, once (2.8; D18, D26)."""
    events = world.events
    sync = condition(node, NodeCondition.STATE_SYNC_READY)
    if sync is not None and statesync.is_blocked(sync) and not statesync.is_blocked(before.sync):
        message = (
            f'state sync enabled but not ready for chain "{node.spec.chain_id}" ({sync.reason}); not building plan'
        )
        events.event(raw, "Warning", NodeEvent.STATE_SYNC_BLOCKED.value, message)
    sidecar = condition(node, NodeCondition.SIDECAR_READY)
    if is_status(sidecar, FALSE, SidecarReason.NOT_READY) and not is_status(
        before.sidecar, FALSE, SidecarReason.NOT_READY
    ):
        message = "sidecar Healthz returned 503; controller will re-issue mark-ready"
        events.event(raw, "Warning", NodeEvent.SIDECAR_READINESS_LOST.value, message)
    if is_status(sidecar, TRUE, SidecarReason.READY) and is_status(before.sidecar, FALSE, SidecarReason.NOT_READY):
        message = "sidecar Healthz returned 200; mark-ready gate is open"
        events.event(raw, "Normal", NodeEvent.SIDECAR_READINESS_RESTORED.value, message)
    phase = node.status.phase
    if phase != before.phase:
        message = f"Phase changed from {before.phase} to {phase}"
        events.event(raw, "Normal", NodeEvent.PHASE_TRANSITION.value, message)
        log.info("phase changed", namespace=node.namespace, name=node.name, before=before.phase, after=phase)
    if phase == NodePhase.FAILED.value and before.phase != phase:
        message = "SeiNode is in Failed state. Delete and recreate the resource to retry."
        events.event(raw, "Warning", NodeEvent.NODE_FAILED.value, message)


async def _add_finalizer(raw: Obj, world: World) -> Obj:
    """A merge patch of nothing but the finalizers, so that no field of the user changes hands (D28)."""
    namespace, name = key_of(raw)
    finalizers = [*(raw["metadata"].get("finalizers") or ()), Finalizer.NODE.value]
    stored = await world.client.patch(
        SEI_NODES,
        name,
        namespace,
        {"metadata": {"finalizers": finalizers}},
        field_manager=MANAGER,
        resource_version=raw["metadata"]["resourceVersion"],
    )
    world.caches.nodes.record(stored)
    return stored


def _decode(raw: Obj) -> SeiNode:
    if not isinstance(raw.get("spec"), dict):
        namespace, name = key_of(raw)
        problem = FieldProblem("spec", "nothing", "where a spec with chainId, image and one mode belongs")
        raise UndecodableError(SEI_NODES.kind, namespace, name, (problem,))
    return SeiNode.decode(raw)


async def _mark_undecodable(raw: Obj, error: UndecodableError, world: World) -> None:
    """The object says what is wrong with it and is left alone until it changes; all others go on (D27)."""
    log.error("object cannot be decoded", error=str(error))
    bare = SeiNode.decode({**raw, "spec": {}, "status": _readable_status(raw)})
    before = bare.status.wire()
    set_spec_invalid(bare, SpecReason.UNDECODABLE, error.detail)
    patch = merge_patch(before, bare.status.wire())
    if patch:
        await _store_status(raw, patch, world)


def _readable_status(raw: Obj) -> Obj:
    """The stored status, or only its conditions if the rest is what cannot be decoded."""
    status = raw.get("status") or {}
    try:
        SeiNode.decode({**raw, "spec": {}, "status": status})
    except UndecodableError:
        return {"conditions": status.get("conditions") or []}
    return dict(status)
