"""Init plans, an update and a deletion finish with exactly the rights that deploy/ grants: not one request is refused."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from replay.context import ReplayContext
from replay.differences import DifferenceBook
from replay.lane import CONTROLLER_IDENTITY, ControllerProcess, Lane
from replay.script import Run
from seidev.cluster import Cluster
from support.deployed import CONTROLLER_NAMESPACE

pytestmark = pytest.mark.cluster

CONFIG = """
stateSync: {syncers: {gold-1: ["a.example:26657", "b.example:26657"]}}
scheduling: {nodepoolName: p, nodepoolArchive: p, nodepoolValidator: p, nodepoolSeed: p, tolerationKey: k, serviceAccount: seid-node}
storage: {classPerf: c, classDefault: c, classArchive: c, sizeDefault: 1Gi, sizeArchive: 1Gi}
snapshot: {bucket: b, region: r}
genesis: {bucket: b, region: r}
images: {sidecar: "i:1", kubeRBACProxy: "i:1", cosmosExporter: "i:1"}
"""
NAMESPACE = "rights"
SIGNING_KEY = {
    "address": "0000000000000000000000000000000000000000",
    "pub_key": {"type": "tendermint/PubKeyEd25519", "value": "AAAA"},
    "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": "AAAA"},
}
NODE_KEY = {"id": "0" * 40, "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": "AAAA"}}
SPECS: dict[str, dict[str, Any]] = {
    "synced": {"fullNode": {"snapshot": {"stateSync": {}}}},
    "bootstrapped": {"fullNode": {"snapshot": {"s3": {"targetHeight": 4200}, "bootstrapImage": "seid:0"}}},
    "signing": {
        "validator": {
            "signingKey": {"secret": {"secretName": "signing-key"}},
            "nodeKey": {"secret": {"secretName": "node-key"}},
        }
    },
}


@pytest.fixture
async def lane(tmp_path: Path) -> AsyncIterator[Lane]:
    """The deployment as users apply it; every request of the controller is written down."""
    (tmp_path / "golden" / "objects").mkdir(parents=True)
    (tmp_path / "golden" / "objects" / "controller-config.yaml").write_text(CONFIG)
    lane = Lane(ReplayContext(tmp_path / "golden", DifferenceBook([]), tmp_path), "lane", 0.2)
    (controller,) = [identity for identity in lane.cluster.identities if identity.name == CONTROLLER_IDENTITY]
    lane.cluster = Cluster(
        directory=lane.directory / "cluster",
        identities=[controller],
        audit_user=controller.user,
        # Written before the answer goes out, so that nothing has to be waited for.
        api_server_flags=["--audit-log-mode=blocking"],
    )
    try:
        await lane.start()
        yield lane
    finally:
        await lane.stop()


def secret(name: str, entry: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {entry: json.dumps(content)},
    }


def node(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "sei.io/v1alpha1",
        "kind": "SeiNode",
        "metadata": {"name": name},
        "spec": {"chainId": "gold-1", "image": "seid:1", **SPECS[name]},
    }


def steady(name: str, image: str) -> dict[str, Any]:
    subject = f"SeiNode/{name}"
    return {
        "all": [
            {"object": subject, "path": "status.phase", "equals": "Running"},
            {"object": subject, "path": "status.plan", "absent": True},
            {"object": subject, "path": "status.currentImage", "equals": image},
        ]
    }


def script() -> list[dict[str, Any]]:
    manifests = [
        secret("signing-key", "priv_validator_key.json", SIGNING_KEY),
        secret("node-key", "node_key.json", NODE_KEY),
        *(node(name) for name in SPECS),
    ]
    steps: list[dict[str, Any]] = [{"do": "create", "manifest": manifest} for manifest in manifests]
    running = {"all": [steady(name, "seid:1") for name in SPECS]}
    steps.append({"do": "wait", "what": "all run", "until": running, "timeout": 120})
    api = {"apiVersion": "sei.io/v1alpha1"}
    steps.append({"do": "patch", **api, "object": "SeiNode/synced", "body": {"spec": {"image": "seid:2"}}})
    steps.append({"do": "wait", "what": "rolled", "until": steady("synced", "seid:2"), "timeout": 120})
    steps += [{"do": "delete", **api, "object": f"SeiNode/{name}"} for name in SPECS]
    gone = {"all": [{"object": f"SeiNode/{name}", "absent": True} for name in SPECS]}
    steps.append({"do": "wait", "what": "all gone", "until": gone, "timeout": 120})
    begin = {"do": "begin", "namespace": NAMESPACE, "controller": "shared"}
    return [begin, *({"n": number, **step} for number, step in enumerate(steps, 1))]


def requests(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_plans_finish_with_the_deployed_rights_and_no_request_is_refused(lane: Lane, tmp_path: Path) -> None:
    controller = ControllerProcess(lane, tmp_path / "controller.log")
    await controller.start()
    try:
        await Run(lane, NAMESPACE, controller).execute(script())
    finally:
        await controller.end(signal.SIGTERM)
    audit = lane.directory / "cluster" / "audit.log"
    seen = requests(audit)
    refused = {
        (entry["verb"], entry["objectRef"]["resource"], entry["objectRef"].get("namespace", ""))
        for entry in seen
        if entry["responseStatus"]["code"] in (401, 403)
    }
    assert refused == set()
    own = {
        (entry["objectRef"]["resource"], entry["verb"])
        for entry in seen
        if entry.get("objectRef", {}).get("namespace") == CONTROLLER_NAMESPACE
    }
    assert own <= {("leases", verb) for verb in ("get", "create", "update", "patch")} | {
        ("events", "create"),
        ("events", "patch"),
    }
    # The test would prove nothing if the plans had not needed their rights.
    used = {(entry["objectRef"]["resource"], entry["verb"]) for entry in seen if "objectRef" in entry}
    assert {
        ("secrets", "get"),
        ("jobs", "create"),
        ("configmaps", "patch"),
        ("statefulsets", "patch"),
        ("pods", "delete"),
        ("persistentvolumeclaims", "delete"),
    } <= used
