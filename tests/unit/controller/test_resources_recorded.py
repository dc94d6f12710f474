"""Every object recorded from the Go controller, rendered by us from the node as its user wrote it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from seiops.api.node import SeiNode
from seiops.controller import resources
from seiops.controller.appconfig import AppConfig
from unit.controller import kubedefaults, recorded

GENERATORS = {
    ("StatefulSet", False): lambda node, platform: resources.statefulset(node, platform),
    ("Service", False): lambda node, platform: resources.service(node),
    ("ConfigMap", False): lambda node, platform: resources.proxy_config(node),
    ("PersistentVolumeClaim", False): lambda node, platform: resources.data_pvc(node, platform),
    ("Job", True): lambda node, platform: resources.bootstrap_job(node, platform),
    ("Service", True): lambda node, platform: resources.bootstrap_service(node),
}


def owned_objects(folder: str = "") -> list[Any]:
    found = []
    for case in recorded.cases():
        if not case.name.startswith(folder):
            continue
        for index, item in enumerate(case.created()):
            owner = (item["metadata"].get("ownerReferences") or [{}])[0]
            if owner.get("kind") == "SeiNode":
                label = f"{case.name}-{item['kind']}-{item['metadata']['name']}-{index}"
                found.append(pytest.param(case, item, owner, id=label))
    return found


def render(item: dict[str, Any], node: SeiNode, platform: AppConfig) -> dict[str, Any]:
    bootstrap = item["metadata"]["labels"].get("sei.io/component") == "bootstrap"
    return recorded.without_scripts(GENERATORS[item["kind"], bootstrap](node, platform))  # type: ignore[no-any-return]


def comparable(item: dict[str, Any]) -> dict[str, Any]:
    """Without what the API server alone decides."""
    found = copy.deepcopy(item)
    for key in ("generation", "creationTimestamp", "finalizers", "deletionTimestamp", "deletionGracePeriodSeconds"):
        found["metadata"].pop(key, None)
    found.pop("deletedAtEnd", None)
    if found["kind"] == "Job":
        found["spec"].pop("selector", None)
        for labels in (found["metadata"]["labels"], found["spec"]["template"]["metadata"]["labels"]):
            for key in [key for key in labels if "controller-uid" in key or "job-name" in key]:
                del labels[key]
    if found["kind"] == "PersistentVolumeClaim":
        found["spec"].pop("volumeName", None)
    return found


def with_differences(item: dict[str, Any]) -> dict[str, Any]:
    """The recorded object with our deliberate differences D14 and D16 put in."""
    if item["kind"] == "StatefulSet":
        item["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 120
    if item["kind"] == "Job":
        pod = item["spec"]["template"]["spec"]
        pod["securityContext"] = {"fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
        pod["volumes"].insert(1, {"name": "home", "emptyDir": {}})
        user = {
            "capabilities": {"drop": ["ALL"]},
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        home = {"name": "home", "mountPath": "/home/nonroot"}
        init, sidecar, proxy = pod["initContainers"]
        for container in (init, sidecar, pod["containers"][0]):
            container["securityContext"] = user
        proxy["securityContext"] = {**user, "readOnlyRootFilesystem": True}
        init["volumeMounts"].append(home)
        pod["containers"][0]["volumeMounts"].append(home)
    return item


MADE_EARLIER = {
    "flows/controller-restart-new-images": {"PersistentVolumeClaim"},
    "flows/delete-recreate-same-name": {"StatefulSet", "ConfigMap", "PersistentVolumeClaim", "Service"},
    "flows/spec-edits-without-plan": {"PersistentVolumeClaim", "ConfigMap"},
    "flows/statesync-config-error-texts": {"PersistentVolumeClaim", "ConfigMap"},
    "flows/statesync-spec-unblocks": {"PersistentVolumeClaim", "ConfigMap", "Service"},
    "flows/task-fails-for-good": {"StatefulSet"},
}
"""Objects that were not written again after the last edit of their node: upstream makes them in plans only (D29), a
failed node gets nothing any more, and one flow has two nodes of one name."""


def candidates(case: recorded.Case, kind: str, owner: dict[str, Any]) -> list[tuple[SeiNode, AppConfig]]:
    """The node and the configuration the object may have been made from."""
    found = [(case.node(owner["name"]), case.last_config())]
    if kind in MADE_EARLIER.get(case.name, set()):
        found += [(node, case.first_config()) for node in case.versions(owner["name"])]
    for node, _ in found:
        node.metadata.uid = owner["uid"]
    return found


@pytest.mark.parametrize(("case", "item", "owner"), owned_objects())
def test_equals_the_recorded_object(case: recorded.Case, item: dict[str, Any], owner: dict[str, Any]) -> None:
    wanted = with_differences(comparable(item))
    made_from = candidates(case, item["kind"], owner)
    rendered = [kubedefaults.stored(render(item, node, platform)) for node, platform in made_from]
    assert rendered[0] == wanted or wanted in rendered[1:]


@pytest.mark.parametrize(("case", "item", "owner"), owned_objects("objects/"))
def test_api_defaults_change_nothing(case: recorded.Case, item: dict[str, Any], owner: dict[str, Any]) -> None:
    """What the API server fills in (sidecar port, key name) is what we assume where it is absent."""
    written = case.versions(owner["name"])
    stored = case.node(owner["name"])
    written[-1].metadata.uid = stored.metadata.uid
    assert render(item, written[-1], case.last_config()) == render(item, stored, case.last_config())


def applies() -> list[Any]:
    found = []
    for case in recorded.cases():
        for write in case.raw["writes"]:
            body = write["body"]
            owner = (body["metadata"].get("ownerReferences") or [{}])[0]
            if write["verb"] == "patch" and owner.get("kind") == "SeiNode":
                found.append(
                    pytest.param(case, body, owner, id=f"{case.name}-{body['kind']}-{body['metadata']['name']}")
                )
    return found


@pytest.mark.parametrize(("case", "body", "owner"), applies())
def test_applies_the_same_fields(case: recorded.Case, body: dict[str, Any], owner: dict[str, Any]) -> None:
    """Server-side apply owns what its body has: equal bodies, equal ownership."""
    wanted = with_differences(copy.deepcopy({key: value for key, value in body.items() if key != "status"}))
    rendered = [render(body, node, platform) for node, platform in candidates(case, body["kind"], owner)]
    assert rendered[0] == wanted or wanted in rendered[1:]
