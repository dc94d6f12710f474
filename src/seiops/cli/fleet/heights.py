"""Block heights of nodes, asked of seid's own RPC: through the API server from anywhere, directly inside the cluster.

Heights are not in any object's status: they change with every block. Each question has a short deadline of its own, so a
dead node costs its own cell and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import aiohttp

from seiops.api.names import pod_name
from seiops.cli.fleet.view import NodeView
from seiops.controller.sidecar_client import FileResolver
from seiops.kube import ApiError, Key, KubeClient
from seiops.seid.comet import CometClient, CometError, Status, parse_status, unwrap

RPC_PORT = 26657
DEADLINE = 3.0
AT_ONCE = 32


class Route(StrEnum):
    PROXY = "proxy"
    DIRECT = "direct"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Height:
    """``behind``: blocks below the highest known of the chain, None where nothing else of the chain is known."""

    latest: int
    catching_up: bool
    behind: int | None = None


class Rpc(Protocol):
    async def status(self, node: Key) -> Status:
        """Raises CometError."""


class ProxyRpc:
    """Through the API server's Pod proxy: works wherever kubectl works, needs `get` on `pods/proxy`."""

    def __init__(self, client: KubeClient, port: int = RPC_PORT) -> None:
        self._client = client
        self._port = port

    async def status(self, node: Key) -> Status:
        namespace, name = node
        path = f"/api/v1/namespaces/{namespace}/pods/{pod_name(name)}:{self._port}/proxy/status"
        try:
            body = await self._client.text(path, deadline=DEADLINE)
        except ApiError as error:
            raise CometError(error.message) from error
        return parse_status(unwrap(body.encode(), "/status"))


class DirectRpc:
    """Straight to the Pod by its name in the cluster's DNS, or by a file of names (development)."""

    def __init__(self, session: aiohttp.ClientSession, port: int = RPC_PORT) -> None:
        self._session = session
        self._port = port

    async def status(self, node: Key) -> Status:
        namespace, name = node
        host = f"{pod_name(name)}.{name}.{namespace}.svc.cluster.local"
        return await CometClient(f"http://{host}:{self._port}", self._session).status(timeout_s=DEADLINE)


def direct_session(resolve_file: str) -> aiohttp.ClientSession:
    resolver = FileResolver(Path(resolve_file)) if resolve_file else None
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver, limit=AT_ONCE))


def answers(view: NodeView) -> bool:
    """Whether the node has a Pod that could be asked."""
    node = view.node
    return node.status.stateful_set is not None and not node.spec.paused and node.metadata.deletion_timestamp is None


async def heights(rpc: Rpc, views: Iterable[NodeView], tell: Callable[[], None] = lambda: None) -> dict[Key, Height]:
    """Heights of all nodes that answer. ``tell`` is called after every answer."""
    gate = asyncio.Semaphore(AT_ONCE)
    found: dict[Key, Status] = {}

    async def ask(key: Key) -> None:
        async with gate:
            try:
                found[key] = await rpc.status(key)
            except CometError:
                return
        tell()

    asked = [view for view in views if answers(view)]
    await asyncio.gather(*(ask(view.key) for view in asked))
    return _compared(found, {view.key: view.chain for view in asked})


def _compared(found: Mapping[Key, Status], chains: Mapping[Key, str]) -> dict[Key, Height]:
    heads: dict[str, list[int]] = {}
    for key, status in found.items():
        heads.setdefault(chains[key], []).append(status.height)
    compared = {}
    for key, status in found.items():
        others = heads[chains[key]]
        behind = max(others) - status.height if len(others) > 1 else None
        compared[key] = Height(status.height, status.catching_up, behind)
    return compared
