"""A controller in this process over one namespace of the real API server, with stand-ins for Pods and sidecars.

The stand-ins are those of the replay harness; intervals are scaled so that a poll takes tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from replay.kubeapi import ApiError as StandInError
from replay.kubeapi import KubeApi
from replay.kubelet import Kubelet
from replay.sidecar_server import SidecarServer
from seidev.cluster import Access
from seiops.controller import process as process_module
from seiops.controller.kinds import SEI_NODES
from seiops.controller.process import Process
from seiops.controller.settings import load_environment, parse_flags
from seiops.kube import ApiError, KubeClient, Obj, Resource, from_kubeconfig
from seiops.kube.client.resource import EVENTS

SCALE = 0.02
IMAGE = "registry.example/seid:v1"
USER = "test-user"
CHAIN = "gold-1"

CONFIG: dict[str, Any] = {
    "stateSync": {"syncers": {CHAIN: ["sync-a.example:26657", "sync-b.example:26657"]}},
    "scheduling": {
        "nodepoolName": "pool",
        "nodepoolArchive": "archives",
        "nodepoolValidator": "validators",
        "nodepoolSeed": "seeds",
        "tolerationKey": "sei.io/workload",
        "serviceAccount": "seid-node",
    },
    "storage": {
        "classPerf": "perf",
        "classDefault": "std",
        "classArchive": "arch",
        "sizeDefault": "2000Gi",
        "sizeArchive": "40000Gi",
    },
    "snapshot": {"bucket": "snapshots", "region": "eu-central-1"},
    "genesis": {"bucket": "genesis", "region": "us-east-2"},
    "images": {
        "sidecar": "registry.example/seictl:v1",
        "kubeRBACProxy": "registry.example/kube-rbac-proxy:v1",
        "cosmosExporter": "registry.example/cosmos-exporter:v1",
    },
}


class CountingClient(KubeClient):
    """The controller's client, remembering what it asked for."""

    made: list[tuple[str, str]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.made = []
        LATEST.append(self)

    async def request(self, method: str, path: str, **options: Any) -> Obj:
        self.made.append((method, path))
        return await super().request(method, path, **options)


LATEST: list[CountingClient] = []
_numbers = itertools.count(1)


@dataclass
class Controlled:
    """What a test drives: the API as a user, the sidecars, the config file, and the controller itself."""

    client: KubeClient
    namespace: str
    sidecars: SidecarServer
    config_file: Path
    settings: dict[str, Any]
    access: Access
    names_file: Path
    token_file: Path
    scale: float = SCALE
    history: list[Obj] = field(default_factory=list)
    _running: asyncio.Task[int] | None = None
    _process: Process | None = None

    # The controller

    def start(self) -> None:
        environment = load_environment(
            {
                "SEI_CONTROLLER_CONFIG": str(self.config_file),
                "SEIOPS_RESOLVE_FILE": str(self.names_file),
                "SEIOPS_TOKEN_FILE": str(self.token_file),
                "SEIOPS_INTERVAL_SCALE": str(self.scale),
            }
        )
        flags = parse_flags(
            [
                "--metrics-bind-address=0",
                "--health-probe-bind-address=0",
                "--leader-elect=false",
                f"--namespaces={self.namespace}",
                "--workers=16",
            ]
        )
        self._process = Process(flags, environment, from_kubeconfig(self.access.kubeconfig()))
        self._running = asyncio.create_task(self._process.run())

    async def stop(self) -> None:
        if self._process is not None and self._running is not None:
            self._process.stop()
            await asyncio.wait_for(self._running, 60)
        self._process = self._running = None

    def requests_about(self, *names: str) -> list[tuple[str, str]]:
        """Requests of the running controller whose path ends in one of the names or concerns its parts; lists left out."""
        return [made for made in LATEST[-1].made if any(name in made[1] for name in names)]

    # The config file

    def configure(self, **sections: Any) -> None:
        self.settings = {**self.settings, **sections}
        temporary = self.config_file.with_suffix(".new")
        temporary.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
        temporary.replace(self.config_file)

    # The API as a user

    async def create_node(self, name: str = "n0", mode: dict[str, Any] | None = None, **spec: Any) -> Obj:
        body = {
            "apiVersion": SEI_NODES.api_version,
            "kind": SEI_NODES.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"chainId": CHAIN, "image": IMAGE, **(mode if mode is not None else {"fullNode": {}}), **spec},
        }
        return await self.client.create(SEI_NODES, body, field_manager=USER)

    async def patch_node(self, name: str = "n0", **spec: Any) -> Obj:
        return await self.client.patch(SEI_NODES, name, self.namespace, {"spec": spec}, field_manager=USER)

    async def delete_node(self, name: str = "n0") -> None:
        await self.client.delete(SEI_NODES, name, self.namespace)

    async def find(self, resource: Resource, name: str) -> Obj | None:
        try:
            return await self.client.get(resource, name, self.namespace)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def node(self, name: str = "n0") -> Obj:
        return await self.client.get(SEI_NODES, name, self.namespace)

    async def until(self, condition: Callable[[Obj], object], name: str = "n0", seconds: float = 60.0) -> Obj:
        """The node once the condition holds for it; it always has a `status` here."""
        found: Obj = {}
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = {"status": {}, **await self.node(name)}
                    if condition(found):
                        return found
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"not so after {seconds:.0f} s: {found.get('status')}") from None

    async def until_live(self, resource: Resource, name: str, condition: Callable[[Obj], object]) -> Obj:
        """An object that is there and for which the condition holds."""
        async with asyncio.timeout(60):
            while True:
                found = await self.find(resource, name)
                if found is not None and condition(found):
                    return found
                await asyncio.sleep(0.03)

    async def until_absent(self, resource: Resource, name: str, seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while True:
                if await self.find(resource, name) is None:
                    return
                await asyncio.sleep(0.03)

    async def until_there(self, resource: Resource, name: str) -> Obj:
        return await self.until_live(resource, name, lambda _: True)

    async def steady(self, name: str = "n0") -> Obj:
        return await self.until(is_steady, name)

    async def events(self, reason: str, name: str = "n0") -> int:
        """How often an Event of that reason was raised about the node."""
        listing = await self.client.list(EVENTS, self.namespace)
        return sum(
            event.get("count", 1)
            for event in listing.items
            if event["reason"] == reason and event["involvedObject"]["name"] == name
        )

    async def until_event(self, reason: str, count: int = 1, name: str = "n0") -> None:
        async with asyncio.timeout(60):
            while True:
                if await self.events(reason, name) >= count:
                    return
                await asyncio.sleep(0.05)

    # Sidecars

    def rule(self, name: str = "n0", **rule: Any) -> None:
        self.sidecars.add_rule(self.namespace, name, rule)

    def posts(self, task_type: str, name: str = "n0") -> int:
        """How often a task of the type was posted to the node's sidecar."""
        text = f'"type":"{task_type}"'.encode()
        seen = self.sidecars.requests_of(self.namespace)
        return sum(r.node == name and r.method == "POST" and text in r.raw for r in seen)

    def asked(self, path: str, name: str = "n0") -> int:
        seen = self.sidecars.requests_of(self.namespace)
        return sum(r.node == name and r.method == "GET" and r.path.startswith(path) for r in seen)


def is_steady(node: Obj) -> bool:
    status = node.get("status") or {}
    return status.get("phase") == "Running" and "plan" not in status and bool(status.get("currentImage"))


def condition_of(node: Obj, kind: str) -> dict[str, Any]:
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            return dict(condition)
    return {}


def task_of(node: Obj, kind: str) -> dict[str, Any]:
    plan = (node.get("status") or {}).get("plan") or {}
    for task in plan.get("tasks") or ():
        if task["type"] == kind:
            return dict(task)
    return {}


@contextlib.asynccontextmanager
async def controlled(access: Access, namespace: str, directory: Path, monkeypatch: Any) -> AsyncIterator[Controlled]:
    """Stand-ins and config file ready, controller not started yet."""
    monkeypatch.setattr(process_module, "KubeClient", CountingClient)
    names = directory / "names.json"
    config = directory / "config" / "config.yaml"
    config.parent.mkdir()
    token = directory / "token"
    token.write_text("ctltoken", encoding="utf-8")
    block = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}"
    sidecars = SidecarServer(f"{block}.54", f"{block}.55", names)
    async with (
        KubeClient(from_kubeconfig(access.kubeconfig())) as client,
        KubeApi(access.url, access.token(), access.ssl_context()) as api,
    ):
        await sidecars.start()
        kubelet = Kubelet(api, sidecars, lambda _, name: last.get(name), SCALE)
        with contextlib.suppress(StandInError):
            await kubelet.start()
        last: dict[str, Obj] = {}
        world = Controlled(client, namespace, sidecars, config, dict(CONFIG), access, names, token)

        def on_pod(event: str, pod: Obj) -> None:
            if pod["metadata"]["namespace"] == namespace:
                kubelet.on_pod(event, pod)

        def on_node(event: str, node: Obj) -> None:
            if node["metadata"]["namespace"] == namespace:
                last[node["metadata"]["name"]] = node
                world.history.append({"event": event, **node})

        watches = [
            asyncio.create_task(api.watch("Pod", on_pod, asyncio.Event())),
            asyncio.create_task(api.watch("SeiNode", on_node, asyncio.Event())),
        ]
        world.configure()
        try:
            yield world
        finally:
            await world.stop()
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            await _release(client, namespace)
            await kubelet.stop()
            await sidecars.stop()


async def _release(client: KubeClient, namespace: str) -> None:
    """Finalizers off, so that the namespace can go."""
    for node in (await client.list(SEI_NODES, namespace)).items:
        with contextlib.suppress(ApiError):
            patch = {"metadata": {"finalizers": None}}
            await client.patch(SEI_NODES, node["metadata"]["name"], namespace, patch, field_manager=USER)
