"""Two programmable nodes on real sockets, and a comparison between them: what the shadow tests share.

A node answers `GET` and, unless told otherwise, `POST` batches; every answer can be planted. Nothing is mocked on our side.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from seiops.objectstore import Store, open_store
from seiops.shadow import assemble
from seiops.shadow.compare import Comparator, Depth
from seiops.shadow.loop import Course, Loop
from seiops.shadow.manifest import ChainHead, Writer
from seiops.shadow.pages import Shelf
from seiops.shadow.progress import Progress, RunKey
from seiops.shadow.request import Request
from seiops.shadow.sides import Patience
from seiops.shadow.verdicts import Compared

ACCOUNT = "0x" + "11" * 20
SLOT = "0x" + "00" * 31 + "01"
Answer = Callable[[web.BaseRequest], Any]


def block(height: int, *, app: str = "", results: str = "", txs: int = 2, identity: str = "") -> dict[str, Any]:
    header = {
        "height": str(height),
        "app_hash": app or f"AA{height:062X}",
        "last_results_hash": results or f"BB{height:062X}",
        "chain_id": "test-1",
    }
    return {
        "block_id": {"hash": identity or f"{height:064X}"},
        "block": {"header": header, "data": {"txs": ["AA=="] * txs}},
    }


def receipt(height: int, index: int, **changes: Any) -> dict[str, Any]:
    attribute = {"key": "a2V5", "value": "dmFsdWU=", "index": True}
    found = {
        "data": "AA==",
        "log": "[]",
        "gas_wanted": "100000",
        "gas_used": str(50000 + 10 * height + index),
        "events": [{"type": "message", "attributes": [attribute]}],
    }
    return found | changes


def results(height: int, receipts: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    given = receipts if receipts is not None else [receipt(height, index) for index in range(2)]
    return {"height": str(height), "txs_results": given, "total_gas_used": "100"} | changes


def flat_error(data: str, code: int = -32603) -> dict[str, Any]:
    return {"code": code, "message": "Internal error", "data": data}


def not_yet(height: int) -> dict[str, Any]:
    text = "height must be less than or equal to the head of the node's blockchain"
    return flat_error(f"{text} (requested height: {height}, blockchain height: {height - 1})")


def trace(*accounts: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"txHash": "0x" + "ab" * 32, "result": {"pre": dict(accounts), "post": {}}}]


@dataclass
class Node:
    """One node. Planted answers win over what follows from the height; a list of them is used up, its last one stays."""

    latest: int = 20
    earliest: int = 1
    identity: str = "node"
    network: str = "test-1"
    batches: bool = True
    enveloped: bool = False
    planted: dict[tuple[str, int], list[Any]] = field(default_factory=lambda: defaultdict(list))
    state: dict[tuple[str, int], list[Any]] = field(default_factory=lambda: defaultdict(list))
    evm_batches: bool = True
    requests: list[str] = field(default_factory=list)
    hang: asyncio.Event | None = None
    hanging: tuple[str, int] | None = None
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    comet_url: str = ""
    evm_url: str = ""
    metrics: str = ""
    own_app_hash: dict[str, Any] | None = None

    def commits(self, height: int, app_hash: str) -> None:
        """What the node itself computed, hexadecimal, as `/abci_info` tells it."""
        told = base64.b64encode(bytes.fromhex(app_hash)).decode()
        self.own_app_hash = {"last_block_height": str(height), "last_block_app_hash": told}

    def plant(self, method: str, height: int, *answers: Any) -> None:
        """Answers are documents, `(status, text)` pairs, or texts given as they are."""
        self.planted[method, height] = list(answers)

    def plant_state(self, method: str, height: int, *answers: Any) -> None:
        self.state[method, height] = list(answers)

    def _next(self, answers: list[Any]) -> Any:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def comet(self, method: str, height: int) -> Any:
        if answers := self.planted.get((method, height)):
            return self._next(answers)
        if height > self.latest:
            return not_yet(height)
        return block(height) if method == "block" else results(height)

    async def get(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        if request.method == "POST":
            return await self._post(request)
        path, _, query = request.path_qs.partition("?height=")
        if path == "/status":
            if answers := self.planted.get(("status", 0)):
                return _response(self._next(answers))
            return web.json_response(self.status())
        if path == "/metrics" and self.metrics:
            return web.Response(text=self.metrics)
        if path == "/abci_info" and self.own_app_hash is not None:
            return web.json_response({"response": self.own_app_hash})
        if path not in ("/block", "/block_results"):
            return _response((404, "404 page not found"))
        await self._maybe_hang(path[1:], int(query))
        answer = self.comet(path[1:], int(query))
        if self.enveloped and isinstance(answer, dict):
            answer = {"jsonrpc": "2.0", "id": -1, "result": answer}
        return _response(answer)

    def status(self) -> dict[str, Any]:
        return {
            "node_info": {"id": self.identity, "network": self.network, "version": "1"},
            "sync_info": {
                "latest_block_height": str(self.latest),
                "earliest_block_height": str(self.earliest),
                "catching_up": False,
            },
        }

    async def _maybe_hang(self, method: str, height: int) -> None:
        if self.hang is not None and self.hanging == (method, height):
            self.hung.set()
            await self.hang.wait()

    async def _post(self, request: web.BaseRequest) -> web.StreamResponse:
        if not self.batches:
            return _response((405, "method not allowed"))
        replies = []
        for call in await request.json():
            height = int(call["params"]["height"])
            await self._maybe_hang(call["method"], height)
            answer = self.comet(call["method"], height)
            if isinstance(answer, tuple):
                return _response(answer)
            reply = {"jsonrpc": "2.0", "id": call["id"]}
            failed = isinstance(answer, dict) and "code" in answer
            replies.append(reply | {"error" if failed else "result": answer})
        return web.json_response(replies)

    def evm_call(self, method: str, params: list[Any]) -> Any:
        """A result, or an EvmFault."""
        height = int(next(item for item in reversed(params) if isinstance(item, str)), 16)
        if answers := self.state.get((method, height)):
            return self._next(answers)
        match method:
            case "debug_traceBlockByNumber":
                return trace((ACCOUNT, {"balance": "0x1", "storage": {SLOT: "0x" + "00" * 32}, "code": "0x6001"}))
            case "eth_getBlockTransactionCountByNumber":
                return "0x1"
            case "eth_getStorageAt":
                return "0x" + "00" * 31 + "2a"
            case "eth_getCode":
                return "0x6001"
            case _:
                return "0x5"

    async def evm(self, request: web.BaseRequest) -> web.StreamResponse:
        asked = await request.json()
        self.requests.append(f"evm {len(asked) if isinstance(asked, list) else 1}")
        if isinstance(asked, list):
            if not self.evm_batches:
                return _response((404, "no batches"))
            return web.json_response([self._evm_reply(call) for call in asked])
        return web.json_response(self._evm_reply(asked))

    def _evm_reply(self, call: dict[str, Any]) -> dict[str, Any]:
        answer = self.evm_call(call["method"], call["params"])
        reply = {"jsonrpc": "2.0", "id": call["id"]}
        if isinstance(answer, EvmFault):
            return reply | {"error": {"code": answer.code, "message": answer.message}}
        return reply | {"result": answer}


@dataclass(frozen=True)
class EvmFault:
    message: str
    code: int = -32000


def _response(answer: Any) -> web.Response:
    if isinstance(answer, tuple):
        return web.Response(status=answer[0], text=answer[1])
    if isinstance(answer, str):
        return web.Response(text=answer, content_type="application/json")
    return web.json_response(answer)


@asynccontextmanager
async def serving(*nodes: Node) -> AsyncIterator[aiohttp.ClientSession]:
    runners = []
    for node in nodes:
        for handler, name in ((node.get, "comet_url"), (node.evm, "evm_url")):
            runner = web.ServerRunner(web.Server(handler), shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            setattr(node, name, f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with aiohttp.ClientSession() as session:
            yield session
    finally:
        for node in nodes:
            if node.hang is not None:
                node.hang.set()
        for runner in runners:
            await runner.cleanup()


def request_for(shadow: Node, canonical: Node, **changes: Any) -> Request:
    given: dict[str, Any] = {
        "bucket": "b",
        "region": "r",
        "rpc_endpoint": shadow.comet_url,
        "canonical_rpc": canonical.comet_url,
    }
    return Request(**(given | changes))


def with_state(shadow: Node, canonical: Node) -> dict[str, Any]:
    return {"shadow_evm_rpc": shadow.evm_url, "canonical_evm_rpc": canonical.evm_url}


def comparator_for(request: Request, session: aiohttp.ClientSession, **depth: Any) -> Comparator:
    built = assemble.comparator(request, session, depth.pop("first", 1))
    given = {"migration": request.migration, "rules": built.depth.rules, "patience": Patience((0.0, 0.0))} | depth
    return Comparator(built.shadow, built.canonical, Depth(**given), built.tracers, built.watched)


async def compare_one(shadow: Node, canonical: Node, height: int = 5, *, settle: bool = False, **changes: Any) -> Any:
    """The outcome of one height, nodes served for just that. `state=True` adds Layer 2."""
    async with serving(shadow, canonical) as session:
        extra = with_state(shadow, canonical) if changes.pop("state", False) else {}
        depth = changes.pop("depth", {})
        comparator = comparator_for(request_for(shadow, canonical, **extra, **changes), session, **depth)
        (outcome,) = await comparator.group([height], settle=settle)
        return outcome


@dataclass
class Heard:
    """A watcher that remembers."""

    blocks: list[Compared] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    stuck_at: list[int] = field(default_factory=list)
    gaps: list[int] = field(default_factory=list)
    pages: list[tuple[int, int]] = field(default_factory=list)
    head: int = 0
    canonical_head: int | None = None
    page: asyncio.Event = field(default_factory=asyncio.Event)
    reached: dict[int, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))

    def compared(self, block: Compared) -> None:
        self.blocks.append(block)
        self.reached[block.height].set()

    def diverged(self, layer: int) -> None:
        self.layers.append(layer)

    def stuck(self, height: int, error: str) -> None:
        self.stuck_at.append(height)

    def passed_over(self, height: int) -> None:
        self.gaps.append(height)

    def published(self, start: int, end: int) -> None:
        self.pages.append((start, end))
        self.page.set()

    def heads(self, shadow: int, canonical: int | None) -> None:
        self.head = shadow
        self.canonical_head = canonical


def shelf_in(home: Path, store: Store | None = None, prefix: str = "run/") -> Shelf:
    key = RunKey("b", prefix, "compare")
    progress = Progress(key, manifest=ChainHead("run-1"))
    home.mkdir(parents=True, exist_ok=True)
    kept = store or open_store(f"file://{home}/bucket")

    def on_saved_badly(error: OSError) -> None:
        raise error

    return Shelf(kept, home, progress, Writer(kept, progress.manifest, prefix), on_saved_badly)


def loop_for(comparator: Comparator, shelf: Shelf, node: Node, heard: Heard, course: Course) -> Loop:
    async def latest() -> int:
        return node.latest

    return Loop(comparator, shelf, course, latest, comparator.canonical.comet.head, heard, logging.getLogger("test"))


def pages_in(home: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.name: [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        for path in sorted((home / "bucket").rglob("*.ndjson.gz"))
    }


def reports_in(home: Path) -> dict[str, Any]:
    return {
        path.name: json.loads(gzip.decompress(path.read_bytes()))
        for path in sorted((home / "bucket").rglob("*.report.json.gz"))
    }


def noisy_node(blocks: int, size: int, *, failing_at: int = 0) -> Node:
    """A node whose results do not compress, `size` bytes of them a block, and whose results at one height may be an error."""
    node = Node(latest=blocks)
    for height in range(1, blocks + 1):
        noise = base64.b64encode(os.urandom(size)).decode()
        node.plant("block_results", height, results(height, [receipt(height, 0, data=noise), receipt(height, 1)]))
    if failing_at:
        node.plant("block_results", failing_at, {"code": -32603, "message": "Internal error", "data": "gone"})
    return node
