"""Tasks that the controller runs itself, by type. Those of the sidecar are submitted by the executor."""

from seiops.controller.plan import TaskType
from seiops.controller.tasks.bootstrap import (
    await_bootstrap_complete,
    deploy_bootstrap_job,
    deploy_bootstrap_service,
    teardown_bootstrap,
)
from seiops.controller.tasks.outcome import Handler, Outcome, TaskDelayedError, TaskFailedError
from seiops.controller.tasks.rollout import (
    apply_rbac_proxy_config,
    apply_service,
    apply_statefulset,
    observe_image,
    replace_pod,
)
from seiops.controller.tasks.secrets import validate_node_key, validate_operator_keyring, validate_signing_key
from seiops.controller.tasks.volume import ensure_data_pvc

HANDLERS: dict[TaskType, Handler] = {
    TaskType.ENSURE_DATA_PVC: ensure_data_pvc,
    TaskType.VALIDATE_SIGNING_KEY: validate_signing_key,
    TaskType.VALIDATE_NODE_KEY: validate_node_key,
    TaskType.VALIDATE_OPERATOR_KEYRING: validate_operator_keyring,
    TaskType.APPLY_RBAC_PROXY_CONFIG: apply_rbac_proxy_config,
    TaskType.APPLY_STATEFULSET: apply_statefulset,
    TaskType.APPLY_SERVICE: apply_service,
    TaskType.REPLACE_POD: replace_pod,
    TaskType.OBSERVE_IMAGE: observe_image,
    TaskType.DEPLOY_BOOTSTRAP_SERVICE: deploy_bootstrap_service,
    TaskType.DEPLOY_BOOTSTRAP_JOB: deploy_bootstrap_job,
    TaskType.AWAIT_BOOTSTRAP_COMPLETE: await_bootstrap_complete,
    TaskType.TEARDOWN_BOOTSTRAP: teardown_bootstrap,
}

__all__ = ["HANDLERS", "Handler", "Outcome", "TaskDelayedError", "TaskFailedError"]
