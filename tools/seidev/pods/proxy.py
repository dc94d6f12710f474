"""Stand-in for kube-rbac-proxy: asks the API server who the caller is and whether it may, then forwards to the sidecar.

Reads the same arguments and config file as the real one (docs/contracts/controller-behaviour.md 5.3, 5.9). The caller's
own `X-Remote-*` headers never reach the sidecar.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from seiops.kube import ApiError, KubeClient
from seiops.kube.client.resource import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

PORT = 8443
REVIEW_LIFETIME = 10.0
REVIEWS_KEPT = 256
FORWARD_DEADLINE = aiohttp.ClientTimeout(total=60, sock_connect=5)
BODY_BYTES = 64 << 20

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer", "content-length", "host")


@dataclass(frozen=True)
class Caller:
    user: str
    groups: tuple[str, ...]


@dataclass
class _Reviews:
    """Answers of the API server, for a few seconds."""

    kept: dict[Any, tuple[float, Any]] = field(default_factory=dict)

    def get(self, key: Any) -> Any:
        found = self.kept.get(key)
        return found[1] if found is not None and time.monotonic() - found[0] < REVIEW_LIFETIME else None

    def put(self, key: Any, value: Any) -> None:
        if len(self.kept) >= REVIEWS_KEPT:
            self.kept.pop(next(iter(self.kept)))
        self.kept[key] = (time.monotonic(), value)


class RbacProxy:
    """One Pod's proxy on `host:8443`, in front of the sidecar at `upstream` (a base URL)."""

    def __init__(
        self,
        client: KubeClient,
        *,
        host: str,
        upstream: str,
        arguments: Sequence[str],
        attributes: Mapping[str, str] | None,
    ) -> None:
        self._client = client
        self._host = host
        self._upstream = upstream.rstrip("/")
        self._open_paths = _open_paths(arguments)
        self._attributes = attributes
        self._reviews = _Reviews()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, PORT, reuse_address=True).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers = {name: value for name, value in headers.items() if not name.lower().startswith("x-remote-")}
        if request.path not in self._open_paths:
            try:
                caller = await self._authenticate(request.headers.get("Authorization", ""))
                if caller is None:
                    return web.Response(status=401, text="Unauthorized\n")
                if not await self._allowed(caller, request.method):
                    return web.Response(status=403, text=self._forbidden(caller, request.method))
            except ApiError as error:
                return web.Response(status=500, text=f"Internal Server Error: {error}\n")
            headers.pop("Authorization", None)
            headers["X-Remote-User"] = caller.user
            headers["X-Remote-Groups"] = "|".join(caller.groups)
        return await self._forward(request, headers)

    async def _authenticate(self, authorization: str) -> Caller | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return None
        known = self._reviews.get(token)
        if known is not None:
            return known  # type: ignore[no-any-return]
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token.strip()}}
        answer = await self._client.create(TOKEN_REVIEWS, review, field_manager="pod-runner")
        status = answer.get("status", {})
        if not status.get("authenticated"):
            return None
        user = status["user"]
        caller = Caller(user["username"], tuple(user.get("groups", ())))
        self._reviews.put(token, caller)
        return caller

    async def _allowed(self, caller: Caller, method: str) -> bool:
        if self._attributes is None:
            return True
        verb = _VERBS.get(method, "*")
        known = self._reviews.get((caller, verb))
        if known is not None:
            return bool(known)
        attributes = {**{"group" if k == "apiGroup" else k: v for k, v in self._attributes.items()}, "verb": verb}
        spec = {"user": caller.user, "groups": list(caller.groups), "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        answer = await self._client.create(SUBJECT_ACCESS_REVIEWS, review, field_manager="pod-runner")
        allowed = bool(answer.get("status", {}).get("allowed"))
        if allowed:
            self._reviews.put((caller, verb), True)
        return allowed

    def _forbidden(self, caller: Caller, method: str) -> str:
        attributes = self._attributes or {}
        named = f"resource={attributes.get('resource')}, name={attributes.get('name')}"
        return f"Forbidden (user={caller.user}, verb={_VERBS.get(method, '*')}, {named})\n"

    async def _forward(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        assert self._session is not None
        body = await request.read()
        try:
            async with self._session.request(
                request.method,
                self._upstream + request.raw_path,
                data=body or None,
                headers=headers,
                timeout=FORWARD_DEADLINE,
                allow_redirects=False,
            ) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
        except (aiohttp.ClientError, TimeoutError, OSError):
            return web.Response(status=502)


def _open_paths(arguments: Sequence[str]) -> frozenset[str]:
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith("--ignore-paths=")]
    return frozenset(path for value in named for path in value.split(","))


def resource_attributes(config_file: Path) -> dict[str, str]:
    """`authorization.resourceAttributes` of the proxy's config file: what a caller must be allowed to do."""
    document = yaml.safe_load(config_file.read_text())
    found: dict[str, str] = document["authorization"]["resourceAttributes"]
    return found
