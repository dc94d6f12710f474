"""Rules of plans: ids, order of tasks by mode, refusals, drift, submissions."""

from __future__ import annotations

from typing import Any

import pytest

from seiops.api.node import SeiNode
from seiops.api.status import PlannedTask, TaskStatus
from seiops.controller import plan
from seiops.controller.appconfig import AppConfig
from seiops.controller.plan import PlanInvalidError, Runner, TaskType
from seiops.controller.plan.wire import SubmissionInvalidError, UndecodableTaskError
from unit.controller import recorded

ZERO = "00000000-0000-4000-8000-000000000000"
KEYS = {"signingKey": {"secret": {"secretName": "sign"}}, "nodeKey": {"secret": {"secretName": "id"}}}
KEYRING = {
    "secret": {"secretName": "ring", "passphraseSecretRef": {"secretName": "pass", "key": "p"}, "keyName": "ops"}
}
ARCHIVE = {"s3": {"targetHeight": 4200}}
CEREMONY = {"chainId": "fresh-1", "stakingAmount": "1usei", "accountBalance": "2usei", "index": 0}


def ring(secret: str, passphrase: str) -> dict[str, Any]:
    return {"secret": {"secretName": secret, "passphraseSecretRef": {"secretName": passphrase, "key": "k"}}}


def node(**spec: Any) -> SeiNode:
    return SeiNode.decode(
        {
            "kind": "SeiNode",
            "metadata": {"name": "n0", "namespace": "ns", "uid": "u"},
            "spec": {"chainId": "gold-1", "image": "seid:v1", **spec},
        }
    )


def ctx() -> plan.PlanContext:
    return plan.PlanContext(recorded.config(recorded.pack()["config"]), lambda: ZERO)


def types(**spec: Any) -> list[str]:
    return [task.type for task in plan.build_init(node(**spec), ctx()).tasks]


@pytest.mark.parametrize(
    ("task_type", "index", "wanted"),
    [
        ("ensure-data-pvc", 0, "73a3dbf5-7d96-5361-bf10-9e96a122450a"),
        ("apply-rbac-proxy-config", 1, "419a5918-0767-5700-aa49-2e96726338fd"),
        ("configure-genesis", 4, "194d2eaa-d049-5ec3-ab2c-60ed973a1541"),
        ("mark-ready", 9, "51dc2c09-bb63-5dea-bbb0-e0d2e8d4dde6"),
        ("mark-ready", 0, "bfc1314a-0b03-5197-8db4-1b7f37264be3"),
        ("assemble-and-upload-genesis", 0, "56b7db29-16a9-5729-a641-7eafc71cf1fe"),
        ("mark-not-ready", 0, "d1756b5b-9ae4-594f-aadf-ffea962bd3c2"),
    ],
)
def test_task_ids_are_those_of_the_contract(task_type: str, index: int, wanted: str) -> None:
    assert plan.task_id(ZERO, task_type, index) == wanted


PREFIX = ["apply-rbac-proxy-config", "apply-statefulset", "apply-service"]
GENESIS = ["configure-genesis", "config-apply", "config-validate", "mark-ready"]
STATE_SYNC = ["configure-genesis", "config-apply", "configure-state-sync", "config-validate", "mark-ready"]
GATES = ["validate-signing-key", "validate-node-key", "validate-operator-keyring"]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"fullNode": {}}, ["ensure-data-pvc", *PREFIX, *GENESIS]),
        ({"archive": {}}, ["ensure-data-pvc", *PREFIX, *GENESIS]),
        ({"fullNode": {"snapshot": {"stateSync": {}}}}, ["ensure-data-pvc", *PREFIX, *STATE_SYNC]),
        ({"fullNode": {"snapshot": ARCHIVE}}, ["ensure-data-pvc", *PREFIX, "snapshot-restore", *STATE_SYNC]),
        ({"fullNode": {"snapshot": {}}}, ["ensure-data-pvc", *PREFIX, *STATE_SYNC]),
        ({"replayer": {"snapshot": ARCHIVE}}, ["ensure-data-pvc", *PREFIX, "snapshot-restore", *STATE_SYNC]),
        ({"validator": {}}, ["ensure-data-pvc", *PREFIX, *GENESIS]),
        ({"validator": {**KEYS, "operatorKeyring": KEYRING}}, ["ensure-data-pvc", *GATES, *PREFIX, *GENESIS]),
        (
            {"validator": {**KEYS, "snapshot": {"stateSync": {}}}},
            ["ensure-data-pvc", *GATES[:2], *PREFIX, *STATE_SYNC],
        ),
        ({"seed": {"nodeKey": KEYS["nodeKey"]}}, ["ensure-data-pvc", "validate-node-key", *PREFIX, *GENESIS]),
        (
            {"validator": {"genesisCeremony": CEREMONY, "operatorKeyring": KEYRING, "snapshot": ARCHIVE}},
            [
                "ensure-data-pvc",
                *PREFIX,
                "generate-identity",
                "generate-gentx",
                "upload-genesis-artifacts",
                "configure-genesis",
                "config-apply",
                "set-genesis-peers",
                "config-validate",
                "mark-ready",
            ],
        ),
        (
            {"validator": {**KEYS, "operatorKeyring": KEYRING, "snapshot": {**ARCHIVE, "bootstrapImage": "old"}}},
            [
                "ensure-data-pvc",
                "apply-rbac-proxy-config",
                *GATES,
                "deploy-bootstrap-service",
                "deploy-bootstrap-job",
                "snapshot-restore",
                *STATE_SYNC,
                "await-bootstrap-complete",
                "teardown-bootstrap",
                "apply-statefulset",
                "apply-service",
                *GENESIS,
            ],
        ),
    ],
)
def test_init_tasks_by_mode(spec: dict[str, Any], wanted: list[str]) -> None:
    assert types(**spec) == wanted


