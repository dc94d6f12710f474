"""A local copy of the objects of one kind, kept current by list and watch.

Readers see our own writes at once: :meth:`Store.record` puts an answer of the API server into the copy, and an older
watch event that comes in later is ignored. So a pass never works on a state older than what it wrote itself.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import structlog

from seiops.kube.client import KubeClient
from seiops.kube.client.errors import ApiError
from seiops.kube.client.resource import Key, Obj, Resource, key_of, version_of

Handler = Callable[[Obj | None, Obj | None], None]
"""Called with the object before and after a change; None where it did not or does not exist."""

Indexer = Callable[[Obj], Iterable[str]]

GRAVES = 4096
"""How many deletions are remembered, so that a late answer to a write does not bring an object back."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
CALM = 5.0
"""A watch that lived this many seconds was healthy: the next trouble starts with the first pause again."""

log = structlog.get_logger("kube.informer")


class Store:
    """Objects by key, with named indexes. What it returns is shared: read it, never change it."""

    def __init__(
        self, transform: Callable[[Obj], Obj] | None = None, indexes: Mapping[str, Indexer] | None = None
    ) -> None:
        self._transform = transform
        self._objects: dict[Key, Obj] = {}
        self._indexers = dict(indexes or {})
        self._indexed: dict[str, dict[str, dict[Key, None]]] = {name: {} for name in self._indexers}
        self._graves: OrderedDict[Key, int] = OrderedDict()
        self._handlers: list[Handler] = []

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, key: Key) -> Obj | None:
        return self._objects.get(key)

    def all(self) -> list[Obj]:
        return list(self._objects.values())

    def by_index(self, index: str, value: str) -> list[Obj]:
        return [self._objects[key] for key in self._indexed[index].get(value, ())]

    def subscribe(self, handler: Handler) -> None:
        self._handlers.append(handler)

    def record(self, obj: Obj) -> None:
        """Take over the answer to a write of ours. Handlers are not told: who wrote it knows it."""
        if version_of(obj) > self._graves.get(key_of(obj), 0):
            self._put(obj)

    def observe(self, obj: Obj) -> None:
        """Take over an object from a list or a watch."""
        change = self._put(obj)
        if change is not None:
            self._tell(*change)

    def remove(self, key: Key, version: int) -> None:
        """Drop an object that was deleted at ``version``, unless a newer one has taken its name."""
        self._graves[key] = version
        self._graves.move_to_end(key)
        if len(self._graves) > GRAVES:
            self._graves.popitem(last=False)
        old = self._objects.get(key)
        if old is not None and version_of(old) <= version:
            self._index(key, old, None)
            del self._objects[key]
            self._tell(old, None)

    def keep_only(self, keys: set[Key], namespace: str | None, version: int) -> None:
        """After a full list at ``version``: whatever it did not hold is gone, except what was written later."""
        for key, obj in list(self._objects.items()):
            if key not in keys and (namespace is None or key[0] == namespace) and version_of(obj) <= version:
                self.remove(key, version)

    def _put(self, obj: Obj) -> tuple[Obj | None, Obj] | None:
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None and version_of(old) >= version_of(obj):
            return None
        new = self._transform(obj) if self._transform else obj
        self._index(key, old, new)
        self._objects[key] = new
        return old, new

    def _index(self, key: Key, old: Obj | None, new: Obj | None) -> None:
        for name, indexer in self._indexers.items():
            index = self._indexed[name]
            for value in indexer(old) if old is not None else ():
                if value in index:
                    index[value].pop(key, None)
                    if not index[value]:
                        del index[value]
            for value in indexer(new) if new is not None else ():
                index.setdefault(value, {})[key] = None

    def _tell(self, old: Obj | None, new: Obj | None) -> None:
        for handler in self._handlers:
            handler(old, new)


class Informer:
    """Keeps a :class:`Store` equal to the API server's objects of one kind, in one namespace or in all.

    Several informers may feed one store (one for each of several namespaces). Runs until cancelled; survives restarts of
    the API server; lists again when the server no longer knows our resource version.
    """

    def __init__(
        self,
        client: KubeClient,
        resource: Resource,
        store: Store,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> None:
        self.resource = resource
        self.store = store
        self.synced = asyncio.Event()
        self.trouble = ""
        """Why the last list or watch failed, empty if it did not."""
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._pause = FIRST_PAUSE
        self._version: str | None = None

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                if self._version is None:
                    await self._list()
                await self._follow()
                self.trouble = ""
            except ApiError as error:
                self.trouble = str(error)
                if error.status or self._version is None:
                    self._version = None
                    log.warning("list or watch failed", kind=self.resource.kind, reason=error.reason, error=str(error))
                else:
                    log.info("watch broke off", kind=self.resource.kind, error=str(error))
                if error.expired:
                    continue
            await self._rest(time.monotonic() - began)

    async def _list(self) -> None:
        keys: set[Key] = set()
        version = ""
        async for page in self._client.pages(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            version = page.resource_version
            for obj in page.items:
                keys.add(key_of(obj))
                self.store.observe(obj)
        self.store.keep_only(keys, self._namespace, int(version or 0))
        self._version = version
        self.synced.set()

    async def _follow(self) -> None:
        assert self._version is not None
        async for event in self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self._version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            self._version = event.object["metadata"]["resourceVersion"]
            if event.type == "DELETED":
                self.store.remove(key_of(event.object), version_of(event.object))
            elif event.type != "BOOKMARK":
                self.store.observe(event.object)

    async def _rest(self, lived: float) -> None:
        """Pause before trying again: none after a healthy watch, else growing, spread so that a fleet does not knock at once."""
        if lived > CALM:
            self._pause = FIRST_PAUSE
            return
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.5))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
