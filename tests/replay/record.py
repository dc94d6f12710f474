"""One case's record, in the normal form of the recordings: read from a folder, or made from what a lane saw.

Normal form (golden objects README, "Normalisation"): what is random is replaced by names that say what it was, all
else is verbatim.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay.context import read_jsonl
from replay.kubeapi import SEI_KINDS, USER
from replay.recorder import History
from replay.sidecar_server import SeenRequest

TASK_NAMESPACE = uuid.UUID("b7e89c3a-4f12-4d8b-9a6e-1c2d3e4f5a6b")
"""Namespace of task ids: docs/contracts/controller-behaviour.md 3.2."""
CREATED_KINDS = ("StatefulSet", "Job", "Service", "ConfigMap", "PersistentVolumeClaim")
LEFT_OUT_MANAGERS = ("kube-controller-manager", "replay-standin")
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)")
_CLUSTER_IP = re.compile(r"^\d+\.\d+\.\d+\.\d+$")


@dataclass
class Record:
    """`status`: stored states of sei.io objects in order; `objects`: created, resources, userObjects; `requests`: what
    the sidecars received; `events`: core/v1 Events; `snapshots`: our own versions of a sei.io object by state number
    (only in what we produced), so that a final object can be taken at the moment the recording ended."""

    status: list[dict[str, Any]]
    objects: dict[str, list[dict[str, Any]]]
    requests: list[dict[str, Any]]
    events: list[dict[str, Any]]
    snapshots: dict[int, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Record:
        record = cls(
            status=read_jsonl(folder / "status.jsonl"),
            objects=json.loads((folder / "objects.json").read_text(encoding="utf-8")),
            requests=read_jsonl(folder / "sidecar.jsonl"),
            events=json.loads((folder / "events.json").read_text(encoding="utf-8")),
        )
        return _without_prehistory(record)


def _without_prehistory(record: Record) -> Record:
    """Without objects that were gone before the case began: a namespace that was used before has them in its record."""
    gone: dict[str, int] = defaultdict(int)
    for line in record.status:
        if line["t"] < 0 and line["event"] == "DELETED":
            gone[f"{line['kind']}/{line['name']}"] += 1
    if not gone:
        return record
    owners = {_uid_name(key, number) for key, count in gone.items() for number in range(1, count + 1)}
    for items in record.objects.values():
        for item in list(items):
            references = {owner["uid"] for owner in item["metadata"].get("ownerReferences", [])}
            key = f"{item['kind']}/{item['metadata']['name']}"
            if references & owners:
                items.remove(item)
                gone[key] += 1
    for key, count in list(gone.items()):
        same = [item for item in record.objects["resources"] if f"{item['kind']}/{item['metadata']['name']}" == key]
        for item in same[:count]:
            record.objects["resources"].remove(item)
    kept = {
        "status": [line for line in record.status if line["t"] >= 0],
        "objects": record.objects,
        "requests": [line for line in record.requests if line["t"] >= 0],
        "events": [event for event in record.events if event["lastT"] >= 0],
    }
    text = json.dumps(kept, ensure_ascii=False)
    for key, count in gone.items():
        for number in range(count + 1, count + 10):
            text = text.replace(_uid_name(key, number), _uid_name(key, number - count))
    return Record(**json.loads(text))


def _uid_name(key: str, number: int) -> str:
    return f"<uid:{key}{f'#{number}' if number > 1 else ''}>"


class Names:
    """The names that stand for what is random in one namespace."""

    def __init__(self, histories: Iterable[History], text: Callable[[str], str]) -> None:
        self._text = text
        self._names: dict[str, str] = {}
        counts: dict[tuple[str, str], int] = defaultdict(int)
        histories = list(histories)
        for history in histories:
            counts[(history.kind, history.name)] += 1
            number = counts[(history.kind, history.name)]
            uid = history.last.object["metadata"]["uid"]
            self._names[uid] = _uid_name(f"{history.kind}/{history.name}", number)
        states = [state for history in histories if history.kind in SEI_KINDS for state in history.states]
        for state in sorted(states, key=lambda state: state.at):
            self._learn_plan((state.object.get("status") or {}).get("plan"))

    def _learn_plan(self, plan: dict[str, Any] | None) -> None:
        if plan is None or plan["id"] in self._names:
            return
        number = sum(name.startswith("<plan-") for name in self._names.values()) + 1
        self._names[plan["id"]] = f"<plan-{number}>"
        for index, task in enumerate(plan.get("tasks", [])):
            # Any other id stays as it is, and so differs from the recording.
            ident = str(uuid.uuid5(TASK_NAMESPACE, f"{plan['id']}/{task['type']}/{index}"))
            self._names[ident] = f"<task:plan-{number}/{task['type']}/{index}>"

    def apply(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(name): self.apply(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.apply(item) for item in value]
        return value

    def text(self, value: str) -> str:
        value = _UUID.sub(lambda found: self._names.get(found.group(), found.group()), self._text(value))
        return _TIME.sub("<time>", value)


def produced(histories: list[History], requests: list[SeenRequest], text: Callable[[str], str]) -> Record:
    """What a lane saw of one namespace, in normal form. `text` renders our paths and addresses as recorded ones."""
    names = Names(histories, text)
    record = Record(status=[], objects={"created": [], "resources": [], "userObjects": []}, requests=[], events=[])
    _add_states(record, histories, names)
    for history in histories:
        _add_object(record, history, names)
    record.requests = [_request(number, request, names) for number, request in enumerate(requests, 1)]
    record.events = [event for history in histories if history.kind == "Event" for event in _event(history, names)]
    return record


def _add_states(record: Record, histories: list[History], names: Names) -> None:
    states = [(state, history) for history in histories if history.kind in SEI_KINDS for state in history.states]
    for number, (state, history) in enumerate(sorted(states, key=lambda pair: pair[0].at), 1):
        metadata = state.object["metadata"]
        line: dict[str, Any] = {
            "n": number,
            "kind": history.kind,
            "name": history.name,
            "event": state.event,
            "generation": metadata["generation"],
            "finalizers": metadata.get("finalizers", []),
            "status": names.apply(state.object.get("status")) or None,
        }
        if metadata.get("deletionTimestamp"):
            line["deleting"] = True
        record.status.append(line)
        record.snapshots[number] = object_form(state.object, names)


def _add_object(record: Record, history: History, names: Names) -> None:
    seen = [state for state in history.states if state.event != "DELETED"]
    last = object_form((seen or history.states)[-1].object, names)
    if history.deleted:
        last = {"deletedAtEnd": True, **last}
    managers = {entry["manager"] for entry in last["metadata"].get("managedFields", [])}
    if history.kind in SEI_KINDS:
        record.objects["resources"].append(last)
    elif history.kind == "Event":
        return
    elif USER in managers:
        record.objects["userObjects"].append(last)
    elif history.kind in CREATED_KINDS:
        record.objects["created"].append(last)


def object_form(item: dict[str, Any], names: Names) -> dict[str, Any]:
    """One object in the recordings' normal form."""
    metadata = {name: value for name, value in item["metadata"].items() if name not in ("uid", "resourceVersion")}
    managed = metadata.pop("managedFields", None)
    form = names.apply({**item, "metadata": metadata})
    if item["kind"] not in SEI_KINDS:
        form.pop("status", None)
    if managed is not None:
        entries = [_managed(entry, names) for entry in managed if entry["manager"] not in LEFT_OUT_MANAGERS]
        form["metadata"]["managedFields"] = entries
    if item["kind"] == "Service":
        _hide_cluster_ips(form["spec"])
    return dict(form)


