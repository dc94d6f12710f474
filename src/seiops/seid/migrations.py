"""Schema versions, and the steps from one to the next (docs/contracts/seid-config.md 9).

Nothing runs them by itself: they serve an operator who moves a node's files to a seid of another generation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seiops.seid.schema import Schema, Value
from seiops.seid.validation import Finding, errors, validate


class MigrationError(ValueError):
    """Why a configuration cannot be brought to the wanted version."""


@dataclass(frozen=True, slots=True)
class Step:
    """Renames values of some keys and raises the version by one."""

    start: int
    end: int
    description: str
    renames: dict[str, dict[str, str]]

    def apply(self, values: dict[str, Value]) -> None:
        for key, names in self.renames.items():
            old = values[key]
            if isinstance(old, str):
                values[key] = names.get(old, old)
        values["version"] = self.end


@dataclass(frozen=True, slots=True)
class Migration:
    """What was done: the applied steps in order, and the findings of the result."""

    start: int
    end: int
    applied: list[Step]
    findings: list[Finding]


def steps(raw: Sequence[dict[str, Any]]) -> list[Step]:
    """The schema's steps, checked to form one chain. Raises MigrationError."""
    chain: list[Step] = []
    for entry in raw:
        step = Step(entry["from"], entry["to"], entry["description"], entry["value_renames"])
        if step.end != step.start + 1:
            raise MigrationError(f"migration v{step.start}→v{step.end}: ToVersion must equal FromVersion + 1")
        if any(known.start == step.start for known in chain):
            raise MigrationError(f"duplicate migration from version {step.start}")
        chain.append(step)
    chain.sort(key=lambda step: step.start)
    for before, after in itertools.pairwise(chain):
        if after.start != before.end:
            raise MigrationError(
                f"migration chain gap: have v{before.start}→v{before.end} and v{after.start}→v{after.end} "
                f"but nothing from v{before.end}"
            )
    return chain


def migrate(schema: Schema, values: dict[str, Value], target: int) -> Migration:
    """Brings `values` (changed in place) to the target version. Raises MigrationError."""
    start = values["version"]
    assert isinstance(start, int)
    if start > target:
        raise MigrationError(f"config version {start} is newer than target {target}; downgrade is not supported")
    if start == target:
        return Migration(start, target, [], [])
    known = {step.start: step for step in steps(schema.migrations)}
    applied = []
    for version in range(start, target):
        step = known.get(version)
        if step is None:
            raise MigrationError(f"no migration registered for version {version} → {version + 1}")
        step.apply(values)
        applied.append(step)
    findings = validate(schema, values, target)
    if wrong := errors(findings):
        listed = " ".join(map(str, wrong))
        raise MigrationError(f"config fails validation after migration to v{target}: [{listed}]")
    return Migration(start, target, applied, findings)
