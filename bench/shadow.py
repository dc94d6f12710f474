"""Blocks per second of export and comparison against a recorded chain, with latency added to every answer.

    PYTHONPATH=src:tools python bench/shadow.py [--latency 0 5 50] [--seconds 6] [--output json]

The node side runs in processes of its own. It serves the recorded heights over and over under new numbers, so a run is
as long as it has to be. Shown beside each number: what the Go sidecar did, measured the same way (issue: evidence), how busy
this process and the nodes were, and from these the limit: our CPU, a node's CPU, or the latency of a bounded window.
Results are a measurement, not a test.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp
from aiohttp import web

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tools")]

from seidev.chain import Recording, Replay, Window  # noqa: E402
from seiops.objectstore import Published, open_store  # noqa: E402
from seiops.seid.bulk import BulkReader  # noqa: E402
from seiops.shadow import assemble  # noqa: E402
from seiops.shadow.export import Exporter  # noqa: E402
from seiops.shadow.loop import Course, Loop  # noqa: E402
from seiops.shadow.manifest import ChainHead, Writer  # noqa: E402
from seiops.shadow.pages import Shelf  # noqa: E402
from seiops.shadow.progress import Progress, RunKey  # noqa: E402
from seiops.shadow.request import Request  # noqa: E402
from seiops.shadow.verdicts import Compared  # noqa: E402

DATA = ROOT / "tests" / "data" / "chain"
GO = {("export-small", 5): 165, ("export-small", 0): 6500, ("export-typical", 0): 1300,
      ("compare-layers-0-2", 5): 40, ("compare-layers-0-2", 0): 480}  # fmt: skip
TARGET = {("export-small", 5): 1600, ("compare-layers-0-2", 5): 400}
TARGET_MB_PER_CPU_SECOND = 180
BUSY = 0.85
"""From this share of a core on, a process is called the limit."""
SMALL = b'{"height":"%d","txs_results":null,"total_gas_used":"0"}'
_NUMBER = re.compile(rb'"height":"(\d+)"')


class EndlessNode:
    """The recorded heights under ever new numbers: height h answers like first + (h - first) mod span."""

    def __init__(self, recording: Path, small: bool) -> None:
        loaded = Recording.load(recording)
        heights = loaded.heights
        self._first, self._span = heights.start, len(heights)
        self._replay = Replay(loaded, Window(self._first, heights[-1]))
        self._small = small
        self._blocks: dict[tuple[str, int], bytes] = {}
        self._evm: dict[bytes, bytes] = {}

    def fold(self, height: int) -> int:
        return self._first + (height - self._first) % self._span

    def comet(self, method: str, height: int) -> bytes:
        if method == "block_results" and self._small:
            return SMALL % height
        folded = self.fold(height)
        if (method, folded) not in self._blocks:
            self._blocks[method, folded] = self._replay.comet_get(f"/{method}?height={folded}").body
        body = self._blocks[method, folded]
        return _NUMBER.sub(b'"height":"%d"' % height, body, count=1)

    def evm(self, body: bytes) -> bytes:
        """Heights in the parameters folded; the rest of the request as it is."""
        folded = re.sub(rb'"0x([0-9a-f]{1,12})"', self._folded, body)
        if folded not in self._evm:
            self._evm[folded] = self._replay.evm_post(folded).body
        return self._evm[folded]

    def _folded(self, match: re.Match[bytes]) -> bytes:
        return b'"0x%x"' % self.fold(int(match[1], 16))


def serve(recording: Path, small: bool, latency_s: float, ready: Connection) -> None:
    """One node in a process of its own; sends its two URLs."""
    asyncio.run(_serve(recording, small, latency_s, ready))


async def _serve(recording: Path, small: bool, latency_s: float, ready: Connection) -> None:
    node = EndlessNode(recording, small)

    async def comet(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        await asyncio.sleep(latency_s)
        if request.method == "GET":
            path, _, query = request.path_qs.partition("?height=")
            if path == "/status":
                status = {"node_info": {"id": "bench", "network": "bench"},
                          "sync_info": {"latest_block_height": "1000000000", "catching_up": False}}  # fmt: skip
                return web.json_response(status)
            return web.Response(body=node.comet(path[1:], int(query)), content_type="application/json")
        answers = [
            b'{"jsonrpc":"2.0","id":%d,"result":%b}'
            % (call["id"], node.comet(call["method"], int(call["params"]["height"])))
            for call in json.loads(body)
        ]
        return web.Response(body=b"[" + b",".join(answers) + b"]", content_type="application/json")

    async def evm(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        await asyncio.sleep(latency_s)
        return web.Response(body=node.evm(body), content_type="application/json")

    ports = []
    for handler in (comet, evm):
        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
    ready.send([f"http://127.0.0.1:{port}" for port in ports])
    await asyncio.Event().wait()


@dataclass(frozen=True)
class Served:
    comet: str
    evm: str
    pid: int

    def cpu_seconds(self) -> float:
        """What the node's process has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def node(name: str, small: bool, latency_ms: float) -> AsyncIterator[Served]:
    ours, theirs = multiprocessing.Pipe()
    arguments = (DATA / f"{name}.jsonl.zst", small, latency_ms / 1000, theirs)
    process = multiprocessing.get_context("spawn").Process(target=serve, args=arguments, daemon=True)
    process.start()
    try:
        comet, evm = await asyncio.to_thread(ours.recv)
        assert process.pid is not None
        yield Served(comet, evm, process.pid)
    finally:
        process.terminate()
        process.join()


