"""Which part of an object one field manager owns: what server-side apply would compare our next apply with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson

from seiops.kube.client.resource import Obj

_ABSENT = object()


def owned_part(obj: Obj, manager: str) -> Any:
    """The values of ``obj`` at the fields that ``manager`` owns through apply; None if it owns nothing.

    Lists keep the order of the object. Metadata that identifies the object (name, namespace) is never owned and so never
    part of the result.
    """
    for entry in obj["metadata"].get("managedFields") or ():
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return _project(obj, entry.get("fieldsV1") or {})
    return None


def _project(value: Any, fields: dict[str, Any]) -> Any:
    """``value`` cut down to ``fields`` (the fieldsV1 encoding of metadata.managedFields)."""
    if not fields or (len(fields) == 1 and "." in fields):
        return value
    if isinstance(value, dict):
        part = {}
        for name, below in fields.items():
            inner = value.get(name[2:], _ABSENT) if name != "." else _ABSENT
            if inner is not _ABSENT:
                part[name[2:]] = _project(inner, below) if below else inner
        return part
    if isinstance(value, list):
        return _project_list(value, fields)
    return value


def _project_list(items: list[Any], fields: dict[str, Any]) -> list[Any]:
    """List-map items are found by their keys (``k:``), set members by value (``v:``)."""
    members = [_element(name) for name in fields if name.startswith("v:")]
    keys = [(_element(name), below) for name, below in fields.items() if name.startswith("k:")]
    part = [item for item in items if item in members]
    for item in items:
        for key, inner in keys:
            if isinstance(item, dict) and all(item.get(name) == wanted for name, wanted in key.items()):
                part.append(_project(item, inner))
                break
    return part


@lru_cache(maxsize=4096)
def _element(name: str) -> Any:
    """What the name of a list's element says; the same few stand in every object of a kind."""
    return orjson.loads(name[2:])
