"""The traps of a comparison, checked before it starts (docs/contracts/shadow.md 1.4 and 9.5).

A comparison of two equal nodes, or of two nodes that cannot answer, looks perfect. Every check says what it found and what
to do.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp

from seiops.shadow.compare import Comparator
from seiops.shadow.preflight_facts import gather_facts, identities
from seiops.shadow.preflight_probes import PROBES
from seiops.shadow.traps import Check, Plan, Probe, Scene

PROBE_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Preflight:
    """The checks in a fixed order, and who the two nodes said they are, by side."""

    checks: list[Check]
    nodes: dict[str, dict[str, Any]]

    @property
    def stopping(self) -> list[Check]:
        """The checks that stop a strict run: those that failed, and configured ones that could not be carried out."""
        return [one for one in self.checks if one.state == "failed" or (one.state == "not checked" and one.configured)]


async def run(plan: Plan, comparator: Comparator, http: aiohttp.ClientSession) -> Preflight:
    """Never raises for what a node does; each probe has a deadline."""
    scene = Scene(plan, comparator, http)
    await gather_facts(scene)
    found = await asyncio.gather(*(_within(probe, scene) for probe in PROBES))
    return Preflight([check for checks in found for check in checks], identities(scene))


async def _within(probe: Probe, scene: Scene) -> list[Check]:
    name = probe.__name__.replace("_", "-")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            return await probe(scene)
    except TimeoutError:
        return [Check(name, "", "not checked", f"no answer within {PROBE_TIMEOUT_S:g} s")]
