"""Controller-side tasks that judge what users bring: every check of docs/contracts/controller-behaviour.md 4.2 to 4.5."""

import base64
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from seiops.api.node import NodeCondition, SeiNode
from seiops.controller import appconfig
from seiops.controller.caches import Caches
from seiops.controller.conditions import condition
from seiops.controller.tasks.outcome import Outcome, TaskDelayedError, TaskFailedError
from seiops.controller.tasks.secrets import validate_node_key, validate_operator_keyring, validate_signing_key
from seiops.controller.tasks.volume import ensure_data_pvc
from seiops.controller.world import World
from seiops.kube import ApiError, Resource

CONFIG = appconfig.decode("c", b"storage: {classPerf: p, sizeDefault: 2000Gi, sizeArchive: 4Ti, classArchive: a}")


class _Api:
    """Answers GETs from a table, everything else with 404."""

    def __init__(self, **objects: dict[str, Any]) -> None:
        self.objects = objects

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        found = self.objects.get(name.replace("-", "_"))
        if found is None:
            raise ApiError(404, "NotFound", f"{name} not found")
        return found

    async def create(self, resource: Resource, obj: dict[str, Any], **_: Any) -> dict[str, Any]:
        raise ApiError(409, "AlreadyExists", "exists")


def _world(**objects: dict[str, Any]) -> World:
    settings = SimpleNamespace(platform=CONFIG)
    return cast(World, SimpleNamespace(client=_Api(**objects), caches=Caches.empty(), settings=settings))


def _node(**spec: Any) -> SeiNode:
    metadata = {"name": "n0", "namespace": "ns", "uid": "u", "generation": 1}
    return SeiNode.decode({"metadata": metadata, "spec": {"chainId": "c", "image": "i", **spec}})


def _imported(**spec: Any) -> SeiNode:
    return _node(**({"fullNode": {}} | spec), dataVolume={"import": {"pvcName": "claim"}})


def _claim(**changes: Any) -> dict[str, Any]:
    claim: dict[str, Any] = {
        "metadata": {"name": "claim"},
        "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "volume"},
        "status": {"phase": "Bound", "capacity": {"storage": "2000Gi"}},
    }
    for path, value in changes.items():
        section, _, name = path.partition("__")
        claim[section][name] = value
    return claim


def _volume(capacity: str = "2000Gi", phase: str = "Bound") -> dict[str, Any]:
    return {"metadata": {"name": "volume"}, "spec": {"capacity": {"storage": capacity}}, "status": {"phase": phase}}


async def _import_message(node: SeiNode, world: World) -> tuple[str, str]:
    """Reason and message of ImportPVCReady after one look."""
    try:
        outcome = await ensure_data_pvc(node, {}, world)
    except TaskFailedError:
        outcome = None
    found = condition(node, NodeCondition.IMPORT_PVC_READY)
    assert found is not None
    expected = {Outcome.DONE: "PVCValidated", Outcome.WAITING: "PVCNotReady", None: "PVCInvalid"}
    assert found.reason == expected[outcome]
    return found.reason, found.message


