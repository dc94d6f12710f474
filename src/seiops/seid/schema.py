"""The unified configuration schema: every key, its type, its defaults and its places in the two files.

Loaded from `schema.json` when first asked for, because the sidecar idles most of its life without it. The tables are
those of docs/contracts/seid-config.json; their use is docs/contracts/seid-config.md.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Value = bool | int | float | str | list[Any] | None
"""A typed value: durations are nanoseconds, lists may be null, `list[list[string]]` is a list of lists."""

Kind = Literal["string", "bool", "int", "uint", "float", "duration", "list[string]", "list[list[string]]"]

CURRENT_VERSION = 2
"""The config schema version of seid v6.5 and later (docs/contracts/seid-config.md 9)."""

MODES = ("validator", "full", "seed", "archive")
CONFIG_TOML = "config.toml"
APP_TOML = "app.toml"
FILES = (CONFIG_TOML, APP_TOML)

PROFILES = ("v0.0.21", "v0.0.25")
"""Release levels of the configuration library that can be reproduced.

v0.0.21 is what the recordings were made with: its renderings and its readings, flaws included. v0.0.25 is what today's
consumers pin; on top of it seiops writes both write-mode keys and refuses what has no effect.
"""
DEFAULT_PROFILE = "v0.0.25"

_ZERO: dict[Kind, Value] = {
    "string": "",
    "bool": False,
    "int": 0,
    "uint": 0,
    "float": 0.0,
    "duration": 0,
    "list[string]": None,
    "list[list[string]]": None,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands on disk; `table` None is the root of the file."""

    file: str
    table: str | None
    key: str


@dataclass(frozen=True, slots=True)
class Field:
    """One key of the unified schema. The value is read from the first place and written to all of them."""

    key: str
    kind: Kind
    bits: int
    nullable: bool
    hot_reload: bool
    omitted_when_zero: bool
    places: tuple[Place, ...]
    defaults: dict[str, Any]

    @property
    def zero(self) -> Value:
        """What a missing key means: the zero of the type, never the default."""
        if self.kind == "bool" and self.nullable:
            return None
        return _ZERO[self.kind]


@dataclass(frozen=True, slots=True)
class Host:
    """The two facts of the machine that defaults depend on."""

    name: str
    cpus: int

    @classmethod
    def current(cls) -> Host:
        """Host name (`anonymous` when unreadable) and the CPUs of the affinity mask; quotas do not count."""
        try:
            name = socket.gethostname()
        except OSError:
            name = ""
        return cls(name or "anonymous", len(os.sched_getaffinity(0)))

    def computed(self, rule: str) -> Value:
        match rule:
            case "hostname":
                return self.name
            case "clamp_2x_cpus_10_128":
                return min(128, max(10, 2 * self.cpus))
            case "min_64_2x_cpus":
                return min(64, 2 * self.cpus)
        raise ValueError(f"schema.json names an unknown computed default {rule!r}")


@dataclass(frozen=True, slots=True)
class Schema:
    """One profile's fields (sorted by key), the order of keys on disk, and the constants written beside them."""

    profile: str
    fields: dict[str, Field]
    layout: dict[str, list[tuple[str | None, tuple[str, ...]]]]
    constants: dict[Place, str]
    migrations: tuple[dict[str, Any], ...]
    chains: dict[str, dict[str, Any]]

    @property
    def wraps_integers(self) -> bool:
        """v0.0.21 takes a native integer outside a field's width modulo that width; later profiles refuse it."""
        return self.profile == "v0.0.21"

    @property
    def pins_write_mode(self) -> bool:
        """Whether a write mode is written together with the key that makes seid obey it (seid-config.md 17a)."""
        return "storage.state_commit.write_mode_enable_auto" in self.fields

    def defaults(self, mode: str, host: Host) -> dict[str, Value]:
        """Every field's default for a mode, base values for an unknown one."""
        values = {key: _default(field, mode, host) for key, field in self.fields.items()}
        values["mode"] = mode
        return values

    def zeros(self) -> dict[str, Value]:
        return {key: field.zero for key, field in self.fields.items()}


def _default(field: Field, mode: str, host: Host) -> Value:
    raw = field.defaults.get(mode, field.defaults["base"])
    if isinstance(raw, dict):
        return host.computed(raw["computed"])
    if field.kind == "duration":
        from seiops.seid.durations import parse_duration

        return parse_duration(raw)
    if field.kind == "float":
        return float(raw)
    return list(raw) if isinstance(raw, list) else raw


@cache
def load_schema(profile: str = DEFAULT_PROFILE) -> Schema:
    """The schema of a profile. Raises ValueError naming the known ones."""
    if profile not in PROFILES:
        raise ValueError(f"unknown configuration profile {profile!r}; known: {', '.join(PROFILES)}")
    raw = json.loads((files("seiops.seid") / "schema.json").read_bytes())
    changed = raw["profile_defaults"].get(profile, {})
    entries = [entry for entry in raw["fields"] if _belongs(entry, profile)]
    known = {entry["key"]: _field(entry, profile, changed.get(entry["key"])) for entry in entries}
    on_disk = {place for field in known.values() for place in field.places}
    constants = {Place(file, table, key): value for file, table, key, value in raw["constants"]}
    on_disk |= constants.keys()
    layout = {
        file: [(table, tuple(key for key in keys if Place(file, table, key) in on_disk)) for table, keys in tables]
        for file, tables in raw["layout"].items()
    }
    return Schema(profile, known, layout, constants, tuple(raw["migrations"]), raw["chains"])


def _belongs(entry: dict[str, Any], profile: str) -> bool:
    return PROFILES.index(entry.get("since", PROFILES[0])) <= PROFILES.index(profile)


def _field(entry: dict[str, Any], profile: str, defaults: dict[str, Any] | None) -> Field:
    omitted_since = entry.get("omitted_when_zero_since")
    return Field(
        key=entry["key"],
        kind=entry["type"],
        bits=entry.get("bits", 0),
        nullable=entry.get("nullable", False),
        hot_reload=entry.get("hot_reload", False),
        omitted_when_zero=omitted_since is not None and PROFILES.index(omitted_since) <= PROFILES.index(profile),
        places=tuple(Place(*place) for place in entry["places"]),
        defaults=defaults or entry["default"],
    )
