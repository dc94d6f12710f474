"""One independent set-up: API server with its controllers, the stand-ins, and our controller as a process beside them."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import shutil
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from replay.context import ReplayContext
from replay.ec2_server import Ec2Server
from replay.kubeapi import KINDS, STANDIN, ApiError, KubeApi
from replay.kubelet import Kubelet
from replay.recorder import Recorder
from replay.sidecar_server import PORT, SidecarServer
from seidev import processes
from seidev.cluster import Cluster, Identity
from support import deployed
from support.deployed import CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE

TOKEN = "ctltoken"
"""The recordings show this text in the Authorization header of each sidecar request."""
RECORDED_CONFIG = "/etc/sei-controller/config.yaml"
RECORDED_ADDRESS, RECORDED_REFUSING, RECORDED_DNS = "127.0.0.54", "127.0.0.55", "127.0.0.54:53"
CONTROLLER_IDENTITY = "replay-controller"
OWN_CONFIG = Path(__file__).resolve().parents[1] / "data" / "replay" / "controller-config.yaml"
CANARY = "replay-canary"
TEMPLATE_NAMESPACE = "replay-case-namespace"
READY_SECONDS = 60.0
END_SECONDS = 40.0


class HarnessError(Exception):
    """The set-up itself failed; nothing was learned about our programs."""


class Lane:
    def __init__(self, context: ReplayContext, name: str, scale: float) -> None:
        self.context = context
        self.scale = scale
        self.directory = context.scratch / name
        self.config_dir = self.directory / "sei-controller"
        self.config_file = self.config_dir / "config.yaml"
        self.resolve_file = self.directory / "names.json"
        self.token_file = self.directory / "token"
        self.ec2 = Ec2Server()
        user = f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}"
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{CONTROLLER_NAMESPACE}", "system:authenticated")
        self.cluster = Cluster(
            directory=self.directory / "cluster", identities=[Identity(CONTROLLER_IDENTITY, user, groups, TOKEN)]
        )
        self._numbers = itertools.count(1)
        self._namespace_template: list[dict[str, Any]] = []
        self.api: KubeApi
        self.recorder: Recorder
        self.sidecars: SidecarServer
        self.kubelet: Kubelet

    async def start(self) -> None:
        self.config_dir.mkdir(parents=True)
        self.token_file.write_text(TOKEN, encoding="utf-8")
        self.set_config(self.base_config())
        await asyncio.to_thread(self.cluster.start)
        access = self.cluster.access
        await asyncio.to_thread(self._install)
        self.api = await KubeApi(access.url, access.token("admin"), access.ssl_context()).__aenter__()
        address, refusing = _free_addresses()
        self.sidecars = SidecarServer(address, refusing, self.resolve_file, self.scale)
        await self.sidecars.start()
        await self.ec2.start()
        self.recorder = Recorder(self.api)
        self.kubelet = Kubelet(
            self.api, self.sidecars, lambda namespace, name: self.recorder.live("SeiNode", namespace, name), self.scale
        )
        self.recorder.listen("Pod", self.kubelet.on_pod)
        await self.kubelet.start()
        await self.recorder.start()

    async def stop(self) -> None:
        if hasattr(self, "recorder"):
            await self.recorder.stop()
        if hasattr(self, "kubelet"):
            await self.kubelet.stop()
        if hasattr(self, "sidecars"):
            await self.sidecars.stop()
        await self.ec2.stop()
        if hasattr(self, "api"):
            await self.api.__aexit__()
        await asyncio.to_thread(self.cluster.stop)

    def _install(self) -> None:
        """The deployment as a user applies it: CRDs, the controller's ServiceAccount and its cluster-wide reads."""
        access = self.cluster.access
        access.install_crds()
        self.cluster.restart_controllers()
        access.kubectl("apply", "--server-side", "-k", deployed.DEPLOY / "default")
        text = deployed.node_namespace(access.kubectl_program, TEMPLATE_NAMESPACE)
        self._namespace_template = deployed.objects(text)

    def beside(self, name: str) -> Lane:
        """The same API server and stand-ins with a configuration directory of its own."""
        lane = Lane.__new__(Lane)
        lane.__dict__.update(self.__dict__)
        lane.directory = self.directory / name
        lane.config_dir = lane.directory / "sei-controller"
        lane.config_file = lane.config_dir / "config.yaml"
        lane.config_dir.mkdir(parents=True)
        return lane

    # The configuration is a directory in which the whole file is replaced

    def base_config(self) -> str:
        """The recordings' own, or ours of the same content where a folder of cases comes without."""
        recorded = self.context.golden / "objects" / "controller-config.yaml"
        return (recorded if recorded.is_file() else OWN_CONFIG).read_text(encoding="utf-8")

    def set_config(self, content: str) -> None:
        if self.config_file.is_dir():
            self.remove_config()
        temporary = self.config_dir / ".config.yaml.new"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(self.config_file)

    def remove_config(self) -> None:
        if self.config_file.is_dir():
            shutil.rmtree(self.config_file)
        else:
            self.config_file.unlink(missing_ok=True)

    def config_directory(self) -> None:
        self.remove_config()
        self.config_file.mkdir()

    def recorded_text(self, text: str) -> str:
        """Our paths and addresses as the recordings name theirs."""
        text = text.replace(str(self.config_file), RECORDED_CONFIG)
        text = text.replace(f"{self.sidecars.refusing_address}:{PORT}", f"{RECORDED_REFUSING}:{PORT}")
        return text.replace(f"{self.sidecars.address}:{PORT}", f"{RECORDED_ADDRESS}:{PORT}")

    # Namespaces of cases

    async def open_namespace(self, name: str) -> None:
        """A namespace that may host SeiNodes: `deploy/node-namespace` gives the controller its rights there."""
        if name == "default":
            return
        documents = json.loads(json.dumps(self._namespace_template).replace(TEMPLATE_NAMESPACE, name))
        for document in documents:
            kind = KINDS[document["kind"]]
            await self.api.create(document, name if kind.namespaced else None, manager=STANDIN)

    async def controller_works(self) -> None:
        """Until the controller does its work: it has the lease and its caches, and cares for a new node. Cases begin with
        one that runs; `/readyz` answers long before."""
        name = f"{CANARY}-{next(self._numbers)}"
        await self.open_namespace(name)
        # Blocked by the gate: it gets its finalizer and nothing else.
        spec = {"chainId": CANARY, "image": CANARY, "fullNode": {"snapshot": {"stateSync": {}}}}
        node = {"apiVersion": "sei.io/v1alpha1", "kind": "SeiNode", "metadata": {"name": CANARY}, "spec": spec}
        await self.api.create(node, name, manager=STANDIN)
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while not (self.recorder.live("SeiNode", name, CANARY) or {"metadata": {}})["metadata"].get("finalizers"):
            if asyncio.get_running_loop().time() > deadline:
                raise HarnessError(f"the controller cared for no node in {READY_SECONDS:.0f} s")
            await self.recorder.changed(name, 1.0)
        await self.close_namespace(name)

    async def close_namespace(self, name: str) -> None:
        """Take away what a case left, so that the controller and the stand-ins have no more work with it."""
        for node in self.recorder.living(name, "SeiNode"):
            await self._force_away(name, node["metadata"]["name"])
        while self.recorder.living(name, "SeiNode"):
            await self.recorder.changed(name, 1.0)
        if name != "default":
            await self.api.delete("Namespace", None, name)
        self.sidecars.forget(name)
        self.kubelet.forget(name)
        self.recorder.forget(name)

    async def _force_away(self, namespace: str, name: str) -> None:
        for attempt in range(10):
            try:
                await self.api.delete("SeiNode", namespace, name)
                await self.api.merge_patch(
                    "SeiNode", namespace, name, {"metadata": {"finalizers": None}}, manager=STANDIN
                )
                return
            except ApiError as failure:
                if failure.status == 404:
                    return
                if failure.status not in (409, 422) or attempt == 9:
                    raise


