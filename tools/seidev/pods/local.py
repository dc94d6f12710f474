"""One Pod on this machine: its sidecar as a real process, its proxy, and the recorded chain in place of seid.

Kept as a kubelet keeps them: init containers first, seid only once the sidecar says it is ready, a crashed process
started again after a growing pause, SIGTERM and a grace period at the end. Statuses are what really is.
"""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from seidev import processes
from seidev.chain import COMET_PORT, EVM_PORT, ChainServer
from seidev.guard import signal_group
from seidev.pods import proxy, rendering
from seidev.pods.rendering import NotYetError, Volumes
from seiops.kube import ApiError, KubeClient, Obj
from seiops.kube.client.resource import PODS

FIELD_MANAGER = "pod-runner"
SIDECAR, PROXY, SEID, SEID_INIT = "sei-sidecar", "kube-rbac-proxy", "seid", "seid-init"
DEFAULT_SIDECAR_PORT = 7777
READINESS_EVERY = 0.2
RETRY_EVERY = 0.5
HEALTH_DEADLINE = aiohttp.ClientTimeout(total=2)
LONGEST_BACK_OFF = 300.0


@dataclass(frozen=True)
class Host:
    """What all Pods of a runner share. `back_off` is the pause in seconds before the second restart; it doubles."""

    client: KubeClient
    root: Path
    node: str
    seid: Callable[[str], ChainServer]
    env: Mapping[str, str]
    resolve_file: Path
    back_off: float = 10.0
    say: Callable[[str], None] = lambda line: None


