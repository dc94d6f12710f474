"""A configuration intent and what becomes of it (docs/contracts/seid-config.md 3).

An intent names a mode and overrides. Resolved in full it starts from the mode's defaults; resolved incrementally it
starts from what is on disk and the mode is only a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from seiops.seid.overrides import OverrideError, apply_overrides
from seiops.seid.quoting import quoted
from seiops.seid.schema import CURRENT_VERSION, MODES, Host, Schema, Value
from seiops.seid.validation import AUTO_WRITE_MODE, ERROR, WRITE_MODE, Finding, errors, unknown_mode, validate


class IntentError(ValueError):
    """An intent that cannot be resolved at all; the text is the wire's."""


@dataclass(frozen=True, slots=True)
class Intent:
    mode: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    target_version: int = 0
    incremental: bool = False

    @property
    def ceiling(self) -> int:
        """The wanted schema version; zero and negatives mean the current one."""
        return self.target_version if self.target_version > 0 else CURRENT_VERSION


@dataclass(frozen=True, slots=True)
class Resolution:
    """`values` is None when a finding is an error; warnings never block."""

    values: dict[str, Value] | None
    version: int
    mode: str
    findings: list[Finding]

    @property
    def valid(self) -> bool:
        return not errors(self.findings)


def check(schema: Schema, intent: Intent) -> Resolution:
    """What a client checks before it submits: names and numbers, not override values."""
    findings: list[Finding] = []
    if not intent.incremental:
        if not intent.mode:
            findings.append(Finding(ERROR, "mode", "mode is required for non-incremental config generation"))
        elif intent.mode not in MODES:
            findings.append(Finding(ERROR, "mode", unknown_mode(intent.mode)))
    if intent.ceiling > CURRENT_VERSION:
        message = f"target version {intent.ceiling} exceeds maximum supported version {CURRENT_VERSION}"
        findings.append(Finding(ERROR, "targetVersion", message))
    for key in sorted(intent.overrides):
        if key not in schema.fields:
            findings.append(Finding(ERROR, f"overrides.{key}", f"unknown config field {quoted(key)}"))
    return Resolution(None, intent.ceiling, intent.mode, findings)


def resolve(schema: Schema, intent: Intent, host: Host) -> Resolution:
    """The whole configuration of a mode. Raises IntentError."""
    if not intent.mode:
        raise IntentError("mode is required for non-incremental config resolution")
    if intent.mode not in MODES:
        raise IntentError(f"invalid mode {quoted(intent.mode)}")
    values = schema.defaults(intent.mode, host)
    values["version"] = intent.ceiling
    try:
        _override(schema, values, intent.overrides)
    except OverrideError as error:
        raise IntentError(f"applying overrides: {error}") from None
    findings = validate(schema, values, intent.ceiling)
    valid = not errors(findings)
    return Resolution(values if valid else None, intent.ceiling, intent.mode, findings)


def resolve_incremental(schema: Schema, intent: Intent, current: dict[str, Value]) -> Resolution:
    """The configuration on disk with the intent applied; `current` is not modified. Raises IntentError."""
    values = dict(current)
    if intent.mode:
        values["mode"] = intent.mode
    try:
        _override(schema, values, intent.overrides)
    except OverrideError as error:
        raise IntentError(f"applying incremental overrides: {error}") from None
    findings = validate(schema, values, intent.ceiling)
    mode = str(values["mode"])
    if errors(findings):
        return Resolution(None, intent.ceiling, intent.mode or mode, findings)
    version = values["version"]
    return Resolution(values, version if isinstance(version, int) else intent.ceiling, intent.mode or mode, findings)


def _override(schema: Schema, values: dict[str, Value], overrides: Mapping[str, str]) -> None:
    """Applies overrides; one that pins the write mode also switches the automatic mode off, or seid ignores it."""
    apply_overrides(schema, values, overrides)
    if schema.pins_write_mode and overrides.get(WRITE_MODE) and values[AUTO_WRITE_MODE] is None:
        values[AUTO_WRITE_MODE] = False
