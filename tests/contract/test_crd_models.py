"""Reading and writing one object: as lenient as a typed Kubernetes client, and exact about what does not fit."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seiops.api import SeiNetwork, SeiNode, SeiNodeTask, UndecodableError
from seiops.api.meta import rfc3339
from seiops.api.node import (
    DataVolume,
    DataVolumeImport,
    FullNodeSpec,
    NodeCondition,
    SeiNodeSpec,
    SnapshotSource,
    StateSyncSource,
)
from seiops.api.status import Condition, NodePhase, PlannedTask, TaskPlan


def stored(spec: Any, status: Any = None) -> dict[str, Any]:
    return {
        "apiVersion": "sei.io/v1alpha1",
        "kind": "SeiNode",
        "metadata": {"name": "n", "namespace": "ns", "generation": 3, "managedFields": [{"manager": "x"}]},
        "spec": spec,
        **({"status": status} if status is not None else {}),
    }


MINIMAL = {"chainId": "gold-1", "image": "seid:1", "fullNode": {}}


def problems(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(UndecodableError) as caught:
        SeiNode.decode(raw)
    assert (caught.value.kind, caught.value.namespace, caught.value.name) == ("SeiNode", "ns", "n")
    return [str(problem) for problem in caught.value.problems]


def test_unknown_fields_are_ignored_and_absent_ones_are_zero() -> None:
    node = SeiNode.decode(stored({**MINIMAL, "storage": {"retainOnDelete": True}}))
    assert node.spec.full_node is not None
    assert node.spec.archive is None
    assert node.spec.peers == []
    assert node.spec.paused is False
    assert node.status.phase == ""
    assert node.metadata.generation == 3


def test_an_object_without_spec_is_read_as_an_empty_one() -> None:
    raw = stored(None)
    del raw["spec"]
    assert SeiNode.decode(raw).spec == SeiNodeSpec()


def test_null_stands_for_absent_at_any_depth() -> None:
    raw = stored({**MINIMAL, "peers": None, "sidecar": {"port": None, "image": "s"}, "overrides": None})
    node = SeiNode.decode(raw)
    assert node.spec.peers == []
    assert node.spec.sidecar is not None
    assert (node.spec.sidecar.port, node.spec.sidecar.image) == (0, "s")


def test_values_that_admission_would_refuse_are_read_all_the_same() -> None:
    node = SeiNode.decode(stored({**MINIMAL, "chainId": "NOT A LABEL", "image": "x" * 600}, {"phase": "Unheard"}))
    assert node.spec.chain_id == "NOT A LABEL"
    assert node.status.phase == "Unheard"


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        (
            {"fullNode": {"snapshotGeneration": {"tendermint": {"keepRecent": 2**31}}}},
            "spec.fullNode.snapshotGeneration.tendermint.keepRecent",
            2**31,
        ),
        ({"sidecar": {"port": 2**32}}, "spec.sidecar.port", 2**32),
        (
            {
                "fullNode": None,
                "validator": {
                    "genesisCeremony": {"chainId": "c", "stakingAmount": "1", "accountBalance": "1", "index": 2**31}
                },
            },
            "spec.validator.genesisCeremony.index",
            2**31,
        ),
    ],
)
def test_d27_an_integer_beyond_int32_names_its_field(change: dict[str, Any], path: str, value: int) -> None:
    assert problems(stored({**MINIMAL, **change})) == [
        f"{path}: {value} is above 2147483647, the largest value the field can hold"
    ]


def test_every_field_that_does_not_fit_is_named() -> None:
    raw = stored(
        {**MINIMAL, "image": 7, "paused": "maybe", "peers": [{"static": {"addresses": [["a"]]}}], "overrides": []},
        {"plan": {"tasks": {}}, "phaseTransitionTime": "yesterday"},
    )
    assert problems(raw) == [
        "spec.image: 7 is not a string",
        "spec.peers[0].static.addresses[0]: ['a'] is not a string",
        "spec.overrides: [] is not a map",
        "spec.paused: 'maybe' is not a boolean",
        "status.phaseTransitionTime: 'yesterday' is not an RFC 3339 time",
        "status.plan.tasks: {} is not a list",
    ]


def test_a_null_beside_a_bad_value_does_not_hide_it() -> None:
    assert problems(stored({**MINIMAL, "peers": None, "image": 7})) == ["spec.image: 7 is not a string"]


def test_a_long_value_is_cut_in_the_message() -> None:
    (problem,) = problems(stored({**MINIMAL, "overrides": ["x" * 10_000]}))
    assert len(problem) < 200


def test_the_wire_form_omits_what_is_unset_and_keeps_empty_signals() -> None:
    node = SeiNode(
        spec=SeiNodeSpec(
            chain_id="gold-1",
            image="seid:1",
            full_node=FullNodeSpec(snapshot=SnapshotSource(state_sync=StateSyncSource())),
            data_volume=DataVolume(import_=DataVolumeImport(pvc_name="claim")),
        )
    )
    assert node.wire() == {
        "apiVersion": "sei.io/v1alpha1",
        "kind": "SeiNode",
        "metadata": {},
        "spec": {
            "chainId": "gold-1",
            "image": "seid:1",
            "fullNode": {"snapshot": {"stateSync": {}}},
            "dataVolume": {"import": {"pvcName": "claim"}},
        },
        "status": {},
    }


def test_required_zeros_stay_optional_zeros_go_and_opaque_nulls_are_kept() -> None:
    plan = TaskPlan(
        phase="Active",
        tasks=[PlannedTask(type="config-apply", id="i", status="Pending", params={"a": None, "b": 0})],
        failed_task_index=0,
    )
    assert plan.wire() == {
        "phase": "Active",
        "tasks": [{"type": "config-apply", "id": "i", "status": "Pending", "params": {"a": None, "b": 0}}],
        "failedTaskIndex": 0,
    }
    assert TaskPlan().wire() == {"phase": "", "tasks": []}


def test_enum_members_are_plain_strings_on_the_wire() -> None:
    condition = Condition(type=NodeCondition.PAUSED, status="True", reason="Paused", message="")
    assert json.dumps(condition.wire()) == json.dumps(
        {"type": "Paused", "status": "True", "reason": "Paused", "message": ""}
    )
    assert type(condition.wire()["type"]) is str
    assert SeiNode.decode(stored(MINIMAL, {"phase": "Running"})).status.phase == NodePhase.RUNNING


def test_times_are_whole_seconds_in_utc() -> None:
    east = timezone(timedelta(hours=2))
    assert rfc3339(datetime(2024, 5, 1, 2, 0, 0, 999_999, east)) == "2024-05-01T00:00:00Z"
    assert rfc3339(datetime(2024, 5, 1)) == "2024-05-01T00:00:00Z"
    node = SeiNode.decode(stored(MINIMAL, {"phaseTransitionTime": "2024-05-01T02:00:00.5+02:00"}))
    assert node.status.phase_transition_time == datetime(2024, 5, 1, 0, 0, 0, 500_000, UTC)
    assert node.status.wire() == {"phaseTransitionTime": "2024-05-01T00:00:00Z"}


def test_names_that_camel_case_would_spell_otherwise() -> None:
    status = {"resolvedRPCWitnesses": ["a:1"], "resolvedStateSyncers": ["b:2"]}
    assert SeiNode.decode(stored(MINIMAL, status)).status.wire() == status
    network = SeiNetwork.decode({"status": {"genesisS3URI": "s3://b/k", "genesisHash": "h"}})
    assert network.status.wire() == {"genesisS3URI": "s3://b/k", "genesisHash": "h"}


def test_quantities_keep_the_form_in_which_they_were_written() -> None:
    resources = {"requests": {"memory": 1073741824, "cpu": "500m"}}
    node = SeiNode.decode(stored({**MINIMAL, "sidecar": {"resources": resources}}))
    assert node.spec.sidecar is not None
    assert node.spec.sidecar.wire() == {"resources": resources}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_json_under_spec_is_read_or_refused_by_name(value: Any) -> None:
    for kind in (SeiNode, SeiNodeTask):
        try:
            kind.decode({"metadata": {"name": "n"}, "spec": {"target": value, "image": value, "peers": value}})
        except UndecodableError as error:
            assert error.name == "n"
            assert all(problem.path.startswith("spec.") for problem in error.problems)
