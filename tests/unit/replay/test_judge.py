"""The judge judged: a recording, brought into the form of a cluster's answers and back, must pass against itself; a
change anywhere in it must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replay.differences import CaseRules
from replay.judge import judge
from replay.record import Record, produced
from unit.replay import unnamed

CASES = Path(__file__).resolve().parents[2] / "data" / "replay"
FOLDERS = sorted(folder for area in ("objects", "flows") for folder in (CASES / area).iterdir())
GATE = CASES / "flows" / "statesync-gate"
FAILED = CASES / "flows" / "task-fails-for-good"


def ours(record: Record) -> Record:
    return produced(unnamed.histories(record), unnamed.requests(record), lambda text: text)


def verdict(folder: Path, change: Callable[[Record], None] = lambda record: None) -> list[str]:
    altered = Record.load(folder)
    change(altered)
    return judge(Record.load(folder), ours(altered), CaseRules([]))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_recording_passes_against_itself(folder: Path) -> None:
    assert verdict(folder) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_normal_form_is_the_recordings(folder: Path) -> None:
    record, again = Record.load(folder), ours(Record.load(folder))
    for item, other in zip(record.objects["created"], again.objects["created"], strict=True):
        assert other == item
    for line, other in zip(record.requests, again.requests, strict=True):
        assert {name: line.get(name) for name in ("node", "path", "raw", "body", "headers")} == {
            name: other.get(name) for name in ("node", "path", "raw", "body", "headers")
        }


def state(record: Record, number: int) -> dict[str, Any]:
    return next(line for line in record.status if line["n"] == number)


def drop_condition(record: Record) -> None:
    for line in record.status:
        if line["status"]:
            line["status"]["conditions"] = [c for c in line["status"]["conditions"] if c["type"] != "StateSyncReady"]


def change_message(record: Record) -> None:
    state(record, 3)["status"]["conditions"][1]["message"] += "!"


def skip_state(record: Record) -> None:
    record.status = [line for line in record.status if line["n"] != 3]


def change_plan_params(record: Record) -> None:
    for line in record.status:
        plan = (line["status"] or {}).get("plan")
        for task in plan["tasks"] if plan else []:
            if task["type"] == "configure-state-sync":
                task["params"]["RpcServers"] = ["a.example:26657"]


def task_order(record: Record) -> None:
    for line in record.status:
        plan = (line["status"] or {}).get("plan")
        if plan:
            plan["tasks"][0], plan["tasks"][1] = plan["tasks"][1], plan["tasks"][0]


def random_task_id(record: Record) -> None:
    for line in record.status:
        plan = (line["status"] or {}).get("plan")
        for task in plan["tasks"] if plan else []:
            task["id"] = unnamed.stable_uuid(task["id"])


def wrong_finalizer(record: Record) -> None:
    for line in record.status:
        line["finalizers"] = [name + "x" for name in line["finalizers"]]


def object_field(record: Record) -> None:
    record.objects["created"][0]["spec"]["replicas"] = 2


def script_is_missing(record: Record) -> None:
    for item in record.objects["created"]:
        if item["kind"] == "StatefulSet":
            del item["spec"]["template"]["spec"]["containers"][0]["args"]


def field_manager(record: Record) -> None:
    record.objects["created"][0]["metadata"]["managedFields"][0]["manager"] = "seiops"


def owned_field(record: Record) -> None:
    record.objects["created"][0]["metadata"]["managedFields"][0]["fields"].append("metadata.annotations.extra")


def object_missing(record: Record) -> None:
    record.objects["created"].pop()


def object_extra(record: Record) -> None:
    extra = unnamed.copied(record.objects["created"][-1])
    extra["metadata"]["name"] = "surplus"
    record.objects["created"].append(extra)


def request_body(record: Record) -> None:
    for line in record.requests:
        if line["method"] == "POST" and line["body"]["type"] == "config-apply":
            line["raw"] = line["raw"].replace('"mode":"full"', '"mode": "full"')


def request_token(record: Record) -> None:
    for line in record.requests:
        line["headers"] = [[name, "Bearer x" if name == "Authorization" else value] for name, value in line["headers"]]


def request_missing(record: Record) -> None:
    record.requests = [line for line in record.requests if (line["body"] or {}).get("type") != "config-validate"]


def request_order(record: Record) -> None:
    record.requests.reverse()


def event_missing(record: Record) -> None:
    record.events = record.events[1:]


def event_repeated(record: Record) -> None:
    record.events[0]["count"] += 1


def event_source(record: Record) -> None:
    record.events[0]["source"] = {"component": "seiops"}


def status_surplus(record: Record) -> None:
    """One state more, in the middle: another phase for a moment."""
    between = unnamed.copied(state(record, 4))
    between["status"]["phase"] = "Pending"
    record.status.insert(4, between)


CHANGES = [
    drop_condition,
    change_message,
    skip_state,
    change_plan_params,
    task_order,
    random_task_id,
    wrong_finalizer,
    object_field,
    script_is_missing,
    field_manager,
    owned_field,
    object_missing,
    object_extra,
    request_body,
    request_token,
    request_missing,
    request_order,
    event_missing,
    event_repeated,
    event_source,
    status_surplus,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_recording_fails(change: Callable[[Record], None]) -> None:
    assert verdict(GATE, change) != []


def test_task_progress_is_not_compared() -> None:
    def progress(record: Record) -> None:
        record.status = [line for line in record.status if line["n"] != 5]
        for task in state(record, 6)["status"]["plan"]["tasks"]:
            task["status"] = "Running"
            task.pop("submittedAt", None)

    assert verdict(GATE, progress) == []


def test_failed_plan_keeps_what_failed() -> None:
    def other_error(record: Record) -> None:
        for line in record.status:
            plan = (line["status"] or {}).get("plan") or {}
            for task in plan.get("tasks", []):
                if task["status"] == "Failed":
                    task["error"] = "something else"

    assert any("error" in sentence for sentence in verdict(FAILED, other_error))


def test_polls_are_not_compared() -> None:
    def poll_more(record: Record) -> None:
        record.requests = [copy for line in record.requests for copy in (line, line)]

    assert verdict(GATE, poll_more) == []


def test_a_recording_that_ends_while_a_plan_lingers_is_a_beginning() -> None:
    recorded, full = Record.load(GATE), Record.load(GATE)
    cut = next(line["n"] for line in recorded.status if (line["status"] or {}).get("phase") == "Running")
    recorded.status = [line for line in recorded.status if line["n"] <= cut]
    recorded.requests = [line for line in recorded.requests if "plan-2" not in (line.get("raw") or line["path"])]
    recorded.objects["resources"][0]["status"] = recorded.status[-1]["status"]
    found = judge(recorded, ours(full), CaseRules([]))
    # The final object is the one of that moment; only who owns which field is of the end.
    assert all("managedFields" in sentence for sentence in found), found


def moved(record: Record) -> None:
    record.objects["userObjects"].append(record.objects["created"].pop(0))


def test_whose_an_edited_object_is_does_not_count() -> None:
    altered, recorded = ours(Record.load(GATE)), Record.load(GATE)
    moved(altered)
    assert judge(recorded, altered, CaseRules([])) == []
    altered.objects["userObjects"][-1]["metadata"]["labels"] = {}
    assert judge(recorded, altered, CaseRules([])) != []
    altered, recorded = ours(Record.load(GATE)), Record.load(GATE)
    moved(recorded)
    assert judge(recorded, altered, CaseRules([])) == []
