"""Field-for-field comparison of two JSON documents, saying where they part in words a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from replay import paths


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT = _Absent()


@dataclass(frozen=True)
class Deviation:
    path: str
    recorded: Any
    produced: Any

    def __str__(self) -> str:
        return f"{self.path or 'document'}: recorded {shown(self.recorded)}, got {shown(self.produced)}"


def shown(value: Any, limit: int = 300) -> str:
    if value is ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def deviations(recorded: Any, produced: Any, path: Sequence[str] = ()) -> Iterator[Deviation]:
    """Every place where the documents differ, in the recording's order. Lists whose items carry a name are compared
    by name first, so that one missing item does not make all later ones differ."""
    if isinstance(recorded, dict) and isinstance(produced, dict):
        yield from _mappings(recorded, produced, path)
    elif isinstance(recorded, list) and isinstance(produced, list):
        yield from _lists(recorded, produced, path)
    elif type(recorded) is not type(produced) or recorded != produced:
        yield Deviation(paths.join(path), recorded, produced)


def _mappings(recorded: dict[str, Any], produced: dict[str, Any], path: Sequence[str]) -> Iterator[Deviation]:
    for name, value in recorded.items():
        if name in produced:
            yield from deviations(value, produced[name], (*path, name))
        else:
            yield Deviation(paths.join((*path, name)), value, ABSENT)
    for name, value in produced.items():
        if name not in recorded:
            yield Deviation(paths.join((*path, name)), ABSENT, value)


def _lists(recorded: list[Any], produced: list[Any], path: Sequence[str]) -> Iterator[Deviation]:
    key = paths.item_key(recorded)
    if key is None or paths.item_key(produced) != key:
        yield from _by_position(recorded, produced, path)
        return
    mine = {item[key]: item for item in produced}
    theirs = {item[key] for item in recorded}
    for item in recorded:
        step = f"[{key}={item[key]}]"
        if item[key] in mine:
            yield from deviations(item, mine[item[key]], (*path, step))
        else:
            yield Deviation(paths.join((*path, step)), item, ABSENT)
    for item in produced:
        if item[key] not in theirs:
            yield Deviation(paths.join((*path, f"[{key}={item[key]}]")), ABSENT, item)
    if [item[key] for item in recorded] != [item[key] for item in produced] and theirs == set(mine):
        yield Deviation(paths.join(path) + " order", [item[key] for item in recorded], [item[key] for item in produced])


def _by_position(recorded: list[Any], produced: list[Any], path: Sequence[str]) -> Iterator[Deviation]:
    for index in range(max(len(recorded), len(produced))):
        step = f"[{index}]"
        if index >= len(produced):
            yield Deviation(paths.join((*path, step)), recorded[index], ABSENT)
        elif index >= len(recorded):
            yield Deviation(paths.join((*path, step)), ABSENT, produced[index])
        else:
            yield from deviations(recorded[index], produced[index], (*path, step))
