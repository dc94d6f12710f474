"""Everything that happened to the objects of one kind, in order: what a step asserts about order is read from here.

All kinds share one etcd, so resource versions of different kinds can be compared: the smaller one happened first.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from seiops.kube import ApiError, KubeClient, Obj, Resource


@dataclass(frozen=True)
class Change:
    """`kind` is ADDED, MODIFIED or DELETED; `at` is when we saw it, on the monotonic clock."""

    kind: str
    object: Obj
    at: float

    @property
    def version(self) -> int:
        return int(self.object["metadata"]["resourceVersion"])

    @property
    def name(self) -> str:
        return str(self.object["metadata"]["name"])


@dataclass
class History:
    """Follows one kind in one namespace from `follow` on; nothing is forgotten."""

    client: KubeClient
    resource: Resource
    namespace: str
    changes: list[Change] = field(default_factory=list)
    _seen: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def follow(self) -> None:
        """Runs until cancelled."""
        listing = await self.client.list(self.resource, self.namespace)
        for found in listing.items:
            await self._add("ADDED", found)
        version = listing.resource_version
        while True:
            try:
                async for event in self._events(version):
                    version = event.object["metadata"]["resourceVersion"]
                    if event.kind != "BOOKMARK":
                        await self._add(event.kind, event.object)
            except ApiError as error:
                if error.expired:
                    raise
                await asyncio.sleep(0.2)

    async def _events(self, version: str) -> AsyncIterator[Change]:
        async for event in self.client.watch(self.resource, self.namespace, resource_version=version):
            yield Change(event.type, event.object, time.monotonic())

    async def _add(self, kind: str, found: Obj) -> None:
        async with self._seen:
            self.changes.append(Change(kind, found, time.monotonic()))
            self._seen.notify_all()

    def first(self, holds: Callable[[Obj], object], *, since: int = 0) -> Change | None:
        """The first state, from index `since` on, for which `holds` is true."""
        return next((change for change in self.changes[since:] if holds(change.object)), None)

    def latest(self, name: str) -> Obj | None:
        """The object as it is now; None when it was deleted or never seen."""
        change = next((change for change in reversed(self.changes) if change.name == name), None)
        return change.object if change is not None and change.kind != "DELETED" else None

    async def until(self, holds: Callable[[Obj], object], *, seconds: float, since: int = 0) -> Change:
        """Waits for that first state. Raises TimeoutError."""
        async with asyncio.timeout(seconds), self._seen:
            while True:
                found = self.first(holds, since=since)
                if found is not None:
                    return found
                await self._seen.wait()
