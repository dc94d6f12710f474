"""What a preflight is made of: the traps, what was found at each, and what every probe may look at.

Names of checks are stable: they stand in results and manifests. What could not be probed is `not checked`, never passed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp

from seiops.shadow.compare import Comparator
from seiops.shadow.request import Request

State = Literal["held", "failed", "note", "not checked"]


@dataclass(frozen=True, slots=True)
class Check:
    """One trap. `traps`: the T-numbers it covers. `configured`: its probe was asked for, so strict needs its answer."""

    name: str
    traps: str
    state: State
    finding: str
    advice: str = ""
    configured: bool = False

    def wire(self) -> dict[str, Any]:
        found: dict[str, Any] = {"check": self.name, "traps": self.traps, "state": self.state, "finding": self.finding}
        if self.advice and self.state != "held":
            found["advice"] = self.advice
        return found


@dataclass(frozen=True, slots=True)
class MigrationFacts:
    """What the FlatKV store itself says: `complete` once every key has moved; `started` is false for stores without markers.

    `empty`: no EVM row at all, so that every read is answered by something else.
    """

    height: int
    complete: bool
    started: bool
    empty: bool = False


Migration = Callable[[str], Awaitable[MigrationFacts]]
"""Reads the migration's state out of a store directory; raises OSError or ValueError."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a preflight needs to know of the run: its request, where it starts and what is configured."""

    request: Request
    start: int
    chain_id: str = ""
    warning: str = ""
    prefix_taken: Callable[[], Awaitable[bool | None]] | None = None
    migration: Migration | None = None


@dataclass(slots=True)
class Scene:
    """Everything the probes read once and share. Absent answers carry their reason under the same name in `missing`."""

    plan: Plan
    comparator: Comparator
    http: aiohttp.ClientSession
    facts: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def both(self, name: str) -> tuple[Any, Any] | None:
        """A fact of both sides, None when one of them is missing."""
        keys = (f"shadow {name}", f"canonical {name}")
        return (self.facts[keys[0]], self.facts[keys[1]]) if all(key in self.facts for key in keys) else None

    def why(self, name: str) -> str:
        """Why a fact of both sides is not there."""
        said = [self.missing[key] for key in (f"shadow {name}", f"canonical {name}") if key in self.missing]
        return "; ".join(said) or "not available"


Probe = Callable[[Scene], Awaitable[list[Check]]]
