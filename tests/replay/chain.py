"""Area `chain`: pairs of recorded nodes compared by the real task in the real sidecar process, over real sockets.

Both nodes of a pair are served by the replay server, pages go to a store of local files, and what the pages, the task
and the hash logs say is held against `pairs.json` (rulings: chain).
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from replay.context import ReplayContext
from replay.report import CaseResult
from seidev.chain import ChainServer, Recording, Replay, Window
from seiops.objectstore import open_store
from seiops.shadow import hashlog
from seiops.shadow.manifest import ManifestError, read_chain

AREA = "chain"
_START_S = 30.0
_RUN_S = 300.0
_CONSENSUS = {"code", "data", "gasUsed", "gasWanted", "presence"}


@dataclass(frozen=True)
class Pair:
    name: str
    canonical: Path
    shadow: Path
    first: int
    last: int
    expect: dict[str, Any]
    hash_logs: tuple[Path, Path] | None


def read_pairs(folder: Path) -> list[Pair]:
    """Raises ValueError for a list that does not hold what a pair needs."""
    content = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    pairs = []
    for raw in content["pairs"]:
        logs = raw.get("hashlog")
        pairs.append(
            Pair(
                raw["name"],
                folder / raw["canonical"],
                folder / raw["shadow"],
                raw["from"],
                raw["to"],
                raw["expect"],
                (folder / logs["shadow"], folder / logs["canonical"]) if logs else None,
            )
        )
    return pairs


async def run(context: ReplayContext) -> AsyncIterator[CaseResult]:
    folder = context.area_dir(AREA)
    if not (folder / "pairs.json").is_file():
        yield CaseResult(f"{AREA}/*", "skip", f"no pairs.json in {folder}")
        return
    for pair in read_pairs(folder):
        if context.wants(pair.name):
            for label, layers in (("layers", {}), ("survey-of-headers", {"migrationMode": False})):
                async for result in _compared(context, pair, label, layers):
                    yield result
        if pair.hash_logs is not None and context.wants(f"{pair.name}/hashlog"):
            yield await _hash_logs(context, pair)


async def _compared(
    context: ReplayContext, pair: Pair, label: str, changes: dict[str, Any]
) -> AsyncIterator[CaseResult]:
    case = f"{AREA}/{pair.name}/{label}"
    scratch = context.scratch / AREA / pair.name / label
    try:
        async with _Nodes(pair) as nodes, _Sidecar(context, scratch) as sidecar:
            params = nodes.params(pair) | {"bucket": f"file://{scratch}/bucket"} | changes
            task = await sidecar.run_task("result-export", params)
    except (OSError, TimeoutError, aiohttp.ClientError, RuntimeError) as error:
        yield CaseResult(case, "fail", f"{type(error).__name__}: {error}")
        return
    wrong = [] if task["status"] == "completed" else [f"the task ended {task['status']}: {task.get('error')}"]
    lines = list(_lines(scratch / "bucket"))
    wrong += _judge_headers(pair, lines) if changes else _judge(pair, lines)
    wrong += await _judge_manifest(scratch / "bucket", pair)
    verdicts = _tally(line.get("verdict", "?") for line in lines)
    yield CaseResult(case, "fail" if wrong else "pass", wrong[0] if wrong else verdicts, more=wrong[1:])


def _judge(pair: Pair, lines: list[dict[str, Any]]) -> list[str]:
    expect, wrong = pair.expect, _judge_coverage(pair, lines)
    receipts = [line["height"] for line in lines if _consensus_differs(line)]
    wrong += _exactly("receipts", expect.get("receipts", []), receipts)
    state = {line["height"] for line in lines if (line.get("layer2") or {}).get("divergences")}
    missed = [height for height in expect.get("state_at_least", []) if height not in state]
    if missed:
        wrong.append(f"state: no difference reported at {missed}, recorded reads differ there")
    wrong += _exactly("headers", expect.get("headers", []), _header_heights(lines))
    allowed = {*expect.get("receipts", []), *expect.get("state_at_least", []), *expect.get("headers", [])}
    for line in lines:
        if line["height"] not in allowed and line["verdict"] == "diverged" and _consensus_or_header(line):
            wrong.append(f"block {line['height']} is called diverged: {json.dumps(line)[:300]}")
        if line["height"] in allowed and line["verdict"] == "clean" and not _expected_app_hash(expect, line):
            wrong.append(f"block {line['height']} differs and is called clean")
        unrecorded = (line.get("layer2") or {}).get("failedReads") and line["verdict"] == "clean"
        if unrecorded:
            wrong.append(f"block {line['height']} is called clean although reads failed")
    unreadable = _heights_with_errors(pair)
    hidden = [line["height"] for line in lines if line["height"] in unreadable and line["verdict"] == "clean"]
    if hidden:
        wrong.append(f"blocks {hidden[:10]} are called clean, although a node answered with an error there")
    if not allowed:
        odd = [
            line["height"]
            for line in lines
            if line["verdict"] != ("indeterminate" if line["height"] in unreadable else "clean")
        ]
        if odd:
            first = next(line for line in lines if line["height"] == odd[0])
            wrong.append(f"blocks {odd[:10]} are not clean: {json.dumps(first)[:400]}")
    return wrong


def _judge_headers(pair: Pair, lines: list[dict[str, Any]]) -> list[str]:
    wrong = _judge_coverage(pair, lines)
    wrong += _exactly("headers", pair.expect.get("headers", []), _header_heights(lines))
    for line in lines:
        if line["verdict"] == "clean" and "layer1" not in line and line["layer0"].get("sameSource"):
            wrong.append(f"block {line['height']}: headers from one source are called evidence")
    return wrong


def _judge_coverage(pair: Pair, lines: list[dict[str, Any]]) -> list[str]:
    heights = [line["height"] for line in lines]
    if heights != list(range(pair.first, pair.last + 1)):
        return [f"pages cover {heights[:1]}..{heights[-1:]} ({len(heights)}), asked for {pair.first}..{pair.last}"]
    return []


def _heights_with_errors(pair: Pair) -> set[int]:
    """Where a node itself was recorded with an error for a block's results: what no comparison can decide."""
    found = set()
    for path in (pair.canonical, pair.shadow):
        recording = Recording.load(path)
        for height in range(pair.first, pair.last + 1):
            answer = recording.comet.get(f"/block_results?height={height}")
            if answer is not None and (answer.status != 200 or answer.body.startswith((b'{"code":', b'{"code": '))):
                found.add(height)
    return found