@pytest.mark.parametrize(
    ("claim", "volume", "reason", "message"),
    [
        (None, None, "PVCNotReady", 'PVC "claim" not found in namespace "ns"'),
        (
            _claim(metadata__deletionTimestamp="2026-01-01T00:00:00Z"),
            None,
            "PVCNotReady",
            'PVC "claim" is being deleted (deletionTimestamp=2026-01-01T00:00:00Z)',
        ),
        (_claim(status__phase="Lost"), None, "PVCInvalid", 'PVC "claim" phase is Lost; underlying PV is gone'),
        (_claim(status__phase="Pending"), None, "PVCNotReady", 'PVC "claim" phase is "Pending", waiting for Bound'),
        (
            _claim(spec__accessModes=["ReadOnlyMany", "ReadWriteMany"]),
            None,
            "PVCInvalid",
            'PVC "claim" accessModes [ReadOnlyMany ReadWriteMany] must include ReadWriteOnce or ReadWriteOncePod',
        ),
        (
            _claim(status__capacity={}),
            None,
            "PVCNotReady",
            'PVC "claim" has no status.capacity.storage reported yet',
        ),
        (
            _claim(status__capacity={"storage": "100Gi"}),
            None,
            "PVCInvalid",
            'PVC "claim" capacity 100Gi is less than required 2000Gi',
        ),
        (_claim(spec__volumeName=""), None, "PVCNotReady", 'PVC "claim" is Bound but has no spec.volumeName'),
        (_claim(), None, "PVCNotReady", 'underlying PV "volume" for PVC "claim" not found'),
        (_claim(), _volume(phase="Failed"), "PVCInvalid", 'underlying PV "volume" for PVC "claim" is in phase Failed'),
        (
            _claim(),
            _volume("3000Gi"),
            "PVCInvalid",
            'underlying PV "volume" capacity 3000Gi does not match PVC "claim" capacity 2000Gi',
        ),
        (_claim(), _volume(), "PVCValidated", 'PVC "claim" passes all import requirements'),
        (
            _claim(status__capacity={"storage": "2Ti"}, spec__accessModes=["ReadWriteOncePod"]),
            _volume("2048Gi"),
            "PVCValidated",
            'PVC "claim" passes all import requirements',
        ),
    ],
)
async def test_an_imported_claim_is_judged_in_order(
    claim: dict[str, Any] | None, volume: dict[str, Any] | None, reason: str, message: str
) -> None:
    given = {name: obj for name, obj in (("claim", claim), ("volume", volume)) if obj is not None}
    assert await _import_message(_imported(), _world(**given)) == (reason, message)


async def test_an_imported_claim_of_an_archive_must_hold_an_archive() -> None:
    node = _node(archive={}, dataVolume={"import": {"pvcName": "claim"}})
    reason, message = await _import_message(node, _world(claim=_claim(), volume=_volume()))
    assert (reason, message) == ("PVCInvalid", 'PVC "claim" capacity 2000Gi is less than required 4Ti')


async def test_d3_a_claim_of_somebody_else_is_never_used() -> None:
    theirs = {"metadata": {"name": "data-n0", "ownerReferences": []}}
    with pytest.raises(TaskFailedError, match=r"set spec\.dataVolume\.import\.pvcName to adopt"):
        await ensure_data_pvc(_node(fullNode={}), {}, _world(data_n0=theirs))


async def test_the_claim_of_an_earlier_node_of_the_name_is_waited_for() -> None:
    going = {"metadata": {"name": "data-n0", "deletionTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": []}}
    with pytest.raises(TaskDelayedError, match="still being deleted"):
        await ensure_data_pvc(_node(fullNode={}), {}, _world(data_n0=going))


def _secret(**data: str) -> dict[str, Any]:
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    return {"metadata": {"name": "s"}, "data": encoded}


def _file(name: str, content: str) -> dict[str, Any]:
    return {"metadata": {"name": "s"}, "data": {name: base64.b64encode(content.encode()).decode()}}


PAIR = {"type": "t", "value": "v"}
SIGNING = {"address": "A", "pub_key": PAIR, "priv_key": PAIR}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", 'secret "s" missing required data key "priv_validator_key.json"'),
        ("{", "not valid JSON"),
        ("[]", "not valid JSON: not an object"),
        (json.dumps({**SIGNING, "address": ""}), "missing address"),
        (json.dumps({**SIGNING, "pub_key": {"type": "t"}}), "missing pub_key.type or pub_key.value"),
        (json.dumps({**SIGNING, "priv_key": {"value": "v"}}), "missing priv_key.type or priv_key.value"),
        (json.dumps({**SIGNING, "priv_key": "text"}), "missing priv_key.type or priv_key.value"),
    ],
)
async def test_a_bad_signing_key_fails_and_says_why(content: str, problem: str) -> None:
    node = _node(validator={})
    with pytest.raises(TaskFailedError) as refused:
        await validate_signing_key(node, {"secretName": "s"}, _world(s=_file("priv_validator_key.json", content)))
    assert problem in str(refused.value)
    found = condition(node, NodeCondition.SIGNING_KEY_READY)
    assert found is not None and (found.reason, found.message) == ("SigningKeyInvalid", str(refused.value))


