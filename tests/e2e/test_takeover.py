"""A node as the Go controller left it, taken over by ours: one revision of its template, no Pod restarted.

The objects are written as the Go controller wrote them (recorded requests, its field managers), the real StatefulSet
controller makes the Pod, then our controller comes. Scripts inside the recorded templates are left out of the data, so
the template differs by them and by the listed differences, as it does on a live fleet.
"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
import zstandard

from seidev.cluster import Access
from seiops.api.names import Finalizer
from seiops.controller.kinds import SEI_NODES
from seiops.kube import Obj, owner_reference
from seiops.kube.client.resource import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SECRETS,
    SERVICES,
    STATEFUL_SETS,
)
from support.controlled import LATEST, USER, Controlled, condition_of, controlled
from support.reaching import reach

PACK = Path(__file__).resolve().parents[1] / "data" / "controller" / "cases.json.zst"
RESOURCES = {resource.kind: resource for resource in (STATEFUL_SETS, CONFIG_MAPS, SERVICES, PERSISTENT_VOLUME_CLAIMS)}
APPLIER, WRITER = "seinode-controller", "manager"
CASES = ("full-statesync-registry", "validator-keys", "seed-plain", "archive-publish-peers", "full-dedicated")
SIGNING_KEY = {
    "address": "0" * 40,
    "pub_key": {"type": "tendermint/PubKeyEd25519", "value": "AAAA"},
    "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": "AAAA"},
}
NODE_KEY = {"id": "0" * 40, "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": "AAAA"}}


def pack() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(zstandard.ZstdDecompressor().decompress(PACK.read_bytes()))
    return loaded


def recorded(case: str, namespace: str) -> dict[str, Any]:
    """The case with its namespace and random values replaced by ours."""
    found = next(item for item in pack()["cases"] if item["case"] == f"objects/{case}")
    text = json.dumps({"node": found["nodes"][0], "writes": found["writes"]})
    for template in (".{}.svc", '"namespace": "{}"', "namespace: {}\\n"):
        text = text.replace(template.format(case), template.format(namespace))
    loaded: dict[str, Any] = json.loads(text.replace('"<time>"', '"2026-01-01T00:00:00Z"'))
    return loaded


@pytest.fixture
async def world(
    cluster: Access, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Controlled]:
    async with controlled(cluster, namespace, tmp_path, monkeypatch) as world:
        settings = yaml.safe_load(pack()["config"])
        world.configure(**settings)
        yield world


async def left_by_the_go_controller(world: Controlled, case: str) -> Obj:
    """Everything written as the Go controller writes it; returns the node once its Pod runs."""
    data = recorded(case, world.namespace)
    recording = data["node"]
    await _secrets(world, recording["spec"])
    raw = {
        "apiVersion": SEI_NODES.api_version,
        "kind": SEI_NODES.kind,
        "metadata": {
            "name": recording["metadata"]["name"],
            "namespace": world.namespace,
            "annotations": recording["metadata"].get("annotations") or {},
            "labels": recording["metadata"].get("labels") or {},
        },
        "spec": recording["spec"],
    }
    node = await world.client.create(SEI_NODES, raw, field_manager=USER)
    name = node["metadata"]["name"]
    finalizers = {"metadata": {"finalizers": [Finalizer.NODE.value]}}
    await world.client.patch(SEI_NODES, name, world.namespace, finalizers, field_manager=WRITER)
    live: dict[str, Obj] = {}
    for write in data["writes"]:
        body = {**write["body"]}
        metadata = {key: body["metadata"][key] for key in ("name", "namespace", "labels") if key in body["metadata"]}
        body["metadata"] = {**metadata, "ownerReferences": [owner_reference(node)]}
        body.pop("status", None)
        resource = RESOURCES[body["kind"]]
        if write["verb"] == "create":
            live[resource.kind] = await world.client.create(resource, body, world.namespace, field_manager=WRITER)
        else:
            live[resource.kind] = await world.client.apply(resource, body, field_manager=APPLIER)
    status = {**recording["status"], "statefulSet": {"name": name, "uid": live["StatefulSet"]["metadata"]["uid"]}}
    await world.client.patch(
        SEI_NODES, name, world.namespace, {"status": status}, field_manager=WRITER, subresource="status"
    )
    await world.until_live(PODS, f"{name}-0", lambda pod: pod["status"].get("phase") == "Running")
    await world.until_live(STATEFUL_SETS, name, lambda item: item["status"].get("updatedReplicas") == 1)
    # The Pod that has run for long is ready: its gate was opened by the Go controller.
    world.sidecars.node(world.namespace, name).ready = True
    return await world.node(name)


async def _secrets(world: Controlled, spec: dict[str, Any]) -> None:
    validator, seed = spec.get("validator") or {}, spec.get("seed") or {}
    wanted = {
        "priv_validator_key.json": (validator.get("signingKey"), SIGNING_KEY),
        "node_key.json": (validator.get("nodeKey") or seed.get("nodeKey"), NODE_KEY),
    }
    for entry, (reference, content) in wanted.items():
        if reference is None:
            continue
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": reference["secret"]["secretName"], "namespace": world.namespace},
            "stringData": {entry: json.dumps(content)},
        }
        await world.client.create(SECRETS, body, field_manager=USER)


async def revisions(world: Controlled) -> list[Obj]:
    return (await world.client.list(CONTROLLER_REVISIONS, world.namespace)).items


async def taken_over(world: Controlled, name: str) -> Obj:
    """The node when our controller has looked at it, probed it, and has nothing left to do."""
    world.start()
    await world.until(lambda node: condition_of(node, "SpecValid").get("status") == "True", name)
    await reach(lambda: world.asked("/v0/healthz", name) >= 3)
    node = await world.node(name)
    assert "plan" not in node["status"], node["status"]["plan"]
    return node


@pytest.mark.parametrize("case", CASES)
async def test_a_takeover_restarts_no_pod_and_makes_one_revision(world: Controlled, case: str) -> None:
    before = await left_by_the_go_controller(world, case)
    name = before["metadata"]["name"]
    pod = await world.client.get(PODS, f"{name}-0", world.namespace)
    assert len(await revisions(world)) == 1
    await taken_over(world, name)
    rolled = await world.until_live(
        STATEFUL_SETS,
        name,
        lambda item: item["status"].get("observedGeneration") == item["metadata"]["generation"],
    )
    assert rolled["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert rolled["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120
    assert len(await revisions(world)) == 2
    now = await world.client.get(PODS, f"{name}-0", world.namespace)
    assert now["metadata"]["uid"] == pod["metadata"]["uid"]
    assert "deletionTimestamp" not in now["metadata"]
    # A second start, as after an upgrade, writes nothing more.
    await world.stop()
    generation = rolled["metadata"]["generation"]
    await taken_over(world, name)
    assert len(await revisions(world)) == 2
    again = await world.client.get(STATEFUL_SETS, name, world.namespace)
    assert again["metadata"]["generation"] == generation
    assert [made for made in LATEST[-1].made if made[0] != "GET"] == []


@pytest.mark.parametrize("case", CASES)
async def test_a_taken_over_node_keeps_plan_status_and_identity(world: Controlled, case: str) -> None:
    before = await left_by_the_go_controller(world, case)
    name = before["metadata"]["name"]
    kept = await others(world, name)
    after = await taken_over(world, name)
    assert without_conditions(after) == without_conditions(before)
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    old = {item["type"]: item["status"] for item in before["status"]["conditions"]}
    new = {item["type"]: item["status"] for item in after["status"]["conditions"]}
    assert {kind: new[kind] for kind in old} == old
    assert new.keys() - old.keys() == {"SpecValid"}
    assert await others(world, name) == kept
    stateful_set = await world.client.get(STATEFUL_SETS, name, world.namespace)
    managers = {
        entry["manager"] for entry in stateful_set["metadata"]["managedFields"] if entry.get("subresource") != "status"
    }
    assert managers == {APPLIER}


def without_conditions(node: Obj) -> Obj:
    return {key: value for key, value in node["status"].items() if key != "conditions"}


async def others(world: Controlled, name: str) -> dict[str, tuple[str, str]]:
    """uid and version of what a takeover must not write at all."""
    found = {}
    for resource, called in ((SERVICES, name), (CONFIG_MAPS, f"{name}-rbac-proxy-config")):
        metadata = (await world.client.get(resource, called, world.namespace))["metadata"]
        found[resource.kind] = (metadata["uid"], metadata["resourceVersion"])
    return found