def _expected_app_hash(expect: dict[str, Any], line: dict[str, Any]) -> bool:
    """In a migration another app hash is what one expects; alone it is told and is no divergence (shadow.md 3.1)."""
    elsewhere = {*expect.get("receipts", []), *expect.get("state_at_least", [])}
    return line["height"] not in elsewhere and line["layer0"]["lastResultsHashMatch"]


def _consensus_differs(line: dict[str, Any]) -> bool:
    entries = (line.get("layer1") or {}).get("divergences") or []
    return any(field["field"] in _CONSENSUS for entry in entries for field in entry["fields"])


def _consensus_or_header(line: dict[str, Any]) -> bool:
    layer0 = line["layer0"]
    return _consensus_differs(line) or not (layer0["lastResultsHashMatch"] and layer0["appHashMatch"])


def _header_heights(lines: list[dict[str, Any]]) -> list[int]:
    return [line["height"] for line in lines if not line["layer0"].get("sameSource")]


def _exactly(what: str, expected: list[int], found: list[int]) -> list[str]:
    if sorted(expected) == sorted(found):
        return []
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    return [f"{what}: not reported {missing[:20]}, reported too many {extra[:20]}"]


def _tally(values: Iterator[str] | Any) -> str:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return ", ".join(f"{number} {value}" for value, number in sorted(counts.items()))


def _lines(bucket: Path) -> Iterator[dict[str, Any]]:
    """Of the pages; what a second pass settled stands in `recheck-` objects of its own."""
    pages = sorted(bucket.glob("[0-9]*.compare.ndjson.gz"), key=lambda page: int(page.name.split("-")[0]))
    for page in pages:
        for line in gzip.decompress(page.read_bytes()).splitlines():
            yield json.loads(line)


async def _judge_manifest(bucket: Path, pair: Pair) -> list[str]:
    """The chain holds, and its pages cover the range."""
    runs = [path.name for path in (bucket / "manifest").glob("*")] if (bucket / "manifest").is_dir() else []
    if len(runs) != 1:
        return [f"{len(runs)} manifests, expected one"]
    covered: list[int] = []
    kinds = []
    try:
        async for entry, _ in read_chain(open_store(f"file://{bucket}"), runs[0]):
            kinds.append(entry.kind)
            if entry.kind == "page" and entry.start_height and entry.end_height:
                covered += range(entry.start_height, entry.end_height + 1)
    except ManifestError as error:
        return [f"manifest: {error}"]
    if covered != list(range(pair.first, pair.last + 1)) or kinds[0] != "run" or kinds[-1] != "end":
        return [f"the manifest ({kinds}) covers {len(covered)} heights"]
    return []


