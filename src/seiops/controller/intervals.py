"""How long the controller waits between looks: one place, so that a replay of recordings can shorten all of it at once."""

from __future__ import annotations

from dataclasses import dataclass

IMMEDIATE = 0.001
"""Seconds until a pass that follows from this one (docs/contracts/controller-behaviour.md 2.2)."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Seconds. ``scale`` is 1 but in replays (environment variable SEIOPS_INTERVAL_SCALE)."""

    scale: float = 1.0

    @property
    def poll(self) -> float:
        """Between two looks at a task that runs."""
        return 5.0 * self.scale

    @property
    def steady(self) -> float:
        """Between two health probes, two questions to EC2, before a failed update is tried again, and until progress of an
        update that waits for nothing but the StatefulSet's controller is stored."""
        return 30.0 * self.scale

    @property
    def resync(self) -> float:
        """Until a node with nothing to do is looked at although nothing has changed."""
        return 600.0 * self.scale

    def retry(self, retries: int) -> float:
        """Before the given retry of a failed task, from 1: 10 s, 20 s, then 30 s (controller-behaviour.md 3.13)."""
        return min(5.0 * 2.0 ** min(retries, 5), 30.0) * self.scale

    def refused(self, refusals: int) -> float:
        """Before a submit that was refused so often, from 1, is tried again: 5 s doubling to 30 s."""
        return min(5.0 * 2.0 ** min(refusals - 1, 5), 30.0) * self.scale

    def failed_plan(self, failures: int) -> float:
        """Before a plan of a Running node that failed so often in a row, from 1, is built again: three times 30 s, then
        doubling to 10 min."""
        return min(30.0 * 2.0 ** max(0, min(failures, 20) - 3), 600.0) * self.scale
