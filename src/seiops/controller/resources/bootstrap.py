"""The bootstrap Job: an older seid brings the data volume to a height before the production Pod takes it over.

It answers under the production Pod's name, so the sidecar's tasks find it in the same place
(docs/contracts/controller-behaviour.md 5.10, 5.11).
"""

from __future__ import annotations

from typing import Any

from seiops.api.names import SIDECAR_PROXY_PORT, bootstrap_job_name, pod_name
from seiops.api.node import SeiNode, SnapshotSource
from seiops.controller.appconfig import AppConfig
from seiops.controller.resources import compute, containers, guards, pod, scripts
from seiops.controller.resources.errors import RenderError
from seiops.controller.resources.identity import bootstrap_labels, metadata, sidecar_port, snapshot
from seiops.controller.resources.objects import service_port

_GRACE_SECONDS = 120
_TTL_SECONDS = 3600


def bootstrap_job(node: SeiNode, platform: AppConfig) -> dict[str, Any]:
    """The Job, to be created once. Raises RenderError without an S3 source, or if a key could leak into its Pod."""
    source = snapshot(node)
    if source is None or source.s3 is None:
        raise RenderError(f"bootstrap job requires an S3 snapshot source (node {node.namespace}/{node.name})")
    spec = _pod_spec(node, platform, source.bootstrap_image or node.spec.image, source)
    if node.spec.validator is not None:
        guards.check_bootstrap_has_no_credentials(node, spec)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(node, bootstrap_job_name(node.name), bootstrap_labels(node)),
        "spec": {
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": _TTL_SECONDS,
            "template": {
                "metadata": {"labels": bootstrap_labels(node), "annotations": pod.TEMPLATE_ANNOTATIONS},
                "spec": spec,
            },
        },
    }


def bootstrap_service(node: SeiNode) -> dict[str, Any]:
    """Headless Service in front of the Job's Pod, under the name the production Service will have."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(node, node.name, bootstrap_labels(node)),
        "spec": {
            "ports": [service_port("api", SIDECAR_PROXY_PORT)],
            "selector": bootstrap_labels(node),
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
        },
    }


def _pod_spec(node: SeiNode, platform: AppConfig, image: str, source: SnapshotSource) -> dict[str, Any]:
    # Claim, user and group are production's: both Pods use one volume after another (difference D14).
    return {
        "volumes": [pod.data_volume(node), pod.HOME_VOLUME, pod.proxy_config_volume(node)],
        "initContainers": [
            _seid_init(node, image),
            _sidecar(node, platform),
            {**containers.proxy_base(node, platform, []), "securityContext": containers.HARDENED_SECURITY},
        ],
        "containers": [_seid(node, platform, image, source)],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "serviceAccountName": platform.scheduling.service_account,
        "shareProcessNamespace": True,
        "securityContext": pod.POD_SECURITY,
        "hostname": pod_name(node.name),
        "subdomain": node.name,
        "affinity": pod.affinity(node, platform, [pod.apart_from_dedicated()]),
        "tolerations": pod.tolerations(node, platform),
    }


def _seid_init(node: SeiNode, image: str) -> containers.Container:
    return {
        **containers.seid_init(node),
        "image": image,
        "command": ["/bin/sh", "-c", scripts.seid_init(node.spec.chain_id)],
    }


def _sidecar(node: SeiNode, platform: AppConfig) -> containers.Container:
    return {
        "name": "sei-sidecar",
        "image": containers.sidecar_image(node, platform),
        "command": ["seictl", "serve"],
        "env": containers.sidecar_environment(node, platform, []),
        "resources": compute.sidecar_resources(node),
        "restartPolicy": "Always",
        "volumeMounts": [containers.DATA_MOUNT],
        "securityContext": containers.SEID_SECURITY,
    }


def _seid(node: SeiNode, platform: AppConfig, image: str, source: SnapshotSource) -> containers.Container:
    height = source.s3.target_height if source.s3 is not None else 0
    return {
        "name": "seid",
        "image": image,
        "command": ["/bin/bash", "-c"],
        "args": [scripts.run_seid_to_height(sidecar_port(node), height)],
        "env": containers.seid_base_environment(),
        "resources": compute.seid_resources(node, platform),
        "volumeMounts": [containers.DATA_MOUNT, containers.HOME_MOUNT],
        "securityContext": containers.SEID_SECURITY,
    }
