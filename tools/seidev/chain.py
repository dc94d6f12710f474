"""A recorded Sei node on real sockets: answers what was recorded, byte for byte, and fails like a node for the rest.

CometBFT answers are found by path, EVM answers by method and parameters, so any batch of recorded reads can be
composed and ids are the caller's. Only `/status` is rewritten: it shows the head and base that are served. Heights
above and below that window get a node's own errors for future and pruned heights; a read inside it that nobody
recorded gets an error with code -32000, never an invented value.

    python -m seidev.chain RECORDING.jsonl.zst [--first N] [--last N] [--head N] [--host H] [--comet-port P] [--evm-port P]
"""

import argparse
import asyncio
import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import msgspec
import orjson
import zstandard
from aiohttp import web

from seidev.processes import ToolError

COMET_PORT = 26657
EVM_PORT = 8545
COMET_BATCH_LIMIT = 10
EVM_BATCH_LIMIT = 1000
REQUEST_BYTES = 16 << 20

_EVM_HEADERS = {"content-type": "application/json", "vary": "Origin"}
_COMET_HEADERS = {"content-type": "application/json"}
# Position of the block number among the parameters.
_HEIGHT_PARAMETER = {
    "eth_getBalance": 1,
    "eth_getCode": 1,
    "eth_getTransactionCount": 1,
    "eth_call": 1,
    "eth_getStorageAt": 2,
    "eth_getBlockByNumber": 0,
    "eth_getBlockReceipts": 0,
    "eth_getBlockTransactionCountByNumber": 0,
    "debug_traceBlockByNumber": 0,
}
# A node answers these with null, not with an error, for a height it does not have yet.
_NULL_WHEN_FUTURE = ("eth_getBlockByNumber", "eth_getBlockReceipts", "eth_getBlockTransactionCountByNumber")


class _Row(msgspec.Struct):
    plane: str
    method: str
    path: str
    req: str | None
    status: int
    headers: dict[str, str]
    body: str


class _Call(msgspec.Struct):
    """One JSON-RPC request as the client wrote it; the id is copied, never understood."""

    method: str = ""
    params: Any = None
    id: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class _Reply(msgspec.Struct):
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


_rows = msgspec.json.Decoder(_Row)
_replies = msgspec.json.Decoder(_Reply | list[_Reply])
_calls = msgspec.json.Decoder(list[msgspec.Raw])
_call = msgspec.json.Decoder(_Call)


