"""Turns a recorded case back into what a cluster would have shown: names like `<uid:SeiNode/n0>`, `<plan-1>` and `<time>`
become uids, plan ids and times again, so that the harness's own normal form can be tested against the recording."""

from __future__ import annotations

import json
import re
import uuid
from typing import Any

from replay.record import TASK_NAMESPACE, Record
from replay.recorder import History, State
from replay.sidecar_rules import Answer
from replay.sidecar_server import SeenRequest

_UID = re.compile(r"<uid:([^>]+)>")
_PLAN = re.compile(r"<plan-(\w+)>")
_TASK = re.compile(r"<task:plan-(\w+)/([^>]+)>")
TIME = "2026-03-04T05:06:07Z"


def stable_uuid(text: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, text))


def text(value: str) -> str:
    value = _UID.sub(lambda found: stable_uuid(found[1]), value)
    value = _TASK.sub(
        lambda found: str(uuid.uuid5(TASK_NAMESPACE, f"{stable_uuid('plan-' + found[1])}/{found[2]}")), value
    )
    value = _PLAN.sub(lambda found: stable_uuid(f"plan-{found[1]}"), value)
    return value.replace("<time>", TIME).replace("<clusterIP>", "10.96.0.7")


def plain(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {text(name): plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def histories(record: Record) -> list[History]:
    """Every object with its states, in the order of the recording."""
    clock = iter(range(1, 100_000))
    found: dict[tuple[str, str], list[History]] = {}
    for line in record.status:
        known = found.setdefault((line["kind"], line["name"]), [])
        if line["event"] == "ADDED" or not known:
            known.append(History(line["kind"], "case", line["name"]))
        number = len(known)
        known[-1].states.append(
            State(line["event"], _sei_object(line, number, _final(record, line, number)), next(clock))
        )
    flat = [history for known in found.values() for history in known]
    counts: dict[tuple[str, str], int] = {}
    for section in ("created", "userObjects"):
        for item in record.objects[section]:
            key = (item["kind"], item["metadata"]["name"])
            counts[key] = counts.get(key, 0) + 1
            flat.append(_history_of(item, counts[key], next(clock)))
    flat += [_event(event, number, next(clock)) for number, event in enumerate(record.events)]
    return flat


def _final(record: Record, line: dict[str, Any], number: int) -> dict[str, Any]:
    same = [
        item
        for item in record.objects["resources"]
        if item["kind"] == line["kind"] and item["metadata"]["name"] == line["name"]
    ]
    return same[min(number, len(same)) - 1]


def _uid(kind: str, name: str, number: int) -> str:
    return stable_uuid(f"{kind}/{name}" + (f"#{number}" if number > 1 else ""))


def _sei_object(line: dict[str, Any], number: int, final: dict[str, Any]) -> dict[str, Any]:
    item = plain({name: value for name, value in final.items() if name != "deletedAtEnd"})
    metadata = item["metadata"]
    metadata.update(
        generation=line["generation"],
        finalizers=line["finalizers"],
        resourceVersion="5",
        uid=_uid(line["kind"], line["name"], number),
        managedFields=_managed(metadata.get("managedFields", [])),
    )
    if line.get("deleting"):
        metadata["deletionTimestamp"] = TIME
    else:
        metadata.pop("deletionTimestamp", None)
    item.pop("status", None)
    if line["status"] is not None:
        item["status"] = plain(line["status"])
    return dict(item)


def _history_of(item: dict[str, Any], number: int, at: float) -> History:
    raw = plain({name: value for name, value in item.items() if name != "deletedAtEnd"})
    name = item["metadata"]["name"]
    raw["metadata"].update(
        uid=_uid(item["kind"], name, number),
        resourceVersion="7",
        managedFields=_managed(raw["metadata"].get("managedFields", [])),
    )
    raw["status"] = {"observed": "left out"}
    history = History(item["kind"], "case", name, [State("ADDED", raw, at)])
    if item.get("deletedAtEnd"):
        history.states.append(State("DELETED", raw, at))
    return history


def _managed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    raw = [
        {
            **{name: value for name, value in entry.items() if name != "fields"},
            "time": TIME,
            "fieldsV1": {f"f:{path}": {} for path in entry["fields"]},
        }
        for entry in entries
    ]
    noise = {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {"f:replicas": {}}}}
    return [*raw, noise]


def _event(event: dict[str, Any], number: int, at: float) -> History:
    kind, _, name = event["object"].partition("/")
    raw = {
        "kind": "Event",
        "metadata": {"name": f"e{number}", "uid": stable_uuid(f"event {number}")},
        "involvedObject": {"kind": kind, "name": name},
        "message": text(event["message"]),
        **{key: event[key] for key in ("type", "reason", "count", "source", "reportingComponent")},
    }
    return History("Event", "case", f"e{number}", [State("ADDED", raw, at)])


def requests(record: Record) -> list[SeenRequest]:
    return [_request(line, number) for number, line in enumerate(record.requests)]


def _request(line: dict[str, Any], number: int) -> SeenRequest:
    response = line["response"]
    answer = (
        Answer("http", response["status"], plain(response["body"])) if isinstance(response, dict) else Answer(response)
    )
    headers = [[name, value] for name, value in line["headers"]]
    raw = text(line.get("raw") or "").encode()
    return SeenRequest("case", line["node"], line["method"], text(line["path"]), headers, raw, answer, float(number))


def copied(value: Any) -> Any:
    return json.loads(json.dumps(value))
