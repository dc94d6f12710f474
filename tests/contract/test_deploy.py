"""The manifests keep the names and numbers of docs/contracts/controller-api.md 8, which dashboards, network policies and
platform overlays refer to."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from seidev import build
from seiops.controller.settings import parse_flags
from support import deployed
from support.deployed import CONTROLLER_NAMESPACE, DEPLOY

COMMON = {"app.kubernetes.io/name": "sei-k8s-controller", "app.kubernetes.io/managed-by": "kustomize"}
SELECTOR = {"app.kubernetes.io/name": "sei-k8s-controller", "control-plane": "controller-manager"}


@pytest.fixture(scope="module")
def kubectl() -> Path:
    return build.kubernetes_programs().kubectl


@pytest.fixture(scope="module")
def rendered(kubectl: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """deploy/with-monitoring by kind and name."""
    items = deployed.objects(deployed.kustomize(kubectl, DEPLOY / "with-monitoring"))
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


def test_the_names_are_those_that_others_refer_to(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert {kind: {name for of, name in rendered if of == kind} for kind, _ in rendered} == {
        "Namespace": {CONTROLLER_NAMESPACE},
        "CustomResourceDefinition": {
            "seinodes.sei.io",
            "seinetworks.sei.io",
            "seinodetasks.sei.io",
            "seinodetaskworkflows.sei.io",
        },
        "ServiceAccount": {"sei-k8s-controller-manager"},
        "ClusterRole": {"sei-k8s-manager-role", "sei-k8s-rbac-proxy", "sei-k8s-validator-task-submitter"},
        "ClusterRoleBinding": {"sei-k8s-manager-rolebinding"},
        "Role": {"sei-k8s-leader-election-role"},
        "RoleBinding": {"sei-k8s-leader-election-rolebinding"},
        "Deployment": {"sei-k8s-controller-manager"},
        "Service": {"sei-k8s-controller-manager-metrics-service"},
        "NetworkPolicy": {"sei-k8s-allow-metrics-traffic"},
        "ServiceMonitor": {"sei-k8s-controller-manager-metrics"},
        "PrometheusRule": {"sei-k8s-controller-alerts"},
    }


def test_every_namespaced_object_is_in_the_controllers_namespace(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    cluster_wide = {"Namespace", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}
    for (kind, name), item in rendered.items():
        if kind not in cluster_wide:
            assert item["metadata"].get("namespace") == CONTROLLER_NAMESPACE, f"{kind} {name}"


def test_the_default_needs_no_other_operator(kubectl: Path) -> None:
    items = deployed.objects(deployed.kustomize(kubectl, DEPLOY / "default"))
    assert not {item["apiVersion"].split("/")[0] for item in items} & {"monitoring.coreos.com"}


def test_no_role_for_the_whole_cluster_writes_or_reads_secrets(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    rules = rendered["ClusterRole", "sei-k8s-manager-role"]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert "secrets" not in {resource for rule in rules for resource in rule["resources"]}
    (binding,) = [item for (kind, _), item in rendered.items() if kind == "ClusterRoleBinding"]
    assert binding["roleRef"]["name"] == "sei-k8s-manager-role"


def test_the_deployment(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    deployment = rendered["Deployment", "sei-k8s-controller-manager"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["selector"]["matchLabels"] == SELECTOR
    assert deployment["metadata"]["labels"] == {**COMMON, "control-plane": "controller-manager"}
    assert container["name"] == "manager"
    assert container["args"] == ["--metrics-bind-address=:8080", "--leader-elect", "--health-probe-bind-address=:8081"]
    assert {"name": "SEI_CONTROLLER_CONFIG", "value": "/etc/sei-controller/config.yaml"} in container["env"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"metrics": 8080, "health": 8081}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["serviceAccountName"] == "sei-k8s-controller-manager"
    assert pod["volumes"] == [
        {"name": "sei-controller-config", "configMap": {"name": "sei-controller-config", "optional": True}}
    ]
    # Without subPath, so that a change of the ConfigMap arrives; read-only, and no other volume to write to.
    assert container["volumeMounts"] == [
        {"name": "sei-controller-config", "mountPath": "/etc/sei-controller", "readOnly": True}
    ]


def test_the_controller_understands_its_arguments(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    (container,) = rendered["Deployment", "sei-k8s-controller-manager"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "seiops.controller"]
    flags = parse_flags(container["args"])
    assert flags.leader_elect
    assert (flags.metrics_bind_address, flags.health_probe_bind_address) == (":8080", ":8081")
    (named,) = [
        rule["resourceNames"]
        for rule in rendered["Role", "sei-k8s-leader-election-role"]["rules"]
        if "resourceNames" in rule
    ]
    assert named == [flags.lease_name]


def test_the_metrics_reach_prometheus_under_the_names_the_alerts_use(
    rendered: dict[tuple[str, str], dict[str, Any]],
) -> None:
    service = rendered["Service", "sei-k8s-controller-manager-metrics-service"]
    monitor = rendered["ServiceMonitor", "sei-k8s-controller-manager-metrics"]
    assert service["spec"]["selector"] == SELECTOR
    assert service["metadata"]["labels"].items() >= monitor["spec"]["selector"]["matchLabels"].items()
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "sei-k8s-controller"
    assert monitor["spec"]["endpoints"] == [
        {"port": service["spec"]["ports"][0]["name"], "path": "/metrics", "interval": "30s", "honorLabels": True}
    ]


def test_only_scrapers_reach_the_controller(rendered: dict[tuple[str, str], dict[str, Any]]) -> None:
    spec = rendered["NetworkPolicy", "sei-k8s-allow-metrics-traffic"]["spec"]
    assert spec["podSelector"]["matchLabels"] == SELECTOR
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"] == [
        {
            "from": [{"namespaceSelector": {"matchLabels": {"metrics": "enabled"}}}],
            "ports": [{"port": 8080, "protocol": "TCP"}],
        }
    ]


def test_the_storage_classes() -> None:
    classes = {
        item["metadata"]["name"]: item
        for item in yaml.safe_load_all((DEPLOY / "storage/storage_classes.yaml").read_text())
    }
    found = {
        name: (item["provisioner"], item["parameters"], item["reclaimPolicy"], item["volumeBindingMode"])
        for name, item in classes.items()
    }
    ebs, wait = "ebs.csi.aws.com", "WaitForFirstConsumer"
    assert found == {
        "gp3-10k-750": (ebs, {"type": "gp3", "iops": "10000", "throughput": "750"}, "Delete", wait),
        "gp3-archive": (ebs, {"type": "gp3", "iops": "30000", "throughput": "1250"}, "Retain", wait),
    }
    assert all(item["allowVolumeExpansion"] for item in classes.values())