@dataclass
class Recording:
    """Everything one node was recorded to answer, indexed by what was asked."""

    comet: dict[str, Answer] = field(default_factory=dict)
    comet_posts: dict[bytes, Answer] = field(default_factory=dict)
    evm: dict[tuple[str, bytes], bytes] = field(default_factory=dict)
    evm_posts: dict[bytes, Answer] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads `.jsonl` or `.jsonl.zst`. Raises ToolError naming the file and line that cannot be used."""
        recording = cls()
        number = 1
        try:
            for line in _lines(path):
                recording._add(_rows.decode(line))
                number += 1
        except (OSError, msgspec.MsgspecError, zstandard.ZstdError) as error:
            raise ToolError(f"{path}, line {number}: not a recording of a node's RPC: {error}") from error
        if not recording.comet:
            raise ToolError(f"{path}: holds no CometBFT answers")
        return recording

    def _add(self, row: _Row) -> None:
        answer = Answer(row.status, row.headers, row.body.encode())
        request = (row.req or "").encode()
        if row.plane == "evm":
            self._add_evm(request, answer)
        elif row.method == "GET":
            self.comet.setdefault(row.path, answer)
        else:
            self.comet_posts.setdefault(request, answer)

    def _add_evm(self, request: bytes, answer: Answer) -> None:
        """Members of a batch count as single reads; what cannot be taken apart is kept whole."""
        try:
            asked = _members(request)
            told = _replies.decode(answer.body)
        except (msgspec.MsgspecError, ValueError):
            self.evm_posts.setdefault(request, answer)
            return
        replies = told if isinstance(told, list) else [told]
        if len(asked) != len(replies) or any(call is None for call in asked):
            self.evm_posts.setdefault(request, answer)
            return
        for call, reply in zip(asked, replies, strict=True):
            if call is not None:
                self.evm.setdefault((call.method, _canonical(call.params)), _reply_text(reply))

    @property
    def heights(self) -> range:
        """Heights whose block results are recorded, without gaps."""
        pattern = re.compile(r"/block_results\?height=(\d+)$")
        matches = ((pattern.match(path), answer) for path, answer in self.comet.items())
        found = {int(match[1]) for match, answer in matches if match and not _is_flat_error(answer.body)}
        if not found:
            raise ToolError("the recording holds no block results")
        return _longest_run(sorted(found))

    def genesis(self) -> bytes:
        """The genesis document itself, cut out of the recorded `/genesis` answer."""
        answer = self.comet.get("/genesis")
        if answer is None:
            raise ToolError("the recording holds no /genesis")
        document = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
        return bytes(document["genesis"])


def _longest_run(heights: list[int]) -> range:
    best = run = range(heights[0], heights[0] + 1)
    for height in heights[1:]:
        run = range(run.start, height + 1) if height == run.stop else range(height, height + 1)
        best = max(best, run, key=len)
    return best


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        if path.suffix != ".zst":
            yield from file
            return
        with zstandard.ZstdDecompressor().stream_reader(file) as plain:
            yield from io.BufferedReader(plain)


def _members(request: bytes) -> list[_Call | None]:
    """Calls of a request, single or batch; None for a member that is no call. Raises ValueError for no JSON at all."""
    raw = _calls.decode(request) if request.lstrip().startswith(b"[") else [msgspec.Raw(request)]
    return [_one(member) for member in raw]


def _one(member: msgspec.Raw) -> _Call | None:
    try:
        call = _call.decode(member)
    except msgspec.ValidationError:
        return None
    return call if call.method else None


def _canonical(params: Any) -> bytes:
    """Parameters with the spelling taken out: key order, and the letter case of hex."""
    return orjson.dumps(_lower_hex(params if params is not None else []), option=orjson.OPT_SORT_KEYS)


def _lower_hex(value: Any) -> Any:
    if isinstance(value, str):
        return value.lower() if value[:2] in ("0x", "0X") else value
    if isinstance(value, list):
        return [_lower_hex(item) for item in value]
    if isinstance(value, dict):
        return {key: _lower_hex(item) for key, item in value.items()}
    return value


def _reply_text(reply: _Reply) -> bytes:
    if not isinstance(reply.error, msgspec.UnsetType):
        return b'"error":' + bytes(reply.error)
    return b'"result":' + (b"null" if isinstance(reply.result, msgspec.UnsetType) else bytes(reply.result))


@dataclass(frozen=True)
class Window:
    """What the node claims to have: blocks `base` to `head`. `catching_up` as `/status` shows it."""

    base: int
    head: int
    catching_up: bool = False


class Replay:
    """Answers requests from a recording, seen through a window. No sockets here; see `ChainServer`."""

    def __init__(self, recording: Recording, window: Window) -> None:
        self.recording = recording
        self.window = window

    def comet_get(self, path: str) -> Answer:
        """`path` with its query, as the client sent it."""
        route = urlsplit(path).path
        if route == "/status":
            return self._status()
        outside = self._outside(route, path)
        recorded = self.recording.comet.get(path) or self.recording.comet.get(_normal_path(path))
        if recorded is not None and (outside is None or _is_flat_error(recorded.body)):
            return recorded
        if outside is not None:
            return Answer(200, _COMET_HEADERS, outside)
        if any(urlsplit(known).path == route for known in self.recording.comet if "?" in known):
            return Answer(200, _COMET_HEADERS, _flat_error(-32000, "not recorded", path))
        headers = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
        return Answer(404, headers, b"404 page not found\n")

    def _status(self) -> Answer:
        recorded = self.recording.comet.get("/status")
        if recorded is None:
            return Answer(200, _COMET_HEADERS, _flat_error(-32000, "not recorded", "/status"))
        window = self.window
        body = re.sub(rb'("latest_block_height":)"\d+"', rb'\1"%d"' % window.head, recorded.body)
        body = re.sub(rb'("earliest_block_height":)"\d+"', rb'\1"%d"' % window.base, body)
        body = re.sub(rb'("catching_up":)(true|false)', rb"\1true" if window.catching_up else rb"\1false", body)
        return Answer(recorded.status, recorded.headers, body)

    def _outside(self, route: str, path: str) -> bytes | None:
        """A node's error for a height it cannot serve, or None for a height inside the window or no height at all."""
        raw = dict(parse_qsl(urlsplit(path).query, keep_blank_values=True)).get("height")
        if raw is None:
            return None
        text = raw.strip('"')
        if not re.fullmatch(r"[+-]?\d+", text):
            return _flat_error(-32602, "Invalid params", f'strconv.ParseInt: parsing "{text}": invalid syntax')
        return self._height_error(route, int(text))

    def _height_error(self, route: str, height: int) -> bytes | None:
        base, head = self.window.base, self.window.head
        if height <= 0:
            data = f"height must be greater than zero (requested height: {height})"
            return _flat_error(-32600, "Invalid request", data)
        if height < base:
            data = f"height is not available (requested height: {height}, base height: {base})"
            return _flat_error(-32603, "Internal error", data)
        limit = head + 1 if route == "/validators" else head
        if height > limit:
            data = (
                "height must be less than or equal to the head of the node's blockchain "
                f"(requested height: {height}, blockchain height: {limit})"
            )
            return _flat_error(-32603, "Internal error", data)
        return None

    def comet_post(self, request: bytes) -> Answer:
        """JSON-RPC over the answers to GET: flat there, in an envelope here."""
        recorded = self.recording.comet_posts.get(request)
        if recorded is not None and b'"status"' not in request:
            return recorded
        try:
            calls = _members(request)
        except (msgspec.MsgspecError, ValueError) as error:
            text = _enveloped_error(b"", -32700, "Parse error", f"decoding request: {error}")
            return Answer(200, _COMET_HEADERS, text)
        if not request.lstrip().startswith(b"["):
            return Answer(200, _COMET_HEADERS, self._comet_call(calls[0]))
        if not calls:
            return Answer(200, {}, b"")
        if len(calls) > COMET_BATCH_LIMIT:
            text = _enveloped_error(b"", -32700, "Parse error", "Batch size limit exceeded.")
            return Answer(200, _COMET_HEADERS, text)
        return Answer(200, _COMET_HEADERS, b"[" + b",".join(map(self._comet_call, calls)) + b"]")

    def _comet_call(self, call: _Call | None) -> bytes:
        if call is None:
            return _enveloped_error(b'"id":null,', -32600, "Invalid request", "not a call")
        params = call.params if isinstance(call.params, dict) else {}
        query = "&".join(f"{name}={value}" for name, value in params.items())
        answer = self.comet_get(f"/{call.method}" + (f"?{query}" if query else ""))
        head = b'{"jsonrpc":"2.0","id":' + bytes(call.id) + b","
        if answer.status == 404:
            return _enveloped_error(head[17:], -32601, "Method not found", f"method {call.method} not found")
        return head + (b'"error":' if _is_flat_error(answer.body) else b'"result":') + answer.body + b"}"

    def evm_post(self, request: bytes) -> Answer:
        recorded = self.recording.evm_posts.get(request)
        if recorded is not None:
            return recorded
        try:
            calls = _members(request)
        except (msgspec.MsgspecError, ValueError):
            return _evm_answer(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"parse error"}}')
        if not request.lstrip().startswith(b"["):
            return _evm_answer(self._evm_call(calls[0]) + b"\n")
        if not calls:
            return _evm_answer(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"empty batch"}}')
        if len(calls) > EVM_BATCH_LIMIT:
            first = bytes(calls[0].id) if calls[0] else b"null"
            text = b'[{"jsonrpc":"2.0","id":%b,"error":{"code":-32600,"message":"batch too large"}}]'
            return _evm_answer(text % first)
        return _evm_answer(b"[" + b",".join(map(self._evm_call, calls)) + b"]\n")

    def _evm_call(self, call: _Call | None) -> bytes:
        if call is None:
            return b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"invalid request"}}'
        recorded = self.recording.evm.get((call.method, _canonical(call.params)))
        outside = self._evm_outside(call)
        if recorded is not None and (outside is None or recorded.startswith(b'"error"')):
            text = recorded
        elif outside is not None:
            text = outside
        else:
            text = _evm_error(f"not recorded: {call.method}")
        return b'{"jsonrpc":"2.0","id":' + bytes(call.id) + b"," + text + b"}"

    def _evm_outside(self, call: _Call) -> bytes | None:
        params = call.params if isinstance(call.params, list) else []
        if call.method == "eth_getLogs":
            return self._logs_outside(params)
        position = _HEIGHT_PARAMETER.get(call.method)
        height = _quantity(params[position]) if position is not None and position < len(params) else None
        if height is None:
            return None
        base, head = self.window.base, self.window.head
        if height > head:
            if call.method in _NULL_WHEN_FUTURE:
                return b'"result":null'
            return _evm_error(
                f"requested height {height} is not yet available; safe latest is {head}: block height not yet available"
            )
        if 0 < height < base:
            return _evm_error(f"requested height {height} has been pruned; earliest available is {base}")
        return None

    def _logs_outside(self, params: list[Any]) -> bytes | None:
        criteria = params[0] if params and isinstance(params[0], dict) else {}
        first, last = _quantity(criteria.get("fromBlock")), _quantity(criteria.get("toBlock"))
        if last is not None and last > self.window.head:
            return _evm_error(f"requested toBlock {last} is after latest available block {self.window.head}")
        if first is not None and first < self.window.base:
            return _evm_error(f"requested fromBlock {first} is before earliest available block {self.window.base}")
        return None


