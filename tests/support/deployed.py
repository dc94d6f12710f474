"""What deploy/ holds, built by the real kustomize inside kubectl."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
CONTROLLER_NAMESPACE = "sei-k8s-controller-system"
CONTROLLER_ACCOUNT = "sei-k8s-controller-manager"


def kustomize(kubectl: str | Path, directory: Path) -> str:
    """The YAML that `kubectl apply -k` would send."""
    built = subprocess.run([str(kubectl), "kustomize", str(directory)], capture_output=True, text=True, timeout=60)
    assert built.returncode == 0, built.stderr
    return built.stdout


def objects(text: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(text) if document]


def node_namespace(kubectl: str | Path, name: str) -> str:
    """A namespace that may host SeiNodes: the Namespace, and in it the controller's rights and the Pods' identity."""
    with tempfile.TemporaryDirectory() as scratch:
        overlay = Path(scratch).resolve()
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        (overlay / "namespace.yaml").write_text(yaml.safe_dump(namespace))
        component = os.path.relpath(DEPLOY / "node-namespace", overlay)
        (overlay / "kustomization.yaml").write_text(
            yaml.safe_dump({"resources": ["namespace.yaml"], "components": [component]})
        )
        return kustomize(kubectl, overlay)
