"""The sample manifests are admitted by the real API server as they stand, and the planner has a plan for each node."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from seiops.api.node import SeiNode
from seiops.controller.plan import PlanInvalidError, validate
from seiops.controller.resources import mode
from support.deployed import DEPLOY
from support.kubectl import Kubectl

SAMPLES = sorted(path for path in (DEPLOY / "samples").glob("*.yaml") if path.name != "kustomization.yaml")
NAMES = [path.stem for path in SAMPLES]


def document(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    return loaded


@pytest.mark.parametrize("path", SAMPLES, ids=NAMES)
def test_every_sample_is_admitted(path: Path, kubectl: Kubectl) -> None:
    text = path.read_text().replace("namespace: default", f"namespace: {kubectl.namespace}")
    # Strict: a field that is not in the schema would be refused, not dropped.
    made = kubectl("create", "--validate=strict", "-f", "-", stdin=text)
    assert "created" in made.stdout


@pytest.mark.parametrize("path", SAMPLES, ids=NAMES)
def test_the_planner_accepts_every_node(path: Path) -> None:
    raw = document(path)
    if raw["kind"] != "SeiNode":
        return
    validate(SeiNode.decode(raw))


def test_a_sample_with_a_field_of_another_schema_would_be_refused(kubectl: Kubectl) -> None:
    raw = document(DEPLOY / "samples" / "state-syncer.yaml")
    raw["metadata"]["namespace"] = kubectl.namespace
    raw["spec"]["genesis"] = {}
    refused = kubectl("create", "--validate=strict", "-f", "-", stdin=yaml.safe_dump(raw), check=False)
    assert 'unknown field "spec.genesis"' in refused.stderr
    raw = document(DEPLOY / "samples" / "shadow-replayer.yaml")
    raw["spec"]["replayer"]["snapshot"] = {"stateSync": {}}
    with pytest.raises(PlanInvalidError):
        validate(SeiNode.decode(raw))


def test_the_samples_show_every_mode_and_build_with_kustomize(kubectl: Kubectl) -> None:
    nodes = [SeiNode.decode(raw) for raw in map(document, SAMPLES) if raw["kind"] == "SeiNode"]
    assert {mode(node).value for node in nodes} == {"full", "archive", "validator", "seed"}
    built = kubectl("kustomize", DEPLOY / "samples").stdout
    assert len([item for item in yaml.safe_load_all(built) if item]) == len(SAMPLES)
