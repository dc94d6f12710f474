"""The real list settles a deliberate difference wherever it shows, not only in the recorded cases that first showed it.

Each case is a sibling of a recorded one: what upstream does in it follows from docs/contracts/controller-behaviour.md.
"""

from __future__ import annotations

from typing import Any

import pytest

from replay.differences import CaseRules, DifferenceBook
from replay.sequence import Incarnation
from replay.states import compare_states

BOOK = DifferenceBook.load()
BOOTSTRAP = {"do": "create", "manifest": {"spec": {"validator": {"snapshot": {"bootstrapImage": "i"}}}}}
PAUSE = {"do": "patch", "body": {"spec": {"paused": True}}}


def rules(*steps: dict[str, Any]) -> CaseRules:
    return BOOK.for_case("flows", "never-seen", steps)


def task_rule(kind: str) -> dict[str, Any]:
    return {"do": "sidecar-rule", "node": "n0", "rule": {"on": "task", "type": kind, "error": "e"}}


def state(phase: str | None, plan: str | None, number: int = 1, **plan_fields: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"phase": phase} if phase else {}
    if plan is not None:
        task = {"type": "snapshot-restore", "id": f"<task:plan-{number}/snapshot-restore/0>", "params": {}}
        status["plan"] = {"id": f"<plan-{number}>", "phase": plan, "tasks": [task], **plan_fields}
    return {"kind": "SeiNode", "name": "n0", "event": "MODIFIED", "finalizers": [], "status": status or None}


def incarnation(*states: dict[str, Any]) -> Incarnation:
    return Incarnation("SeiNode/n0", [{**one, "n": number} for number, one in enumerate(states, 1)])


@pytest.mark.parametrize("kind", ["snapshot-restore", "configure-state-sync", "set-genesis-peers"])
def test_a_network_task_is_retried_where_upstream_fails(kind: str) -> None:
    active = state("Initializing", "Active")
    failed = state("Failed", "Failed", failedTaskDetail={"type": kind, "error": "e"})
    recorded = incarnation(state(None, None), active, failed)
    listed = rules(task_rule(kind))
    assert compare_states(recorded, incarnation(state(None, None), active, active), listed).parted == []
    assert listed.used == {"D1"}
    assert listed.may_be_missing("waits", {"what": "Failed"})


def test_a_local_task_is_not_retried() -> None:
    active = state("Initializing", "Active")
    failed = state("Failed", "Failed", failedTaskDetail={"type": "config-apply", "error": "e"})
    recorded = incarnation(state(None, None), active, failed)
    assert compare_states(
        recorded, incarnation(state(None, None), active, active), rules(task_rule("config-apply"))
    ).parted


@pytest.mark.parametrize("phase", ["Initializing", "Failed", "Terminating", None])
def test_a_bootstrap_node_has_no_stateful_set_before_its_job_is_gone(phase: str | None) -> None:
    status: dict[str, Any] = {"phase": phase} if phase else {"conditions": {}}
    reference = {"name": "n0", "uid": "<uid:StatefulSet/n0>"}
    owned = {"status.statefulSet": True, "status.statefulSet.uid": True}
    manager = {"manager Update status": {"fields": {"status.phase": True}}}
    with_owned = {"manager Update status": {"fields": {"status.phase": True, **owned}}}
    recorded = {
        "SeiNode/n0": {"metadata": {"managedFields": with_owned}, "status": {**status, "statefulSet": reference}}
    }
    produced = {"SeiNode/n0": {"metadata": {"managedFields": manager}, "status": status}}
    assert rules(BOOTSTRAP).compare("objects", recorded, produced) == []
    assert rules().compare("objects", recorded, produced) != []


def test_an_observed_bootstrap_node_has_its_stateful_set() -> None:
    running = {"phase": "Running", "currentImage": "i"}
    reference = {"name": "n0", "uid": "<uid:StatefulSet/n0>"}
    recorded = {"SeiNode/n0": {"status": {**running, "statefulSet": reference}}}
    assert rules(BOOTSTRAP).compare("objects", recorded, {"SeiNode/n0": {"status": running}}) != []


