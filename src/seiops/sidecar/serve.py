"""The life of the sidecar process, from the checked environment to the closed store (docs/contracts/sidecar.md 1.5, 1.6).

Order matters: nothing is opened before every setting is checked, holds run before the port opens, and the store closes
only after the last answer was sent and the last handler unwound.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from seiops.sidecar import home, logs, metrics
from seiops.sidecar.api import BYPASS, Api
from seiops.sidecar.engine import Engine
from seiops.sidecar.http1 import HttpServer
from seiops.sidecar.settings import TRUSTED_HEADER, Settings
from seiops.sidecar.store import StoreUnavailableError, TaskStore
from seiops.sidecar.upload_state import read_upload_state

if TYPE_CHECKING:
    import aiohttp

DRAIN_SECONDS = 25.0
GRACE_SECONDS = 29.0

log = logs.logger("serve")


class StartError(Exception):
    """The process cannot start or go on; the text is what the operator sees."""


class HttpSessions:
    """One client session for all tasks, made when the first of them asks."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=30), connector=aiohttp.TCPConnector(limit=64)
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM or SIGINT. Raises StartError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        home.prepare(settings.home)
    except OSError as error:
        raise StartError(f"home directory init failed: {error}") from error
    try:
        store = TaskStore.open(settings.home / "sidecar.db")
    except StoreUnavailableError as error:
        raise StartError(f"open result store: {error}") from error
    restore_upload_gauges(settings)
    sessions = HttpSessions()
    engine = Engine(settings, store, sessions.open)
    await engine.rehydrate()
    server = HttpServer(Api(settings, engine, store).handle)
    _log_start(settings)
    try:
        await server.start(_bind_host(settings), settings.port)
    except OSError as error:
        await _shut_down(server, engine, sessions, store)
        raise StartError(f"server error: listen tcp {settings.bind_label}: bind: {_reason(error)}") from error
    await stop.wait()
    await _shut_down(server, engine, sessions, store)


async def _shut_down(server: HttpServer, engine: Engine, sessions: HttpSessions, store: TaskStore) -> None:
    deadline = time.monotonic() + GRACE_SECONDS
    stopping = asyncio.create_task(engine.stop(GRACE_SECONDS))
    if not await server.drain(DRAIN_SECONDS):
        log.error("graceful shutdown failed", extra={"attrs": {"err": "requests were still in progress"}})
    await asyncio.wait({stopping}, timeout=max(deadline - time.monotonic(), 0))
    unwound = stopping.done() and stopping.result()
    await sessions.close()
    try:
        await asyncio.to_thread(store.close)
    except StoreUnavailableError as error:
        print(f"warn: result store close: {error}", file=sys.stderr)
    if not unwound:
        log.error("task code did not end in time; leaving it behind")
        sys.stdout.flush()
        os._exit(0)


def restore_upload_gauges(settings: Settings) -> None:
    """Shows the last recorded upload again; a missing or unreadable record shows nothing (docs/contracts/sidecar.md 4)."""
    height, uploaded_at = read_upload_state(settings.home)
    if height > 0:
        metrics.UPLOAD_LAST_HEIGHT.labels(settings.chain_id).set(height)
    if uploaded_at > 0:
        metrics.UPLOAD_LAST_UPLOADED.labels(settings.chain_id).set(uploaded_at)


def _bind_host(settings: Settings) -> str | None:
    if settings.bind_host is not None:
        return settings.bind_host
    return "127.0.0.1" if settings.authn_mode == TRUSTED_HEADER else None


def _log_start(settings: Settings) -> None:
    attributes: dict[str, object] = {"authnMode": settings.authn_mode, "bind": settings.bind_label}
    if settings.authn_mode == TRUSTED_HEADER:
        attributes["bypassPaths"] = list(BYPASS)
    log.info("sidecar HTTP", extra={"attrs": attributes})


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
