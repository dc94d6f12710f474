"""What a recorded comparison line says beyond its members: which of its differences are none once texts are read as values.

Upstream compares the text of events. A line is marked here by what it holds, so that the list of differences can speak
of spelling instead of naming heights.
"""

from __future__ import annotations

from typing import Any

SPELLING = "only the spelling of events"
MEMBER = "events spelled differently"


def mark_spelling(line: dict[str, Any]) -> None:
    """Moves differences in the spelling of events out of a line's receipts into a member of their own (the indexes of the
    transactions). Where nothing else made the line a divergence, `match` and `divergenceLayer` say so.
    """
    layer1 = line.get("layer1")
    if not isinstance(layer1, dict) or not isinstance(layer1.get("divergences"), list):
        return
    spelled, left = [], []
    for entry in layer1["divergences"]:
        fields = [one for one in entry["fields"] if not _same_events(one)]
        if len(fields) < len(entry["fields"]):
            spelled.append(entry["txIndex"])
        if fields:
            left.append({**entry, "fields": fields})
    if not spelled:
        return
    layer1[MEMBER] = spelled
    if left:
        layer1["divergences"] = left
        return
    del layer1["divergences"]
    if line.get("divergenceLayer") == 1 and not layer1.get("indeterminate") and _headers_agree(line):
        line["match"] = line["divergenceLayer"] = SPELLING


def _headers_agree(line: dict[str, Any]) -> bool:
    layer0 = line.get("layer0") or {}
    return bool(layer0.get("lastResultsHashMatch") and (layer0.get("appHashMatch") or line.get("migrationMode")))


def _same_events(field: dict[str, Any]) -> bool:
    return field.get("field") == "events" and _value(field.get("shadow")) == _value(field.get("canonical"))


def _value(events: Any) -> Any:
    """Absent, null and empty are one; whether a node indexes an attribute is its own setting."""
    if isinstance(events, list):
        return [_value(event) for event in events] or None
    if isinstance(events, dict):
        return {name: _value(member) for name, member in events.items() if name != "index"}
    return events
