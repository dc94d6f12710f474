"""What the controller remembers of a node between passes and may lose at a restart: times no status field can hold.

(docs/contracts/controller-behaviour.md D23, D30; ruling 9)
"""

from __future__ import annotations

from dataclasses import dataclass

from seiops.api.status import PlannedTask
from seiops.controller.sidecar_client import Probe
from seiops.kube import Key


@dataclass(frozen=True, slots=True)
class Unstored:
    """Progress of a plan that is not in the status yet; after a restart the steps would be done again without harm."""

    since: float
    plan: str
    """The plan's id."""
    tasks: list[PlannedTask]


@dataclass(slots=True)
class NodeMemory:
    """Times are of ``time.monotonic``."""

    uid: str
    task: str = ""
    """Id of the task that the two fields below are about."""
    task_not_before: float = 0.0
    refusals: int = 0
    unstored: Unstored | None = None
    plan_failures: int = 0
    """Update and mark-ready plans in a row that failed."""
    plan_not_before: float = 0.0
    plan_generation: int = 0
    """Generation of the node when its last plan failed; a changed spec is tried at once."""
    probed_at: float = float("-inf")
    probe: Probe | None = None
    """What the prober found and no pass has stored yet."""


class Memory:
    """One entry for each node that has been looked at, dropped with the node."""

    def __init__(self) -> None:
        self._nodes: dict[Key, NodeMemory] = {}

    def of(self, key: Key, uid: str) -> NodeMemory:
        known = self._nodes.get(key)
        if known is None or known.uid != uid:
            known = NodeMemory(uid)
            self._nodes[key] = known
        return known

    def forget(self, key: Key) -> None:
        self._nodes.pop(key, None)
