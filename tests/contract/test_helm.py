"""The Helm chart installs what kustomize installs: the same objects, field for field, but for who manages them."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from seidev import build
from support import deployed
from support.deployed import CONTROLLER_NAMESPACE, DEPLOY

CHART = DEPLOY / "helm" / "seiops"
MANAGED_BY = "app.kubernetes.io/managed-by"
Objects = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def kubectl() -> Path:
    return build.kubernetes_programs().kubectl


def helm(values: dict[str, Any], scratch: Path) -> "subprocess.CompletedProcess[str]":
    (scratch / "values.yaml").write_text(yaml.safe_dump(values))
    command = [build.helm_render(), CHART, CONTROLLER_NAMESPACE, scratch / "values.yaml"]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60)


def rendered(values: dict[str, Any], scratch: Path) -> Objects:
    result = helm(values, scratch)
    assert result.returncode == 0, result.stderr
    return keyed(result.stdout)


def keyed(text: str) -> Objects:
    """Objects by kind, namespace and name, without the label that says which tool manages them."""
    found: Objects = {}
    for item in deployed.objects(text):
        metadata = item["metadata"]
        metadata.get("labels", {}).pop(MANAGED_BY, None)
        key = item["kind"], metadata.get("namespace", ""), metadata["name"]
        assert key not in found, f"twice: {key}"
        found[key] = item
    return found


def test_the_chart_equals_kustomize(kubectl: Path, tmp_path: Path) -> None:
    chart = rendered(
        {"monitoring": {"enabled": True}, "storageClasses": {"enabled": True}, "nodeNamespaces": ["one", "two"]},
        tmp_path,
    )
    kustomized = [
        deployed.kustomize(kubectl, DEPLOY / "with-monitoring"),
        deployed.kustomize(kubectl, DEPLOY / "storage"),
        deployed.node_namespace(kubectl, "one"),
        deployed.node_namespace(kubectl, "two"),
    ]
    expected = keyed("---\n".join(kustomized))
    # Helm makes the release's namespace itself, and node namespaces exist before it runs.
    expected = {key: item for key, item in expected.items() if key[0] != "Namespace"}
    assert set(chart) == set(expected)
    for key, item in expected.items():
        assert chart[key] == item, key


def test_the_default_values_equal_the_default_overlay(kubectl: Path, tmp_path: Path) -> None:
    expected = keyed(deployed.kustomize(kubectl, DEPLOY / "default"))
    assert rendered({}, tmp_path) == {key: item for key, item in expected.items() if key[0] != "Namespace"}


def test_the_controllers_own_namespace_cannot_host_nodes(tmp_path: Path) -> None:
    refused = helm({"nodeNamespaces": ["one", CONTROLLER_NAMESPACE]}, tmp_path)
    assert refused.returncode != 0
    assert "the controller's own namespace" in refused.stderr


def test_the_configuration_arrives_as_it_was_written(tmp_path: Path) -> None:
    text = "stateSync:\n  syncers:\n    gold-1: ['a:1', \"b:2\"]  # {{ not a template }}\n"
    config = rendered({"config": text}, tmp_path)["ConfigMap", CONTROLLER_NAMESPACE, "sei-controller-config"]
    assert config["data"] == {"config.yaml": text}


def test_a_digest_wins_over_a_tag(tmp_path: Path) -> None:
    image = {"repository": "registry.example/seiops", "tag": "x", "digest": "sha256:abc"}
    deployment = rendered({"image": image}, tmp_path)["Deployment", CONTROLLER_NAMESPACE, "sei-k8s-controller-manager"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/seiops@sha256:abc"


def test_a_service_account_of_the_platform_is_bound_and_not_made(tmp_path: Path) -> None:
    chart = rendered(
        {"nodeNamespaces": ["one"], "nodeServiceAccount": {"create": False, "name": "cloud-role"}}, tmp_path
    )
    assert ("ServiceAccount", "one", "cloud-role") not in chart
    binding = chart["ClusterRoleBinding", "", "sei-k8s-rbac-proxy.one"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "cloud-role", "namespace": "one"}]
