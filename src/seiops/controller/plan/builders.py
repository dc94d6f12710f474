"""Plans of a node: which tasks, in which order, with which parameters.

A plan is complete before it is stored: everything a task needs is in its persisted parameters, so that a change of
syncers, peers or configuration never reaches a plan on its way (docs/contracts/controller-behaviour.md 3.3 to 3.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from seiops.api.names import bootstrap_job_name
from seiops.api.node import DEFAULT_OPERATOR_KEY, GenesisCeremony, SeiNode, SnapshotSource
from seiops.api.status import ConditionStatus, NodePhase, PlannedTask, PlanPhase, TaskPlan, TaskStatus
from seiops.controller.appconfig import AppConfig
from seiops.controller.plan.catalogue import TaskType, persisted_retries
from seiops.controller.plan.ids import new_plan_id, task_id
from seiops.controller.plan.intent import config_intent, config_patch
from seiops.controller.plan.validation import validate
from seiops.controller.resources.containers import sidecar_image
from seiops.controller.resources.identity import node_key_secret, operator_keyring, signing_key_secret, snapshot

Step = tuple[TaskType, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What a plan needs besides its node. Peers and syncers are taken from the node's status."""

    platform: AppConfig
    new_id: Callable[[], str] = new_plan_id


def build(node: SeiNode, ctx: PlanContext) -> TaskPlan | None:
    """The plan a node without one needs now, None if it needs none.

    Raises PlanInvalidError: a node whose spec is refused gets no plan of any kind.
    """
    validate(node)
    if node.status.phase != NodePhase.RUNNING:
        return build_init(node, ctx)
    if image_drift(node, ctx.platform):
        return build_update(node, ctx)
    return build_mark_ready(ctx) if _is_closed(node) else None


def build_init(node: SeiNode, ctx: PlanContext) -> TaskPlan:
    """From nothing to a running node (docs/contracts/controller-behaviour.md 3.5 to 3.7)."""
    validator = node.spec.validator
    if validator is not None and validator.genesis_ceremony is not None:
        steps = _ceremony(node, validator.genesis_ceremony)
    elif uses_bootstrap_job(node):
        steps = _with_bootstrap_job(node)
    else:
        steps = [
            _on_node(node, TaskType.ENSURE_DATA_PVC),
            *_secret_gates(node),
            _on_node(node, TaskType.APPLY_RBAC_PROXY_CONFIG),
            _on_node(node, TaskType.APPLY_STATEFULSET),
            _on_node(node, TaskType.APPLY_SERVICE),
            *_progression(node, snapshot(node)),
        ]
    return _plan(ctx, steps, NodePhase.FAILED.value)


def build_update(node: SeiNode, ctx: PlanContext) -> TaskPlan:
    """Roll the node's Pod to new images; its failure leaves the node Running and is built again (3.8)."""
    return _plan(
        ctx,
        [
            *_secret_gates(node),
            _on_node(node, TaskType.APPLY_STATEFULSET),
            _on_node(node, TaskType.APPLY_SERVICE),
            (TaskType.CONFIG_PATCH, config_patch(node)),
            (TaskType.CONFIG_VALIDATE, {}),
            _on_node(node, TaskType.REPLACE_POD),
            _on_node(node, TaskType.OBSERVE_IMAGE),
            (TaskType.MARK_READY, {}),
        ],
        "",
    )


def build_mark_ready(ctx: PlanContext) -> TaskPlan:
    """Open the gate of a restarted sidecar again; only a new task id makes it run (7.2)."""
    return _plan(ctx, [(TaskType.MARK_READY, {})], "")


def image_drift(node: SeiNode, platform: AppConfig) -> str:
    """Message of `NodeUpdateInProgress` if a Running node is to be updated, empty if its images are as wanted.

    An empty `currentImage` is drift: every new node rolls once. An empty `currentSidecarImage` is not known yet.
    """
    status = node.status
    wanted, wanted_sidecar = node.spec.image, sidecar_image(node, platform)
    seid = wanted != status.current_image
    sidecar = bool(status.current_sidecar_image) and wanted_sidecar != status.current_sidecar_image
    of_seid = f"spec={wanted} current={status.current_image}"
    of_sidecar = f"spec={wanted_sidecar} current={status.current_sidecar_image}"
    if seid and sidecar:
        return f"image drift detected: seid {of_seid}; sidecar {of_sidecar}"
    if seid:
        return f"image drift detected: {of_seid}"
    return f"sidecar image drift detected: {of_sidecar}" if sidecar else ""


def uses_bootstrap_job(node: SeiNode) -> bool:
    """Whether an older image first brings the volume to a height (3.6)."""
    source = snapshot(node)
    validator = node.spec.validator
    if validator is not None and validator.genesis_ceremony is not None:
        return False
    return source is not None and bool(source.bootstrap_image) and source.s3 is not None and source.s3.target_height > 0


def awaits_bootstrap(node: SeiNode) -> bool:
    """Whether the data volume still belongs to the bootstrap Job: the StatefulSet must wait (difference D2).

    True for a bootstrap node until its init plan has completed `teardown-bootstrap`. Once there is a plan it decides: an
    edit of the spec does not take the volume away from a Job that runs.
    """
    if node.status.phase not in ("", NodePhase.PENDING, NodePhase.INITIALIZING):
        return False
    plan = node.status.plan
    if plan is None:
        return uses_bootstrap_job(node)
    return any(task.type == TaskType.TEARDOWN_BOOTSTRAP and task.status != TaskStatus.COMPLETE for task in plan.tasks)


