"""The HTTP/1.x side of the sidecar: requests in, answers out, and every refusal exactly as callers have it on record.

The seid start gate sends `GET /v0/healthz HTTP/1.0` by hand and looks at the status line; probes, proxies and the
controller rely on the refusals of upstream's server (docs/contracts/sidecar.md 2.1, 2.3). General servers decide those
cases for themselves (unknown methods, missing Host, half-sent bodies), which is why this one exists
(docs/decisions/0002-sidecar-http.md). It knows nothing about tasks.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

from seiops.sidecar import target as targets

HEADER_LIMIT = 32 * 1024 + 4096
CHUNK_LINE_LIMIT = 4096
UNREAD_BODY_LIMIT = 256 * 1024
CHUNKED_ABOVE = 2048
LINGER_SECONDS = 2.0

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_NAME = re.compile(r"(?! +$)[!#$%&'*+\-.^_`|~0-9A-Za-z ]+", re.ASCII)  # blanks in it are complained about later
_VERSION = re.compile(r"HTTP/(\d)\.(\d)", re.ASCII)
_HOST = re.compile(r"[!$%&'()*+,\-.:;=\[\]_~0-9A-Za-z]*", re.ASCII)
_VALUE_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds a client may take, and how many connections are held."""

    header_seconds: float = 5.0
    request_seconds: float = 10.0
    write_seconds: float = 30.0
    idle_seconds: float = 60.0
    connections: int = 1024


