"""A client for CometBFT's RPC as seid serves it: flat answers, enveloped answers, and errors that come with status 200.

The rules of unwrapping and the error texts are docs/contracts/sidecar.md 7. Every request has a deadline and a limit on
the size of its answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from seiops.seid.quoting import quoted

DEFAULT_ENDPOINT = "http://localhost:26657"
REQUEST_TIMEOUT_S = 10.0
STATUS_TIMEOUT_S = 0.5
MAX_ANSWER_BYTES = 256 << 20
_MAX_STATUS_BYTES = 4 << 20
_ERROR_EXCERPT_BYTES = 512
_HEIGHT = re.compile(r"[+-]?[0-9]+", re.ASCII)


class CometError(Exception):
    """A request that gave no usable answer; the text says which path and why."""


@dataclass(frozen=True, slots=True)
class Status:
    """What `/status` says of a node; `height` is the latest block's."""

    node_id: str
    network: str
    height: int
    catching_up: bool


class CometClient:
    """One endpoint. `base_url` carries the scheme, no trailing slash; the session is the caller's."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession, *, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.base_url = base_url.rstrip("/")
        self._session = session
        self._timeout_s = timeout_s

    async def raw(self, path: str, *, timeout_s: float | None = None, limit: int = MAX_ANSWER_BYTES) -> bytes:
        """The body of a 200 answer, untouched. Raises CometError."""
        deadline = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s)
        try:
            async with self._session.get(self.base_url + path, timeout=deadline) as answer:
                if answer.status != 200:
                    excerpt = await answer.content.read(_ERROR_EXCERPT_BYTES)
                    raise CometError(f"HTTP {answer.status}: {excerpt.decode(errors='replace')}")
                return await _bounded(answer, path, limit)
        except TimeoutError:
            raise CometError(
                f"GET {self.base_url}{path}: no answer within {timeout_s or self._timeout_s:g} s"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CometError(f"GET {self.base_url}{path}: {_reason(error)}") from error

    async def get(self, path: str, *, timeout_s: float | None = None, limit: int = MAX_ANSWER_BYTES) -> Any:
        """The result of a call, out of its envelope if it has one. A flat body is returned as it is. Raises CometError."""
        return unwrap(await self.raw(path, timeout_s=timeout_s, limit=limit), path)

    async def result(self, path: str, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Like `get`, and an error that came flat with status 200 is an error here. Raises CometError."""
        found = await self.get(path, timeout_s=timeout_s)
        if not isinstance(found, dict):
            raise CometError(f"{path}: expected an object")
        if flat := flat_error(found):
            raise CometError(f"{path}: {flat}")
        return found

    async def status(self, *, timeout_s: float = STATUS_TIMEOUT_S) -> Status:
        """The node's own words about itself, within the short deadline of a probe. Raises CometError."""
        found = await self.get("/status", timeout_s=timeout_s, limit=_MAX_STATUS_BYTES)
        return parse_status(found)

    async def block(self, height: int) -> dict[str, Any]:
        return await self.result(f"/block?height={height}")

    async def block_results(self, height: int) -> dict[str, Any]:
        return await self.result(f"/block_results?height={height}")


def _reason(error: Exception) -> str:
    """The operating system's word for a connection that failed, else the library's."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    # Errors of TLS and of name servers are OSErrors too, but number their causes their own way.
    if isinstance(cause, ssl.SSLError | socket.gaierror):
        return str(cause)
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    return str(error) or type(error).__name__


async def _bounded(answer: aiohttp.ClientResponse, path: str, limit: int) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise CometError(f"{path}: the answer is larger than {limit} bytes")
        await asyncio.sleep(0)
    return bytes(body)


def unwrap(body: bytes, path: str) -> Any:
    """The result inside a JSON-RPC 2.0 envelope, or the whole object when there is none. Raises CometError."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise CometError(f"decoding JSON response from {path}: {error}") from None
    if not isinstance(document, dict):
        raise CometError(f"decoding JSON response from {path}: expected an object, got {type(document).__name__}")
    if document.get("jsonrpc") != "2.0":
        return document
    if (failure := document.get("error")) is not None:
        raise CometError(f"JSON-RPC error from {path}: {_envelope_error(failure)}")
    if document.get("result") is None:
        raise CometError(f"empty result in JSON-RPC response from {path}")
    return document["result"]


def _envelope_error(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    return f"{error.get('message', '')} (code {error.get('code', 0)}, data: {error.get('data', '')})"


def flat_error(document: dict[str, Any]) -> str | None:
    """seid answers a failing GET with the bare error object and status 200; its text, or None for a result."""
    code, message = document.get("code"), document.get("message")
    if isinstance(code, int) and isinstance(message, str) and document.keys() <= {"code", "message", "data"}:
        return f"{message} (code {code}, data: {document.get('data', '')})"
    return None


def parse_status(document: Any) -> Status:
    """The fields seiops reads; absent members are blank. Raises CometError on wrong shapes and heights."""
    if not isinstance(document, dict):
        raise CometError("decoding /status result: expected an object")
    node, sync = _object(document, "node_info"), _object(document, "sync_info")
    height = sync.get("latest_block_height", "")
    catching_up = sync.get("catching_up", False)
    texts = [node.get("id", ""), node.get("network", ""), height]
    if not all(isinstance(text, str) for text in texts) or not isinstance(catching_up, bool):
        raise CometError(
            "decoding /status result: id, network and latest_block_height are strings, catching_up a boolean"
        )
    return Status(texts[0], texts[1], parse_height(height, "latest_block_height"), catching_up)


def _object(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name) or {}
    if not isinstance(found, dict):
        raise CometError(f"decoding /status result: {name} is no object")
    return found


def parse_height(text: str, name: str) -> int:
    """A decimal 64-bit height. Raises CometError `parsing <name> "<text>": ...`."""
    if not _HEIGHT.fullmatch(text):
        raise CometError(f"parsing {name} {quoted(text)}: strconv.ParseInt: parsing {quoted(text)}: invalid syntax")
    height = int(text)
    if not -(1 << 63) <= height < 1 << 63:
        raise CometError(f"parsing {name} {quoted(text)}: strconv.ParseInt: parsing {quoted(text)}: value out of range")
    return height
