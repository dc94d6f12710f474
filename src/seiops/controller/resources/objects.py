"""The objects around the Pod: StatefulSet, headless Service, proxy configuration and data claim.

(docs/contracts/controller-behaviour.md 2.10, 5.2, 5.7, 5.8, 5.9)
"""

from __future__ import annotations

from typing import Any

from seiops.api.names import SIDECAR_PROXY_PORT, data_claim_name, proxy_config_name
from seiops.api.node import SeiNode
from seiops.controller.appconfig import AppConfig
from seiops.controller.resources import pod
from seiops.controller.resources.compute import storage
from seiops.controller.resources.containers import SEID_PORTS
from seiops.controller.resources.identity import labels, metadata, selector


def statefulset(node: SeiNode, platform: AppConfig) -> dict[str, Any]:
    """StatefulSet of the node for server-side apply; no replicas while the node is paused.

    OnDelete: a changed template waits until a plan, an eviction or a person replaces the Pod.
    Raises RenderError.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(node, node.name, labels(node)),
        "spec": {
            "replicas": 0 if node.spec.paused else 1,
            "selector": {"matchLabels": selector(node)},
            "template": pod.template(node, platform),
            "serviceName": node.name,
            "updateStrategy": {"type": "OnDelete"},
        },
    }


def service(node: SeiNode) -> dict[str, Any]:
    """Headless Service for server-side apply. It names Pods that are not ready: tasks must reach them."""
    seid_ports = [service_port(name, number) for name, number in SEID_PORTS]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(node, node.name, labels(node)),
        "spec": {
            "ports": [*seid_ports, service_port("api", SIDECAR_PROXY_PORT)],
            "selector": selector(node),
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
        },
    }


def service_port(name: str, number: int) -> dict[str, Any]:
    # Clients that negotiate HTTP/2 without TLS must not be downgraded by a proxy in between.
    protocol = {"appProtocol": "kubernetes.io/h2c"} if name == "grpc" else {}
    return {"name": name, "protocol": "TCP", **protocol, "port": number, "targetPort": number}


def proxy_config(node: SeiNode) -> dict[str, Any]:
    """Configuration of kube-rbac-proxy: callers need the right to create or get SeiNodeTasks named like the node."""
    content = (
        "authorization:\n"
        "  resourceAttributes:\n"
        "    apiGroup: sei.io\n"
        "    resource: seinodetasks\n"
        f"    namespace: {node.namespace}\n"
        f"    name: {node.name}\n"
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(node, proxy_config_name(node.name), labels(node)),
        "data": {"config.yaml": content},
    }


def data_pvc(node: SeiNode, platform: AppConfig) -> dict[str, Any]:
    """The claim `data-<name>`, created once and never changed. Raises RenderError for a size that is no quantity."""
    storage_class, size = storage(node, platform)
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(node, data_claim_name(node.name), labels(node)),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "storageClassName": storage_class,
        },
    }
