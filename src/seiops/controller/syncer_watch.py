"""Notices a new config file and wakes the nodes of the chains whose syncers changed, and no others.

The file is mounted from a ConfigMap: the kubelet swaps a symlink above it, so the directory is watched, and every second
the file is compared anyway, because a mount may bring no file events at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from watchfiles import awatch

from seiops.controller.appconfig import AppConfig, AppConfigError, SyncerRegistry, changed_chains

POLL = 1.0
SETTLE_MS = 20

log = structlog.get_logger("syncers")

Wake = Callable[[set[str] | None], None]
"""Called with the chains that changed, or None if it may be any of them."""


class SyncerWatch:
    """Calls ``wake`` whenever the registry in the file has changed. Runs until cancelled."""

    def __init__(self, path: str, wake: Wake) -> None:
        self._registry = SyncerRegistry(path)
        self._wake = wake
        self._known: AppConfig | str = self._read()

    async def run(self) -> None:
        directory = Path(self._registry.path).parent
        while True:
            if not directory.is_dir():
                await asyncio.sleep(POLL)
                self.check()
                continue
            try:
                async for _ in awatch(
                    directory,
                    watch_filter=None,
                    debounce=SETTLE_MS,
                    step=SETTLE_MS,
                    rust_timeout=int(POLL * 1000),
                    yield_on_timeout=True,
                    recursive=False,
                ):
                    self.check()
            except (OSError, RuntimeError) as error:
                # watchfiles reports what its kernel part runs into (too many watches) as RuntimeError.
                log.warning("config directory cannot be watched, polling it", error=str(error))
                await asyncio.sleep(POLL)
                self.check()

    def check(self) -> None:
        """Reads the file once and wakes whoever it concerns."""
        before, after = self._known, self._read()
        if isinstance(before, str) or isinstance(after, str):
            if before == after:
                return
            chains = None
        else:
            chains = changed_chains(before, after)
            if not chains:
                return
        self._known = after
        log.info("syncers changed", chains=sorted(chains) if chains is not None else "all")
        self._wake(chains)

    def _read(self) -> AppConfig | str:
        """The file as it is, or why it cannot be used."""
        try:
            return self._registry.current()
        except AppConfigError as error:
            return str(error)