def test_a_foreign_claim_that_stays_is_not_waited_for() -> None:
    gone = {"what": "claim gone", "until": {"object": "PersistentVolumeClaim/data-n0", "absent": True}}
    assert rules().may_be_missing("waits", gone)
    assert not rules().may_be_missing("waits", {"what": "x", "until": {"object": "SeiNode/n0", "absent": True}})


def test_a_paused_failed_node_is_scaled_down_however_the_script_noticed_the_failure() -> None:
    recorded, produced = ({"StatefulSet/n0": {"spec": {"replicas": number}}} for number in (1, 0))
    assert rules(PAUSE).compare("objects", recorded, produced) == []
    assert rules().compare("objects", recorded, produced) != []


def test_a_recording_that_ends_with_a_failed_update() -> None:
    started = {"status": "True", "reason": "UpdateStarted", "message": "image drift detected: a"}
    failed = {"status": "False", "reason": "UpdateFailed", "message": "plan <plan-1> failed: task config-patch: denied"}
    status = {"phase": "Running", "plan": {"phase": "Failed"}}
    recorded, produced = (
        {"SeiNode/n0": {"status": {**status, "conditions": {"NodeUpdateInProgress": one}}}} for one in (started, failed)
    )
    assert rules().compare("objects", recorded, produced) == []


def test_a_retried_task_keeps_its_error_at_the_end_of_a_recording() -> None:
    task = {"type": "configure-genesis", "status": "Pending", "retryCount": 2}
    kept = {**task, "retryCount": 3, "error": "e", "submittedAt": "<time>"}
    recorded, produced = (
        {"SeiNode/n0": {"status": {"plan": {"phase": "Active", "tasks": [one]}}}} for one in (task, kept)
    )
    assert rules(task_rule("configure-genesis")).compare("objects", recorded, produced) == []
    assert rules().compare("objects", recorded, produced) != []


@pytest.mark.parametrize("kind", ["Service/n0", "ConfigMap/n0-rbac-proxy-config"])
@pytest.mark.parametrize(
    "body", [{"podLabels": {"team": "x"}}, {"fullNode": {"snapshotGeneration": {"tendermint": {"publish": {}}}}}]
)
def test_companions_follow_labels_that_come_and_go(kind: str, body: dict[str, Any]) -> None:
    listed = rules({"do": "patch", "body": {"spec": body}})
    field = {"metadata.labels.team": True}
    bare: dict[str, Any] = {
        kind: {"metadata": {"labels": {}, "managedFields": {"seinode-controller Apply": {"fields": {}}}}}
    }
    labelled = {
        kind: {"metadata": {"labels": {"team": "x"}, "managedFields": {"seinode-controller Apply": {"fields": field}}}}
    }
    assert listed.compare("objects", bare, labelled) == []
    assert listed.compare("objects", labelled, bare) == []
    assert rules().compare("objects", bare, labelled) != []


def test_companions_that_come_back_are_not_waited_for() -> None:
    gone = {"what": "x", "until": {"object": "Service/n0", "absent": True}}
    listed = rules({"do": "delete", "object": "Service/n0"})
    assert listed.may_be_missing("waits", gone)
    assert listed.compare("checks", {"7 Service/n0 metadata.name": None}, {"7 Service/n0 metadata.name": "n0"}) == []
    assert not rules().may_be_missing("waits", gone)


def test_label_peers_beside_other_sources() -> None:
    sources = [{"static": {"addresses": ["a"]}}, {"label": {"selector": {"a": "b"}}}]
    listed = rules({"do": "create", "manifest": {"spec": {"peers": sources}}})
    before = {"status": {"phase": "Running", "resolvedPeers": ["a"]}}
    assert listed.may_be_extra("status", {"status": {"phase": "Running", "resolvedPeers": ["a", "b"]}}, before)
    other = {"status": {"phase": "Running", "resolvedPeers": ["a", "b"], "currentImage": "i"}}
    assert not listed.may_be_extra("status", other, before)
    assert not rules().may_be_extra("status", before, before)


