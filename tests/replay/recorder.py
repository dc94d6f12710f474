"""What happened on the cluster, state by state: every version of every object the cases are about, in the order the
watches told it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from replay.kubeapi import SEI_KINDS, KubeApi

WATCHED = (
    *SEI_KINDS,
    "StatefulSet",
    "Job",
    "Service",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "Pod",
    "Event",
)


@dataclass(frozen=True)
class State:
    event: str
    object: dict[str, Any]
    at: float


@dataclass
class History:
    """All states of one object (one uid)."""

    kind: str
    namespace: str
    name: str
    states: list[State] = field(default_factory=list)

    @property
    def last(self) -> State:
        return self.states[-1]

    @property
    def deleted(self) -> bool:
        return self.last.event == "DELETED"


class Recorder:
    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._histories: dict[str, dict[str, History]] = defaultdict(dict)
        self._live: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._changed: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._watches: list[asyncio.Task[None]] = []
        self._listeners: list[tuple[str, Callable[[str, dict[str, Any]], None]]] = []

    def listen(self, kind: str, handler: Callable[[str, dict[str, Any]], None]) -> None:
        self._listeners.append((kind, handler))

    async def start(self) -> None:
        ready = []
        for kind in WATCHED:
            started = asyncio.Event()
            watch = asyncio.create_task(self._api.watch(kind, self._handler(kind), started), name=f"watch {kind}")
            self._watches.append(watch)
            ready.append((watch, asyncio.create_task(started.wait())))
        for watch, started_task in ready:
            await asyncio.wait({watch, started_task}, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()

    async def stop(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    def check(self) -> None:
        """Raise what ended a watch, if one ended: without it nothing recorded is complete."""
        for watch in self._watches:
            if watch.done():
                watch.result()

    def live(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        return self._live.get((kind, namespace or "", name))

    def living(self, namespace: str, kind: str) -> list[dict[str, Any]]:
        return [item for (of, where, _), item in self._live.items() if of == kind and where == namespace]

    def histories(self, namespace: str) -> list[History]:
        """In the order in which the objects appeared."""
        return list(self._histories[namespace].values())

    def forget(self, namespace: str) -> None:
        self._histories.pop(namespace, None)

    async def changed(self, namespace: str, seconds: float) -> bool:
        """Until something in the namespace changed, at most so many seconds. Whether it did."""
        event = self._changed[namespace]
        event.clear()
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            self.check()
            return False
        return True

    def _handler(self, kind: str) -> Callable[[str, dict[str, Any]], None]:
        def seen(event: str, item: dict[str, Any]) -> None:
            self._keep(kind, event, item)
            for of, handler in self._listeners:
                if of == kind:
                    handler(event, item)

        return seen

    def _keep(self, kind: str, event: str, item: dict[str, Any]) -> None:
        metadata = item["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if event == "DELETED":
            self._live.pop((kind, namespace, name), None)
        else:
            self._live[(kind, namespace, name)] = item
        if kind != "Pod":
            known = self._histories[namespace]
            history = known.setdefault(metadata["uid"], History(kind, namespace, name))
            history.states.append(State(event, item, time.time()))
        self._changed[namespace].set()