def _plan(ctx: PlanContext, steps: Iterable[Step], failed_phase: str) -> TaskPlan:
    plan_id = ctx.new_id()
    return TaskPlan(
        id=plan_id,
        phase=PlanPhase.ACTIVE.value,
        tasks=[_task(plan_id, index, task_type, params) for index, (task_type, params) in enumerate(steps)],
        target_phase=NodePhase.RUNNING.value,
        failed_phase=failed_phase,
    )


def _task(plan_id: str, index: int, task_type: TaskType, params: dict[str, Any]) -> PlannedTask:
    return PlannedTask(
        type=task_type.value,
        id=task_id(plan_id, task_type.value, index),
        status=TaskStatus.PENDING.value,
        params=dict(sorted(params.items())),
        max_retries=persisted_retries(task_type),
    )


def _with_bootstrap_job(node: SeiNode) -> list[Step]:
    job = {"jobName": bootstrap_job_name(node.name), "namespace": node.namespace}
    return [
        _on_node(node, TaskType.ENSURE_DATA_PVC),
        _on_node(node, TaskType.APPLY_RBAC_PROXY_CONFIG),
        *_secret_gates(node),
        (TaskType.DEPLOY_BOOTSTRAP_SERVICE, {"serviceName": node.name, "namespace": node.namespace}),
        (TaskType.DEPLOY_BOOTSTRAP_JOB, job),
        *_progression(node, snapshot(node)),
        (TaskType.AWAIT_BOOTSTRAP_COMPLETE, job),
        (TaskType.TEARDOWN_BOOTSTRAP, {**job, "serviceName": node.name}),
        _on_node(node, TaskType.APPLY_STATEFULSET),
        _on_node(node, TaskType.APPLY_SERVICE),
        *_progression(node, None),
    ]


def _ceremony(node: SeiNode, ceremony: GenesisCeremony) -> list[Step]:
    """A validator that helps to create its chain; `configure-genesis` waits for the assembled genesis."""
    gentx = {
        "ChainID": ceremony.chain_id,
        "StakingAmount": ceremony.staking_amount,
        "AccountBalance": ceremony.account_balance,
    }
    return [
        _on_node(node, TaskType.ENSURE_DATA_PVC),
        _on_node(node, TaskType.APPLY_RBAC_PROXY_CONFIG),
        _on_node(node, TaskType.APPLY_STATEFULSET),
        _on_node(node, TaskType.APPLY_SERVICE),
        (TaskType.GENERATE_IDENTITY, {"ChainID": ceremony.chain_id, "Moniker": node.name}),
        (TaskType.GENERATE_GENTX, gentx),
        (TaskType.UPLOAD_GENESIS_ARTIFACTS, {"NodeName": node.name}),
        _configure_genesis(),
        (TaskType.CONFIG_APPLY, config_intent(node)),
        (TaskType.SET_GENESIS_PEERS, {}),
        (TaskType.CONFIG_VALIDATE, {}),
        (TaskType.MARK_READY, {}),
    ]


def _progression(node: SeiNode, source: SnapshotSource | None) -> list[Step]:
    """The sidecar's part: state, genesis, configuration, release (3.4). Of two sources the archive wins."""
    restore: list[Step] = []
    if source is not None and source.s3 is not None:
        restore = [(TaskType.SNAPSHOT_RESTORE, {"TargetHeight": source.s3.target_height})]
    witnesses = [(TaskType.CONFIGURE_STATE_SYNC, _state_sync(node, source))] if source is not None else []
    return [
        *restore,
        _configure_genesis(),
        (TaskType.CONFIG_APPLY, config_intent(node)),
        *witnesses,
        (TaskType.CONFIG_VALIDATE, {}),
        (TaskType.MARK_READY, {}),
    ]


def _state_sync(node: SeiNode, source: SnapshotSource) -> dict[str, Any]:
    return {
        "UseLocalSnapshot": source.s3 is not None,
        "TrustPeriod": source.trust_period,
        "BackfillBlocks": source.backfill_blocks,
        # An unset list is stored as null, as the Go controller's encoder does.
        "RpcServers": list(node.status.resolved_state_syncers) or None,
    }


def _configure_genesis() -> Step:
    return TaskType.CONFIGURE_GENESIS, {"ExpectedGenesisHash": ""}


def _secret_gates(node: SeiNode) -> list[Step]:
    """Checks of the Secrets a node mounts, before anything mounts them. A ceremony validator has no keys yet."""
    gates: list[Step] = []
    if secret := signing_key_secret(node):
        gates.append((TaskType.VALIDATE_SIGNING_KEY, {"secretName": secret, "namespace": node.namespace}))
    if secret := node_key_secret(node):
        gates.append((TaskType.VALIDATE_NODE_KEY, {"secretName": secret, "namespace": node.namespace}))
    if (keyring := operator_keyring(node)) is not None:
        reference = {
            "secretName": keyring.secret_name,
            "keyName": keyring.key_name or DEFAULT_OPERATOR_KEY,
            "passphraseSecretName": keyring.passphrase_secret_ref.secret_name,
            "passphraseSecretKey": keyring.passphrase_secret_ref.key,
            "namespace": node.namespace,
        }
        gates.append((TaskType.VALIDATE_OPERATOR_KEYRING, reference))
    return gates


def _on_node(node: SeiNode, task_type: TaskType) -> Step:
    return task_type, {"nodeName": node.name, "namespace": node.namespace}


def _is_closed(node: SeiNode) -> bool:
    """Whether the sidecar said in this pass that its gate is shut (condition SidecarReady)."""
    return any(
        condition.type == "SidecarReady"
        and condition.status == ConditionStatus.FALSE
        and condition.reason == "NotReady"
        for condition in node.status.conditions
    )
