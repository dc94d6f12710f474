"""A client for seid's EVM JSON-RPC: single calls, and batches that survive every limit a node may put on them.

Results are handed over as raw JSON: whoever asked knows their shape. Limits of a node are listed in
docs/contracts/shadow.md 9.2; a batch it refuses is split, and a node that takes no batches is asked one by one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import msgspec

from seiops.seid.observing import Nobody, Observer, named

REQUEST_TIMEOUT_S = 30.0
BATCH_CALLS = 200
"""Calls of one batch; seid's default limit is 1,000, and its limit on the size of an answer comes first."""
MAX_ANSWER_BYTES = 256 << 20
METHOD_NOT_FOUND = -32601
_ERROR_EXCERPT_BYTES = 512
_PARALLEL_SINGLE_CALLS = 8
_REFUSED = re.compile(r"batch|too large|response size|limit", re.IGNORECASE)
_LASTING = re.compile(
    r"pruned|max lookback|does not exist|not supported|invalid argument|failed to load validators|missing value",
    re.IGNORECASE,
)
_NOT_THERE_YET = re.compile(r"not yet available|is after latest", re.IGNORECASE)


class Call(NamedTuple):
    """One JSON-RPC call; `params` is anything with a JSON form."""

    method: str
    params: Sequence[Any]


