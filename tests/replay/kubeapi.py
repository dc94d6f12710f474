"""The harness's own way to the API server: plain requests and endless watches. It does not use `seiops.kube`, so that
a defect there cannot hide itself."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

USER = "golden-user"
STANDIN = "replay-standin"
BUSY_ATTEMPTS = 50


@dataclass(frozen=True)
class Kind:
    name: str
    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def base(self) -> str:
        return f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        parts = [self.base]
        if self.namespaced and namespace is not None:
            parts.append(f"namespaces/{namespace}")
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        return "/".join(parts)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("SeiNode", "sei.io/v1alpha1", "seinodes"),
        Kind("SeiNetwork", "sei.io/v1alpha1", "seinetworks"),
        Kind("SeiNodeTask", "sei.io/v1alpha1", "seinodetasks"),
        Kind("SeiNodeTaskWorkflow", "sei.io/v1alpha1", "seinodetaskworkflows"),
        Kind("StatefulSet", "apps/v1", "statefulsets"),
        Kind("Job", "batch/v1", "jobs"),
        Kind("Service", "v1", "services"),
        Kind("ConfigMap", "v1", "configmaps"),
        Kind("Secret", "v1", "secrets"),
        Kind("PersistentVolumeClaim", "v1", "persistentvolumeclaims"),
        Kind("PersistentVolume", "v1", "persistentvolumes", namespaced=False),
        Kind("Pod", "v1", "pods"),
        Kind("Event", "v1", "events"),
        Kind("Node", "v1", "nodes", namespaced=False),
        Kind("Namespace", "v1", "namespaces", namespaced=False),
        Kind("ServiceAccount", "v1", "serviceaccounts"),
        Kind("Role", "rbac.authorization.k8s.io/v1", "roles"),
        Kind("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings"),
        Kind("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", namespaced=False),
    )
}
SEI_KINDS = ("SeiNode", "SeiNetwork", "SeiNodeTask", "SeiNodeTaskWorkflow")


class ApiError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


WatchHandler = Callable[[str, dict[str, Any]], Awaitable[None] | None]


class KubeApi:
    """One session with one bearer token."""

    def __init__(self, url: str, token: str, context: ssl.SSLContext) -> None:
        self._url = url
        self._context = context
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> KubeApi:
        connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
        timeout = aiohttp.ClientTimeout(total=60, sock_connect=10)
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        manager: str | None = None,
        content_type: str = "application/json",
    ) -> Any:
        assert self._session is not None
        params = {"fieldManager": manager} if manager else None
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if data is not None else None
        for _ in range(BUSY_ATTEMPTS):
            request = self._session.request(method, self._url + path, params=params, data=data, headers=headers)
            async with request as answer:
                content = await answer.json(content_type=None)
            if answer.status != 429:
                break
            await asyncio.sleep(0.2)  # the storage of a CRD that was just installed is still being made
        if answer.status >= 400:
            message = content.get("message", "") if isinstance(content, dict) else str(content)
            raise ApiError(answer.status, message)
        return content

    async def create(self, manifest: dict[str, Any], namespace: str | None, manager: str = USER) -> Any:
        kind = KINDS[manifest["kind"]]
        return await self.request("POST", kind.path(namespace), manifest, manager=manager)

    async def get(self, kind: str, namespace: str | None, name: str) -> Any:
        return await self.request("GET", KINDS[kind].path(namespace, name))

    async def list(self, kind: str, namespace: str | None = None) -> list[Any]:
        return list((await self.request("GET", KINDS[kind].path(namespace)))["items"])

    async def merge_patch(
        self, kind: str, namespace: str | None, name: str, body: Any, *, subresource: str = "", manager: str = USER
    ) -> Any:
        path = KINDS[kind].path(namespace, name) + (f"/{subresource}" if subresource else "")
        return await self.request("PATCH", path, body, manager=manager, content_type="application/merge-patch+json")

    async def delete(self, kind: str, namespace: str | None, name: str, options: Any = None) -> Any:
        return await self.request("DELETE", KINDS[kind].path(namespace, name), options)

    async def watch(self, kind: str, handler: WatchHandler, ready: asyncio.Event) -> None:
        """Report every change from now on, for ever; `ready` is set once the first list was reported as ADDED.

        Only one list is made: the harness has to see every single state, so a watch that the server says is too old
        is an error, not a reason to list again.
        """
        assert self._session is not None
        listed = await self.request("GET", KINDS[kind].path())
        version = listed["metadata"]["resourceVersion"]
        for item in listed["items"]:
            await _call(handler, "ADDED", {**item, "kind": kind, "apiVersion": KINDS[kind].api_version})
        ready.set()
        while True:
            params = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
            endless = aiohttp.ClientTimeout(total=None, sock_connect=10)
            url = self._url + KINDS[kind].path()
            try:
                async with self._session.get(url, params=params, timeout=endless) as answer:
                    async for event in _events(answer):
                        if event["type"] == "ERROR":
                            raise ApiError(int(event["object"].get("code", 500)), f"watching {kind}: {event['object']}")
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK":
                            await _call(handler, event["type"], event["object"])
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(0.2)  # the server went away; the next watch goes on where this one ended


async def _events(answer: aiohttp.ClientResponse) -> Any:
    buffer = b""
    async for chunk in answer.content.iter_any():
        buffer += chunk
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            yield json.loads(line)


async def _call(handler: WatchHandler, event: str, item: dict[str, Any]) -> None:
    outcome = handler(event, item)
    if outcome is not None:
        await outcome
