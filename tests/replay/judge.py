"""Compares what our controller did in a case with what the Go controller did: rulings 1 to 5 and 8 to 13.

Each `_judge_*` yields sentences, one for each place where the two part and no listed difference covers it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from replay import sequence
from replay.differences import CaseRules
from replay.kubeapi import SEI_KINDS
from replay.record import Record
from replay.sequence import PlanNumbers
from replay.states import Verdict, compare_states
from replay.texts import without_foreign_words

SHELLS = ("sh", "bash")
ONCE, REPEATED = "once", "repeated"
WIRE_HEADERS = ("Host", "Authorization", "Content-Type")
"""The rest of a request's headers belongs to the HTTP library, not to the contract (ruling 2: effects)."""


def judge(recorded: Record, produced: Record, rules: CaseRules) -> list[str]:
    """Every difference that is not listed; empty = the case passes. `rules.used` then has the ids that were needed."""
    ends = Ends()
    found = list(_judge_status(recorded, produced, rules, ends))
    found += _judge_resources(recorded, produced, rules, ends)
    found += _judge_objects(recorded, produced, rules, ends)
    found += _judge_requests(recorded, produced, rules, ends)
    found += _judge_events(recorded, produced, rules, ends)
    return found


class Ends:
    """Where the recording of each object ended within what we produced."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}

    def cut(self, key: str) -> bool:
        return key in self.verdicts and self.verdicts[key].cut

    @property
    def alone(self) -> set[str]:
        """Objects of which a listed difference says that they leave the recording for good."""
        return {key for key, verdict in self.verdicts.items() if verdict.alone}


def _judge_status(recorded: Record, produced: Record, rules: CaseRules, ends: Ends) -> Iterator[str]:
    mine = {one.key: one for one in sequence.incarnations(produced.status)}
    for theirs in sequence.incarnations(recorded.status):
        ours = mine.pop(theirs.key, None)
        if ours is None:
            yield f"{theirs.key}: recorded {len(theirs.lines)} states, we never saw the object"
        else:
            ends.verdicts[theirs.key] = compare_states(theirs, ours, rules)
            yield from ends.verdicts[theirs.key].parted
    for key in mine:
        yield f"{key}: not in the recording"


# Objects


def _judge_resources(recorded: Record, produced: Record, rules: CaseRules, ends: Ends) -> Iterator[str]:
    """The sei.io objects as they stood when the recording ended."""
    theirs = _by_name(recorded.objects["resources"])
    ours = _by_name(produced.objects["resources"])
    for key, item in theirs.items():
        mine = ours.get(key)
        if mine is None or key in ends.alone:
            continue  # told with the states
        if ends.cut(key):
            mine = produced.snapshots.get(ends.verdicts[key].number, mine)
        left = rules.compare("objects", {key: object_form(item)}, {key: object_form(mine)})
        yield from (str(deviation) for deviation in left)


def _judge_objects(recorded: Record, produced: Record, rules: CaseRules, ends: Ends) -> Iterator[str]:
    for section, other in (("created", "userObjects"), ("userObjects", "created")):
        theirs, ours = _by_name(recorded.objects[section]), _by_name(produced.objects[section])
        _fetch(theirs, ours, _by_name(produced.objects[other]), _by_name(recorded.objects[other]))
        surplus = ours if section == "created" else {}
        for key in {**theirs, **surplus}:
            if _owners(theirs.get(key, {})) & ends.alone:
                continue
            forms = ({key: object_form(side[key])} if key in side else {} for side in (theirs, ours))
            yield from (str(deviation) for deviation in rules.compare("objects", *forms))


def _fetch(theirs: dict[str, Any], ours: dict[str, Any], elsewhere: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Whose an object is that the controller made and a user edited is a matter of view: it is compared all the same."""
    for key in set(theirs) - set(ours):
        if key in elsewhere and key not in recorded:
            ours[key] = elsewhere[key]
    for key in [key for key in ours if key not in theirs and key in recorded]:
        del ours[key]