async def test_no_value_of_a_secret_is_ever_shown() -> None:
    content = '{"priv_key": {"value": "TOP-SECRET'
    with pytest.raises(TaskFailedError) as refused:
        await validate_node_key(_node(validator={}), {"secretName": "s"}, _world(s=_file("node_key.json", content)))
    assert "TOP-SECRET" not in str(refused.value)


async def test_good_keys_pass_and_missing_secrets_are_waited_for() -> None:
    node = _node(validator={})
    signing = _world(s=_file("priv_validator_key.json", json.dumps(SIGNING)))
    assert await validate_signing_key(node, {"secretName": "s"}, signing) is Outcome.DONE
    node_key = _world(s=_file("node_key.json", json.dumps({"priv_key": PAIR})))
    assert await validate_node_key(node, {"secretName": "s"}, node_key) is Outcome.DONE
    assert await validate_node_key(node, {"secretName": "s"}, _world()) is Outcome.WAITING
    found = condition(node, NodeCondition.NODE_KEY_READY)
    assert found is not None
    assert (found.reason, found.message) == ("NodeKeyNotReady", 'secret "s" not found in namespace "ns"')
    deleted = _file("node_key.json", "{}")
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await validate_node_key(node, {"secretName": "s"}, _world(s=deleted)) is Outcome.WAITING
    with pytest.raises(TaskFailedError, match="validate-node-key: secretName is empty"):
        await validate_node_key(node, {}, _world())


KEYRING = {"secretName": "k", "passphraseSecretName": "p", "passphraseSecretKey": "pass", "keyName": "ops"}
GOOD_KEYRING = {"ops.info": "i", "00.address": "a"}


@pytest.mark.parametrize(
    ("keyring", "passphrase", "problem"),
    [
        ({**GOOD_KEYRING, "x.info": ""}, {"pass": "w"}, 'data key "x.info" is empty'),
        ({"00.address": "a"}, {"pass": "w"}, 'has no "*.info" data keys'),
        ({"ops.info": "i"}, {"pass": "w"}, 'has no "*.address" data keys'),
        ({"other.info": "i", "00.address": "a"}, {"pass": "w"}, 'missing data key "ops.info" for keyName "ops"'),
        (GOOD_KEYRING, {}, 'passphrase Secret "p" missing data key "pass"'),
        (GOOD_KEYRING, {"pass": ""}, 'passphrase Secret "p" data key "pass" is empty'),
    ],
)
async def test_a_bad_keyring_fails_and_says_why(
    keyring: dict[str, str], passphrase: dict[str, str], problem: str
) -> None:
    node = _node(validator={})
    with pytest.raises(TaskFailedError) as refused:
        await validate_operator_keyring(node, KEYRING, _world(k=_secret(**keyring), p=_secret(**passphrase)))
    assert problem in str(refused.value)


async def test_a_good_keyring_passes_and_each_parameter_is_needed() -> None:
    node = _node(validator={})
    world = _world(k=_secret(**GOOD_KEYRING), p=_secret(**{"pass": "w"}))
    assert await validate_operator_keyring(node, KEYRING, world) is Outcome.DONE
    for name in ("secretName", "passphraseSecretName", "passphraseSecretKey"):
        with pytest.raises(TaskFailedError, match=f"validate-operator-keyring: {name} is empty"):
            await validate_operator_keyring(node, {**KEYRING, name: ""}, world)
