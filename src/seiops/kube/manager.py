"""Runs informers, then workers, and stops them without tearing a pass apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from seiops.kube.client.errors import ApiError
from seiops.kube.client.resource import Key
from seiops.kube.informer import Informer
from seiops.kube.workqueue import QueueClosedError, WorkQueue

SYNC_DEADLINE = 120.0
DRAIN_DEADLINE = 30.0
PASS_BUCKETS = (
    *(
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.15,
        0.2,
        0.25,
        0.3,
        0.35,
        0.4,
        0.45,
        0.5,
        0.6,
        0.7,
        0.8,
        0.9,
        1,
        1.25,
        1.5,
        1.75,
    ),
    *(2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9, 10, 15, 20, 25, 30, 40, 50, 60),
)
"""Seconds; the buckets that dashboards of controller-runtime know."""

Reconcile = Callable[[Key], Awaitable[float | None]]
"""One pass over one object. Returns the seconds until the next one, or None if only a change should bring it back."""

log = structlog.get_logger("kube.manager")


class RuntimeMetrics:
    """The series every controller built on the usual Go framework has, under the same names."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        prefix = "controller_runtime_"
        by, with_result = ["controller"], ["controller", "result"]
        self.passes = Counter(prefix + "reconcile", "Passes by result", with_result, registry=registry)
        self.errors = Counter(prefix + "reconcile_errors", "Failed passes", by, registry=registry)
        self.panics = Counter(prefix + "reconcile_panics", "Passes ended by an unexpected error", by, registry=registry)
        self.seconds = Histogram(
            prefix + "reconcile_time_seconds", "Duration of a pass", by, registry=registry, buckets=PASS_BUCKETS
        )
        self.active = Gauge(prefix + "active_workers", "Workers busy now", by, registry=registry)
        self.workers = Gauge(prefix + "max_concurrent_reconciles", "Workers", by, registry=registry)
        self.leading = Gauge("leader_election_master_status", "1 while we lead", ["name"], registry=registry)
        self.depth = Gauge("workqueue_depth", "Keys that are due", ["name", "controller"], registry=registry)


class Controller:
    """N workers over one queue: each takes a due key, runs one pass, and reports when the key wants to come back."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int, metrics: RuntimeMetrics) -> None:
        self.name = name
        self.queue: WorkQueue[Key] = WorkQueue()
        self._reconcile = reconcile
        self._workers = workers
        self._metrics = metrics
        metrics.workers.labels(name).set(workers)
        metrics.depth.labels(name, name).set_function(lambda: len(self.queue))
        metrics.errors.labels(name)
        metrics.panics.labels(name)

    async def run(self) -> None:
        """Until the queue is closed and every pass under way has ended."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueClosedError:
                return
            try:
                await self._pass(key)
            finally:
                self.queue.done(key)

    async def _pass(self, key: Key) -> None:
        metrics, name = self._metrics, self.name
        began = time.perf_counter()
        with metrics.active.labels(name).track_inprogress():
            try:
                delay = await self._reconcile(key)
            except Exception as error:
                self._failed(key, error)
            else:
                self.queue.forget(key)
                if delay is not None:
                    self.queue.add_after(key, delay)
                metrics.passes.labels(name, "success" if delay is None else "requeue_after").inc()
        metrics.seconds.labels(name).observe(time.perf_counter() - began)

    def _failed(self, key: Key, error: Exception) -> None:
        self._metrics.passes.labels(self.name, "error").inc()
        self._metrics.errors.labels(self.name).inc()
        delay = self.queue.retry(key)
        where = {"controller": self.name, "namespace": key[0], "name": key[1], "retry_in": delay}
        if isinstance(error, ApiError) and error.conflict:
            log.info("Somebody else changed the object, trying again", error=str(error), **where)
        elif isinstance(error, ApiError | ExpectedError):
            log.error("Reconciler error", error=str(error), **where)
        else:
            self._metrics.panics.labels(self.name).inc()
            log.error("Reconciler error", error=f"{type(error).__name__}: {error}", exc_info=error, **where)


class ExpectedError(Exception):
    """A pass that cannot go on for a reason it can name: logged in one line, tried again with back-off."""


class Manager:
    """Starts informers, waits until they hold everything, then lets the controllers work until :meth:`stop`."""

    def __init__(self, informers: Sequence[Informer], controllers: Sequence[Controller]) -> None:
        self._informers = informers
        self._controllers = controllers
        self._stop = asyncio.Event()
        self._drain = DRAIN_DEADLINE

    def stop(self, drain: float = DRAIN_DEADLINE) -> None:
        """Lets passes under way finish for ``drain`` seconds: none for who is not the leader any more."""
        self._drain = min(self._drain, drain)
        self._stop.set()

    async def run(self) -> None:
        """Returns after :meth:`stop`, when every pass under way has ended or the time for it is over."""
        watching = [asyncio.create_task(informer.run()) for informer in self._informers]
        working: asyncio.Future[list[None]] | None = None
        try:
            if await self._synced():
                working = asyncio.gather(*(controller.run() for controller in self._controllers))
                stopping = asyncio.create_task(self._stop.wait())
                ends: list[asyncio.Future[Any]] = [working, stopping, *watching]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
        finally:
            for controller in self._controllers:
                controller.queue.close()
            if working is not None:
                try:
                    async with asyncio.timeout(self._drain):
                        await working
                except TimeoutError:
                    log.warning("passes were cut off at the end of the shutdown budget", seconds=self._drain)
            for task in watching:
                task.cancel()
            ended = await asyncio.gather(*watching, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    async def _synced(self) -> bool:
        """False if we are told to stop before the caches are full; an error if they do not fill in time."""
        waits = asyncio.gather(*(informer.synced.wait() for informer in self._informers))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            ends: list[asyncio.Future[Any]] = [waits, stopping]
            await asyncio.wait(ends, timeout=SYNC_DEADLINE, return_when=asyncio.FIRST_COMPLETED)
            if not waits.done() and not stopping.done():
                missing = [i for i in self._informers if not i.synced.is_set()]
                told = "; ".join(f"{i.resource.kind}: {i.trouble or 'no answer'}" for i in missing)
                raise ExpectedError(f"caches did not fill within {SYNC_DEADLINE:g} s: {told}")
            return not self._stop.is_set()
        finally:
            waits.cancel()
            stopping.cancel()
