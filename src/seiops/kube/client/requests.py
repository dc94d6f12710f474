"""A thin Kubernetes client on plain dicts: one aiohttp session, a deadline on every request, a bound on connections.

Why not a ready-made one: docs/decisions/0001-kube-client-on-aiohttp.md. Reads and writes only; caching is :mod:`.informer`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import aiohttp
import orjson

from seiops.kube.client.credentials import ConfigError, Connection
from seiops.kube.client.errors import ApiError
from seiops.kube.client.resource import Obj, Resource

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

REQUEST_DEADLINE = 30.0
CONNECT_DEADLINE = 10.0
WATCH_LIFETIME = 300
"""Seconds a watch is asked to live; the server closes it then and we continue where it ended."""
PAGE = 250
THROTTLE_TRIES = 5
"""How often an answer 429 (or 503 with Retry-After) is waited out before it is handed to the caller."""
THROTTLE_LONGEST = 5.0

Propagation = Literal["Background", "Foreground", "Orphan"]


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of a list and the resource version to watch from. Items carry ``apiVersion`` and ``kind``."""

    items: list[Obj]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Obj


class KubeClient:
    """Talks to one API server as one user. Every method raises :class:`ApiError`; ``deadline`` is in seconds."""

    def __init__(self, connection: Connection, *, user_agent: str = "seiops", max_connections: int = 64) -> None:
        self.connection = connection
        self._user_agent = user_agent
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> KubeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Reading

    async def get(self, resource: Resource, name: str, namespace: str | None = None, **options: Any) -> Obj:
        return await self.request("GET", resource.path(namespace, name), **options)

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Listing:
        """All objects of a namespace, or of the cluster if it is None."""
        items: list[Obj] = []
        async for page in self.pages(resource, namespace, label_selector=label_selector, field_selector=field_selector):
            items += page.items
        return Listing(items, page.resource_version)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> AsyncIterator[Listing]:
        """A list in pages of :data:`PAGE` objects, so that a reader may keep less than it is sent."""
        params = _selectors(label_selector, field_selector) | {"limit": str(PAGE)}
        while True:
            page = await self.request("GET", resource.path(namespace), params=params)
            items: list[Obj] = page.get("items") or []
            for item in items:
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            metadata = page.get("metadata") or {}
            yield Listing(items, metadata.get("resourceVersion", ""))
            if not metadata.get("continue"):
                return
            params["continue"] = metadata["continue"]

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        lifetime: int = WATCH_LIFETIME,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after ``resource_version``, bookmarks included; ends when the server closes the stream.

        An ERROR event is raised as :class:`ApiError` (410 ``Expired``: list again).
        """
        params = _selectors(label_selector, field_selector) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(lifetime),
        }
        timeout = aiohttp.ClientTimeout(total=lifetime + 30.0, sock_connect=CONNECT_DEADLINE)
        try:
            async with await self._send("GET", resource.path(namespace), params, None, {}, timeout) as response:
                if response.status != 200:
                    raise await _error(response)
                async for line in _lines(response.content):
                    event = orjson.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError.from_status(500, event["object"])
                    yield WatchEvent(event["type"], event["object"])
        except (aiohttp.ClientError, TimeoutError, ConnectionError, orjson.JSONDecodeError) as error:
            raise _no_answer("watching", resource.path(namespace), error) from error

    # Writing

    async def create(
        self,
        resource: Resource,
        obj: Obj,
        namespace: str | None = None,
        *,
        field_manager: str,
        subresource: str | None = None,
    ) -> Obj:
        """POST to the collection, or to a subresource of ``obj`` (``binding``, ``eviction``)."""
        name = obj["metadata"]["name"] if subresource else None
        namespace = namespace or (obj.get("metadata") or {}).get("namespace")
        path = resource.path(namespace, name, subresource)
        return await self.request("POST", path, params={"fieldManager": field_manager}, body=obj)

    async def replace(self, resource: Resource, obj: Obj, *, field_manager: str, subresource: str | None = None) -> Obj:
        """PUT; the object's own ``resourceVersion`` is the optimistic lock."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self.request("PUT", path, params={"fieldManager": field_manager}, body=obj)

    async def patch(
        self,
        resource: Resource,
        name: str,
        namespace: str | None,
        patch: Any,
        *,
        field_manager: str,
        subresource: str | None = None,
        content_type: str = MERGE_PATCH,
        resource_version: str | None = None,
    ) -> Obj:
        """A merge patch unless ``content_type`` says otherwise. ``resource_version`` makes a stale one fail with 409."""
        if resource_version is not None:
            patch = {**patch, "metadata": {**patch.get("metadata", {}), "resourceVersion": resource_version}}
        path = resource.path(namespace, name, subresource)
        params = {"fieldManager": field_manager}
        return await self.request("PATCH", path, params=params, body=patch, content_type=content_type)

    async def apply(self, resource: Resource, obj: Obj, *, field_manager: str, subresource: str | None = None) -> Obj:
        """Server-side apply that takes ownership of every field in ``obj`` (``force``)."""
        metadata = obj["metadata"]
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        params = {"fieldManager": field_manager, "force": "true"}
        return await self.request("PATCH", path, params=params, body=obj, content_type=APPLY_PATCH)

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
    ) -> Obj:
        """DELETE; with ``uid`` or ``resource_version`` only that very object (409 otherwise)."""
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {field: value for field, value in preconditions.items() if value}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return await self.request("DELETE", resource.path(namespace, name), body=options)

    # The wire

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        deadline: float = REQUEST_DEADLINE,
    ) -> Obj:
        """One request, JSON in and out; an answer that asks to come back later is waited out within ``deadline``."""
        data = None if body is None else orjson.dumps(body)
        headers = {} if data is None else {"Content-Type": content_type}
        timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=CONNECT_DEADLINE)
        refused = False
        throttled = 0
        try:
            async with asyncio.timeout(deadline):
                while True:
                    async with await self._send(method, path, params, data, headers, timeout) as response:
                        if response.status < 300:
                            answer: Obj = orjson.loads(await response.read())
                            return answer
                        if response.status == 401 and not refused:
                            refused = True
                            self.connection.credentials.drop()
                            continue
                        pause = response.headers.get("Retry-After")
                        if response.status not in (429, 503) or pause is None or throttled >= THROTTLE_TRIES:
                            raise await _error(response)
                    throttled += 1
                    await asyncio.sleep(min(float(pause) if pause.isdigit() else 1.0, THROTTLE_LONGEST))
        except (aiohttp.ClientError, TimeoutError, ConnectionError, orjson.JSONDecodeError) as error:
            raise _no_answer(method, path, error) from error

    async def text(self, path: str, *, deadline: float = REQUEST_DEADLINE) -> str:
        """A plain-text endpoint, for example ``/readyz``."""
        timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=CONNECT_DEADLINE)
        try:
            async with await self._send("GET", path, None, None, {}, timeout) as response:
                if response.status >= 300:
                    raise await _error(response)
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise _no_answer("GET", path, error) from error

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        data: bytes | None,
        headers: dict[str, str],
        limits: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._max_connections, ssl=self.connection.tls or True)
            self._session = aiohttp.ClientSession(
                connector=connector, headers={"User-Agent": self._user_agent, "Accept": "application/json"}
            )
        try:
            token = await self.connection.credentials.token()
        except ConfigError as error:
            raise ApiError(0, "Unreachable", str(error)) from error
        if token:
            headers = {**headers, "Authorization": f"Bearer {token}"}
        return await self._session.request(
            method,
            self.connection.server + path,
            params=params,
            data=data,
            headers=headers,
            timeout=limits,
            proxy=self.connection.proxy,
            server_hostname=self.connection.server_name,
        )


def _selectors(label_selector: str | None, field_selector: str | None) -> dict[str, str]:
    named = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in named.items() if value}


async def _lines(stream: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Newline-separated documents of any length (the reader's own line limit is smaller than a big object)."""
    rest = b""
    async for chunk in stream.iter_any():
        *complete, rest = (rest + chunk).split(b"\n") if b"\n" in chunk else (rest + chunk,)
        for line in complete:
            if line:
                yield line


async def _error(response: aiohttp.ClientResponse) -> ApiError:
    body = await response.read()
    try:
        status = orjson.loads(body)
    except orjson.JSONDecodeError:
        status = {"message": body.decode(errors="replace").strip()[:500]}
    return ApiError.from_status(response.status, status if isinstance(status, dict) else {})


def _no_answer(method: str, path: str, error: BaseException) -> ApiError:
    if isinstance(error, TimeoutError):
        return ApiError(0, "Timeout", f"{method} {path}: the API server gave no answer in time")
    return ApiError(0, "Unreachable", f"{method} {path}: {error or type(error).__name__}")