def _quantity(value: Any) -> int | None:
    return int(value, 16) if isinstance(value, str) and re.fullmatch(r"0x(0|[1-9a-fA-F][0-9a-fA-F]*)", value) else None


def _normal_path(path: str) -> str:
    """The same request as the recorder would have written it: no quotes around the height, nothing else."""
    parts = urlsplit(path)
    heights = [value for name, value in parse_qsl(parts.query) if name == "height"]
    height = heights[-1].strip('"') if heights else None
    return f"{parts.path}?height={height}" if height is not None else path


def _is_flat_error(body: bytes) -> bool:
    return body.startswith(b'{"code":-')


def _flat_error(code: int, message: str, data: str) -> bytes:
    return orjson.dumps({"code": code, "message": message, "data": data})


def _enveloped_error(identity: bytes, code: int, message: str, data: str) -> bytes:
    return b'{"jsonrpc":"2.0",' + identity + b'"error":' + _flat_error(code, message, data) + b"}"


def _evm_error(message: str) -> bytes:
    return b'"error":' + orjson.dumps({"code": -32000, "message": message})


def _evm_answer(body: bytes) -> Answer:
    return Answer(200, _EVM_HEADERS, body)


class ChainServer:
    """Both planes of one recorded node on real sockets. Port 0 takes any free one; see `comet_url` and `evm_url`.

    `replay.window` may be exchanged at any time: the next answer shows it.
    """

    def __init__(self, replay: Replay, *, host: str = "127.0.0.1", comet_port: int = 0, evm_port: int = 0) -> None:
        self.replay = replay
        self._host = host
        self._ports = (comet_port, evm_port)
        self._runners: list[web.AppRunner] = []
        self.comet_url = ""
        self.evm_url = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Raises ToolError when a port is taken."""
        try:
            self.comet_url = await self._listen(self._comet, self._ports[0])
            self.evm_url = await self._listen(self._evm, self._ports[1])
        except BaseException:
            await self.stop()
            raise

    async def _listen(self, handler: Callable[[web.Request], Any], port: int) -> str:
        app = web.Application(client_max_size=REQUEST_BYTES)
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, self._host, port, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            raise ToolError(
                f"cannot listen on {self._host}:{port}: {error.strerror}; stop what listens there"
            ) from error
        return f"http://{self._host}:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners = []

    async def _comet(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            return _response(self.replay.comet_post(await request.read()))
        return _response(self.replay.comet_get(request.raw_path))

    async def _evm(self, request: web.Request) -> web.Response:
        return _response(self.replay.evm_post(await request.read()))


def _response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def window_of(recording: Recording, *, first: int | None, last: int | None, head: int | None) -> Window:
    """The window of a comparison from `first` to `last`: the head is one above, for the header that settles `last`."""
    heights = recording.heights
    base = heights.start if first is None else first
    return Window(base, head if head is not None else (heights[-1] if last is None else last) + 1)


async def _serve(arguments: argparse.Namespace) -> None:
    recording = Recording.load(arguments.recording)
    window = window_of(recording, first=arguments.first, last=arguments.last, head=arguments.head)
    ports = {"comet_port": arguments.comet_port, "evm_port": arguments.evm_port}
    async with ChainServer(Replay(recording, window), host=arguments.host, **ports) as server:
        print(orjson.dumps({"comet": server.comet_url, "evm": server.evm_url}).decode(), flush=True)
        await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m seidev.chain", description="Serves a recorded node on real sockets."
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--first", type=int, help="lowest height served (default: lowest recorded)")
    parser.add_argument("--last", type=int, help="highest height to compare; the head is one above it")
    parser.add_argument("--head", type=int, help="head that /status shows, instead of one above --last")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--comet-port", type=int, default=COMET_PORT)
    parser.add_argument("--evm-port", type=int, default=EVM_PORT)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(parser.parse_args()))
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
