"""Which keys need a look, and when: the heart of level-triggered control.

A key is in the queue at most once and in at most one worker. A change that comes while a worker has the key makes it
due again afterwards. Failures of a key make its own next try later and later, whatever else wakes it meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BASE_DELAY = 0.005
LONGEST_DELAY = 1000.0


class QueueClosedError(Exception):
    """The queue was closed; the worker may go home."""


class WorkQueue(Generic[K]):
    """For use within one event loop."""

    def __init__(self, base_delay: float = BASE_DELAY, longest_delay: float = LONGEST_DELAY) -> None:
        self._base_delay = base_delay
        self._longest_delay = longest_delay
        self._ready: deque[K] = deque()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._readers: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K) -> None:
        """The key is due now."""
        if self._closed or key in self._waiting:
            return
        self._waiting.add(key)
        if key not in self._working:
            self._offer(key)

    def add_after(self, key: K, seconds: float) -> None:
        """The key is due in ``seconds`` at the latest; an earlier time that was asked for before stands."""
        if self._closed:
            return
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def retry(self, key: K) -> float:
        """The key's pass failed: due again after its back-off (doubling from the base delay). Returns the delay."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._base_delay * 2.0 ** min(failures, 60), self._longest_delay)
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """The key's pass succeeded: its next failure starts at the base delay again."""
        self._failures.pop(key, None)

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    async def get(self) -> K:
        """The next due key; call :meth:`done` with it afterwards. Raises :class:`QueueClosedError` once closed."""
        while not self._ready:
            if self._closed:
                raise QueueClosedError
            reader = asyncio.get_running_loop().create_future()
            self._readers.append(reader)
            try:
                await reader
            except asyncio.CancelledError:
                if reader.done() and not reader.cancelled():
                    self._wake()
                raise
        if self._closed:
            raise QueueClosedError
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            # The pass that begins now decides when it wants to be called next.
            timer.cancel()
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._waiting:
            self._offer(key)

    def close(self) -> None:
        """No key is handed out any more; those in a worker may be finished."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._readers:
            self._wake()

    def _offer(self, key: K) -> None:
        self._ready.append(key)
        self._wake()

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake(self) -> None:
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return