@dataclass
class Measured:
    what: str
    latency_ms: float
    blocks: int
    seconds: float
    cpu_seconds: float
    megabytes: float
    peak_rss_mib: float
    node_cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.blocks / self.seconds

    @property
    def per_cpu(self) -> float:
        return self.megabytes / self.cpu_seconds

    @property
    def limit(self) -> str:
        if self.cpu_seconds > BUSY * self.seconds:
            return "our CPU"
        if self.node_cpu_seconds > BUSY * self.seconds:
            return "a node's CPU"
        if self.latency_ms:
            return f"latency ({round(self.rate * self.latency_ms / 1000)} blocks per round trip)"
        return "network, store and changes of process"


class _Quiet:
    """Counts compared blocks; the rest of what a loop tells is not of interest here."""

    def __init__(self) -> None:
        self.blocks = 0
        self.odd: list[int] = []

    def compared(self, block: Compared) -> None:
        self.blocks += 1
        if block.verdict != "clean":
            self.odd.append(block.height)

    def diverged(self, layer: int) -> None: ...
    def stuck(self, height: int, error: str) -> None: ...
    def passed_over(self, height: int) -> None: ...
    def published(self, start: int, end: int) -> None: ...
    def heads(self, shadow: int, canonical: int | None) -> None: ...


def _shelf(scratch: Path) -> Shelf:
    progress = Progress(RunKey("bench", "", "bench"), manifest=ChainHead("bench"))
    store = open_store(f"file://{scratch}/bucket")
    return Shelf(store, scratch, progress, Writer(store, progress.manifest), lambda error: None)


async def export(small: bool, latency_ms: float, seconds: float) -> Measured:
    sizes: list[int] = []

    def on_page(published: Published, last: int) -> None:
        sizes.append(published.uncompressed_bytes)

    async with node("rpc-memiavl", small, latency_ms) as served, aiohttp.ClientSession() as session:
        with tempfile.TemporaryDirectory() as scratch:
            exporter = Exporter(BulkReader(served.comet, session), _shelf(Path(scratch)), on_page)
            clock = _Clock([served])
            first = 421
            while time.monotonic() - clock.started < seconds:
                await exporter.run(first, first + 999, whole_pages=True)
                first += 1000
            what = "export-small" if small else "export-typical"
            return clock.measured(what, latency_ms, first - 421, sum(sizes))


