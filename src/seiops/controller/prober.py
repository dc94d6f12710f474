"""Health of running nodes, asked for outside of passes: a healthy answer costs one request and nothing else (ruling 16).

Only an answer that differs from the node's condition wakes the node; the pass then takes over this answer
(docs/contracts/controller-behaviour.md 3.3).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from seiops.api.node import NodeCondition, SidecarReason
from seiops.api.status import NodePhase, PlanPhase
from seiops.controller.sidecar_client import Health
from seiops.controller.world import World
from seiops.kube import Key, Obj, key_of

TICK = 1.0
AT_ONCE = 64

_REASONS = {
    Health.READY: SidecarReason.READY.value,
    Health.NOT_READY: SidecarReason.NOT_READY.value,
    Health.UNREACHABLE: SidecarReason.UNREACHABLE.value,
}


class Prober:
    """Asks every Running node without an active plan about once in the steady interval. Runs until cancelled."""

    def __init__(self, world: World, wake: Callable[[Key], None]) -> None:
        self._world = world
        self._wake = wake
        self._due: dict[Key, float] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for raw in self._take_due():
                    group.create_task(self._ask(raw))
                await asyncio.sleep(TICK * self._world.intervals.scale)

    def _take_due(self) -> list[Obj]:
        """Nodes whose time has come; their next time is set. The first is spread over one interval."""
        now, interval = time.monotonic(), self._world.intervals.steady
        candidates = {key_of(raw): raw for raw in self._world.caches.nodes.all() if _is_steady(raw)}
        for key in self._due.keys() - candidates.keys():
            del self._due[key]
        chosen = []
        for key, raw in candidates.items():
            probed_at = self._world.memory.of(key, raw["metadata"]["uid"]).probed_at
            due = max(self._due.setdefault(key, now + random.uniform(0.0, interval)), probed_at + interval)
            if due <= now:
                chosen.append(raw)
                self._due[key] = now + interval
        return chosen

    async def _ask(self, raw: Obj) -> None:
        key = key_of(raw)
        async with self._gate:
            probe = await self._world.sidecars.health(key)
        self._world.metrics.probed(*key, probe.health)
        if _REASONS[probe.health] == _stored_reason(raw) and probe.health is not Health.NOT_READY:
            return
        self._world.memory.of(key, raw["metadata"]["uid"]).probe = probe
        self._wake(key)


def _is_steady(raw: Obj) -> bool:
    status = raw.get("status") or {}
    plan = status.get("plan") or {}
    return (
        status.get("phase") == NodePhase.RUNNING.value
        and plan.get("phase") != PlanPhase.ACTIVE.value
        and not raw["metadata"].get("deletionTimestamp")
        and not (raw.get("spec") or {}).get("paused")
    )


def _stored_reason(raw: Obj) -> str:
    for condition in raw["status"].get("conditions") or ():
        if condition["type"] == NodeCondition.SIDECAR_READY.value:
            return str(condition["reason"])
    return ""
