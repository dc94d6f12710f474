"""The controller as a process: flags, checks, leadership, work, and a stop that lets passes finish.

(docs/contracts/controller-behaviour.md 1.1 to 1.4, golden flow `startup`)
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from seiops.api.names import EventSource, FieldOwner
from seiops.controller import logs
from seiops.controller.appconfig import SyncerRegistry
from seiops.controller.caches import Caches
from seiops.controller.ec2 import Ec2Client
from seiops.controller.intervals import Intervals
from seiops.controller.metrics import ControllerMetrics
from seiops.controller.node_ids import NodeIds
from seiops.controller.peering import PeerResolver
from seiops.controller.prober import Prober
from seiops.controller.reconcile import reconcile
from seiops.controller.settings import FlagError, Flags, Settings, SettingsError, load_environment, parse_flags, usage
from seiops.controller.sidecar_client import SidecarClient
from seiops.controller.syncer_watch import SyncerWatch
from seiops.controller.wakes import Wakes
from seiops.controller.world import World
from seiops.kube import ApiError, ConfigError, Connection, Key, KubeClient, connect
from seiops.kube.client.credentials import own_namespace
from seiops.kube.events import EventRecorder
from seiops.kube.health import Listener, ListenError, metrics, probes
from seiops.kube.leader import LeaderElector
from seiops.kube.manager import Controller, ExpectedError, Manager, RuntimeMetrics

NAME = "seinode"
RESOLVER_THREADS = 32
"""Names are looked up in threads; one slow name server must not hold up the others."""
EVENT_DEADLINE = 5.0

log = structlog.get_logger("setup")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Runs the controller until it is told to stop. Returns the exit status: 0 stopped, 1 could not go on, 2 bad flags."""
    try:
        flags = parse_flags(sys.argv[1:] if arguments is None else arguments)
    except FlagError as error:
        sys.stderr.write(f"{error}\n{usage()}")
        return 2
    logs.configure(flags)
    try:
        connection = connect(flags.kubeconfig or None, environ)
        settings = load_environment(environ)
    except ConfigError as error:
        log.error("unable to get kubeconfig", error=str(error))
        return 1
    except SettingsError as error:
        _report(error)
        return 1
    for warning in settings.warnings:
        log.warning("questionable configuration", path=warning.path, problem=str(warning))
    log.info("Resolved sidecar image", image=settings.platform.images.sidecar)
    _warn_of_development(settings)
    try:
        return asyncio.run(Process(flags, settings, connection).run())
    except (ExpectedError, ListenError, ApiError) as error:
        log.error("problem running manager", error=str(error))
        return 1


def _report(error: SettingsError) -> None:
    """Every finding in one line, and once more as a list for tools."""
    for warning in error.warnings:
        log.warning("questionable configuration", path=warning.path, problem=str(warning))
    log.error(error.summary, error=error.detail, problems=[str(problem) for problem in error.problems])


def _warn_of_development(settings: Settings) -> None:
    if settings.environment.resolve_file:
        log.warning("DEVELOPMENT ONLY: sidecar names come from a file", file=settings.environment.resolve_file)
    if settings.interval_scale != 1.0:
        log.warning("DEVELOPMENT ONLY: all intervals are scaled", scale=settings.interval_scale)