def test_keyring_check_names_the_default_key() -> None:
    built = plan.build_init(node(validator={"operatorKeyring": ring("r", "p")}), ctx())
    task = next(task for task in built.tasks if task.type == "validate-operator-keyring")
    assert task.params["keyName"] == "node_admin"
    assert list(task.params) == sorted(task.params)


def test_user_overrides_win_and_disable_controller_peering() -> None:
    wanted = node(fullNode={}, overrides={"network.p2p.persistent_peers": "mine", "logging.level": "info"})
    wanted.status.resolved_peers = ["a@b:1"]
    task = next(task for task in plan.build_init(wanted, ctx()).tasks if task.type == "config-apply")
    assert task.params["overrides"] == {"logging.level": "info", "network.p2p.persistent_peers": "mine"}


def test_witnesses_are_frozen_into_the_plan() -> None:
    wanted = node(fullNode={"snapshot": {"stateSync": {}}})
    wanted.status.resolved_state_syncers = ["a:1", "b:1"]
    built = plan.build_init(wanted, ctx())
    wanted.status.resolved_state_syncers.clear()
    task = next(task for task in built.tasks if task.type == "configure-state-sync")
    assert task.params["RpcServers"] == ["a:1", "b:1"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "no mode sub-spec set on SeiNode ns/n0"),
        (
            {"fullNode": {"snapshot": {"stateSync": {}, "bootstrapImage": "old"}}},
            "fullNode: bootstrapImage requires s3 with targetHeight > 0",
        ),
        (
            {"archive": {"snapshotGeneration": {}}},
            "archive: snapshotGeneration is set but has no sub-struct (e.g., tendermint); omit it to disable snapshot "
            "generation",
        ),
        (
            {"fullNode": {"snapshotGeneration": {"tendermint": {"keepRecent": 1, "publish": {}}}}},
            "fullNode: snapshotGeneration.tendermint.keepRecent must be >= 2 when publish is set (upload algorithm "
            "requires the second-to-latest snapshot)",
        ),
        ({"replayer": {"snapshot": {"stateSync": {}}}}, "replayer requires an S3 snapshot source"),
        ({"replayer": {"snapshot": {"s3": {"targetHeight": 0}}}}, "replayer: s3.targetHeight must be > 0"),
        ({"replayer": {"snapshot": ARCHIVE}}, "replayer requires at least one peer source for block sync"),
        (
            {"replayer": {"snapshot": ARCHIVE, "resultExport": {}}, "peers": [{"static": {"addresses": ["a"]}}]},
            "replayer: resultExport is set but has no sub-struct (e.g., shadowResult); omit it to disable result export",
        ),
        (
            {"validator": {**KEYS, "genesisCeremony": CEREMONY}},
            "validator: signingKey is mutually exclusive with genesisCeremony",
        ),
        (
            {"validator": {"signingKey": {}, "nodeKey": KEYS["nodeKey"]}},
            "validator: signingKey.secret.secretName is required",
        ),
        ({"validator": {"signingKey": KEYS["signingKey"]}}, "validator: nodeKey is required when signingKey is set"),
        (
            {"validator": {"signingKey": KEYS["signingKey"], "nodeKey": {}}},
            "validator: nodeKey.secret.secretName is required",
        ),
        (
            {"validator": {"signingKey": KEYS["signingKey"], "nodeKey": {"secret": {"secretName": "sign"}}}},
            "validator: signingKey and nodeKey must reference distinct Secrets",
        ),
        ({"validator": {"nodeKey": KEYS["nodeKey"]}}, "validator: nodeKey requires signingKey to be set"),
        (
            {"validator": {"operatorKeyring": ring("same", "same")}},
            'validator: operatorKeyring data Secret "same" must differ from its passphrase Secret',
        ),
        (
            {"validator": {**KEYS, "operatorKeyring": ring("sign", "p")}},
            'validator: operatorKeyring Secret "sign" must differ from signingKey Secret',
        ),
        (
            {"validator": {**KEYS, "operatorKeyring": ring("r", "id")}},
            'validator: operatorKeyring passphrase Secret "id" must differ from nodeKey Secret',
        ),
        (
            {"validator": {"genesisCeremony": {**CEREMONY, "chainId": ""}}},
            "validator: genesisCeremony.chainId is required",
        ),
        (
            {"validator": {"genesisCeremony": {**CEREMONY, "stakingAmount": ""}}},
            "validator: genesisCeremony.stakingAmount is required",
        ),
        (
            {"validator": {"snapshot": {"s3": {"targetHeight": 0}, "bootstrapImage": "old"}}},
            "validator: bootstrapImage requires s3 with targetHeight > 0",
        ),
        (
            {"seed": {"nodeKey": {}}},
            "seed: nodeKey.secret.secretName is required — a seed's NodeID is published and must not be regenerated",
        ),
    ],
)
def test_refusals_have_the_contracts_text(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanInvalidError) as refused:
        plan.build(node(**spec), ctx())
    assert str(refused.value) == message


