"""Which nodes a change concerns (docs/contracts/controller-behaviour.md 2.1, and what upstream only found by polling).

A pass is cheap but not free: bursts of changes that concern the same node are gathered for a moment.
"""

from __future__ import annotations

from seiops.controller.caches import Caches, owning_node
from seiops.controller.intervals import Intervals
from seiops.controller.peering import label_keys, node_of_pod
from seiops.kube import Key, Obj, key_of
from seiops.kube.workqueue import WorkQueue

GATHER_PEERS = 5.0
"""Seconds in which changes of a node's peers are gathered before the node looks again. A plan is never built from old
peers, so there is no hurry."""


class Wakes:
    """Turns changes in the caches into due keys."""

    def __init__(self, caches: Caches, queue: WorkQueue[Key], intervals: Intervals) -> None:
        self._caches = caches
        self._queue = queue
        self._gather = GATHER_PEERS * intervals.scale

    def connect(self) -> None:
        self._caches.nodes.subscribe(self._node_changed)
        self._caches.pods.subscribe(self._pod_changed)
        for _, store in self._caches.owned():
            store.subscribe(self._owned_changed)

    def chains_changed(self, chains: set[str] | None) -> None:
        """Nodes of these chains (None: of all) look at the syncers again."""
        if chains is None:
            nodes = self._caches.nodes.all()
        else:
            nodes = [raw for chain in chains for raw in self._caches.nodes.by_index("chain", chain)]
        for raw in nodes:
            self._queue.add(key_of(raw))

    def _node_changed(self, old: Obj | None, new: Obj | None) -> None:
        """Only a new generation concerns the node itself: it does not wake for its own status."""
        seen = new if new is not None else old
        assert seen is not None
        if old is None or new is None or _spec_version(old) != _spec_version(new):
            self._queue.add(key_of(seen))
        if old is None or new is None or _as_peer(old) != _as_peer(new):
            for changed in (old, new):
                if changed is not None:
                    self._wake_those_who_peer_with(changed)

    def _pod_changed(self, old: Obj | None, new: Obj | None) -> None:
        seen = new if new is not None else old
        assert seen is not None
        node = node_of_pod(seen)
        if node is None or (old is not None and new is not None and _pod_state(old) == _pod_state(new)):
            return
        self._queue.add(node)
        if (
            new is not None
            and new["status"]["phase"] == "Running"
            and (old is None or old["status"]["phase"] != "Running")
        ):
            peer = self._caches.nodes.get(node)
            if peer is not None:
                self._wake_those_who_peer_with(peer)

    def _owned_changed(self, old: Obj | None, new: Obj | None) -> None:
        for changed in (new, old):
            owner = owning_node(changed) if changed is not None else None
            if owner is not None:
                self._queue.add(owner)
                return

    def _wake_those_who_peer_with(self, raw: Obj) -> None:
        own = key_of(raw)
        for key in label_keys(raw):
            for other in self._caches.nodes.by_index("wants", key):
                if key_of(other) != own:
                    self._queue.add_after(key_of(other), self._gather)


def _spec_version(raw: Obj) -> object:
    """Labels and annotations do not wake their node, as upstream: what they say counts from its next pass on."""
    metadata = raw["metadata"]
    return metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp")


def _as_peer(raw: Obj) -> object:
    """What others see of a node."""
    spec = raw.get("spec")
    return raw["metadata"].get("labels"), spec.get("externalAddress") if isinstance(spec, dict) else None


def _pod_state(pod: Obj) -> object:
    return pod["metadata"]["uid"], pod["status"], pod["metadata"].get("deletionTimestamp")
