"""A proxy in front of the real S3 server that breaks what passes through it, on demand.

A fault is chosen per request by a function of method and path; everything else goes through unchanged, signatures included.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web

Fault = Literal["reset", "slow-down", "stall", "stall-answer", "truncate"]
Chooser = Callable[[str, str], Fault | None]
_SLOW_DOWN = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>slow</Message></Error>'


@dataclass
class FaultProxy:
    """`choose` decides over each request; `seen` lists what came, `broken` how often each fault was dealt."""

    upstream: str
    choose: Chooser = lambda method, path: None
    seen: list[str] = field(default_factory=list)
    broken: dict[str, int] = field(default_factory=dict)
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    _session: aiohttp.ClientSession | None = None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(f"{request.method} {request.path_qs}")
        fault = self.choose(request.method, request.path_qs)
        if fault is not None:
            self.broken[fault] = self.broken.get(fault, 0) + 1
        if fault == "reset":
            # in the middle of the request: part of the body was read
            await request.content.read(1000)
            return self._abort(request)
        body = b"".join([chunk async for chunk in request.content.iter_any()])
        if fault == "slow-down":
            return web.Response(status=503, text=_SLOW_DOWN, content_type="application/xml")
        if fault == "stall":
            self.stalled.set()
            await self.release.wait()
            return self._abort(request)
        answer = await self._forward(request, body, truncated=fault == "truncate")
        if fault == "stall-answer":
            # the store has done it, and nobody hears of it
            self.stalled.set()
            await self.release.wait()
            return self._abort(request)
        return answer

    async def _forward(self, request: web.BaseRequest, body: bytes, *, truncated: bool) -> web.StreamResponse:
        assert self._session is not None
        # the signature covers the host the client asked for
        async with self._session.request(
            request.method, self.upstream + request.raw_path, headers=request.headers.copy(), data=body or None,
            allow_redirects=False,
        ) as answer:  # fmt: skip
            content = await answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if truncated:
                response = web.StreamResponse(
                    status=answer.status, headers={**kept, "Content-Length": str(len(content) + 64)}
                )
                await response.prepare(request)
                await response.write(content)
                return self._abort(request)
            return web.Response(status=answer.status, headers=kept, body=content)

    @staticmethod
    def _abort(request: web.BaseRequest) -> web.StreamResponse:
        """A reset, not a polite end: the other side hears of it at once, whether it was sending or waiting."""
        if request.transport is not None:
            connection = request.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.transport.abort()
        raise ConnectionResetError

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FaultProxy]:
        runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as self._session:
                yield self
        finally:
            self.release.set()
            await runner.cleanup()


_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}


def once(fault: Fault, method: str, part: str) -> Chooser:
    """Breaks the first request that fits."""
    left = [1]

    def choose(asked: str, path: str) -> Fault | None:
        if asked == method and part in path and left[0]:
            left[0] -= 1
            return fault
        return None

    return choose


def always(fault: Fault, method: str, part: str) -> Chooser:
    """Breaks every request that fits."""
    return lambda asked, path: fault if asked == method and part in path else None
