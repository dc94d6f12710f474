"""Paths into JSON documents as the harness writes and matches them.

`spec.containers[name=seid].env[name=HOME].value`: names joined by dots, a list item by one of its fields or by
position (`[0]`). A name with dots is quoted in brackets (`metadata.labels["sei.io/node"]`). In patterns `*` stands for
any part of one step, `[*]` for any item and `**` for any number of steps.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

_TOKEN = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[([^\]]*)\]|([^.\[\]]+)')
_PLAIN = re.compile(r"^[^.\[\]\"]+$")
# Fields by which the items of a list are told apart, best first.
ITEM_KEYS = ("name", "type", "manager", "mountPath", "containerPort", "port", "key", "uid", "ip", "id")


class Step(str):
    """One step of a path in its written form: `name`, `[key=value]`, `[3]`, `[*]` or `**`."""


@functools.lru_cache(maxsize=10_000)
def parse(text: str) -> tuple[Step, ...]:
    steps: list[Step] = []
    position = 0
    while position < len(text):
        if text[position] == ".":
            position += 1
            continue
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"path {text!r}: cannot read from {text[position:]!r}")
        quoted, item, name = match.groups()
        if quoted is not None:
            steps.append(Step(quoted.replace('\\"', '"').replace("\\\\", "\\")))
        elif item is not None:
            steps.append(Step(f"[{item}]"))
        else:
            steps.append(Step(name))
        position = match.end()
    return tuple(steps)


def join(steps: Sequence[str]) -> str:
    text = ""
    for step in steps:
        if step.startswith("[") and step.endswith("]"):
            text += step
        elif _PLAIN.match(step):
            text += ("." if text else "") + step
        else:
            escaped = step.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{escaped}"]'
    return text


def item_key(items: Sequence[Any]) -> str | None:
    """The field by which all items of the list can be told apart, or None (then position counts)."""
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    for key in ITEM_KEYS:
        values = [item.get(key) for item in items]
        if all(isinstance(value, (str, int)) for value in values) and len(set(values)) == len(values):
            return key
    return None


def item_steps(items: Sequence[Any]) -> list[str]:
    key = item_key(items)
    if key is None:
        return [f"[{index}]" for index in range(len(items))]
    return [f"[{key}={item[key]}]" for item in items]


def matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    if not pattern:
        return not path
    head, rest = pattern[0], pattern[1:]
    if head == "**":
        return any(matches(rest, path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and step_matches(head, path[0]) and matches(rest, path[1:])


@functools.lru_cache(maxsize=100_000)
def step_matches(pattern: str, step: str) -> bool:
    if pattern == "[*]":
        return step.startswith("[")
    if "*" not in pattern:
        return pattern == step
    if pattern.startswith("[") != step.startswith("["):
        return False
    literal = re.sub(r"[\[?]", lambda found: f"[{found.group()}]", pattern)
    return fnmatch.fnmatchcase(step, literal)


def places(document: Any, pattern: Sequence[str]) -> Iterator[tuple[list[str], Any]]:
    """Every place of the document that the pattern names: (path, value)."""
    for path, value in walk(document):
        if path and matches(pattern, path):
            yield path, value


def walk(document: Any, path: Sequence[str] = ()) -> Iterator[tuple[list[str], Any]]:
    yield list(path), document
    if isinstance(document, dict):
        for name, value in document.items():
            yield from walk(value, (*path, name))
    elif isinstance(document, list):
        for step, value in zip(item_steps(document), document, strict=True):
            yield from walk(value, (*path, step))


def rebuild(
    document: Any, changes: dict[tuple[str, ...], Any], removed: set[tuple[str, ...]], path: tuple[str, ...] = ()
) -> Any:
    """A copy of the document with the values at some paths replaced and others taken out."""
    if path in changes:
        return changes[path]
    if isinstance(document, dict):
        return {
            name: rebuild(value, changes, removed, (*path, name))
            for name, value in document.items()
            if (*path, name) not in removed
        }
    if isinstance(document, list):
        return [
            rebuild(value, changes, removed, (*path, step))
            for step, value in zip(item_steps(document), document, strict=True)
            if (*path, step) not in removed
        ]
    return document
