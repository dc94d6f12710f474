"""Names that tie objects of several kinds together: labels, annotations, finalizers, field owners, derived names.

They are in use on live clusters, in selectors and in other people's tools, and never change
(docs/contracts/controller-api.md 6.1, 6.2).
"""

from enum import StrEnum


class Label(StrEnum):
    NODE = "sei.io/node"
    CHAIN = "sei.io/chain"
    ROLE = "sei.io/role"
    DEDICATED_NODE = "sei.io/dedicated-node"
    SNAPSHOT_PUBLISH = "sei.io/snapshot-publish"
    COMPONENT = "sei.io/component"
    NETWORK = "sei.io/seinetwork"
    NETWORK_ORDINAL = "sei.io/seinetwork-ordinal"
    # The name of a kind that no longer exists; Services in front of running networks select by it.
    LEGACY_NETWORK = "sei.io/nodedeployment"
    LEGACY_NETWORK_ORDINAL = "sei.io/nodedeployment-ordinal"


COMPONENT_BOOTSTRAP = "bootstrap"


class Annotation(StrEnum):
    DEDICATED_NODE = "sei.io/dedicated-node"
    FORCE_DELETE_WORKFLOW = "sei.io/force-delete-workflow"
    MANAGED_BY = "sei.io/managed-by"
    DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"


MANAGED_BY_NETWORK = "seinetwork"


class Finalizer(StrEnum):
    NODE = "sei.io/seinode-finalizer"
    NETWORK = "sei.io/seinetwork-finalizer"
    WORKFLOW = "sei.io/seinodetaskworkflow-finalizer"


class FieldOwner(StrEnum):
    """Field managers of server-side apply, all forced; every other write is made as `MANAGER`."""

    NODE = "seinode-controller"
    NETWORK = "seinetwork-controller"
    TASK = "seinode-task-controller"
    MANAGER = "manager"


class EventSource(StrEnum):
    """`source.component` of Events; workflows are reported by the node controller."""

    NODE = "seinode-controller"
    NETWORK = "seinetwork-controller"
    TASK = "seinodetask-controller"


class Role(StrEnum):
    """Value of the role label, and key of `resources.<role>` in the controller's configuration."""

    NODE = "node"
    ARCHIVE = "archive"
    REPLAYER = "replayer"
    VALIDATOR = "validator"
    SEED = "seed"


# Instance tags read for EC2 peers; they are not Kubernetes labels.
EC2_TAG_NODE_ID = "sei.io/node-id"
EC2_TAG_P2P_PORT = "sei.io/p2p-port"

SIDECAR_PROXY_PORT = 8443


def pod_name(node: str) -> str:
    return f"{node}-0"


def data_claim_name(node: str) -> str:
    return f"data-{node}"


def proxy_config_name(node: str) -> str:
    return f"{node}-rbac-proxy-config"


def bootstrap_job_name(node: str) -> str:
    return f"{node}-bootstrap"


def internal_service_name(network: str) -> str:
    return f"{network}-internal"


def child_name(network: str, ordinal: int) -> str:
    return f"{network}-{ordinal}"


def sidecar_url(node: str, namespace: str) -> str:
    """Base URL of a node's sidecar, through the proxy that authorizes the caller."""
    return f"http://{pod_name(node)}.{node}.{namespace}.svc.cluster.local:{SIDECAR_PROXY_PORT}"
