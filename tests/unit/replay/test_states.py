"""Walking through two sequences of states side by side, with and without listed differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replay.differences import CaseRules, DifferenceBook
from replay.sequence import Incarnation
from replay.states import compare_states


def line(number: int, **status: Any) -> dict[str, Any]:
    conditions = [
        {"type": name, "status": value.split("/")[0], "reason": value.split("/")[1], "message": ""}
        for name, value in status.pop("conditions", {}).items()
    ]
    full = {**status, "conditions": conditions} if conditions or status else None
    return {"n": number, "kind": "SeiNode", "name": "n0", "event": "MODIFIED", "finalizers": [], "status": full}


def plan(phase: str, number: int = 1, **task: Any) -> dict[str, Any]:
    tasks = [{"type": "config-apply", "id": f"<task:plan-{number}/config-apply/0>", "params": {}, **task}]
    return {"id": f"<plan-{number}>", "phase": phase, "tasks": tasks}


def node(*states: dict[str, Any]) -> Incarnation:
    return Incarnation("SeiNode/n0", [{**state, "n": number} for number, state in enumerate(states, 1)])


def rules(tmp_path: Path, text: str) -> CaseRules:
    path = tmp_path / "differences.yaml"
    path.write_text(f"differences:\n  - id: X\n    about: x\n    cases: ['*']\n    rules:\n{text}")
    return DifferenceBook.load(path).for_case("flows", "any")


NONE = CaseRules([])
EMPTY = line(0)
ACTIVE = line(0, phase="Initializing", plan=plan("Active", status="Pending"))
WORKING = line(0, phase="Initializing", plan=plan("Active", status="Running", submittedAt="<time>"))
DONE = line(0, phase="Running", plan=plan("Complete", status="Complete"))
REST = line(0, phase="Running")
GATED = line(0, conditions={"StateSyncReady": "False/NoSyncersConfigured"})
BROKEN = line(0, conditions={"StateSyncReady": "Unknown/SyncerSourceError"})


def test_repeats_and_progress_do_not_count() -> None:
    recorded = node(EMPTY, ACTIVE, WORKING, WORKING, DONE, REST)
    assert compare_states(recorded, node(EMPTY, EMPTY, ACTIVE, DONE, REST, REST), NONE).parted == []


def test_order_counts() -> None:
    assert compare_states(node(EMPTY, GATED, BROKEN), node(EMPTY, BROKEN, GATED), NONE).parted != []


def test_a_state_that_is_left_out_or_added_counts() -> None:
    missing = compare_states(node(EMPTY, GATED, BROKEN, REST), node(EMPTY, GATED, REST), NONE)
    assert missing.parted[0].startswith("SeiNode/n0: state 3 of 4 (no phase; ours: Running): status.conditions")
    added = compare_states(node(EMPTY, GATED, REST), node(EMPTY, GATED, BROKEN, REST), NONE)
    assert added.parted != []
    longer = compare_states(node(EMPTY, REST), node(EMPTY, REST, GATED), NONE)
    assert longer.parted == ["SeiNode/n0: state 3 is one more than recorded: no phase"]
    shorter = compare_states(node(EMPTY, GATED, REST), node(EMPTY, GATED), NONE)
    assert shorter.parted == ["SeiNode/n0: state 3 of 3 (Running) was never reached"]


def test_ours_may_go_on_only_behind_a_lingering_plan() -> None:
    verdict = compare_states(node(EMPTY, ACTIVE, DONE), node(EMPTY, ACTIVE, DONE, REST), NONE)
    assert (verdict.parted, verdict.number, verdict.cut) == ([], 3, True)


def test_plans_are_paired_by_place() -> None:
    second = line(0, phase="Running", plan=plan("Active", 2))
    other = line(0, phase="Running", plan=plan("Active", 7))
    verdict = compare_states(node(ACTIVE, DONE, second), node(ACTIVE, DONE, other), NONE)
    assert (verdict.parted, verdict.plans) == ([], {"plan-1": "plan-1", "plan-2": "plan-7"})


def test_retried_task_counts_at_the_end() -> None:
    retried = line(0, phase="Running", plan=plan("Complete", status="Complete", retryCount=3))
    assert "retryCount" in compare_states(node(ACTIVE, retried), node(ACTIVE, DONE), NONE).parted[0]


def test_extra_only_if_nothing_else_changes(tmp_path: Path) -> None:
    text = "      - {stream: status, extra: {}, changes: [status.conditions.StateSyncReady]}\n"
    listed = rules(tmp_path, text)
    assert compare_states(node(EMPTY, GATED), node(EMPTY, GATED, BROKEN, GATED), listed).parted == []
    assert listed.used == {"X"}
    assert compare_states(node(EMPTY, GATED), node(EMPTY, GATED, REST, GATED), listed).parted != []


def test_extra_only_behind_what_is_named(tmp_path: Path) -> None:
    text = "      - {stream: status, extra: {status: {plan: null}}, after: {status: {plan: {phase: Complete}}}}\n"
    listed = rules(tmp_path, text)
    ended = line(0, phase="Failed")
    assert compare_states(node(ACTIVE, DONE, ended), node(ACTIVE, DONE, REST, ended), listed).parted == []
    assert compare_states(node(ACTIVE, ended), node(ACTIVE, REST, ended), listed).parted != []


def test_missing(tmp_path: Path) -> None:
    listed = rules(
        tmp_path,
        "      - {stream: status, missing: {status: {conditions: {StateSyncReady: {reason: SyncerSourceError}}}}}\n",
    )
    assert compare_states(node(EMPTY, BROKEN, REST), node(EMPTY, REST), listed).parted == []
    assert compare_states(node(EMPTY, GATED, REST), node(EMPTY, REST), listed).parted != []


def test_divergence_where_the_recording_goes_on_as_named(tmp_path: Path) -> None:
    listed = rules(
        tmp_path,
        "      - stream: status\n"
        "        diverges: {status: {phase: Initializing}}\n"
        "        instead: {status: {conditions: {StateSyncReady: {reason: SyncerSourceError}}}}\n",
    )
    verdict = compare_states(node(EMPTY, GATED, BROKEN), node(EMPTY, GATED, ACTIVE, DONE), listed)
    assert (verdict.parted, verdict.alone) == ([], True)
    assert compare_states(node(EMPTY, GATED, GATED), node(EMPTY, GATED, ACTIVE, DONE), listed).parted != []
    assert compare_states(node(EMPTY, GATED, BROKEN), node(EMPTY, REST, ACTIVE, DONE), listed).parted != []


def test_alone(tmp_path: Path) -> None:
    listed = rules(
        tmp_path, "      - {stream: status, alone: {status: {conditions: {SpecValid: {reason: Undecodable}}}}}\n"
    )
    marked = line(0, conditions={"SpecValid": "False/Undecodable"})
    assert compare_states(node(EMPTY), node(EMPTY, marked), listed).alone
    assert not compare_states(node(EMPTY), node(EMPTY), listed).alone


def test_probes_of_a_pod_that_is_replaced_are_chance() -> None:
    replaces = {"id": "<plan-1>", "phase": "Active", "tasks": [{"type": "replace-pod", "id": "t", "params": {}}]}
    ready = line(0, phase="Running", plan=replaces, conditions={"SidecarReady": "True/Ready"})
    lost = line(0, phase="Running", plan=replaces, conditions={"SidecarReady": "False/NotReady"})
    assert compare_states(node(ready, lost, ready), node(ready), NONE).parted == []
    at_rest = line(0, phase="Running", conditions={"SidecarReady": "True/Ready"})
    lost_at_rest = line(0, phase="Running", conditions={"SidecarReady": "False/NotReady"})
    assert compare_states(node(at_rest, lost_at_rest, at_rest), node(at_rest), NONE).parted != []


def test_a_probe_that_ran_out_of_time_is_chance() -> None:
    ready, late = (
        line(0, phase="Running", conditions={"SidecarReady": f"{status}"})
        for status in ("True/Ready", "Unknown/Unreachable")
    )
    late["status"]["conditions"][0]["message"] = (
        'sidecar Healthz error: Get "http://a/v0/healthz": context deadline exceeded'
    )
    assert compare_states(node(ready, late, ready), node(ready), NONE).parted == []
    late["status"]["conditions"][0]["message"] = "sidecar Healthz error: connection refused"
    assert compare_states(node(ready, late, ready), node(ready), NONE).parted != []


def test_probes_of_a_state_that_is_stepped_over_do_not_count(tmp_path: Path) -> None:
    listed = rules(tmp_path, "      - {stream: status, extra: {status: {plan: {tasks: [{type: mark-ready}]}}}}\n")
    rest = line(0, phase="Running", conditions={"SidecarReady": "True/Ready"})
    again = plan("Active", type="mark-ready")
    reopened = line(0, phase="Running", plan=again, conditions={"SidecarReady": "False/NotReady"})
    assert compare_states(node(rest), node(rest, reopened, rest), listed).parted == []
    assert compare_states(node(rest), node(rest, reopened, rest), NONE).parted != []
