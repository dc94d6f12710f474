"""Runs a stored plan: one task after the other, as far as one pass can get.

Everything happens in memory and is flushed by the caller. A task of the sidecar is submitted once and then only polled;
it is submitted again when the sidecar does not know it any more, or for a retry that the budget allows
(docs/contracts/controller-behaviour.md 3.13; D1, D6, D7, D30; rulings 8, 9).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from seiops.api.node import SeiNode
from seiops.api.status import FailedTaskDetail, PlannedTask, PlanPhase, TaskPlan, TaskStatus
from seiops.controller.conditions import now
from seiops.controller.intervals import IMMEDIATE
from seiops.controller.memory import NodeMemory
from seiops.controller.plan import Runner, TaskType, retry_budget, runner, wire
from seiops.controller.sidecar_client import RefusedError, SidecarError
from seiops.controller.tasks import HANDLERS, Outcome, TaskDelayedError, TaskFailedError
from seiops.controller.world import World
from seiops.kube import ApiError, Key

log = structlog.get_logger("plan")


_WOKEN = (TaskType.REPLACE_POD, TaskType.OBSERVE_IMAGE)
"""Tasks that wait for nothing but StatefulSet and Pod, whose watches wake the node. Polled as others are, a thousand
nodes that wait for their Pods would keep the controller busy with looking."""


@dataclass(frozen=True, slots=True)
class _Done:
    """The task is complete."""


@dataclass(frozen=True, slots=True)
class _Later:
    """Look again after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class _Failed:
    """The task failed; ``final``: whatever its budget says."""

    error: str
    final: bool


_Result = _Done | _Later | _Failed


async def execute(node: SeiNode, plan: TaskPlan, world: World) -> float:
    """Runs the active plan of the node until it has to wait or has ended. Returns the seconds until it wants to go on."""
    memory = world.memory.of((node.namespace, node.name), node.metadata.uid)
    while True:
        index = next((i for i, task in enumerate(plan.tasks) if task.status != TaskStatus.COMPLETE.value), None)
        if index is None:
            _complete(node, plan)
            return IMMEDIATE
        task = plan.tasks[index]
        result = await _step(node, task, memory, world)
        if isinstance(result, _Later):
            return result.seconds
        if isinstance(result, _Done):
            task.status = TaskStatus.COMPLETE.value
            task.error = ""
            continue
        if not result.final and task.retry_count < retry_budget(task.type, task.max_retries):
            return _schedule_retry(task, result.error, memory, world)
        _fail(node, plan, index, result.error)
        return IMMEDIATE


def awaits_stateful_set(plan: TaskPlan) -> bool:
    """The plan has come to `replace-pod` and waits for the StatefulSet's controller to see the latest template."""
    if plan.phase != PlanPhase.ACTIVE.value:
        return False
    waiting = next((task for task in plan.tasks if task.status != TaskStatus.COMPLETE.value), None)
    return waiting is not None and waiting.type == TaskType.REPLACE_POD and not waiting.error


def _complete(node: SeiNode, plan: TaskPlan) -> None:
    plan.phase = PlanPhase.COMPLETE.value
    if plan.target_phase:
        node.status.phase = plan.target_phase
        node.status.phase_transition_time = now()


def _fail(node: SeiNode, plan: TaskPlan, index: int, error: str) -> None:
    task = plan.tasks[index]
    task.status = TaskStatus.FAILED.value
    task.error = error
    plan.phase = PlanPhase.FAILED.value
    plan.failed_task_index = index
    plan.failed_task_detail = FailedTaskDetail(
        type=task.type, id=task.id, error=error, retry_count=task.retry_count, max_retries=task.max_retries
    )
    if plan.failed_phase:
        node.status.phase = plan.failed_phase
        node.status.phase_transition_time = now()


def _schedule_retry(task: PlannedTask, error: str, memory: NodeMemory, world: World) -> float:
    """The failed attempt stays readable: `error` says why, `submittedAt` when; both go with the next success."""
    task.retry_count += 1
    task.status = TaskStatus.PENDING.value
    task.error = error
    return _postpone(task, memory, world.intervals.retry(task.retry_count))


