"""What the kubelet and Prometheus ask for: ``/healthz``, ``/readyz`` and ``/metrics`` on their own listeners."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from seiops.kube.client import KubeClient
from seiops.kube.client.errors import ApiError
from seiops.kube.client.resource import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

DISABLED = ("0", "")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ListenError(Exception):
    """The address cannot be listened on; the message says which and why."""


class Listener:
    """A small HTTP server on ``address`` (``host:port`` or ``:port``; ``0`` means none)."""

    def __init__(self, address: str, routes: dict[str, Handler], tls: ssl.SSLContext | None = None) -> None:
        self._address = address
        self._tls = tls
        app = web.Application()
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        if self._address in DISABLED:
            return
        host, _, port = self._address.rpartition(":")
        if not port.isdigit():
            raise ListenError(f"address {self._address!r}: expected host:port, :port, or 0 for none")
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host.strip("[]") or None, int(port), ssl_context=self._tls).start()
        except OSError as error:
            raise ListenError(f"listening on {self._address} failed: {error.strerror or error}") from error

    async def stop(self) -> None:
        await self._runner.cleanup()

    @property
    def port(self) -> int:
        """The port in use, for an address that asked for any (``:0`` after a host)."""
        port: int = self._runner.addresses[0][1]
        return port


def probes(address: str) -> Listener:
    """``/healthz`` and ``/readyz``: the process answers. They say nothing about leadership or caches."""

    async def alive(_: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    paths = ("/healthz", "/healthz/healthz", "/healthz/ping", "/readyz", "/readyz/readyz", "/readyz/ping")
    return Listener(address, dict.fromkeys(paths, alive))


def metrics(
    address: str,
    *,
    registry: CollectorRegistry = REGISTRY,
    tls: ssl.SSLContext | None = None,
    reviewer: KubeClient | None = None,
) -> Listener:
    """``/metrics``; with ``reviewer`` only for callers whose token the API server accepts and allows to GET the path."""

    async def scrape(request: web.Request) -> web.StreamResponse:
        if reviewer is not None and (refusal := await _refuse(reviewer, request)) is not None:
            return refusal
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Listener(address, {"/metrics": scrape}, tls)


async def _refuse(reviewer: KubeClient, request: web.Request) -> web.Response | None:
    """None if the caller may read, else the answer to give."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return web.Response(status=401, text="Unauthorized")
    try:
        asked = {"apiVersion": TOKEN_REVIEWS.api_version, "kind": TOKEN_REVIEWS.kind, "spec": {"token": token}}
        review = (await reviewer.request("POST", TOKEN_REVIEWS.path(), body=asked))["status"]
        if not review.get("authenticated"):
            return web.Response(status=401, text="Unauthorized")
        user = review["user"]
        spec = {
            "user": user.get("username"),
            "groups": user.get("groups") or [],
            "nonResourceAttributes": {"path": request.path, "verb": "get"},
        }
        reviews = SUBJECT_ACCESS_REVIEWS
        asked = {"apiVersion": reviews.api_version, "kind": reviews.kind, "spec": spec}
        answer = await reviewer.request("POST", reviews.path(), body=asked)
    except ApiError as error:
        return web.Response(status=500, text=f"Authentication failed: {error}")
    return None if answer["status"].get("allowed") else web.Response(status=403, text="Forbidden")