def _owners(item: dict[str, Any]) -> set[str]:
    references = item.get("metadata", {}).get("ownerReferences", [])
    return {f"{reference['kind']}/{reference['name']}" for reference in references}


def _by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        key = name = f"{item['kind']}/{item['metadata']['name']}"
        number = 1
        while key in found:
            number += 1
            key = f"{name}#{number}"
        found[key] = item
    return found


def object_form(item: dict[str, Any]) -> Any:
    """An object as it is compared: scripts' text out, owned fields by manager, conditions by type, plans from 1."""
    form = _without_scripts(item)
    metadata = dict(form["metadata"])
    if form["kind"] not in SEI_KINDS:
        # It counts the passes that changed something: edits made at once are one or several (ruling 2).
        metadata.pop("generation", None)
    if "managedFields" in metadata:
        metadata["managedFields"] = {
            " ".join(filter(None, (entry["manager"], entry["operation"], entry.get("subresource")))): {
                "apiVersion": entry.get("apiVersion"),
                "fields": dict.fromkeys(entry["fields"], True),
            }
            for entry in metadata["managedFields"]
        }
    form = {**form, "metadata": metadata}
    status = form.get("status")
    if isinstance(status, dict) and isinstance(status.get("conditions"), list):
        conditions = {c["type"]: {n: v for n, v in c.items() if n != "type"} for c in status["conditions"]}
        form["status"] = {**status, "conditions": conditions}
    return PlanNumbers().apply(without_foreign_words(form))


def _without_scripts(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_scripts(item) for item in value]
    if not isinstance(value, dict):
        return value
    form = {name: _without_scripts(item) for name, item in value.items()}
    command = form.get("command")
    if isinstance(command, list) and len(command) > 1 and command[1] == "-c" and _is_shell(command[0]):
        whole = [*command, *(form.get("args") or [])]
        if len(whole) > 2:
            place = ("command", 2) if len(command) > 2 else ("args", 0)
            form[place[0]] = [*form[place[0]][: place[1]], "<script>", *form[place[0]][place[1] + 1 :]]
    return form


def _is_shell(program: Any) -> bool:
    return isinstance(program, str) and program.rsplit("/", 1)[-1] in SHELLS


# Requests to sidecars


def _judge_requests(recorded: Record, produced: Record, rules: CaseRules, ends: Ends) -> Iterator[str]:
    theirs = _requests(recorded.requests, _renamer(recorded, ends, recorded_side=True))
    ours = _requests(produced.requests, _renamer(produced, ends, recorded_side=False))
    for key in ends.alone:
        theirs.pop(key.partition("/")[2], None)
        ours.pop(key.partition("/")[2], None)
    for node, mine in ours.items():
        _align(theirs.get(node, {"tasks": {}, "order": [], "other": {}}), mine, ends.cut(f"SeiNode/{node}"))
    left = rules.compare("requests", theirs, ours)
    yield from (f"sidecar requests: {deviation}" for deviation in left)


def _renamer(record: Record, ends: Ends, *, recorded_side: bool) -> dict[str, str]:
    """Plans by object and by their place there: `n0/1`. A plan that has no counterpart keeps its own name."""
    names: dict[str, str] = {}
    for key, verdict in ends.verdicts.items():
        for place, (recorded, produced) in enumerate(verdict.plans.items(), 1):
            names[recorded if recorded_side else produced] = f"{key.partition('/')[2]}/{place}"
    return names


def _requests(lines: list[dict[str, Any]], names: dict[str, str]) -> dict[str, Any]:
    """By node: each task's distinct POSTs and how it ended, the order in which tasks were first posted, and the other
    requests once each (repeats are polling)."""
    nodes: dict[str, Any] = {}
    for line in lines:
        node = nodes.setdefault(line["node"], {"tasks": {}, "order": [], "other": {}})
        if line["path"] == "/v0/tasks" and line["method"] == "POST":
            _add_post(node, _renamed(line, names))
        elif line["path"].startswith("/v0/tasks/"):
            _add_poll(node, _renamed(line, names))
        else:
            node["other"].setdefault(f"{line['method']} {line['path']}", _headers(line))
    return nodes