class EvmError(Exception):
    """A call without a result; the text is the node's own. `code` is the JSON-RPC code, None where there was none.

    `retryable`: the same call may succeed later. `not_ready`: the node has not reached the height yet.
    """

    def __init__(
        self, message: str, code: int | None = None, *, retryable: bool = True, not_ready: bool = False
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.not_ready = not_ready

    @property
    def method_missing(self) -> bool:
        """The node does not offer the method at all."""
        return self.code == METHOD_NOT_FOUND


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Reply(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


class _Request(msgspec.Struct):
    id: int
    method: str
    params: Sequence[Any]
    jsonrpc: str = "2.0"


_replies = msgspec.json.Decoder(list[_Reply])
_reply = msgspec.json.Decoder(_Reply)
_encode = msgspec.json.Encoder().encode


def check_url(url: str) -> None:
    """Raises ValueError in the words operators know when no transport serves the URL."""
    scheme = urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise ValueError(f'no known transport for URL scheme "{scheme}"')


class EvmClient:
    """One endpoint over HTTP. The session is the caller's."""

    def __init__(
        self,
        url: str,
        session: aiohttp.ClientSession,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        observer: Observer | None = None,
    ) -> None:
        """Raises ValueError for a URL that is not HTTP."""
        check_url(url)
        self.url = url
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._timeout_s = timeout_s
        self._batch_calls = BATCH_CALLS
        self._takes_batches = True
        self._observer = observer or Nobody()

    async def call(self, method: str, params: Sequence[Any]) -> bytes:
        """The raw JSON of the result. Raises EvmError."""
        try:
            return await self._call(method, params)
        except EvmError as error:
            self._observer.failed(method, error)
            raise

    async def _call(self, method: str, params: Sequence[Any]) -> bytes:
        status, body = await self._post(_encode(_Request(1, method, params)), method)
        try:
            reply = _reply.decode(body)
        except msgspec.MsgspecError as error:
            if status != HTTPStatus.OK:
                raise _http_failure(status, body) from None
            raise EvmError(f"decoding the answer to {method}: {error}") from None
        if status != HTTPStatus.OK:
            code = reply.error.code if reply.error is not None else None
            raise _http_failure(status, body, code)
        return _result(reply)

    async def batch(self, calls: Sequence[Call]) -> list[bytes | EvmError]:
        """The raw results in the order of the calls, an EvmError in the place of each that failed."""
        chunks = [calls[start : start + self._batch_calls] for start in range(0, len(calls), self._batch_calls)]
        answers = await asyncio.gather(*(self._chunk(chunk) for chunk in chunks))
        found = [answer for chunk in answers for answer in chunk]
        for call, answer in zip(calls, found, strict=True):
            if isinstance(answer, EvmError):
                self._observer.failed(call.method, answer)
        return found

    async def _chunk(self, calls: Sequence[Call]) -> list[bytes | EvmError]:
        if len(calls) == 1 or not self._takes_batches:
            return await self._one_by_one(calls)
        try:
            return await self._batched(calls)
        except _BatchRefusedError as refusal:
            if refusal.for_good:
                self._takes_batches = False
                return await self._one_by_one(calls)
            half = len(calls) // 2
            self._batch_calls = max(1, min(self._batch_calls, half))
            first, second = await asyncio.gather(self._chunk(calls[:half]), self._chunk(calls[half:]))
            return first + second
        except EvmError as error:
            return [error] * len(calls)

    async def _batched(self, calls: Sequence[Call]) -> list[bytes | EvmError]:
        asked = named({call.method for call in calls})
        status, body = await self._post(_encode([_Request(i, *call) for i, call in enumerate(calls)]), asked)
        if status in (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.TOO_MANY_REQUESTS):
            raise _BatchRefusedError(for_good=False)
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.BAD_REQUEST):
            raise _BatchRefusedError(for_good=True)
        if status != HTTPStatus.OK:
            raise _http_failure(status, body)
        if not body.lstrip().startswith(b"["):
            raise _BatchRefusedError(for_good=not _REFUSED.search(body[:_ERROR_EXCERPT_BYTES].decode(errors="replace")))
        try:
            replies = _replies.decode(body)
        except msgspec.MsgspecError as error:
            raise EvmError(f"decoding the answer to a batch: {error}") from None
        if len(calls) > 1 and len(replies) == 1 and replies[0].error and _REFUSED.search(replies[0].error.message):
            raise _BatchRefusedError(for_good=False)
        found: list[bytes | EvmError] = [EvmError("no answer to this call in the answer to its batch")] * len(calls)
        for reply in replies:
            if reply.id is not None and 0 <= reply.id < len(calls):
                found[reply.id] = _settled(reply)
        return found

    async def _one_by_one(self, calls: Sequence[Call]) -> list[bytes | EvmError]:
        gate = asyncio.Semaphore(_PARALLEL_SINGLE_CALLS)

        async def one(call: Call) -> bytes | EvmError:
            async with gate:
                try:
                    return await self._call(call.method, call.params)
                except EvmError as error:
                    return error

        return list(await asyncio.gather(*(one(call) for call in calls)))

    async def _post(self, body: bytes, asked: str) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        started = time.monotonic()
        try:
            async with self._session.post(self.url, data=body, headers=headers, timeout=self._timeout) as answer:
                if (answer.content_length or 0) > MAX_ANSWER_BYTES:
                    raise EvmError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes", retryable=False)
                return answer.status, await answer.read()
        except TimeoutError:
            raise EvmError(f'Post "{self.url}": no answer within {self._timeout_s:g} s') from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EvmError(f'Post "{self.url}": {error or type(error).__name__}') from error
        finally:
            self._observer.asked(asked, time.monotonic() - started)


class _BatchRefusedError(Exception):
    """The node did not take this batch: too large (`for_good` false), or batches at all."""

    def __init__(self, *, for_good: bool) -> None:
        super().__init__()
        self.for_good = for_good


def _http_failure(status: int, body: bytes, code: int | None = None) -> EvmError:
    try:
        phrase = f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = str(status)
    text = body[:_ERROR_EXCERPT_BYTES].decode(errors="replace").strip()
    lasting = code == METHOD_NOT_FOUND or (400 <= status < 500 and status not in (408, 417, 429))
    return EvmError(f"{phrase}: {text}", code, retryable=not lasting)


def _settled(reply: _Reply) -> bytes | EvmError:
    try:
        return _result(reply)
    except EvmError as error:
        return error


def _result(reply: _Reply) -> bytes:
    if reply.error is not None:
        message, code = reply.error.message, reply.error.code
        lasting = code in (METHOD_NOT_FOUND, -32602) or _LASTING.search(message) is not None
        raise EvmError(message, code, retryable=not lasting, not_ready=_NOT_THERE_YET.search(message) is not None)
    if isinstance(reply.result, msgspec.UnsetType):
        raise EvmError("the answer holds neither a result nor an error")
    return bytes(reply.result)