class ControllerProcess:
    """Our controller, started as a user starts it. Output goes to `log`."""

    def __init__(self, lane: Lane, log: Path, arguments: Sequence[str] = ("--leader-elect",)) -> None:
        self._lane = lane
        self._arguments = list(arguments)
        self._process: asyncio.subprocess.Process | None = None
        self.log = log
        self.health_port = 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.returncode

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    async def start(
        self,
        *,
        environment: dict[str, str | None] | None = None,
        arguments: Sequence[str] = (),
        listen: bool = True,
    ) -> None:
        """`environment` is changes to the usual one, null = not set; `listen=False` starts without metrics and health."""
        if self.running:
            raise HarnessError("the controller is started while one runs")
        self.health_port = processes.free_port()
        metrics = f"127.0.0.1:{processes.free_port()}" if listen else "0"
        health = f"127.0.0.1:{self.health_port}" if listen else "0"
        command = [
            self._lane.context.python,
            "-m",
            "seiops.controller",
            f"--kubeconfig={self._lane.cluster.access.kubeconfig(CONTROLLER_IDENTITY, CONTROLLER_NAMESPACE)}",
            f"--metrics-bind-address={metrics}",
            f"--health-probe-bind-address={health}",
            *self._arguments,
            *arguments,
        ]
        values = {**self._environment(), **(environment or {})}
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env={name: value for name, value in values.items() if value is not None},
                stdout=output,
                stderr=output,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=self._lane.directory,
            )
        processes.the_guard().watch(self._process.pid)

    def _environment(self) -> dict[str, str | None]:
        lane = self._lane
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV") if name in os.environ
        }
        return {
            **kept,
            "PYTHONPATH": str(lane.context.root / "src"),
            "SEI_CONTROLLER_CONFIG": str(lane.config_file),
            "SEI_GATEWAY_NAME": "gw",
            "SEI_GATEWAY_NAMESPACE": "gw-ns",
            "SEI_GATEWAY_DOMAIN": "gw.example",
            "POD_NAMESPACE": CONTROLLER_NAMESPACE,
            "AWS_ACCESS_KEY_ID": "replay",
            "AWS_SECRET_ACCESS_KEY": "replay",
            "AWS_REGION": "eu-central-1",
            "AWS_ENDPOINT_URL_EC2": lane.ec2.url,
            "AWS_ENDPOINT_URL": lane.ec2.url,
            "SEIOPS_RESOLVE_FILE": str(lane.resolve_file),
            "SEIOPS_TOKEN_FILE": str(lane.token_file),
            "SEIOPS_INTERVAL_SCALE": str(lane.scale),
        }

    async def wait_ready(self) -> None:
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                if not self.running:
                    raise HarnessError(f"the controller ended with {self.exit_code}: {self._last_words()}")
                try:
                    async with session.get(f"http://127.0.0.1:{self.health_port}/readyz") as answer:
                        if answer.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                if asyncio.get_running_loop().time() > deadline:
                    raise HarnessError(
                        f"the controller was not ready after {READY_SECONDS:.0f} s: {self._last_words()}"
                    )
                await asyncio.sleep(0.1)

    def _last_words(self) -> str:
        return " | ".join(self.output().strip().splitlines()[-3:])[-600:]

    async def end(self, number: signal.Signals) -> bool:
        """Send a signal and wait; False if the process had not ended after 40 s (it is killed then)."""
        if not self.running:
            return True
        assert self._process is not None
        self._process.send_signal(number)
        try:
            await asyncio.wait_for(self._process.wait(), END_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            return False
        finally:
            processes.the_guard().forget(self._process.pid)
        return True

    async def kill(self) -> None:
        """Gone at once; nothing if it does not run."""
        await self.end(signal.SIGKILL)

    async def release(self) -> None:
        """End it so that the next process need not wait for its lease."""
        await self.end(signal.SIGTERM)

    async def wait_end(self, seconds: float) -> int | None:
        """The exit code, or None if it still runs after that time."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            return None


def _free_addresses() -> tuple[str, str]:
    """Two loopback addresses of which the first can be listened on at the sidecars' port and the second has nobody."""
    numbers = random.Random()
    for _ in range(200):
        block = f"127.{numbers.randint(64, 250)}.{numbers.randint(1, 250)}"
        if all(_port_is_free(f"{block}.{last}") for last in (54, 55)):
            return f"{block}.54", f"{block}.55"
    raise HarnessError(f"no loopback address has port {PORT} free")


def _port_is_free(address: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, PORT))
        except OSError:
            return False
        return True


def describe(item: dict[str, Any] | None) -> str:
    """Where an object stands, for a wait that ran out."""
    if item is None:
        return "it does not exist"
    status = item.get("status") or {}
    plan = status.get("plan") or {}
    tasks = [
        f"{task['type']}={task['status']}" + (f" ({task['error']})" if task.get("error") else "")
        for task in plan.get("tasks", [])
        if task["status"] != "Complete"
    ]
    conditions = [f"{c['type']}={c['status']}/{c['reason']}" for c in status.get("conditions", [])]
    where = f"phase {status.get('phase', '')!r}, {', '.join(conditions) or 'no conditions'}"
    return f"{where}, plan {plan.get('phase', 'none')} {', '.join(tasks[:3])}".strip()