async def _step(node: SeiNode, task: PlannedTask, memory: NodeMemory, world: World) -> _Result:
    try:
        task_type = TaskType(task.type)
    except ValueError:
        return _Failed(f'unknown task type "{task.type}"', final=True)
    wait = _remaining_wait(task, memory, world)
    if wait > 0:
        return _Later(wait)
    if runner(task_type) is Runner.CONTROLLER:
        return await _run_here(node, task, task_type, world)
    return await _run_in_sidecar(node, task, runner(task_type), memory, world)


async def _run_here(node: SeiNode, task: PlannedTask, task_type: TaskType, world: World) -> _Result:
    params = task.params if isinstance(task.params, dict) else {}
    try:
        outcome = await HANDLERS[task_type](node, params, world)
    except TaskFailedError as error:
        task.submitted_at = task.submitted_at or _submission_time(task_type)
        return _Failed(str(error), final=True)
    except (TaskDelayedError, ApiError) as error:
        log.info("task delayed", task=task.type, namespace=node.namespace, name=node.name, error=str(error))
        return _Later(world.intervals.poll)
    if task.submitted_at is None:
        task.submitted_at = now()
    if outcome is Outcome.DONE:
        return _Done()
    return _Later(world.intervals.steady if task_type in _WOKEN else world.intervals.poll)


def _submission_time(task_type: TaskType) -> datetime | None:
    """A task whose end is awaited was under way when it failed; one that refused to start never was."""
    return now() if task_type is TaskType.AWAIT_BOOTSTRAP_COMPLETE else None


async def _run_in_sidecar(node: SeiNode, task: PlannedTask, kind: Runner, memory: NodeMemory, world: World) -> _Result:
    key = (node.namespace, node.name)
    try:
        if not _is_submitted(task):
            await _submit(key, task, memory, world)
            if kind is Runner.SIDECAR_FORGET:
                return _Done()
        answer = await world.sidecars.task(key, task.id)
        if answer is None:
            # The sidecar has lost the task (or never got it): give it the task once more, ask at the next poll.
            await _submit(key, task, memory, world)
            return _Later(world.intervals.poll)
    except wire.UndecodableTaskError as error:
        return _Failed(str(error), final=True)
    except (wire.SubmissionInvalidError, RefusedError) as error:
        task.error = str(error)
        memory.refusals = memory.refusals + 1 if memory.task == task.id else 1
        return _Later(_postpone(task, memory, world.intervals.refused(memory.refusals)))
    except SidecarError as error:
        log.info("sidecar does not answer", task=task.type, namespace=key[0], name=key[1], error=str(error))
        return _Later(world.intervals.poll)
    if answer.status == "completed":
        return _Done()
    if answer.status == "failed":
        return _Failed(answer.error or f"task {task.id} failed with unknown error", final=False)
    return _Later(world.intervals.poll)


async def _submit(key: Key, task: PlannedTask, memory: NodeMemory, world: World) -> None:
    await world.sidecars.submit(key, task.type, wire.body(task))
    memory.refusals = 0
    if task.status == TaskStatus.RUNNING.value:
        return
    task.status = TaskStatus.RUNNING.value
    if task.submitted_at is None or task.error:
        task.submitted_at = now()
    if task.retry_count == 0:
        # What was refused is accepted now. The error of a failed attempt stays until the task is complete.
        task.error = ""


def _is_submitted(task: PlannedTask) -> bool:
    """The Go controller leaves a submitted task Pending; ours is Running. Pending with an error waits for a retry."""
    if task.status == TaskStatus.RUNNING.value:
        return True
    return task.submitted_at is not None and not task.error


def _postpone(task: PlannedTask, memory: NodeMemory, seconds: float) -> float:
    memory.task = task.id
    memory.task_not_before = time.monotonic() + seconds
    return seconds


def _remaining_wait(task: PlannedTask, memory: NodeMemory, world: World) -> float:
    """Seconds until the task may be tried again, whatever woke the node (D30)."""
    if not task.error or task.status != TaskStatus.PENDING.value:
        return 0.0
    if memory.task == task.id:
        return memory.task_not_before - time.monotonic()
    if task.submitted_at is None:
        return 0.0
    # After a restart only the status is left: the attempt's beginning plus the back-off.
    since = (datetime.now(UTC) - task.submitted_at).total_seconds()
    return world.intervals.retry(task.retry_count) - since