def test_which_pass_of_a_plan_sees_a_peer_is_chance() -> None:
    listed = rules({"do": "create", "manifest": {"spec": {"peers": [{"label": {"selector": {"a": "b"}}}]}}})
    for phase, plan, settled in (
        ("Initializing", "Active", True),
        ("Running", "Complete", True),
        ("Running", None, False),
    ):
        bare, resolved = state(phase, plan), state(phase, plan)
        resolved["status"]["resolvedPeers"] = ["a"]
        assert (listed.compare("status", bare, resolved) == []) is settled
        assert (listed.compare("status", resolved, bare) == []) is settled
        assert rules().compare("status", bare, resolved) != []


def test_what_a_user_wrote_out_stays() -> None:
    listed = rules({"do": "create", "manifest": {"spec": {"paused": False}}})
    recorded = {"SeiNode/n0": {"metadata": {"generation": 2}, "spec": {}}}
    produced = {"SeiNode/n0": {"metadata": {"generation": 1}, "spec": {"paused": False}}}
    assert listed.compare("objects", recorded, produced) == []
    assert rules().compare("objects", recorded, produced) != []


def test_an_object_that_an_edit_makes_undecodable() -> None:
    listed = rules({"do": "patch", "body": {"spec": {"sidecar": {"port": 3_000_000_000}}}})
    marked = {"status": {"conditions": {"SpecValid": {"status": "False", "reason": "Undecodable"}}}}
    assert listed.stands_alone("status", marked)
    assert not rules().stands_alone("status", marked)


EDITED = {"do": "patch", "object": "StatefulSet/n0", "body": {"spec": {"replicas": 3}}}
GRACE = "spec.template.spec.terminationGracePeriodSeconds"


def test_a_grace_period_edited_by_hand_is_put_back() -> None:
    def form(seconds: int, user_fields: dict[str, bool] | None) -> dict[str, Any]:
        managed = {"golden-user Update": {"apiVersion": "apps/v1", "fields": user_fields}} if user_fields else {}
        spec = {"template": {"spec": {"terminationGracePeriodSeconds": seconds}}}
        return {"StatefulSet/n0": {"metadata": {"managedFields": managed}, "spec": spec}}

    label = {"metadata.labels.team": True}
    assert rules(EDITED).compare("objects", form(77, {GRACE: True, **label}), form(120, label)) == []
    assert rules(EDITED).compare("objects", form(77, {GRACE: True}), form(120, None)) == []
    assert rules(EDITED).compare("objects", form(77, label), form(120, None)) != []
    assert rules().compare("objects", form(77, None), form(120, None)) != []


def test_a_sidecar_that_restarts_with_more_pods_is_opened_each_time() -> None:
    def requests(*plans: int) -> dict[str, Any]:
        ids = [f"<task:{number}/mark-ready/0>" for number in plans]
        return {"n0": {"tasks": {ident: {"posts": []} for ident in ids}, "order": ids, "other": {}}}

    rest = state("Running", None)
    reopened = state("Running", "Active")
    reopened["status"]["plan"]["tasks"][0]["type"] = "mark-ready"
    listed = rules(EDITED)
    for fewer, more in ((requests(1), requests(1, 2)), (requests(), requests(1))):
        assert listed.compare("requests", fewer, more) == []
        assert listed.compare("requests", more, fewer) == []
        assert rules().compare("requests", fewer, more) != []
    assert compare_states(incarnation(rest), incarnation(rest, reopened, rest), listed).parted == []
    assert compare_states(incarnation(rest, reopened, rest), incarnation(rest), listed).parted == []
    assert compare_states(incarnation(rest), incarnation(rest, reopened, rest), rules()).parted != []


def test_a_second_edit_behind_replace_pod_does_not_wedge() -> None:
    waits = {"do": "wait", "what": "x", "until": {"path": "status.plan.tasks[type=replace-pod].status"}}
    active, done = state("Running", "Active"), state("Running", "Complete")
    stamped = {**done, "status": {**done["status"], "endpoint": {"evmWs": "x"}}}
    recorded = incarnation(active, stamped, state("Running", None))
    assert compare_states(recorded, incarnation(active, done, state("Running", "Active", 2)), rules(waits)).parted == []
    assert compare_states(recorded, incarnation(active, done, state("Running", "Active", 2)), rules()).parted != []
