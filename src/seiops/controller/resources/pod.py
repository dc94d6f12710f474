"""The Pod a node runs in: where it may be placed, what it mounts (docs/contracts/controller-behaviour.md 5.2)."""

from __future__ import annotations

from typing import Any

from seiops.api.names import Annotation, Label, Role, proxy_config_name
from seiops.api.node import SeiNode
from seiops.controller.appconfig import AppConfig
from seiops.controller.resources import containers, guards
from seiops.controller.resources.compute import node_pool
from seiops.controller.resources.identity import (
    claim_name,
    is_dedicated,
    labels,
    node_key_secret,
    operator_keyring,
    role,
    signing_key_secret,
)

GRACE_SECONDS = 120
"""The sidecar allows seid about 90 s to stop; the Kubernetes default of 30 s would cut that off (difference D16)."""

POD_SECURITY: dict[str, Any] = {"fsGroup": containers.USER, "fsGroupChangePolicy": "OnRootMismatch"}
TEMPLATE_ANNOTATIONS = {Annotation.DO_NOT_DISRUPT.value: "true"}

_OWNER_READ_ONLY = 0o400


def template(node: SeiNode, platform: AppConfig) -> dict[str, Any]:
    """Pod template of the StatefulSet. Raises RenderError (docs/contracts/controller-behaviour.md 5.6)."""
    spec = {
        "volumes": _volumes(node),
        "initContainers": [
            containers.seid_init(node),
            containers.sidecar(node, platform),
            containers.rbac_proxy(node, platform),
        ],
        "containers": [
            containers.seid(node, platform),
            *([] if role(node) is Role.SEED else [containers.exporter(platform)]),
        ],
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "serviceAccountName": platform.scheduling.service_account,
        "automountServiceAccountToken": True,
        "shareProcessNamespace": True,
        "securityContext": POD_SECURITY,
        "affinity": affinity(node, platform, anti_affinity(node)),
        "tolerations": tolerations(node, platform),
    }
    guards.check_probes(node, spec)
    guards.check_keyring_isolation(node, spec)
    return {"metadata": {"labels": labels(node), "annotations": TEMPLATE_ANNOTATIONS}, "spec": spec}


def affinity(node: SeiNode, platform: AppConfig, apart_from: list[dict[str, Any]]) -> dict[str, Any]:
    """The node's pool, and the Pods it must not share a machine with."""
    pool = {"key": "karpenter.sh/nodepool", "operator": "In", "values": [node_pool(node, platform)]}
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [pool]}]}
        },
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart_from},
    }


def apart_from_dedicated() -> dict[str, Any]:
    """Every Pod of ours keeps away from dedicated machines."""
    return _apart({"key": Label.DEDICATED_NODE.value, "operator": "In", "values": ["true"]})


def anti_affinity(node: SeiNode) -> list[dict[str, Any]]:
    """A dedicated node also keeps away from every other node's Pod."""
    any_node = [_apart({"key": Label.NODE.value, "operator": "Exists"})] if is_dedicated(node) else []
    return [apart_from_dedicated(), *any_node]


def tolerations(node: SeiNode, platform: AppConfig) -> list[dict[str, Any]]:
    return [
        {"key": platform.scheduling.toleration_key, "value": node_pool(node, platform), "effect": "NoSchedule"},
    ]


def proxy_config_volume(node: SeiNode) -> dict[str, Any]:
    return {"name": "rbac-proxy-config", "configMap": {"name": proxy_config_name(node.name)}}


def data_volume(node: SeiNode) -> dict[str, Any]:
    return {"name": "data", "persistentVolumeClaim": {"claimName": claim_name(node)}}


HOME_VOLUME: dict[str, Any] = {"name": "home", "emptyDir": {}}


def _volumes(node: SeiNode) -> list[dict[str, Any]]:
    volumes = [data_volume(node), {"name": "sidecar-tmp", "emptyDir": {}}, HOME_VOLUME, proxy_config_volume(node)]
    if secret := signing_key_secret(node):
        volumes.append(_key_volume("signing-key", secret, containers.SIGNING_KEY_FILE))
    if secret := node_key_secret(node):
        volumes.append(_key_volume("node-key", secret, containers.NODE_KEY_FILE))
    if (keyring := operator_keyring(node)) is not None:
        source = {"secretName": keyring.secret_name, "defaultMode": _OWNER_READ_ONLY}
        volumes.append({"name": "operator-keyring", "secret": source})
    return volumes


def _key_volume(name: str, secret: str, file: str) -> dict[str, Any]:
    items = [{"key": file, "path": file}]
    return {"name": name, "secret": {"secretName": secret, "items": items, "defaultMode": _OWNER_READ_ONLY}}


def _apart(expression: dict[str, Any]) -> dict[str, Any]:
    return {
        "labelSelector": {"matchExpressions": [expression]},
        "topologyKey": "kubernetes.io/hostname",
        "namespaceSelector": {},
    }