@dataclass(slots=True)
class Response:
    """An answer; `Date` is added when it is written, `Content-Length` and `Connection` unless they are given."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class BodyError(Exception):
    """The body did not arrive whole: cut short, stalled, or not encoded as announced. `arrived` is its beginning."""

    def __init__(self, message: str, arrived: bytes = b"") -> None:
        super().__init__(message)
        self.arrived = arrived


class BodyTooLargeError(Exception):
    """The body is larger than the handler accepts."""


@dataclass(slots=True)
class Request:
    """A parsed request: `raw_path` with its escapes, `path` percent-decoded, both a character a byte; `query` as sent.

    Header names are lower case.
    """

    method: str
    target: str
    raw_path: str
    path: str
    query: str
    version: int
    headers: list[tuple[str, str]]
    read_body: Callable[[int], Awaitable[bytes]]

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


Handler = Callable[[Request], Awaitable[Response]]


class _RefusedError(Exception):
    """The request cannot be taken. `text` follows the code in the status line; status 0 closes without a word."""

    def __init__(self, status: int, text: str = "", *, version: int = 1, head_only: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.version = version
        self.head_only = head_only


class HttpServer:
    """Listens with `start`, stops accepting and drains with `drain`."""

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self._handler = handler
        self._limits = limits or Limits()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._draining = False

    async def start(self, host: str | None, port: int) -> int:
        """Listens on all interfaces when `host` is None; returns the port. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=64 * 1024, backlog=512)
        return int(self._server.sockets[0].getsockname()[1])

    async def drain(self, seconds: float) -> bool:
        """Stops accepting, lets requests in progress finish, closes the rest after `seconds`; whether all finished."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop_when_idle()
        pending = {connection.task for connection in self._connections}
        if not pending:
            return True
        _, unfinished = await asyncio.wait(pending, timeout=seconds)
        for task in unfinished:
            task.cancel()
        return not unfinished

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._limits.connections or self._draining:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(reader, writer, self._handler, self._limits, task)
        self._connections.add(connection)
        try:
            await connection.serve(lambda: self._draining)
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._connections.discard(connection)


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        handler: Handler,
        limits: Limits,
        task: asyncio.Task[None],
    ) -> None:
        self.task = task
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._limits = limits
        self._buffer = bytearray()
        self._ended = False
        self._idle = True
        self._deadline = 0.0

    def stop_when_idle(self) -> None:
        if self._idle:
            self._writer.transport.abort()

    async def serve(self, draining: Callable[[], bool]) -> None:
        wait = self._limits.header_seconds
        while True:
            self._idle = True
            if not self._buffer and not await self._more(wait):
                break
            self._idle = False
            if not await self._one_request(draining):
                break
            wait = self._limits.idle_seconds
        self._writer.close()

    async def _more(self, seconds: float) -> bool:
        """Appends what arrives next; False at the end of the stream or when the time is up."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                data = await self._reader.read(64 * 1024)
        except TimeoutError:
            return False
        self._buffer += data
        self._ended = not data
        return bool(data)

    async def _one_request(self, draining: Callable[[], bool]) -> bool:
        """Reads a request, answers it; whether the connection stays open."""
        started = time.monotonic()
        self._deadline = started + self._limits.request_seconds
        try:
            head = await self._head(started + self._limits.header_seconds)
            request, body = self._parse(head)
        except _RefusedError as refused:
            await self._refuse(refused)
            return False
        response = await self._handler(request)
        keep = _keeps_alive(request) and not body.broken and not draining()
        if keep and not body.finished:
            keep = not body.client_waits and await body.discard()
        await self._answer(request, response, keep)
        if not keep:
            await self._close_gently()
        return keep

    async def _head(self, deadline: float) -> list[bytes]:
        """The request line and header lines, without line ends. Lines may end in a bare newline."""
        checked_line = False
        scanned = 0
        while True:
            end, skip = _head_end(self._buffer, scanned)
            if not checked_line and (newline := self._buffer.find(b"\n")) >= 0:
                _request_line(bytes(self._buffer[:newline]).removesuffix(b"\r"))
                checked_line = True
            if end >= 0 and end + skip <= HEADER_LIMIT:
                lines = bytes(self._buffer[:end]).split(b"\n")
                del self._buffer[: end + skip]
                return [line.removesuffix(b"\r") for line in lines]
            if len(self._buffer) > HEADER_LIMIT:
                raise _RefusedError(431)
            scanned = max(len(self._buffer) - 3, 0)
            if not await self._more(deadline - time.monotonic()):
                # who stops in the middle is told so, who only waits is not
                raise _RefusedError(400 if self._ended else 0)

    def _parse(self, lines: list[bytes]) -> tuple[Request, _Body]:
        method, target, version = _request_line(lines[0])
        try:
            meant = targets.parse(method, target)
        except targets.TargetError:
            raise _RefusedError(400) from None
        headers = _headers(lines[1:])
        chunked, length = _is_chunked(headers, version), _content_length(headers)
        _check_headers(method, version, headers)
        expectation = next((value for key, value in headers if key == "expect"), "")
        expects_continue = "100-continue" in _tokens(headers, "expect")
        if expectation and not expects_continue:
            raise _RefusedError(417, version=version, head_only=method == "HEAD")
        body = _Body(self, chunked, length, expects_continue=expects_continue and version == 1)
        request = Request(
            method=method,
            target=target,
            raw_path=meant.escaped,
            path=meant.path,
            query=meant.query,
            version=version,
            headers=headers,
            read_body=body.read,
        )
        return request, body

    async def take(self, count: int) -> bytes:
        """Exactly `count` bytes of the body. Raises BodyError."""
        while len(self._buffer) < count:
            if not await self._more(self._deadline - time.monotonic()):
                raise BodyError("the body ended early", bytes(self._buffer))
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def take_line(self) -> bytes:
        """A line of a chunked body without its end, which is two characters long. Raises BodyError."""
        while (newline := self._buffer.find(b"\n", 0, CHUNK_LINE_LIMIT)) < 0:
            if len(self._buffer) >= CHUNK_LINE_LIMIT:
                raise BodyError("a chunk line is too long")
            if not await self._more(self._deadline - time.monotonic()):
                raise BodyError("the body ended early")
        line = bytes(self._buffer[:newline])
        del self._buffer[: newline + 1]
        if not line.endswith(b"\r"):
            raise BodyError("a chunk line ends in a bare newline")
        return line[:-1]

    async def send_continue(self) -> None:
        await self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    async def _refuse(self, refused: _RefusedError) -> None:
        if refused.status == 0:
            return
        reason = f"{refused.status} {_phrase(refused.status)}"
        if refused.status == 417:
            length = "" if refused.head_only else "Content-Length: 0\r\n"
            head = f"HTTP/1.{refused.version} {reason}\r\nConnection: close\r\nDate: {_date()}\r\n{length}\r\n"
            await self._send(head.encode())
        elif refused.status == 501:
            head = f"HTTP/1.1 {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
            await self._send(head.encode() + b"Unsupported transfer encoding")
        else:
            line = f"{reason}: {refused.text}" if refused.text else reason
            head = f"HTTP/1.1 {line}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
            await self._send(head.encode() + line.encode())
        await self._close_gently()

    async def _answer(self, request: Request, response: Response, keep: bool) -> None:
        lines = [f"HTTP/1.{request.version} {response.status} {_phrase(response.status)}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        lines.append(f"Date: {_date()}")
        given = {name for name, _ in response.headers}
        body = response.body
        chunked = len(body) > CHUNKED_ABOVE and request.version == 1 and request.method != "HEAD"
        counted = response.status != 204 and not (request.method == "HEAD" and not body) and len(body) <= CHUNKED_ABOVE
        if counted and "Content-Length" not in given:
            lines.append(f"Content-Length: {len(body)}")
        if request.version == 1 and not keep and "Connection" not in given:
            lines.append("Connection: close")
        elif request.version == 0 and keep:
            lines.append("Connection: keep-alive")
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        await self._send(head if request.method == "HEAD" else head + body)

    async def _send(self, data: bytes) -> None:
        self._writer.write(data)
        async with asyncio.timeout(self._limits.write_seconds):
            await self._writer.drain()

    async def _close_gently(self) -> None:
        """Ends our side first and reads a little longer, so that a client still sending gets to see the answer."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await self._reader.read(64 * 1024):
                    pass


class _Body:
    """The body that follows a request's head, read when the handler asks for it."""

    def __init__(self, connection: _Connection, chunked: bool, length: int, *, expects_continue: bool) -> None:
        self._connection = connection
        self._chunked = chunked
        self._length = 0 if chunked else length
        self._expects_continue = expects_continue and (self._chunked or self._length > 0)
        self.finished = not self._chunked and self._length == 0
        self.broken = False

    @property
    def client_waits(self) -> bool:
        """The client holds its body back until it is told to continue, and was not."""
        return self._expects_continue

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises BodyError, and BodyTooLargeError for more than `limit` bytes."""
        if self.finished:
            return b""
        if self._length > limit:
            self.broken = True
            raise BodyTooLargeError
        if self._expects_continue:
            self._expects_continue = False
            await self._connection.send_continue()
        try:
            data = await self._chunks(limit) if self._chunked else await self._connection.take(self._length)
        except (BodyError, BodyTooLargeError, ConnectionError):
            self.broken = True
            raise
        self.finished = True
        return data

    async def discard(self) -> bool:
        """Reads a body nobody asked for, when it is small; whether it was."""
        try:
            await self.read(UNREAD_BODY_LIMIT)
        except (BodyError, BodyTooLargeError):
            return False
        return True

    async def _chunks(self, limit: int) -> bytes:
        data = bytearray()
        try:
            while (size := await self._chunk_size()) > 0:
                if len(data) + size > limit:
                    raise BodyTooLargeError
                data += await self._connection.take(size)
                if await self._connection.take_line():
                    raise BodyError("a chunk is longer than announced")
            for _ in range(64):
                if not await self._connection.take_line():
                    return bytes(data)
        except BodyError as error:
            raise BodyError(str(error), bytes(data) + error.arrived) from None
        raise BodyError("too many trailers", bytes(data))

    async def _chunk_size(self) -> int:
        match = _CHUNK_SIZE.fullmatch(await self._connection.take_line())
        if match is None:
            raise BodyError("a chunk size is not a number")
        return int(match[1], 16)


def _head_end(buffer: bytearray, start: int) -> tuple[int, int]:
    """Where the last header line ends, and how many bytes the blank line after it takes; (-1, 0) when not there yet."""
    crlf = buffer.find(b"\n\r\n", start)
    lf = buffer.find(b"\n\n", start)
    if crlf >= 0 and (lf < 0 or crlf < lf):
        return crlf, 3
    return (lf, 2) if lf >= 0 else (-1, 0)


def _request_line(line: bytes) -> tuple[str, str, int]:
    parts = line.decode("latin-1").split(" ", 1)
    if len(parts) != 2 or " " not in parts[1]:
        raise _RefusedError(400)
    target, version_text = parts[1].rsplit(" ", 1)
    method = parts[0]
    version = _VERSION.fullmatch(version_text)
    if version is None or _TOKEN.fullmatch(method) is None or " " in target:
        raise _RefusedError(400)
    if version[1] != "1":
        raise _RefusedError(505, "unsupported protocol version")
    return method, target, min(int(version[2]), 1)


def _headers(lines: list[bytes]) -> list[tuple[str, str]]:
    headers: list[tuple[str, str]] = []
    for line in lines:
        text = line.decode("latin-1")
        if text[:1] in (" ", "\t"):
            if not headers:
                raise _RefusedError(400)
            name, value = headers[-1]
            headers[-1] = (name, value + " " + text.strip(" \t"))
            continue
        name, colon, value = text.partition(":")
        if not colon or _NAME.fullmatch(name) is None or _VALUE_CONTROL.search(value):
            raise _RefusedError(400)
        headers.append((name.lower(), value.strip(" \t")))
    return headers


def _check_headers(method: str, version: int, headers: list[tuple[str, str]]) -> None:
    hosts = [value for name, value in headers if name == "host"]
    if version == 1 and not hosts and method != "CONNECT":
        raise _RefusedError(400, "missing required Host header")
    if len(hosts) > 1:
        raise _RefusedError(400)
    if hosts and _HOST.fullmatch(hosts[0]) is None:
        raise _RefusedError(400, "malformed Host header")
    if any(" " in name for name, _ in headers):
        raise _RefusedError(400, "invalid header name")


def _tokens(headers: list[tuple[str, str]], name: str) -> set[str]:
    """The comma-separated words of all headers of a name, in lower case."""
    return {word.strip(" \t").lower() for key, value in headers if key == name for word in value.split(",")}


def _is_chunked(headers: list[tuple[str, str]], version: int) -> bool:
    encodings = [value for name, value in headers if name == "transfer-encoding"]
    if version == 0 or not encodings:
        return False
    if len(encodings) > 1 or encodings[0].lower() != "chunked":
        raise _RefusedError(501)
    return True


def _content_length(headers: list[tuple[str, str]]) -> int:
    lengths = {value for name, value in headers if name == "content-length"}
    if not lengths:
        return 0
    only = lengths.pop()
    if lengths or not (only.isascii() and only.isdigit()) or int(only[:4000]) >= 2**63:
        raise _RefusedError(400)
    return int(only)


def _keeps_alive(request: Request) -> bool:
    tokens = _tokens(request.headers, "connection")
    if request.version == 0:
        return "keep-alive" in tokens and "close" not in tokens
    return "close" not in tokens


def _phrase(status: int) -> str:
    # Newer Pythons call it "Content Too Large".
    return "Request Entity Too Large" if status == 413 else HTTPStatus(status).phrase


_date_cache: tuple[int, str] = (0, "")


def _date() -> str:
    global _date_cache
    now = int(time.time())
    if _date_cache[0] != now:
        _date_cache = (now, formatdate(now, usegmt=True))
    return _date_cache[1]