def test_a_ceremony_validator_may_name_a_bootstrap_image() -> None:
    plan.validate(node(validator={"genesisCeremony": CEREMONY, "snapshot": {"stateSync": {}, "bootstrapImage": "old"}}))


def running(current: str, current_sidecar: str, **spec: Any) -> SeiNode:
    found = node(fullNode={}, **spec)
    found.status.phase = "Running"
    found.status.current_image = current
    found.status.current_sidecar_image = current_sidecar
    return found


SIDECAR = "registry.example/seictl:v1"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (running("seid:v1", SIDECAR), ""),
        (running("seid:v1", ""), ""),
        (running("", ""), "image drift detected: spec=seid:v1 current="),
        (running("seid:v0", SIDECAR), "image drift detected: spec=seid:v1 current=seid:v0"),
        (running("seid:v1", "old"), f"sidecar image drift detected: spec={SIDECAR} current=old"),
        (running("seid:v1", "mine", sidecar={"image": "mine"}), ""),
        (
            running("seid:v0", "old"),
            f"image drift detected: seid spec=seid:v1 current=seid:v0; sidecar spec={SIDECAR} current=old",
        ),
    ],
)
def test_image_drift(found: SeiNode, message: str) -> None:
    assert plan.image_drift(found, ctx().platform) == message
    assert (plan.build(found, ctx()) is not None) == bool(message)


def test_a_closed_gate_is_opened_by_a_new_mark_ready() -> None:
    found = running("seid:v1", SIDECAR)
    found.status.conditions = [recorded.condition("SidecarReady", "False", "NotReady", "")]
    built = plan.build(found, ctx())
    assert built is not None
    assert [task.type for task in built.tasks] == ["mark-ready"]
    assert (built.target_phase, built.failed_phase) == ("Running", "")


def test_an_unreachable_sidecar_is_no_closed_gate() -> None:
    found = running("seid:v1", SIDECAR)
    found.status.conditions = [recorded.condition("SidecarReady", "Unknown", "Unreachable", "")]
    assert plan.build(found, ctx()) is None


def test_d2_the_statefulset_waits_for_the_bootstrap_job() -> None:
    found = node(fullNode={"snapshot": {**ARCHIVE, "bootstrapImage": "old"}})
    assert plan.awaits_bootstrap(found)
    found.status.plan = plan.build_init(found, ctx())
    found.status.phase = "Initializing"
    assert plan.awaits_bootstrap(found)
    for task in found.status.plan.tasks:
        if task.type == "teardown-bootstrap":
            task.status = TaskStatus.COMPLETE.value
    assert not plan.awaits_bootstrap(found)
    found.status.plan, found.status.phase = None, "Running"
    assert not plan.awaits_bootstrap(found)
    assert not plan.awaits_bootstrap(node(fullNode={"snapshot": ARCHIVE}))


