"""All nodes' sidecars on one address: real sockets, one HTTP server, the node taken from the Host header.

Every request is kept as it came, headers in the order sent and the body's bytes. Names are published for the
controller in a resolve file (JSON object name -> address; a name that is not there does not exist), which follows the
Pods: a node's name exists while one of its Pods runs, unless the script says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from replay.sidecar_rules import Answer, NodeSidecar, Rule

PORT = 8443
_HOST = re.compile(r"^(?P<node>[^.]+)-0\.(?P<service>[^.]+)\.(?P<namespace>[^.]+)\.svc\b")


@dataclass
class SeenRequest:
    namespace: str
    node: str
    method: str
    path: str
    headers: list[list[str]]
    raw: bytes
    answer: Answer
    at: float


class SidecarServer:
    def __init__(self, address: str, refusing_address: str, resolve_file: Path, scale: float = 1.0) -> None:
        self.address = address
        self.refusing_address = refusing_address
        self.seen: list[SeenRequest] = []
        self._resolve_file = resolve_file
        self._scale = scale
        self._nodes: dict[tuple[str, str], NodeSidecar] = {}
        self._modes: dict[tuple[str, str], str] = {}
        self._pods: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._transports: dict[tuple[str, str], set[asyncio.Transport]] = defaultdict(set)
        self._released: dict[tuple[str, str], asyncio.Event] = defaultdict(asyncio.Event)
        self._runner: web.ServerRunner | None = None
        self._published = ""

    async def start(self) -> None:
        server = web.Server(self._handle)
        # A hanging request has to notice that its client went away.
        self._runner = web.ServerRunner(server, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.address, PORT).start()
        self._publish()

    async def stop(self) -> None:
        for key in list(self._transports):
            self._close_connections(key)
        if self._runner is not None:
            await self._runner.cleanup()

    def node(self, namespace: str, name: str) -> NodeSidecar:
        key = (namespace, name)
        if key not in self._nodes:
            self._nodes[key] = NodeSidecar(namespace, name, self._scale)
        return self._nodes[key]

    def settled(self, namespace: str, name: str) -> NodeSidecar:
        node = self.node(namespace, name)
        node.settle(time.time())
        return node

    def requests_of(self, namespace: str) -> list[SeenRequest]:
        return [request for request in self.seen if request.namespace == namespace]

    def forget(self, namespace: str) -> None:
        """Drop everything about a namespace whose case is over."""
        for table in (self._nodes, self._modes, self._pods, self._transports, self._released):
            for key in [key for key in table if key[0] == namespace]:
                del table[key]
        self.seen = [request for request in self.seen if request.namespace != namespace]
        self._publish()

    # What scripts do

    def add_rule(self, namespace: str, name: str, rule: dict[str, Any]) -> None:
        self.node(namespace, name).rules.append(Rule.of(rule))

    def clear_rules(self, namespace: str, name: str) -> None:
        self.node(namespace, name).rules.clear()

    def set_address(self, namespace: str, name: str, mode: str) -> None:
        self._modes[(namespace, name)] = mode
        self._publish()
        self._close_connections((namespace, name))

    def set_unready(self, namespace: str, name: str) -> None:
        self.settled(namespace, name).ready = False

    # What the Pods do

    def pod_started(self, namespace: str, name: str, uid: str) -> None:
        self.settled(namespace, name).ready = False
        self._pods[(namespace, name)].add(uid)
        self._publish()

    def pod_ended(self, namespace: str, name: str, uid: str) -> None:
        key = (namespace, name)
        if uid not in self._pods[key]:
            return
        self.settled(namespace, name).ready = False
        self._pods[key].discard(uid)
        self._publish()
        if not self._pods[key]:
            self._close_connections(key)

    def _publish(self) -> None:
        names: dict[str, str] = {}
        for namespace, name in {*self._pods, *self._modes}:
            mode = self._modes.get((namespace, name), "normal")
            host = f"{name}-0.{name}.{namespace}.svc.cluster.local"
            if mode == "refused":
                names[host] = self.refusing_address
            elif mode == "normal" and self._pods.get((namespace, name)):
                names[host] = self.address
        text = json.dumps(names, indent=0, sort_keys=True)
        if text != self._published:
            temporary = self._resolve_file.with_suffix(".new")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self._resolve_file)
            self._published = text

    def _close_connections(self, key: tuple[str, str]) -> None:
        self._released[key].set()
        self._released[key] = asyncio.Event()
        for transport in self._transports.pop(key, set()):
            transport.abort()

    # Requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await request.read()
        match = _HOST.match(request.headers.get("Host", ""))
        if match is None or match["node"] != match["service"]:
            return web.Response(status=404)
        key = (match["namespace"], match["node"])
        if request.transport is not None:
            self._transports[key].add(request.transport)
        released = self._released[key]
        answer = self.node(*key).answer(request.method, request.path_qs, raw, time.time())
        headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.raw_headers]
        self.seen.append(SeenRequest(*key, request.method, request.path_qs, headers, raw, answer, time.time()))
        if answer.how == "hang":
            await released.wait()
        if answer.how != "http":
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        if answer.body is None:
            return web.Response(status=answer.status)
        return web.Response(status=answer.status, body=answer.encoded(), content_type="application/json")