@dataclass
class Container:
    """State of one container, as its status will show it."""

    spec: Obj
    is_init: bool
    state: Obj = field(default_factory=lambda: {"waiting": {"reason": "PodInitializing"}})
    last_state: Obj = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    def running(self, *, ready: bool) -> None:
        self.state = {"running": {"startedAt": now()}}
        self.started, self.ready = True, ready

    def waiting(self, reason: str, message: str = "") -> None:
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
        self.started = self.ready = False

    def terminated(self, code: int, reason: str) -> None:
        since = self.state.get("running", {}).get("startedAt", now())
        self.state = {"terminated": {"exitCode": code, "reason": reason, "startedAt": since, "finishedAt": now()}}
        self.started = False
        self.ready = self.is_init and code == 0

    def status(self) -> Obj:
        return {
            "name": self.name,
            "image": self.spec.get("image", ""),
            "imageID": "",
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
        }


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class LocalPod:
    """Runs one Pod from binding to deletion. `run` returns when the Pod's object is gone."""

    def __init__(self, host: Host, pod: Obj) -> None:
        self._host = host
        self._pod = pod
        metadata = pod["metadata"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self._directory = host.root / "pods" / f"{self.namespace}_{self.name}_{self.uid}"
        spec = pod["spec"]
        self._containers = [
            *(Container(c, True) for c in spec.get("initContainers", ())),
            *(Container(c, False) for c in spec["containers"]),
        ]
        self.address = free_address(self._sidecar_port)
        self._process: asyncio.subprocess.Process | None = None
        self._proxy: proxy.RbacProxy | None = None
        self._chain: ChainServer | None = None
        self._changed = asyncio.Event()
        self._started_at = now()
        self._phase = "Pending"
        self._deleting = asyncio.Event()
        self._grace = 30.0

    @property
    def names(self) -> list[str]:
        """Names this Pod is known by in the cluster's DNS."""
        spec = self._pod["spec"]
        host, subdomain = spec.get("hostname", self.name), spec.get("subdomain", "")
        return [f"{host}.{subdomain}.{self.namespace}.svc.cluster.local"] if subdomain else []

    @property
    def log(self) -> Path:
        return self._directory / f"{SIDECAR}.log"

    @property
    def _sidecar_port(self) -> int:
        for container in self._containers:
            for entry in container.spec.get("env", ()):
                if entry["name"] == "SEI_SIDECAR_PORT" and entry.get("value", "").isdigit():
                    return int(entry["value"])
        return DEFAULT_SIDECAR_PORT

    def _container(self, name: str) -> Container | None:
        return next((c for c in self._containers if c.name == name), None)

    def delete(self, grace_seconds: float) -> None:
        """Asks for the end; calling it again may only shorten the grace."""
        self._grace = min(self._grace, grace_seconds) if self._deleting.is_set() else grace_seconds
        self._deleting.set()

    async def run(self) -> None:
        work = asyncio.create_task(self._live())
        writer = asyncio.create_task(self._write_statuses())
        ending = asyncio.create_task(self._deleting.wait())
        try:
            await asyncio.wait((work, ending), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                await ending
        finally:
            for task in (work, ending):
                task.cancel()
            await asyncio.gather(work, ending, return_exceptions=True)
            await self._stop_all()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await self._remove_object()
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _live(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._changed.set()
        volumes = await self._until_there(self._make_volumes)
        init = self._container(SEID_INIT)
        if init is not None:
            init.terminated(0, "Completed")
        async with asyncio.TaskGroup() as group:
            sidecar = self._container(SIDECAR)
            kept = group.create_task(self._keep_sidecar(sidecar, volumes)) if sidecar is not None else None
            await self._start_proxy(volumes)
            for container in self._containers:
                if container.name not in (SEID_INIT, SIDECAR, PROXY, SEID):
                    container.running(ready=True)
            self._set_phase("Running")
            await self._follow_readiness()
            # Only a Job's Pod comes here: its seid is done, and then its sidecar is ended too.
            if kept is not None:
                kept.cancel()
        self._set_phase("Succeeded")

    async def _make_volumes(self) -> Volumes:
        return await rendering.make_volumes(
            self._host.client, self._pod, pod_dir=self._directory, claims_dir=self._host.root / "claims"
        )

    async def _until_there(self, make: Callable[[], Any]) -> Any:
        """What a Pod refers to may come later; until then its containers wait, and say for what."""
        while True:
            try:
                return await make()
            except NotYetError as error:
                for container in self._containers:
                    if "waiting" in container.state:
                        container.waiting("CreateContainerConfigError", str(error))
                self._changed.set()
            except ApiError as error:
                self._host.say(f"{self.name}: {error}")
            await asyncio.sleep(RETRY_EVERY)

    # The sidecar

    async def _keep_sidecar(self, container: Container, volumes: Volumes) -> None:
        translate = volumes.translator(container.spec)
        own: dict[str, str] = await self._until_there(
            lambda: rendering.environment(self._host.client, self._pod, container.spec, translate)
        )
        command = [translate(part) for part in (*container.spec.get("command", ()), *container.spec.get("args", ()))]
        environment = self._environment(own, translate)
        while True:
            code = await self._run_once(container, command, environment)
            container.terminated(code, "Completed" if code == 0 else "Error")
            container.last_state = container.state
            pause = (
                min(self._host.back_off * 2 ** (container.restarts - 1), LONGEST_BACK_OFF) if container.restarts else 0
            )
            if pause:
                container.waiting("CrashLoopBackOff", f"back-off {pause:g}s restarting failed container={SIDECAR}")
            self._changed.set()
            await asyncio.sleep(pause)
            container.restarts += 1

    def _environment(self, own: dict[str, str], translate: rendering.Translator) -> dict[str, str]:
        """The container's variables over those of the machine that a process cannot do without."""
        temporary = translate("/tmp")
        base = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "LANG": "C.UTF-8",
            "TMPDIR": temporary if temporary != "/tmp" else str(self._directory),
            "HOSTNAME": self.name,
            "SEIOPS_RESOLVE_FILE": str(self._host.resolve_file),
            # One machine has many Pods: each listens on, and talks to the seid of, its own address.
            "SEI_SIDECAR_BIND_HOST": self.address,
            "SEI_SIDECAR_RPC_URL": f"http://{self.address}:{COMET_PORT}",
            "SEI_SIDECAR_EVM_RPC_URL": f"http://{self.address}:{EVM_PORT}",
        }
        return {**base, **self._host.env, **own}

    async def _run_once(self, container: Container, command: list[str], environment: dict[str, str]) -> int:
        """One life of the process; returns its exit status (128 + n for a signal, as a kubelet shows it)."""
        with self.log.open("ab") as log:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env=environment,
                    cwd=self._directory,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{command[0]}: {error.strerror}\n".encode())
                return 127
        self._process = process
        processes.the_guard().watch(process.pid)
        container.running(ready=True)
        self._changed.set()
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            await self._end(process)
            container.terminated(0, "Completed")
            raise
        finally:
            processes.the_guard().forget(process.pid)
            self._process = None
        return code if code >= 0 else 128 - code

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        signal_group(process.pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), self._grace)
        except TimeoutError:
            signal_group(process.pid, signal.SIGKILL)
            await process.wait()

    @property
    def sidecar_pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    # The other containers

    async def _start_proxy(self, volumes: Volumes) -> None:
        container = self._container(PROXY)
        if container is None:
            return
        arguments: list[str] = container.spec.get("args", [])
        translate = volumes.translator(container.spec)
        config = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config-file=")]
        attributes = proxy.resource_attributes(Path(translate(config[0]))) if config else None
        self._proxy = proxy.RbacProxy(
            self._host.client,
            host=self.address,
            upstream=f"http://{self.address}:{self._sidecar_port}",
            arguments=arguments,
            attributes=attributes,
        )
        await self._proxy.start()
        container.running(ready=False)

    async def _follow_readiness(self) -> None:
        """The readiness probe, and the gate in front of seid: it starts at the sidecar's first yes and then stays."""
        url = f"http://{self.address}:{self._sidecar_port}/v0/healthz"
        guarded = self._container(PROXY)
        async with aiohttp.ClientSession(timeout=HEALTH_DEADLINE) as session:
            while True:
                ready = await _says_ok(session, url)
                if guarded is not None and guarded.ready != ready:
                    guarded.ready = ready
                    self._changed.set()
                if ready and self._chain is None and await self._start_seid():
                    return
                await asyncio.sleep(READINESS_EVERY)

    async def _start_seid(self) -> bool:
        """True when the Pod is a Job's, whose seid stops at its halt height and so is done."""
        container = self._container(SEID)
        if container is None:
            return False
        if self._pod["spec"].get("restartPolicy") == "Never":
            self._finish_main_containers()
            return True
        self._chain = self._host.seid(self.address)
        await self._chain.start()
        container.running(ready=True)
        self._changed.set()
        return False

    def _finish_main_containers(self) -> None:
        for container in self._containers:
            if not container.is_init:
                container.terminated(0, "Completed")

    async def _stop_all(self) -> None:
        if self._proxy is not None:
            await self._proxy.stop()
        if self._chain is not None:
            await self._chain.stop()
        self._proxy = self._chain = None

    # What the API server is told

    def _set_phase(self, phase: str) -> None:
        self._phase = phase
        self._changed.set()

    def status(self) -> Obj:
        initialized = all(c.ready for c in self._containers if c.is_init and c.name == SEID_INIT)
        regular = [c for c in self._containers if not c.is_init or c.name != SEID_INIT]
        ready = self._phase == "Running" and all(c.ready for c in regular)
        conditions = {"PodScheduled": True, "Initialized": initialized, "ContainersReady": ready, "Ready": ready}
        return {
            "phase": self._phase,
            "startTime": self._started_at,
            "hostIP": "127.0.0.1",
            "hostIPs": [{"ip": "127.0.0.1"}],
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "conditions": [{"type": name, "status": str(value)} for name, value in conditions.items()],
            "initContainerStatuses": [c.status() for c in self._containers if c.is_init],
            "containerStatuses": [c.status() for c in self._containers if not c.is_init],
        }

    async def _write_statuses(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._host.client.patch(
                    PODS,
                    self.name,
                    self.namespace,
                    {"metadata": {"uid": self.uid}, "status": self.status()},
                    field_manager=FIELD_MANAGER,
                    subresource="status",
                )
            except ApiError as error:
                if error.not_found or error.conflict:
                    self.delete(0)
                    return
                self._host.say(f"{self.name}: status: {error}")
                await asyncio.sleep(RETRY_EVERY)
                self._changed.set()

    async def _remove_object(self) -> None:
        while True:
            try:
                await self._host.client.delete(PODS, self.name, self.namespace, uid=self.uid, grace_seconds=0)
                return
            except ApiError as error:
                if error.not_found or error.conflict:
                    return
                self._host.say(f"{self.name}: delete: {error}")
                await asyncio.sleep(RETRY_EVERY)


async def _says_ok(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with session.get(url) as answer:
            return bool(answer.status == 200)
    return False


def free_address(sidecar_port: int) -> str:
    """A loopback address on which all ports of a Pod are free."""
    for _ in range(100):
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        if all(processes.port_is_free(port, address) for port in (sidecar_port, proxy.PORT, COMET_PORT, EVM_PORT)):
            return address
    raise processes.ToolError(
        f"no loopback address has the ports {sidecar_port}, {proxy.PORT}, {COMET_PORT} and {EVM_PORT} free: "
        "stop what listens on them on all addresses"
    )
