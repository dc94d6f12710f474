"""Conditions and paths of `script.jsonl` (golden flows README): what a script waits for and checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Lookup = Callable[[str], dict[str, Any] | None]
"""From `Kind/name` to the object, or None."""


class ConditionError(ValueError):
    """A condition or path that the grammar does not know."""


def holds(condition: dict[str, Any], lookup: Lookup) -> bool:
    if "all" in condition:
        return all(holds(part, lookup) for part in condition["all"])
    if "any" in condition:
        return any(holds(part, lookup) for part in condition["any"])
    item = lookup(condition["object"])
    if "path" not in condition:
        if condition.get("absent") is not True:
            raise ConditionError(f"neither a path nor `absent`: {condition}")
        return item is None
    return _path_holds(condition, values(item, condition["path"]), item)


def _path_holds(condition: dict[str, Any], found: list[Any], item: dict[str, Any] | None) -> bool:
    for name, test in _TESTS.items():
        if name in condition:
            return test(found, condition[name])
    if "equalsPath" in condition:
        others = values(item, condition["equalsPath"])
        return any(value == other for value in found for other in others)
    raise ConditionError(f"no known predicate: {condition}")


def _there(found: list[Any]) -> bool:
    return any(value not in (None, "", 0, False, [], {}) for value in found)


def _text(test: Callable[[str, str], bool]) -> Callable[[list[Any], Any], bool]:
    return lambda found, want: any(isinstance(value, str) and test(value, want) for value in found)


_TESTS: dict[str, Callable[[list[Any], Any], bool]] = {
    "exists": lambda found, _: _there(found),
    "absent": lambda found, _: not _there(found),
    "equals": lambda found, want: any(value == want for value in found),
    "endsWith": _text(str.endswith),
    "contains": _text(lambda value, want: want in value),
    "count": lambda found, want: (len(found[0]) if found and isinstance(found[0], list) else 0) == want,
}


def values(item: dict[str, Any] | None, path: str) -> list[Any]:
    """Everything the path names in the object; empty if the object or a part of the path is missing."""
    found: list[Any] = [] if item is None else [item]
    for step in _steps(path):
        found = [value for start in found for value in _follow(start, step)]
    return found


def _steps(path: str) -> list[str]:
    steps, depth, current = [], 0, ""
    for character in path:
        if character == "." and depth == 0:
            steps.append(current)
            current = ""
            continue
        depth += {"[": 1, "]": -1}.get(character, 0)
        current += character
    return [*steps, current]


def _follow(start: Any, step: str) -> list[Any]:
    name, _, selector = step.partition("[")
    value = start.get(name) if isinstance(start, dict) else None
    if not selector:
        return [] if value is None else [value]
    items = value if isinstance(value, list) else []
    selector = selector.removesuffix("]")
    if selector == "*":
        return items
    key, equals, want = selector.partition("=")
    if not equals:
        raise ConditionError(f"neither [*] nor [key=value]: {step}")
    return [item for item in items if isinstance(item, dict) and str(item.get(key)) == want]