def _hide_cluster_ips(spec: dict[str, Any]) -> None:
    def hidden(address: str) -> str:
        return "<clusterIP>" if _CLUSTER_IP.match(address) else address

    if "clusterIP" in spec:
        spec["clusterIP"] = hidden(spec["clusterIP"])
    if "clusterIPs" in spec:
        spec["clusterIPs"] = [hidden(address) for address in spec["clusterIPs"]]


def _managed(entry: dict[str, Any], names: Names) -> dict[str, Any]:
    form: dict[str, Any] = {name: entry[name] for name in ("manager", "operation", "apiVersion") if name in entry}
    if entry.get("subresource"):
        form["subresource"] = entry["subresource"]
    form["fields"] = sorted(names.text(path) for path in owned_paths(entry.get("fieldsV1", {})))
    return form


def owned_paths(fields: dict[str, Any], prefix: str = "") -> Iterable[str]:
    """`fieldsV1` as flat paths: `[{...}]` a list item by key, `["v"]` a set's value; `.` is the path itself."""
    for name, inner in fields.items():
        if name == ".":
            yield prefix
            continue
        kind, _, rest = name.partition(":")
        field_path = f"{prefix}.{rest}" if prefix else rest
        path = field_path if kind == "f" else f"{prefix}[{rest}]"
        if inner:
            yield from owned_paths(inner, path)
        else:
            yield path


def _request(number: int, seen: SeenRequest, names: Names) -> dict[str, Any]:
    raw = names.text(seen.raw.decode("utf-8", errors="replace"))
    line: dict[str, Any] = {
        "n": number,
        "node": seen.node,
        "method": seen.method,
        "path": names.text(seen.path),
        "headers": [[name, names.text(value)] for name, value in seen.headers],
        "body": None,
    }
    if raw:
        line["raw"] = raw
        try:
            line["body"] = json.loads(raw)
        except ValueError:
            line["body"] = raw
    if seen.answer.how == "http":
        line["response"] = {"status": seen.answer.status, "body": names.apply(seen.answer.body)}
    else:
        line["response"] = seen.answer.how
    return line


def _event(history: History, names: Names) -> Iterable[dict[str, Any]]:
    event = history.last.object
    involved = event.get("involvedObject", {})
    if involved.get("kind") not in SEI_KINDS:
        return
    yield {
        "object": f"{involved['kind']}/{involved['name']}",
        "type": event.get("type"),
        "reason": event.get("reason"),
        "message": names.text(event.get("message", "")),
        "count": event.get("count", 1),
        "source": event.get("source", {}),
        "reportingComponent": event.get("reportingComponent", ""),
    }