def test_d2_an_edit_does_not_take_the_volume_from_a_running_job() -> None:
    found = node(fullNode={"snapshot": {**ARCHIVE, "bootstrapImage": "old"}})
    bootstrapping, plain = plan.build_init(found, ctx()), plan.build_init(node(fullNode={"snapshot": ARCHIVE}), ctx())
    edited = node(fullNode={"snapshot": ARCHIVE})
    edited.status.phase, edited.status.plan = "Initializing", bootstrapping
    assert plan.awaits_bootstrap(edited)
    found.status.phase, found.status.plan = "Initializing", plain
    assert not plan.awaits_bootstrap(found)


def test_d7_config_validate_is_waited_for() -> None:
    assert plan.runner(TaskType.CONFIG_VALIDATE) is Runner.SIDECAR
    assert plan.runner(TaskType.MARK_READY) is Runner.SIDECAR_FORGET


def test_d1_retry_budgets() -> None:
    assert plan.retry_budget("configure-genesis", 180) == 180
    assert plan.retry_budget("replace-pod", 3) == 3
    assert plan.retry_budget("configure-state-sync", 0) == 10
    assert plan.retry_budget("snapshot-restore", 0) == 10
    assert plan.retry_budget("config-apply", 0) == 0
    assert plan.persisted_retries(TaskType.SNAPSHOT_RESTORE) == 0


def stored(task_type: str, params: Any) -> PlannedTask:
    return PlannedTask(type=task_type, id=ZERO, status="Pending", params=params)


@pytest.mark.parametrize(
    ("task_type", "params", "wanted"),
    [
        ("snapshot-restore", {"TargetHeight": 0}, {}),
        ("snapshot-restore", {"targetheight": 7}, {"targetHeight": 7}),
        ("configure-genesis", {"ExpectedGenesisHash": ""}, {}),
        ("mark-ready", None, {}),
        (
            "configure-state-sync",
            {"UseLocalSnapshot": False, "TrustPeriod": "", "BackfillBlocks": 0, "RpcServers": None},
            {},
        ),
        ("config-apply", {"mode": "full"}, {"incremental": False, "mode": "full", "targetVersion": 0}),
        (
            "await-condition",
            {"Condition": "height", "TargetHeight": 5, "Action": ""},
            {"condition": "height", "targetHeight": 5},
        ),
    ],
)
def test_submission_leaves_out_what_is_unset(task_type: str, params: Any, wanted: dict[str, Any]) -> None:
    assert plan.wire.params(stored(task_type, params)) == wanted


@pytest.mark.parametrize(
    ("task_type", "params", "part"),
    [
        ("no-such-task", {}, 'unknown task type "no-such-task"'),
        ("ensure-data-pvc", {}, 'unknown task type "ensure-data-pvc"'),
        ("config-apply", [1], "not an object"),
        ("snapshot-restore", {"TargetHeight": "7"}, "TargetHeight is str, expected int"),
        ("snapshot-restore", {"TargetHeight": True}, "TargetHeight is bool, expected int"),
    ],
)
def test_undecodable_tasks(task_type: str, params: Any, part: str) -> None:
    with pytest.raises(UndecodableTaskError, match=part):
        plan.wire.params(stored(task_type, params))


@pytest.mark.parametrize(
    ("task_type", "params", "part"),
    [
        ("config-apply", {"mode": "full", "overrides": {"no.such.key": "1"}}, "no.such.key"),
        ("config-apply", {"mode": "tiny"}, "tiny"),
        ("config-apply", {"mode": "full", "targetVersion": 3}, "3"),
        ("config-patch", {"files": {}}, "at least one file"),
        ("generate-identity", {"ChainID": "c", "Moniker": ""}, "Moniker"),
        ("await-condition", {"Condition": "height", "TargetHeight": 0}, "TargetHeight"),
        ("await-condition", {"Condition": "moon"}, "moon"),
        ("await-condition", {"Condition": "catchingUp", "Action": "REBOOT"}, "REBOOT"),
        (
            "gov-vote",
            {"ChainID": "c", "KeyName": "k", "ProposalID": 1, "Option": "maybe", "Fees": "1", "Gas": 1},
            "maybe",
        ),
        ("gov-param-change", {}, "ChainId"),
    ],
)
def test_bad_parameters_are_not_sent(task_type: str, params: Any, part: str) -> None:
    with pytest.raises(SubmissionInvalidError, match=f"^validating {task_type}: .*{part}"):
        plan.wire.body(stored(task_type, params))


def test_submissions_escape_as_gos_encoder_does() -> None:
    task = stored("config-apply", {"mode": "full", "overrides": {"chain.moniker": "<a> & b\u2028"}})
    assert rb"\u003ca\u003e \u0026 b\u2028" in plan.wire.body(task)


def test_an_empty_config_builds_plans_too() -> None:
    assert plan.build_init(node(fullNode={}), plan.PlanContext(AppConfig())).tasks
