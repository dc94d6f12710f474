"""Blocks and block results read in bulk: several heights a request where the node allows it.

seid answers `POST /` with proper envelopes and takes batches of ten (docs/contracts/shadow.md 9.2); nodes and proxies that
do not are asked with one `GET` a height, whose answers may be flat or enveloped. Either way the caller gets the bare
result as raw JSON, or the error in its place, also where the node dressed an error up as an answer (2.2).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
import msgspec

from seiops.seid.comet import REQUEST_TIMEOUT_S, CometClient, CometError
from seiops.seid.observing import Nobody, Observer, named

BATCH_CALLS = 10
_ROOMY_BYTES = 4 << 20
"""An answer larger than this makes the next batches smaller: what is held in memory stays bounded."""
_PARALLEL_GETS = 10
_READ_BUFFER = 1 << 20
"""Answers are hundreds of kilobytes: fewer, larger reads."""
_FUTURE = re.compile(r"must be less than or equal to the head|could not find results|not yet available|lagging")
_PRUNED = re.compile(r"is not available \(|pruned")


class Want(NamedTuple):
    """One thing to read: `method` is `block` or `block_results`."""

    method: str
    height: int

    @property
    def path(self) -> str:
        return f"/{self.method}?height={self.height}"


class HeightNotReadyError(CometError):
    """The node has not executed or stored the height yet."""


class HeightPrunedError(CometError):
    """The node no longer has the height."""


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""
    data: str = ""


class _Reply(msgspec.Struct):
    id: int | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None


class _Envelope(msgspec.Struct):
    """Either dress: an envelope around a result or an error, a flat result, or a flat error."""

    jsonrpc: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    code: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    message: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    height: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    block: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    txs_results: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Request(msgspec.Struct):
    id: int
    method: str
    params: dict[str, str]
    jsonrpc: str = "2.0"


_replies = msgspec.json.Decoder(list[_Reply])
_envelope = msgspec.json.Decoder(_Envelope)
_error = msgspec.json.Decoder(_Error)
_number = msgspec.json.Decoder(int)
_text = msgspec.json.Decoder(str)
_encode = msgspec.json.Encoder().encode


class BulkReader:
    """One node's blocks. The session is the caller's; `timeout_s` is the deadline of each request."""

    def __init__(
        self,
        base_url: str,
        session: aiohttp.ClientSession,
        *,
        timeout_s: float = REQUEST_TIMEOUT_S,
        observer: Observer | None = None,
    ) -> None:
        self.client = CometClient(base_url, session, timeout_s=timeout_s)
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._gets = asyncio.Semaphore(_PARALLEL_GETS)
        self._batch = BATCH_CALLS
        self._takes_posts = True
        self._observer = observer or Nobody()

    async def head(self) -> int:
        """The latest height. Raises CometError, also for a node that has none yet."""
        started = time.monotonic()
        try:
            latest = (await self.client.status()).height
            if latest <= 0:
                raise CometError(f"latest_block_height is {latest}, node may still be syncing")
        except CometError as error:
            self._observer.failed("status", error)
            raise
        finally:
            self._observer.asked("status", time.monotonic() - started)
        return latest

    async def read(self, wants: Sequence[Want]) -> list[bytes | CometError]:
        """Bare results in the order asked; an error in the place of each that could not be read."""
        size = self._batch
        if self._takes_posts and size > 1:
            chunks = [wants[start : start + size] for start in range(0, len(wants), size)]
            answers = await asyncio.gather(*(self._posted(chunk) for chunk in chunks))
            return self._told(wants, [answer for chunk in answers for answer in chunk])
        return self._told(wants, list(await asyncio.gather(*(self._got(want) for want in wants))))

    async def read_as_served(self, wants: Sequence[Want]) -> list[bytes | CometError]:
        """The answers as a `GET` returns them, envelope included; errors dressed as answers are errors here, too."""
        return self._told(wants, list(await asyncio.gather(*(self._got_as_served(want) for want in wants))))

    def _told(self, wants: Sequence[Want], answers: list[bytes | CometError]) -> list[bytes | CometError]:
        for want, answer in zip(wants, answers, strict=True):
            if isinstance(answer, CometError):
                self._observer.failed(want.method, answer)
        return answers

    async def _posted(self, wants: Sequence[Want]) -> list[bytes | CometError]:
        try:
            replies = await self._post(wants)
        except CometError as error:
            return [error] * len(wants)
        if replies is None:
            return list(await asyncio.gather(*(self._got(want) for want in wants)))
        found: list[bytes | CometError] = [CometError(f"{want.path}: no answer in the batch") for want in wants]
        for reply in replies:
            if reply.id is not None and 0 <= reply.id < len(wants):
                found[reply.id] = _settled(reply, wants[reply.id])
        return found

    async def _post(self, wants: Sequence[Want]) -> list[_Reply] | None:
        """The answer to a batch; None when it has to be asked for one by one (for good where the node takes no batches)."""
        requests = [_Request(i, want.method, {"height": str(want.height)}) for i, want in enumerate(wants)]
        url = f"{self.client.base_url}/"
        headers = {"Content-Type": "application/json"}
        started = time.monotonic()
        try:
            async with self._session.post(
                url, data=_encode(requests), headers=headers, timeout=self._timeout
            ) as answer:
                body = await answer.read()
                if answer.status == HTTPStatus.OK and (replies := _list_of_replies(body)) is not None:
                    if len(body) > _ROOMY_BYTES:
                        self._batch = max(1, min(self._batch, len(wants) * _ROOMY_BYTES // len(body)))
                    return replies
                # a failing server says which height it means when it is asked for one
                self._takes_posts = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        except TimeoutError:
            raise CometError(f"POST {url}: no answer within {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CometError(f"POST {url}: {error or type(error).__name__}") from error
        finally:
            self._observer.asked(named({want.method for want in wants}), time.monotonic() - started)
        return None

    async def _got(self, want: Want) -> bytes | CometError:
        served = await self._got_as_served(want)
        return served if isinstance(served, CometError) else _bare(served)

    async def _got_as_served(self, want: Want) -> bytes | CometError:
        async with self._gets:
            started = time.monotonic()
            try:
                body = await self.client.raw(want.path)
                check_answer(body, want.path)
            except CometError as error:
                return error
            finally:
                self._observer.asked(want.method, time.monotonic() - started)
        return body


def _list_of_replies(body: bytes) -> list[_Reply] | None:
    if not body.startswith(b"["):
        return None
    try:
        return _replies.decode(body)
    except msgspec.MsgspecError:
        return None


def _settled(reply: _Reply, want: Want) -> bytes | CometError:
    if reply.error is not None:
        return _rpc_error(want.path, reply.error)
    result = _text_of(reply.result)
    if result in (b"", b"null"):
        return CometError(f"empty result in JSON-RPC response from {want.path}")
    return result


def _text_of(raw: msgspec.Raw | msgspec.UnsetType) -> bytes:
    """The text of a member, empty for an absent one. Raw values compare by identity, their bytes by content."""
    return b"" if isinstance(raw, msgspec.UnsetType) else bytes(raw)


def check_answer(body: bytes, path: str) -> None:
    """Raises the error that a body with status 200 holds (docs/contracts/shadow.md 2.2); CometError for no JSON object."""
    try:
        found = _envelope.decode(body)
    except msgspec.MsgspecError as error:
        raise CometError(f"decoding JSON response from {path}: {error}") from None
    if _text_of(found.jsonrpc) == b'"2.0"':
        if _text_of(found.error) not in (b"", b"null"):
            raise _rpc_error(path, _lenient_error(_text_of(found.error)))
        if _text_of(found.result) in (b"", b"null"):
            raise CometError(f"empty result in JSON-RPC response from {path}")
        return
    if _is_flat_error(found):
        raise _rpc_error(path, _lenient_error(body))


def _is_flat_error(found: _Envelope) -> bool:
    unset = msgspec.UnsetType
    if isinstance(found.code, unset) or isinstance(found.message, unset):
        return False
    if not (
        isinstance(found.block, unset) and isinstance(found.txs_results, unset) and isinstance(found.height, unset)
    ):
        return False
    try:
        _number.decode(found.code)
        _text.decode(found.message)
    except msgspec.MsgspecError:
        return False
    return True


def _lenient_error(raw: bytes) -> _Error:
    try:
        return _error.decode(raw)
    except msgspec.MsgspecError:
        return _Error(message=raw[:512].decode(errors="replace"))


def _rpc_error(path: str, error: _Error) -> CometError:
    text = f"JSON-RPC error from {path}: {error.message} (code {error.code}, data: {error.data})"
    said = f"{error.message} {error.data}"
    if _FUTURE.search(said):
        return HeightNotReadyError(text)
    return HeightPrunedError(text) if _PRUNED.search(said) else CometError(text)


def _bare(body: bytes) -> bytes:
    found = _envelope.decode(body)
    return _text_of(found.result) if _text_of(found.jsonrpc) == b'"2.0"' else body