class Process:
    """One run of the controller."""

    def __init__(self, flags: Flags, settings: Settings, connection: Connection) -> None:
        self._flags = flags
        self._settings = settings
        self._connection = connection
        self._stopping = asyncio.Event()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._runtime = RuntimeMetrics(self._registry)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolve"))
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.stop)
        agent = f"seiops-controller/{version('seiops')}"
        async with KubeClient(self._connection, user_agent=agent) as client:
            listeners = [probes(self._flags.health_probe_bind_address), self._metrics_listener(client)]
            try:
                for listener in listeners:
                    await listener.start()
                log.info("Starting manager")
                return await self._lead(client)
            finally:
                for listener in listeners:
                    await listener.stop()

    def stop(self) -> None:
        """The first signal asks politely, the second ends the process at once."""
        if self._stopping.is_set():
            os._exit(1)
        log.info("Stopping")
        self._stopping.set()

    async def _lead(self, client: KubeClient) -> int:
        """Waits for leadership if asked to, works while it lasts, gives it back."""
        flags = self._flags
        if not flags.leader_elect:
            await self._work(client, asyncio.Event())
            return 0
        elector = LeaderElector(
            client, self._lease_namespace(), flags.lease_name, field_manager=FieldOwner.MANAGER.value
        )
        self._runtime.leading.labels(flags.lease_name).set_function(lambda: float(elector.leading))
        if not await _first(elector.acquire(), self._stopping.wait()):
            return 0
        lost = asyncio.Event()
        holding = asyncio.create_task(_then_set(elector.hold(), lost))
        try:
            await self._work(client, lost)
        finally:
            holding.cancel()
            if not lost.is_set():
                await elector.release()
        if lost.is_set():
            log.error("problem running manager", error="leader election lost")
        return 1 if lost.is_set() else 0

    async def _work(self, client: KubeClient, lost: asyncio.Event) -> None:
        recorder = EventRecorder(client, EventSource.NODE.value, field_manager=FieldOwner.MANAGER.value)
        environment = self._settings.environment
        sidecars = SidecarClient(environment.token_file, environment.resolve_file)
        ec2 = Ec2Client()
        intervals = Intervals(self._settings.interval_scale)
        caches = Caches.empty()
        world = World(
            client=client,
            caches=caches,
            settings=self._settings,
            intervals=intervals,
            sidecars=sidecars,
            peers=PeerResolver(caches.nodes, caches.pods, NodeIds(sidecars, intervals), ec2),
            syncers=SyncerRegistry(self._settings.config_path),
            events=recorder,
            metrics=ControllerMetrics(self._registry),
        )
        reconcile_in = partial(_reconcile, world)
        controller = Controller(NAME, reconcile_in, workers=self._flags.workers, metrics=self._runtime)
        wakes = Wakes(caches, controller.queue, intervals)
        wakes.connect()
        manager = Manager(caches.informers(client, self._flags.namespace_list()), [controller])
        side = [
            asyncio.create_task(recorder.run()),
            asyncio.create_task(Prober(world, controller.queue.add).run()),
            asyncio.create_task(SyncerWatch(self._settings.config_path, wakes.chains_changed).run()),
            asyncio.create_task(_then_call(self._stopping.wait(), manager.stop)),
            asyncio.create_task(_then_call(lost.wait(), partial(manager.stop, drain=0.0))),
        ]
        for task in side:
            # None of them may end by itself; if one does, the process stops and says why.
            task.add_done_callback(lambda _: manager.stop())
        log.info("Starting Controller", controller=NAME)
        try:
            await manager.run()
            await recorder.flush(EVENT_DEADLINE)
            for task in side:
                if task.done():
                    task.result()
        finally:
            for task in side:
                task.cancel()
            await asyncio.gather(*side, return_exceptions=True)
            await sidecars.close()
            await ec2.close()

    def _lease_namespace(self) -> str:
        flags, environment = self._flags, self._settings.environment
        found = flags.lease_namespace or own_namespace() or environment.pod_namespace
        if not found:
            raise ExpectedError(
                "unable to find leader election namespace: not running in-cluster, please give --lease-namespace, "
                "or --leader-elect=false"
            )
        return found

    def _metrics_listener(self, client: KubeClient) -> Listener:
        flags = self._flags
        if not flags.metrics_secure:
            return metrics(flags.metrics_bind_address, registry=self._registry)
        return metrics(flags.metrics_bind_address, registry=self._registry, tls=_serving_tls(flags), reviewer=client)


async def _reconcile(world: World, key: Key) -> float | None:
    try:
        return await reconcile(key, world)
    except Exception:
        world.metrics.failed(key[0])
        raise


async def _first(wanted: Any, other: Any) -> bool:
    """Waits for either; True if it was the first one. The other is cancelled; an error of the first one is raised."""
    tasks = [asyncio.ensure_future(wanted), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            return False
        await tasks[0]
        return True
    finally:
        for task in tasks:
            task.cancel()


async def _then_set(wanted: Any, event: asyncio.Event) -> None:
    await wanted
    event.set()


async def _then_call(wanted: Any, call: Any) -> None:
    await wanted
    call()


def _serving_tls(flags: Flags) -> ssl.SSLContext:
    """From the mounted certificate, or self-signed as the Go controller does when none is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    if flags.metrics_cert_path:
        directory = Path(flags.metrics_cert_path)
        try:
            context.load_cert_chain(directory / flags.metrics_cert_name, directory / flags.metrics_cert_key)
        except (OSError, ssl.SSLError) as error:
            raise ExpectedError(f"metrics certificate in {str(directory)!r} cannot be loaded: {error}") from error
        return context
    from seiops.controller.selfsigned import self_signed

    self_signed(context)
    return context
