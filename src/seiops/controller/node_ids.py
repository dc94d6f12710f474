"""P2P ids of nodes, asked once for each Pod.

A node's id cannot change while its Pod lives, so an answer is kept for as long as the Pod has the same UID, and a
sidecar that fails later changes nothing. Questions to one Pod are shared by everybody who waits for it; a Pod that gave
no answer is left alone for a while (docs/contracts/controller-behaviour.md 6.3; D4, ruling 15).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from seiops.controller.intervals import Intervals
from seiops.controller.sidecar_client import SidecarClient, SidecarError
from seiops.kube import Key, Obj

REMEMBERED = 50_000
"""Pods whose ids are kept."""


class NodeIds:
    """Answers are kept by Pod UID."""

    def __init__(self, sidecars: SidecarClient, intervals: Intervals) -> None:
        self._sidecars = sidecars
        self._intervals = intervals
        self._known: OrderedDict[str, str] = OrderedDict()
        self._asking: dict[str, asyncio.Task[str | None]] = {}
        self._silent_until: OrderedDict[str, float] = OrderedDict()

    async def of(self, node: Key, pod: Obj | None) -> str | None:
        """Id of the node whose Pod is given; None if nobody can say now."""
        if pod is None:
            return None
        uid = pod["metadata"]["uid"]
        known = self._known.get(uid)
        if known is not None or not _is_running(pod) or time.monotonic() < self._silent_until.get(uid, 0.0):
            return known
        asking = self._asking.get(uid)
        if asking is None:
            asking = asyncio.create_task(self._ask(node, uid))
            self._asking[uid] = asking
        return await asyncio.shield(asking)

    async def _ask(self, node: Key, uid: str) -> str | None:
        try:
            found = await self._sidecars.node_id(node)
        except SidecarError:
            self._silent_until[uid] = time.monotonic() + self._intervals.steady / 2
            _trim(self._silent_until)
            return None
        else:
            self._known[uid] = found
            _trim(self._known)
            return found
        finally:
            del self._asking[uid]


def _is_running(pod: Obj) -> bool:
    return (pod.get("status") or {}).get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _trim(remembered: OrderedDict[str, str] | OrderedDict[str, float]) -> None:
    while len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
