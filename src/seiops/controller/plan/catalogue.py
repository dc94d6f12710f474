"""Task types: who runs them, how their end is noticed, how often they are repeated.

(docs/contracts/controller-behaviour.md 3.12; budgets as ruled for differences D1 and D7 in docs/differences.md)
"""

from __future__ import annotations

from enum import Enum, StrEnum


class TaskType(StrEnum):
    ENSURE_DATA_PVC = "ensure-data-pvc"
    VALIDATE_SIGNING_KEY = "validate-signing-key"
    VALIDATE_NODE_KEY = "validate-node-key"
    VALIDATE_OPERATOR_KEYRING = "validate-operator-keyring"
    APPLY_RBAC_PROXY_CONFIG = "apply-rbac-proxy-config"
    APPLY_STATEFULSET = "apply-statefulset"
    APPLY_SERVICE = "apply-service"
    REPLACE_POD = "replace-pod"
    OBSERVE_IMAGE = "observe-image"
    DEPLOY_BOOTSTRAP_SERVICE = "deploy-bootstrap-service"
    DEPLOY_BOOTSTRAP_JOB = "deploy-bootstrap-job"
    AWAIT_BOOTSTRAP_COMPLETE = "await-bootstrap-complete"
    TEARDOWN_BOOTSTRAP = "teardown-bootstrap"
    SNAPSHOT_RESTORE = "snapshot-restore"
    CONFIGURE_GENESIS = "configure-genesis"
    CONFIG_APPLY = "config-apply"
    CONFIGURE_STATE_SYNC = "configure-state-sync"
    CONFIG_PATCH = "config-patch"
    CONFIG_VALIDATE = "config-validate"
    MARK_READY = "mark-ready"
    MARK_NOT_READY = "mark-not-ready"
    STOP_SEID = "stop-seid"
    RESET_DATA = "reset-data"
    RESTART_SEID = "restart-seid"
    SET_GENESIS_PEERS = "set-genesis-peers"
    GENERATE_IDENTITY = "generate-identity"
    GENERATE_GENTX = "generate-gentx"
    UPLOAD_GENESIS_ARTIFACTS = "upload-genesis-artifacts"
    ASSEMBLE_AND_UPLOAD_GENESIS = "assemble-and-upload-genesis"
    AWAIT_CONDITION = "await-condition"
    GOV_VOTE = "gov-vote"
    GOV_SOFTWARE_UPGRADE = "gov-software-upgrade"
    GOV_PARAM_CHANGE = "gov-param-change"
    SNAPSHOT_UPLOAD = "snapshot-upload"
    RESULT_EXPORT = "result-export"


class Runner(Enum):
    """Where a task runs, and whether its end is waited for."""

    CONTROLLER = "controller"
    SIDECAR = "sidecar, polled to its end"
    SIDECAR_FORGET = "sidecar, done once accepted"


_ON_CONTROLLER = frozenset(
    {
        TaskType.ENSURE_DATA_PVC,
        TaskType.VALIDATE_SIGNING_KEY,
        TaskType.VALIDATE_NODE_KEY,
        TaskType.VALIDATE_OPERATOR_KEYRING,
        TaskType.APPLY_RBAC_PROXY_CONFIG,
        TaskType.APPLY_STATEFULSET,
        TaskType.APPLY_SERVICE,
        TaskType.REPLACE_POD,
        TaskType.OBSERVE_IMAGE,
        TaskType.DEPLOY_BOOTSTRAP_SERVICE,
        TaskType.DEPLOY_BOOTSTRAP_JOB,
        TaskType.AWAIT_BOOTSTRAP_COMPLETE,
        TaskType.TEARDOWN_BOOTSTRAP,
    }
)

# What is written into the plan: equal to the Go controller's, so that either continues the other's plans.
_PERSISTED_BUDGETS = {
    TaskType.CONFIGURE_GENESIS: 180,
    TaskType.ASSEMBLE_AND_UPLOAD_GENESIS: 180,
    TaskType.REPLACE_POD: 3,
}

# These wait for a network or another node. Upstream repeats them for ever by accident (D1); ten retries, about five
# minutes of waiting beyond the attempts, are what "transient" can mean.
_NETWORK_BUDGET = 10
_NETWORK_TASKS = frozenset(
    {
        TaskType.SNAPSHOT_RESTORE,
        TaskType.SNAPSHOT_UPLOAD,
        TaskType.CONFIGURE_STATE_SYNC,
        TaskType.SET_GENESIS_PEERS,
        TaskType.AWAIT_CONDITION,
        TaskType.RESULT_EXPORT,
    }
)


def runner(task_type: TaskType) -> Runner:
    """Who runs the task. `config-validate` is waited for: an invalid config must not be released (difference D7)."""
    if task_type in _ON_CONTROLLER:
        return Runner.CONTROLLER
    return Runner.SIDECAR_FORGET if task_type is TaskType.MARK_READY else Runner.SIDECAR


def persisted_retries(task_type: TaskType) -> int:
    """`maxRetries` as it is stored in a plan; 0 is stored as absent."""
    return _PERSISTED_BUDGETS.get(task_type, 0)


def retry_budget(task_type: str, max_retries: int) -> int:
    """How often a failed task is repeated, given the `maxRetries` stored with it (0 if absent)."""
    if max_retries > 0:
        return max_retries
    return _NETWORK_BUDGET if task_type in _NETWORK_TASKS else 0


def plan_type(task_types: list[str]) -> str:
    """Value of the metric label `plan_type` (docs/contracts/controller-behaviour.md 1.8)."""
    for task_type in task_types:
        if task_type == TaskType.OBSERVE_IMAGE:
            return "node-update"
        if task_type == TaskType.ENSURE_DATA_PVC:
            return "init"
    return "mark-ready-reapply" if task_types == [TaskType.MARK_READY] else "unknown"
