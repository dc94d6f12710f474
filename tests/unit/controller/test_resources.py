"""What generated objects must hold beyond the recordings: guards, roles, resources, differences."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from seiops.api.node import SeiNode
from seiops.controller import resources
from seiops.controller.appconfig import AppConfig
from seiops.controller.resources import RenderError, guards
from unit.controller import recorded

PLATFORM = recorded.config(recorded.pack()["config"])
RING = {"secret": {"secretName": "ring", "passphraseSecretRef": {"secretName": "pass", "key": "p"}}}
PROXY, EXPORTER = PLATFORM.images.kube_rbac_proxy, PLATFORM.images.cosmos_exporter
ARCHIVE = {"s3": {"targetHeight": 4200}, "bootstrapImage": "seid:old"}


def node(**spec: Any) -> SeiNode:
    return SeiNode.decode(
        {
            "metadata": {"name": "n0", "namespace": "ns", "uid": "u"},
            "spec": {"chainId": "c", "image": "seid:v1", **spec},
        }
    )


def platform(text: str) -> AppConfig:
    return recorded.config(recorded.pack()["config"] + text)


def pod(found: SeiNode, config: AppConfig = PLATFORM) -> dict[str, Any]:
    return resources.statefulset(found, config)["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in spec["initContainers"] + spec["containers"] if item["name"] == name)


@pytest.mark.parametrize(
    ("spec", "role", "pool", "cpu", "memory", "storage"),
    [
        ({"fullNode": {}}, "node", "pool-default", "32", "256Gi", ("perf", "2000Gi")),
        ({"replayer": {"snapshot": ARCHIVE}}, "replayer", "pool-default", "32", "256Gi", ("perf", "2000Gi")),
        ({"archive": {}}, "archive", "pool-archive", "64", "512Gi", ("arch", "40000Gi")),
        ({"validator": {}}, "validator", "pool-validator", "16", "128Gi", ("perf", "2000Gi")),
        ({"seed": {"nodeKey": {"secret": {"secretName": "k"}}}}, "seed", "pool-seed", "1", "2Gi", ("std", "20Gi")),
    ],
)
def test_a_role_decides_where_and_how_much(
    spec: dict[str, Any], role: str, pool: str, cpu: str, memory: str, storage: tuple[str, str]
) -> None:
    found = node(**spec)
    rendered = pod(found)
    assert resources.labels(found)["sei.io/role"] == role
    assert rendered["tolerations"][0]["value"] == pool
    wanted = {"limits": {"memory": memory}, "requests": {"cpu": cpu, "memory": memory}}
    assert container(rendered, "seid")["resources"] == wanted
    assert resources.storage(found, PLATFORM) == storage


def test_resources_are_overridden_one_by_one_in_canonical_form() -> None:
    config = platform("resources: {node: {cpuRequest: 0.5, memory: ' '}, archive: {memory: 1024Mi}}\n")
    assert container(pod(node(fullNode={}), config), "seid")["resources"]["requests"] == {
        "cpu": "500m",
        "memory": "256Gi",
    }
    assert container(pod(node(archive={}), config), "seid")["resources"]["limits"] == {"memory": "1Gi"}


def test_a_seed_keeps_its_heap_below_its_limit() -> None:
    seed = node(seed={"nodeKey": {"secret": {"secretName": "k"}}})
    seid = container(pod(seed, platform("resources: {seed: {memory: 4Gi}}\n")), "seid")
    assert seid["env"][-1] == {"name": "GOMEMLIMIT", "value": "3736621547B"}
    empty = container(pod(seed, platform("resources: {seed: {memory: 0}}\n")), "seid")
    assert [variable["name"] for variable in empty["env"]] == ["HOME", "TMPDIR"]


def test_a_seed_has_no_exporter() -> None:
    seed = node(seed={"nodeKey": {"secret": {"secretName": "k"}}})
    assert [item["name"] for item in pod(seed)["containers"]] == ["seid"]


def test_a_keyring_with_seid_mount_reaches_seid() -> None:
    ring = {"secret": {**RING["secret"], "seidMount": True}}
    seid = container(pod(node(validator={"operatorKeyring": ring})), "seid")
    assert seid["volumeMounts"][-1]["mountPath"] == "/home/nonroot/.sei/keyring-file"
    assert [variable["name"] for variable in seid["env"]][2:] == [
        "SEI_KEYRING_BACKEND",
        "SEI_KEYRING_DIR",
        "SEI_KEYRING_PASSPHRASE",
    ]


def test_a_paused_node_has_no_replica() -> None:
    assert resources.statefulset(node(fullNode={}, paused=True), PLATFORM)["spec"]["replicas"] == 0


def test_d16_the_pod_may_stop_as_long_as_the_sidecar_needs() -> None:
    assert pod(node(fullNode={}))["terminationGracePeriodSeconds"] == 120


def test_d14_the_bootstrap_job_uses_the_nodes_volume_as_its_user() -> None:
    found = node(fullNode={"snapshot": ARCHIVE}, dataVolume={"import": {"pvcName": "old-disk"}})
    spec = resources.bootstrap_job(found, PLATFORM)["spec"]["template"]["spec"]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "old-disk"}
    assert spec["securityContext"]["fsGroup"] == 65532
    users = {item["securityContext"]["runAsUser"] for item in spec["initContainers"] + spec["containers"]}
    assert users == {65532}


def test_a_bootstrap_job_needs_an_archive() -> None:
    with pytest.raises(RenderError, match=r"^bootstrap job requires an S3 snapshot source \(node ns/n0\)$"):
        resources.bootstrap_job(node(fullNode={"snapshot": {"stateSync": {}}}), PLATFORM)


def test_a_bootstrap_job_of_a_validator_has_no_credentials() -> None:
    keys = {"signingKey": {"secret": {"secretName": "sign"}}, "nodeKey": {"secret": {"secretName": "id"}}}
    found = node(validator={**keys, "operatorKeyring": RING, "snapshot": ARCHIVE})
    spec = resources.bootstrap_job(found, PLATFORM)["spec"]["template"]["spec"]
    text = repr(spec)
    assert not any(name in text for name in ("sign'", "'ring'", "'pass'"))
    for leak in (
        lambda spec: spec["volumes"].append({"name": "x", "secret": {"secretName": "sign"}}),
        lambda spec: spec["containers"][0].update(envFrom=[{"secretRef": {"name": "ring"}}]),
        lambda spec: spec["initContainers"][1]["env"].append(
            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "pass", "key": "p"}}}
        ),
    ):
        leaky = copy.deepcopy(spec)
        leak(leaky)
        with pytest.raises(RenderError, match="must not reference Secret"):
            guards.check_bootstrap_has_no_credentials(found, leaky)


@pytest.mark.parametrize(
    ("spec", "text", "message"),
    [
        (
            {"fullNode": {}},
            f"kubeRBACProxy: {PROXY}",
            "images.kubeRBACProxy is not configured in the app-config file",
        ),
        (
            {"fullNode": {}},
            f"cosmosExporter: {EXPORTER}",
            "images.cosmosExporter is required in the app-config file",
        ),
        ({"seed": {}}, "nodepoolSeed: pool-seed", "scheduling.nodepoolSeed is not configured in the app-config file"),
    ],
)
def test_what_the_platform_must_say(spec: dict[str, Any], text: str, message: str) -> None:
    config = recorded.config(recorded.pack()["config"].replace(text, ""))
    with pytest.raises(RenderError) as refused:
        resources.statefulset(node(**spec), config)
    assert str(refused.value) == message


def test_a_bad_size_is_an_error_not_a_crash() -> None:
    config = recorded.config(recorded.pack()["config"].replace("2000Gi", "huge"))
    with pytest.raises(RenderError, match=r'^storage\.sizeDefault: invalid quantity "huge"'):
        resources.data_pvc(node(fullNode={}), config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"livenessProbe": {"tcpSocket": {"port": 1}}}, 'gated seid container "seid" must not carry a liveness probe'),
        (
            {"startupProbe": {"httpGet": {"path": "/", "port": 26657}}},
            'gated seid container "seid" startup probe must not target seid\'s RPC/gRPC port',
        ),
    ],
)
def test_a_gated_seid_is_never_killed_for_waiting(change: dict[str, Any], message: str) -> None:
    found = node(fullNode={})
    spec = copy.deepcopy(pod(found))
    container(spec, "seid").update(change)
    with pytest.raises(RenderError) as refused:
        guards.check_probes(found, spec)
    assert str(refused.value) == message


def test_a_seed_is_not_probed_where_it_never_listens() -> None:
    seed = node(seed={"nodeKey": {"secret": {"secretName": "k"}}})
    spec = copy.deepcopy(pod(seed))
    container(spec, "seid")["readinessProbe"] = {"tcpSocket": {"port": 9090}}
    with pytest.raises(
        RenderError, match="readiness probe must not target seid's RPC/gRPC port; seed mode binds neither"
    ):
        guards.check_probes(seed, spec)


def test_keyring_and_passphrase_stay_with_the_sidecar() -> None:
    found = node(validator={"operatorKeyring": RING})
    spec = copy.deepcopy(pod(found))
    container(spec, "seid")["volumeMounts"].append({"name": "operator-keyring", "mountPath": "/k"})
    with pytest.raises(RenderError, match='container "seid" must not mount the operator keyring'):
        guards.check_keyring_isolation(found, spec)
    spec = copy.deepcopy(pod(found))
    container(spec, "kube-rbac-proxy")["envFrom"] = [{"secretRef": {"name": "pass"}}]
    with pytest.raises(RenderError, match='container "kube-rbac-proxy" must not reference passphrase Secret "pass"'):
        guards.check_keyring_isolation(found, spec)


def test_an_object_without_a_mode_renders_as_a_full_node() -> None:
    assert resources.labels(node())["sei.io/role"] == "node"
    assert resources.mode(node()) == "full"
