"""Everything a pass may touch besides its own node: caches, clients, settings. Built once at start, passed along."""

from __future__ import annotations

from dataclasses import dataclass, field

from seiops.api.names import FieldOwner
from seiops.controller.caches import FINGERPRINT, Caches, rendered_fingerprint
from seiops.controller.intervals import Intervals
from seiops.controller.memory import Memory
from seiops.controller.metrics import ControllerMetrics
from seiops.controller.peering import PeerResolver
from seiops.controller.settings import Settings
from seiops.controller.sidecar_client import SidecarClient
from seiops.controller.statesync import SyncerSource
from seiops.kube import Key, KubeClient, Obj, Resource, key_of
from seiops.kube.client.resource import controller_of
from seiops.kube.events import EventRecorder

MOST_SETTLED = 20_000


class LeftOverError(Exception):
    """An object of a node that is gone is in the way of ours; garbage collection is about to remove it."""

    def __init__(self, live: Obj) -> None:
        super().__init__(f"{live['kind']} {live['metadata']['name']} of an earlier object is still there")
        self.live = live


@dataclass(slots=True)
class World:
    client: KubeClient
    caches: Caches
    settings: Settings
    intervals: Intervals
    sidecars: SidecarClient
    peers: PeerResolver
    syncers: SyncerSource
    events: EventRecorder
    metrics: ControllerMetrics
    memory: Memory = field(default_factory=Memory)
    _settled: dict[tuple[str, Key], tuple[str, str]] = field(default_factory=dict)

    async def ensure(self, resource: Resource, rendered: Obj) -> Obj:
        """Server-side apply, unless what we own of the live object is already what we want.

        Returns the live object as the cache keeps it. Raises ApiError, and LeftOverError if the object still belongs to a
        deleted node of the same name: it goes with its owner and would take ours along, state and all.
        """
        store = self.caches.of(resource)
        key = key_of(rendered)
        wanted = rendered_fingerprint(rendered)
        live = store.get(key)
        if live is not None and not live["metadata"].get("deletionTimestamp"):
            if _is_left_over(live, rendered):
                raise LeftOverError(live)
            found = live[FINGERPRINT]
            if found and (found == wanted or self._settled.get((resource.kind, key)) == (wanted, found)):
                return live
        answer = await self.client.apply(resource, rendered, field_manager=FieldOwner.NODE.value)
        store.record(answer)
        live = store.get(key)
        if live is None:
            return answer
        if live[FINGERPRINT] != wanted:
            # The API server spells something differently (a quantity, a default): this pair is as good as equal.
            if len(self._settled) >= MOST_SETTLED:
                self._settled.clear()
            self._settled[(resource.kind, key)] = (wanted, live[FINGERPRINT])
        return live


def _is_left_over(live: Obj, rendered: Obj) -> bool:
    """The live object belongs to another owner of the same kind and name."""
    owner, ours = controller_of(live), controller_of(rendered)
    if owner is None or ours is None or owner["uid"] == ours["uid"]:
        return False
    return (owner["kind"], owner["name"]) == (ours["kind"], ours["name"])