async def compare(latency_ms: float, seconds: float) -> Measured:
    watcher = _Quiet()
    async with (
        node("rpc-flatkv", False, latency_ms) as ours,
        node("rpc-memiavl", False, latency_ms) as theirs,
        aiohttp.ClientSession() as session,
    ):
        with tempfile.TemporaryDirectory() as scratch:
            request = Request("bench", "none", rpc_endpoint=ours.comet, canonical_rpc=theirs.comet, migration=True, survey=True,
                              shadow_evm_rpc=ours.evm, canonical_evm_rpc=theirs.evm)  # fmt: skip
            comparator = assemble.comparator(request, session, 421)

            async def latest() -> int:
                return 1_000_000

            # one round over the recording, so that the nodes answer from memory
            warm = Course(421, end=540, survey=True)
            quiet = logging.getLogger("bench")
            await Loop(
                comparator, _shelf(Path(scratch)), warm, latest, comparator.canonical.comet.head, _Quiet(), quiet
            ).run()
            course = Course(541, survey=True)
            loop = Loop(
                comparator, _shelf(Path(scratch)), course, latest, comparator.canonical.comet.head, watcher, quiet
            )
            clock = _Clock([ours, theirs])
            running = asyncio.ensure_future(loop.run())
            await asyncio.wait({running}, timeout=seconds)
            found = clock.measured("compare-layers-0-2", latency_ms, watcher.blocks, 0)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
    if watcher.odd:
        print(f"warning: blocks that are not clean: {watcher.odd[:5]}", file=sys.stderr)
    return found


class _Clock:
    """Starts with its making: wall time, our CPU time, that of each node."""

    def __init__(self, nodes: list[Served]) -> None:
        self._nodes = nodes
        self.started, self._cpu = time.monotonic(), time.process_time()
        self._before = [node.cpu_seconds() for node in nodes]

    def measured(self, what: str, latency_ms: float, blocks: int, size: int) -> Measured:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        busiest = max(node.cpu_seconds() - before for node, before in zip(self._nodes, self._before, strict=True))
        seconds, cpu = time.monotonic() - self.started, time.process_time() - self._cpu
        return Measured(what, latency_ms, blocks, seconds, cpu, size / 1e6, peak, busiest)


def _show(found: Measured) -> None:
    key = (found.what, int(found.latency_ms))
    go, target = GO.get(key), TARGET.get(key)
    text = f"{found.what:20} {found.latency_ms:3g} ms  {found.rate:8.0f} blocks/s"
    text += f"  {found.rate / go:6.1f}x Go" if go else " " * 11
    text += f"  target {target}" if target else ""
    text += (
        f"  cpu {found.cpu_seconds / found.seconds:4.0%}, busiest node {found.node_cpu_seconds / found.seconds:4.0%}"
    )
    text += f"  limit: {found.limit}"
    if found.what == "export-typical":
        text += f"  {found.per_cpu:5.0f} MB per CPU second, target {TARGET_MB_PER_CPU_SECOND}"
    print(f"{text}  peak {found.peak_rss_mib:.0f} MiB", flush=True)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--latency", type=float, nargs="+", default=[0, 5, 50], help="milliseconds added to every answer"
    )
    parser.add_argument("--seconds", type=float, default=6, help="how long each measurement runs")
    parser.add_argument("--only", choices=("export-small", "export-typical", "compare"), action="append")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    wanted = options.only or ["export-small", "export-typical", "compare"]
    for latency in options.latency:
        for what in wanted:
            if what == "compare":
                found = await compare(latency, options.seconds)
            else:
                found = await export(what == "export-small", latency, options.seconds)
            if options.output == "json":
                print(json.dumps(asdict(found) | {"blocksPerSecond": found.rate, "limit": found.limit}), flush=True)
            else:
                _show(found)


if __name__ == "__main__":
    asyncio.run(main())