def _renamed(line: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    text = json.dumps(line)
    for plan, place in names.items():
        text = text.replace(f"<task:{plan}/", f"<task:{place}/")
    return dict(json.loads(text))


def _add_post(node: dict[str, Any], line: dict[str, Any]) -> None:
    body = line["body"] if isinstance(line["body"], dict) else {}
    ident = str(body.get("id"))
    if ident not in node["tasks"]:
        node["order"].append(ident)
    task = node["tasks"].setdefault(ident, {"posts": [], "polled": {}})
    post = {"body": body or line.get("raw"), "raw": line.get("raw"), "headers": _headers(line)}
    if post not in task["posts"]:
        task["posts"].append(post)


def _add_poll(node: dict[str, Any], line: dict[str, Any]) -> None:
    ident = line["path"].removeprefix("/v0/tasks/")
    task = node["tasks"].setdefault(ident, {"posts": [], "polled": {}})
    response = line["response"]
    body = response.get("body") if isinstance(response, dict) else None
    if isinstance(body, dict) and body.get("status") in ("completed", "failed"):
        task["polled"] = {name: body[name] for name in ("type", "status", "run", "error") if name in body}


def _headers(line: dict[str, Any]) -> dict[str, str]:
    found = {name.title(): value for name, value in line["headers"]}
    return {name: found[name] for name in WIRE_HEADERS if name in found}


def _align(theirs: dict[str, Any], ours: dict[str, Any], cut: bool) -> None:
    """Take out of ours what the recording cannot speak of: polls of tasks it never polled to their end (D7 polls more),
    probes it did not come to, and, where it ended before ours did, tasks that came later."""
    for ident, task in list(ours["tasks"].items()):
        recorded = theirs["tasks"].get(ident)
        if recorded is None and cut:
            del ours["tasks"][ident]
            ours["order"] = [other for other in ours["order"] if other != ident]
        elif recorded is not None and not recorded["polled"]:
            task["polled"] = {}
    if "GET /v0/healthz" not in theirs["other"]:
        ours["other"].pop("GET /v0/healthz", None)


# Events and checks


def _judge_events(recorded: Record, produced: Record, rules: CaseRules, ends: Ends) -> Iterator[str]:
    theirs, ours = _events(recorded.events), _events(produced.events)
    for key in [key for key in ours if key not in theirs and ends.cut(_about(key))]:
        del ours[key]
    for events in (theirs, ours):
        for key in [key for key in events if _about(key) in ends.alone]:
            del events[key]
    for key, event in theirs.items():
        if key in ours and event["times"] == REPEATED:
            # A pass that lost its flush tells its Events again: a number of passes, not an effect (ruling 2).
            ours[key]["times"] = REPEATED
    left = rules.compare("events", theirs, ours)
    yield from (f"events: {deviation}" for deviation in left)


def _about(key: str) -> str:
    return key.split(" ", 1)[0]


def _events(events: list[dict[str, Any]]) -> dict[str, Any]:
    """By object, type, reason and message."""
    found: dict[str, Any] = {}
    for event in events:
        message = without_foreign_words(event["message"])
        key = f"{event['object']} {event['type']} {event['reason']} {message}"
        again = key in found or event["count"] > 1
        found[key] = {
            "times": REPEATED if again else ONCE,
            "component": event["source"].get("component"),
            "reportingComponent": event["reportingComponent"],
        }
    return found


def judge_checks(recorded: dict[str, Any], seen: dict[str, Any], rules: CaseRules) -> list[str]:
    return [
        f"check: {deviation}" for deviation in rules.compare("checks", *map(without_foreign_words, (recorded, seen)))
    ]