async def _hash_logs(context: ReplayContext, pair: Pair) -> CaseResult:
    """`seiops hashlog diff` as a user runs it, against what the pair says of each column."""
    case = f"{AREA}/{pair.name}/hashlog"
    assert pair.hash_logs is not None
    expected: dict[str, list[int]] = pair.expect.get("hashlog", {})
    try:
        found = await asyncio.to_thread(hashlog.diff, *pair.hash_logs)
    except hashlog.HashLogError as error:
        return CaseResult(case, "fail", str(error))
    wrong = [
        text
        for column, heights in expected.items()
        for text in _exactly(column, heights, found.columns.get(column, []))
    ]
    process = await asyncio.create_subprocess_exec(
        context.python, "-c", "from seiops.cli.main import main; main()",
        "hashlog", "diff", *map(str, pair.hash_logs), "--output", "json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    status = 2 if any(expected.values()) else 0
    if process.returncode != status:
        wrong.append(f"exit {process.returncode}, expected {status}: {err.decode()[-300:]}")
    elif json.loads(out)["compared"] != found.compared:
        wrong.append("the command line counts other blocks than the library")
    return CaseResult(
        case, "fail" if wrong else "pass", wrong[0] if wrong else f"{found.compared} blocks", more=wrong[1:]
    )


class _Nodes:
    """Both recorded nodes on sockets of their own."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> _Nodes:
        window = Window(self._pair.first, self._pair.last + 1)
        self.shadow, self.canonical = [
            await self._stack.enter_async_context(ChainServer(Replay(Recording.load(path), window)))
            for path in (self._pair.shadow, self._pair.canonical)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def params(self, pair: Pair) -> dict[str, Any]:
        return {
            "region": "local",
            "rpcEndpoint": self.shadow.comet_url,
            "canonicalRpc": self.canonical.comet_url,
            "shadowEvmRpc": self.shadow.evm_url,
            "canonicalEvmRpc": self.canonical.evm_url,
            "migrationMode": True,
            "continueOnDivergence": True,
            "startHeight": pair.first,
            "endHeight": pair.last,
        }


class _Sidecar:
    """`seictl serve` with a home of its own."""

    def __init__(self, context: ReplayContext, scratch: Path) -> None:
        self._context = context
        self._home = scratch / "home"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> _Sidecar:
        self._home.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        self._url = f"http://127.0.0.1:{port}"
        environment = {
            **os.environ,
            "SEI_HOME": str(self._home),
            "SEI_CHAIN_ID": "replay",
            "SEI_GENESIS_BUCKET": "none",
            "SEI_GENESIS_REGION": "none",
            "SEI_SNAPSHOT_BUCKET": "none",
            "SEI_SNAPSHOT_REGION": "none",
            "SEI_SIDECAR_BIND_HOST": "127.0.0.1",
            "SEI_SIDECAR_PORT": str(port),
        }
        self._process = await asyncio.create_subprocess_exec(
            self._context.python, "-m", "seiops.sidecar", "serve",
            env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        async with asyncio.timeout(_START_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return self
                except OSError:
                    if self._process.returncode is not None:
                        raise RuntimeError(f"the sidecar ended with status {self._process.returncode}") from None
                    await asyncio.sleep(0.05)

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 40)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()

    async def run_task(self, kind: str, params: dict[str, Any]) -> dict[str, Any]:
        """Submits a task and waits for its end. Raises TimeoutError, RuntimeError."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session, asyncio.timeout(_RUN_S):
            async with session.post(f"{self._url}/v0/tasks", json={"type": kind, "params": params}) as answer:
                if answer.status != 201:
                    raise RuntimeError(f"submit: HTTP {answer.status}: {await answer.text()}")
                task_id = (await answer.json())["id"]
            while True:
                async with session.get(f"{self._url}/v0/tasks/{task_id}") as answer:
                    task: dict[str, Any] = await answer.json()
                if task["status"] != "running":
                    return task
                await asyncio.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
