"""Every plan recorded from the Go controller, built by us from the node and status it was built from."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from seiops.api.node import SeiNode
from seiops.api.status import NodePhase, PlannedTask, TaskPlan
from seiops.controller import plan
from unit.controller import recorded

PLAN_ID = "00000000-0000-4000-8000-000000000000"


def recorded_plans() -> list[Any]:
    found = []
    for case in recorded.cases():
        for entry in case.raw["plans"]:
            found.append(pytest.param(case, entry, id=f"{case.name}-{entry['node']}-{entry['status']['plan']['id']}"))
    return found


def context(case: recorded.Case, entry: dict[str, Any]) -> plan.PlanContext:
    restarted = entry["status"]["plan"]["id"] != "<plan-1>"
    return plan.PlanContext(case.last_config() if restarted else case.first_config(), lambda: PLAN_ID)


def nodes(case: recorded.Case, entry: dict[str, Any]) -> list[SeiNode]:
    """The node in each of its forms, with the part of its status that a plan is made from."""
    status = entry["status"]
    found = [*case.versions(entry["node"]), case.node(entry["node"])]
    for node in found:
        node.status.resolved_peers = status.get("resolvedPeers", [])
        node.status.resolved_state_syncers = status.get("resolvedStateSyncers", [])
        node.status.current_image = status.get("currentImage", "")
        node.status.current_sidecar_image = status.get("currentSidecarImage", "")
        node.status.phase = "" if status["plan"].get("failedPhase") else NodePhase.RUNNING.value
        conditions = [c for c in status["conditions"] if c["type"] == "SidecarReady"]
        node.status.conditions = [
            recorded.condition(c["type"], c["status"], c["reason"], c["message"]) for c in conditions
        ]
    return found


def stored(planned: TaskPlan) -> dict[str, Any]:
    """The plan with its ids as the recordings name them; checks that each was derived from its place."""
    wire = planned.wire()
    assert wire.pop("id") == PLAN_ID
    for index, task in enumerate(wire["tasks"]):
        assert task["id"] == plan.task_id(PLAN_ID, task["type"], index)
        task["id"] = f"{task['type']}/{index}"
    return wire


def as_first_stored(entry: dict[str, Any]) -> dict[str, Any]:
    found = json.loads(json.dumps(entry["status"]["plan"]))
    del found["id"]
    for task in found["tasks"]:
        task["id"] = re.sub(r"<task:plan-\w+/(.*)>", r"\1", task["id"])
    return found  # type: ignore[no-any-return]


def is_valid(node: SeiNode) -> bool:
    """Some flows begin with a spec that the planner refuses."""
    try:
        plan.validate(node)
    except plan.PlanInvalidError:
        return False
    return True


@pytest.mark.parametrize(("case", "entry"), recorded_plans())
def test_equals_the_recorded_plan(case: recorded.Case, entry: dict[str, Any]) -> None:
    wanted = as_first_stored(entry)
    ctx = context(case, entry)
    decided = [plan.build(node, ctx) for node in nodes(case, entry) if is_valid(node)]
    ours = [stored(found) for found in decided if found is not None]
    assert wanted in ours, f"{ours[:1]}\n!=\n{wanted}"
    same = next(found for found in ours if found == wanted)
    # Byte for byte: the API server keeps the order in which we write parameters.
    assert json.dumps([t["params"] for t in same["tasks"]]) == json.dumps([t["params"] for t in wanted["tasks"]])


def submissions() -> list[Any]:
    found = []
    for case in recorded.cases():
        tasks = {(e["node"], t["id"]): t for e in case.raw["plans"] for t in e["status"]["plan"]["tasks"]}
        for number, entry in enumerate(case.raw["submissions"]):
            task = tasks.get((entry["node"], json.loads(entry["raw"])["id"]))
            if task is not None:
                found.append(pytest.param(task, entry["raw"], id=f"{case.name}-{task['type']}-{number}"))
    return found


@pytest.mark.parametrize(("task", "raw"), submissions())
def test_submits_the_recorded_bytes(task: dict[str, Any], raw: str) -> None:
    stored_task = PlannedTask(type=task["type"], id=task["id"], status="Pending", params=task["params"])
    # The normalised id is the only thing with `<` in it; a real one is a UUID.
    ours = plan.wire.body(stored_task).decode().replace("\\u003c", "<").replace("\\u003e", ">")
    assert ours == raw


def test_recordings_cover_every_kind_of_plan() -> None:
    kinds = {plan.plan_type([t["type"] for t in p.values[1]["status"]["plan"]["tasks"]]) for p in recorded_plans()}
    assert kinds == {"init", "node-update", "mark-ready-reapply"}
