"""Measures the controller on a fleet as issue 4 "Scale" asks: real API server, every sidecar in one process beside it.

    python bench/fleet.py [--nodes 1000] [--idle 120] [--json FILE] [--profile FILE] [--skip STAGE]...

Stages: create to settled, idle, one image roll, single edits, a syncer edit that unblocks half as many nodes again, 50
nodes behind sidecars that answer in 100 ms, 50 nodes beside a hung one, label peers among 50. Beside it the writes of the
first stage made bare (ruling 17). Needs the development environment (PYTHONPATH=tools:tests:src). Nothing is asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml
from fleet_table import table
from rich.console import Console

from seidev.cluster import CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE, Cluster
from seidev.processes import free_port
from seiops.api.node import SeiNode
from seiops.controller.appconfig import AppConfig, decode
from seiops.controller.kinds import SEI_NODES
from seiops.controller.resources import data_pvc, proxy_config, service, statefulset
from seiops.kube import KubeClient, Obj, from_kubeconfig
from seiops.kube.client.resource import (
    CONFIG_MAPS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
)
from support import deployed

HERE = Path(__file__).parent
FLEET, BARE = "fleet", "bare"
CHAIN, LATE_CHAIN = "bench-1", "late-1"
USER = "bench"
SIDE_NODES = 50
SINGLE_EDITS = 40
STAGE_DEADLINE = 900.0
CREATORS = 16
CONFIG: dict[str, Any] = {
    "stateSync": {"syncers": {CHAIN: ["a.example:26657", "b.example:26657"]}},
    "scheduling": {
        **dict.fromkeys(("nodepoolName", "nodepoolArchive", "nodepoolValidator", "nodepoolSeed"), "pool"),
        "tolerationKey": "sei.io/workload",
        "serviceAccount": "seid-node",
    },
    "storage": {
        **dict.fromkeys(("classPerf", "classDefault", "classArchive"), "std"),
        "sizeDefault": "1Gi",
        "sizeArchive": "1Gi",
    },
    "snapshot": {"bucket": "b", "region": "r"},
    "genesis": {"bucket": "b", "region": "r"},
    "images": {"sidecar": "sidecar:1", "kubeRBACProxy": "proxy:1", "cosmosExporter": "exporter:1"},
}

log = Console(stderr=True)


def sample(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int, what: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def quantiles(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {"p50": seconds[0] if seconds else 0.0, "p99": seconds[0] if seconds else 0.0}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


@dataclass
class Watched:
    """The fleet as a watch tells it: the last object of each node and when what we wait for was first seen."""

    last: dict[str, Obj] = field(default_factory=dict)
    first_status: dict[str, float] = field(default_factory=dict)
    first_plan: dict[str, float] = field(default_factory=dict)
    update_seen: dict[str, float] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    failed: str = ""
    """Why nothing more can be waited for."""

    def take(self, raw: Obj) -> None:
        name, now = raw["metadata"]["name"], time.perf_counter()
        self.last[name] = raw
        status = raw.get("status") or {}
        if status.get("conditions"):
            self.first_status.setdefault(name, now)
        if status.get("plan"):
            self.first_plan.setdefault(name, now)
            if any(task["type"] == "observe-image" for task in status["plan"]["tasks"]):
                self.update_seen.setdefault(name, now)
        self.changed.set()

    async def until(self, names: list[str], condition: Callable[[Obj], object]) -> None:
        left = set(names)
        async with asyncio.timeout(STAGE_DEADLINE):
            while True:
                left = {name for name in left if name not in self.last or not condition(self.last[name])}
                if not left:
                    return
                if self.failed:
                    raise RuntimeError(f"{self.failed}; {len(left)} nodes were waited for")
                self.changed.clear()
                await self.changed.wait()
                await asyncio.sleep(0.05)


def settled(raw: Obj) -> bool:
    status = raw.get("status") or {}
    return (
        status.get("phase") == "Running" and "plan" not in status and status.get("currentImage") == raw["spec"]["image"]
    )


@dataclass
class Bench:
    cluster: Cluster
    client: KubeClient
    directory: Path
    config_file: Path
    names_file: Path
    address: str
    watched: Watched = field(default_factory=Watched)
    controller: asyncio.subprocess.Process | None = None
    names: dict[str, str] = field(default_factory=dict)
    audit_at: int = 0

    # The controller

    async def start_controller(self, profile: str, flags: list[str]) -> None:
        program = [sys.executable]
        if profile:
            program += ["-m", "cProfile", "-o", profile]
        self.token = self.directory / "token"
        self.token.write_text("bench-token")
        metrics, health = free_port(), free_port()
        self.controller = await asyncio.create_subprocess_exec(
            *program,
            "-m",
            "seiops.controller",
            f"--kubeconfig={self.cluster.access.kubeconfig('controller', CONTROLLER_NAMESPACE)}",
            f"--metrics-bind-address=127.0.0.1:{metrics}",
            f"--health-probe-bind-address=127.0.0.1:{health}",
            f"--namespaces={FLEET}",
            # On a loaded machine a lease can be lost, which ends the process; requests about it are not counted anyway.
            "--leader-elect=false",
            *flags,
            env={
                **os.environ,
                "SEI_CONTROLLER_CONFIG": str(self.config_file),
                "SEIOPS_RESOLVE_FILE": str(self.names_file),
                "SEIOPS_TOKEN_FILE": str(self.token),
                "POD_NAMESPACE": CONTROLLER_NAMESPACE,
            },
            stdout=(self.directory / "controller.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        async with aiohttp.ClientSession() as session:
            while True:
                if self.controller.returncode is not None:
                    raise RuntimeError((self.directory / "controller.log").read_text()[-2000:])
                try:
                    async with session.get(f"http://127.0.0.1:{health}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)

    @property
    def pid(self) -> int:
        assert self.controller is not None
        return self.controller.pid

    async def stop_controller(self) -> None:
        if self.controller is not None and self.controller.returncode is None:
            self.controller.send_signal(signal.SIGTERM)
            await self.controller.wait()

    # The fleet

    def publish(self, names: list[str]) -> None:
        for name in names:
            self.names[f"{name}-0.{name}.{FLEET}.svc.cluster.local"] = self.address
        temporary = self.names_file.with_suffix(".new")
        temporary.write_bytes(orjson.dumps(self.names))
        temporary.replace(self.names_file)

    def configure(self, **sections: Any) -> None:
        temporary = self.config_file.with_suffix(".new")
        temporary.write_text(yaml.safe_dump({**CONFIG, **sections}))
        temporary.replace(self.config_file)

    async def create(self, names: list[str], **spec: Any) -> dict[str, float]:
        """When each was created."""
        self.publish(names)
        moments: dict[str, float] = {}
        waiting = iter(names)

        async def work() -> None:
            for name in waiting:
                moments[name] = time.perf_counter()
                await self.client.create(SEI_NODES, manifest(name, FLEET, **spec), field_manager=USER)

        await asyncio.gather(*(work() for _ in range(CREATORS)))
        return moments

    async def notice_end(self) -> None:
        assert self.controller is not None
        status = await self.controller.wait()
        last = (self.directory / "controller.log").read_text().strip().splitlines()[-1:]
        self.watched.failed = f"the controller ended with {status}: {last}"
        self.watched.changed.set()

    async def follow(self) -> None:
        listing = await self.client.list(SEI_NODES, FLEET)
        version = listing.resource_version
        while True:
            async for event in self.client.watch(SEI_NODES, FLEET, resource_version=version):
                version = event.object["metadata"]["resourceVersion"]
                if event.type != "BOOKMARK":
                    self.watched.take(event.object)

    # What it cost

    def requests(self) -> Counter[str]:
        """`verb resource` of the controller's requests since the last call, lease and watches left out."""
        with self.cluster.audit_log.open("rb") as file:
            file.seek(self.audit_at)
            content = file.read()
        end = content.rfind(b"\n") + 1
        self.audit_at += end
        found: Counter[str] = Counter()
        for line in content[:end].splitlines():
            entry = orjson.loads(line)
            about = entry.get("objectRef") or {}
            if entry["verb"] == "watch" or about.get("resource") == "leases":
                continue
            resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
            found[f"{entry['verb']} {resource}"] += 1
        return found

    async def audited(self) -> Counter[str]:
        """The audit log is written in batches; what the stage has set off, its Events above all, belongs to it."""
        found: Counter[str] = Counter()
        while True:
            await asyncio.sleep(2.5)
            late = self.requests()
            found += late
            if not late:
                return found

    async def sidecar_counts(self) -> Counter[str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self.address}:8443/counts", headers={"Host": "control"}) as answer,
        ):
            return Counter(await answer.json(content_type=None))


def manifest(name: str, namespace: str, *, chain: str = CHAIN, image: str = "seid:1", **spec: Any) -> Obj:
    return {
        "apiVersion": SEI_NODES.api_version,
        "kind": SEI_NODES.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": {"bench": name.rpartition("-")[0]}},
        "spec": {"chainId": chain, "image": image, "fullNode": {"snapshot": {"stateSync": {}}}, **spec},
    }


@asynccontextmanager
async def set_up(directory: Path, profile: str, flags: list[str]) -> AsyncIterator[Bench]:
    account = f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}"
    cluster = Cluster(audit_user=account, api_server_flags=["--audit-log-batch-max-wait=1s"])
    await asyncio.to_thread(cluster.start)
    address = f"127.{random.randint(64, 250)}.{random.randint(1, 250)}.10"
    sidecars = await asyncio.create_subprocess_exec(
        sys.executable, HERE / "fleet_sidecars.py", address, stdout=asyncio.subprocess.PIPE
    )
    assert sidecars.stdout is not None
    try:
        await sidecars.stdout.readline()
        access = cluster.access
        await asyncio.to_thread(access.install_crds)
        await asyncio.to_thread(cluster.restart_controllers)
        access.kubectl("apply", "--server-side", "-k", deployed.DEPLOY / "default")
        rights = deployed.node_namespace(access.kubectl_program, FLEET)
        access.kubectl("apply", "--server-side", "-f", "-", stdin=rights)
        config = directory / "config" / "config.yaml"
        config.parent.mkdir()
        async with KubeClient(from_kubeconfig(access.kubeconfig())) as client:
            bench = Bench(cluster, client, directory, config, directory / "names.json", address)
            bench.configure()
            bench.publish([])
            await bench.start_controller(profile, flags)
            watch = asyncio.gather(bench.follow(), bench.notice_end())
            try:
                await bench.audited()
                yield bench
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                await bench.stop_controller()
    finally:
        sidecars.terminate()
        await sidecars.wait()
        await asyncio.to_thread(cluster.stop)


@dataclass
class Cost:
    """Between two moments: wall, CPU of controller and API server, requests."""

    wall: float
    cpu: float
    server_cpu: float
    requests: Counter[str]

    def wire(self) -> dict[str, Any]:
        return {
            "wall": self.wall,
            "cpu": self.cpu,
            "apiServerCpu": self.server_cpu,
            "requests": dict(self.requests.most_common()),
        }


@asynccontextmanager
async def measured(bench: Bench) -> AsyncIterator[Cost]:
    server = bench.cluster.pids["kube-apiserver"]
    await bench.audited()
    cost = Cost(time.perf_counter(), sample(bench.pid), sample(server), Counter())
    yield cost
    cost.wall = time.perf_counter() - cost.wall
    cost.cpu = sample(bench.pid) - cost.cpu
    cost.server_cpu = sample(server) - cost.server_cpu
    cost.requests = await bench.audited()


async def settle(bench: Bench, nodes: int) -> dict[str, Any]:
    names = [f"node-{i}" for i in range(nodes)]
    async with measured(bench) as cost:
        created = await bench.create(names)
        await bench.watched.until(names, settled)
    reaction = [bench.watched.first_status[name] - created[name] for name in names]
    return {
        **cost.wire(),
        "requests/node": cost.requests.total() / nodes,
        "cpu ms/node": 1000 * cost.cpu / nodes,
        "event to patch under load": quantiles(reaction),
        "rss MiB": memory_mib(bench.pid, "VmRSS"),
    }


async def idle(bench: Bench, seconds: float) -> dict[str, Any]:
    async with measured(bench) as cost:
        await asyncio.sleep(seconds)
    return {**cost.wire(), "requests/s": cost.requests.total() / seconds, "cpu %": 100 * cost.cpu / cost.wall}


async def roll(bench: Bench, nodes: int) -> dict[str, Any]:
    names = iter([f"node-{i}" for i in range(nodes)])
    patch = {"spec": {"image": "seid:2"}}

    async def work() -> None:
        for name in names:
            await bench.client.patch(SEI_NODES, name, FLEET, patch, field_manager=USER)

    def rolled(raw: Obj) -> bool:
        return raw["spec"]["image"] == "seid:2" and settled(raw)

    async with measured(bench) as cost:
        await asyncio.gather(*(work() for _ in range(CREATORS)))
        await bench.watched.until([f"node-{i}" for i in range(nodes)], rolled)
    return {**cost.wire(), "requests/node": cost.requests.total() / nodes, "cpu ms/node": 1000 * cost.cpu / nodes}


async def single_edits(bench: Bench, nodes: int) -> dict[str, Any]:
    """From the answer to a spec change of one node in a quiet fleet to its update plan in the status."""
    seconds = []
    for i in range(min(SINGLE_EDITS, nodes)):
        name = f"node-{i}"
        bench.watched.update_seen.pop(name, None)
        await bench.client.patch(SEI_NODES, name, FLEET, {"spec": {"image": "seid:3"}}, field_manager=USER)
        began = time.perf_counter()
        await bench.watched.until([name], lambda raw: raw["spec"]["image"] == "seid:3" and settled(raw))
        seconds.append(bench.watched.update_seen[name] - began)
    return quantiles(seconds)


async def syncer_edit(bench: Bench, nodes: int) -> dict[str, Any]:
    names = [f"late-{i}" for i in range(nodes)]
    await bench.create(names, chain=LATE_CHAIN)
    await bench.watched.until(names, lambda raw: (raw.get("status") or {}).get("conditions"))
    await asyncio.sleep(2)
    async with measured(bench) as cost:
        began = time.perf_counter()
        listed = ["c.example:26657", "d.example:26657"]
        bench.configure(stateSync={"syncers": {**CONFIG["stateSync"]["syncers"], LATE_CHAIN: listed}})
        await bench.watched.until(names, lambda raw: (raw.get("status") or {}).get("plan") or settled(raw))
        plans = [bench.watched.first_plan[name] - began for name in names]
        await bench.watched.until(names, settled)
    return {**cost.wire(), "first plan s": min(plans), "last plan s": max(plans), "all settled s": cost.wall}


async def beside(bench: Bench, prefix: str, extra: list[str]) -> dict[str, Any]:
    names = [f"{prefix}-{i}" for i in range(SIDE_NODES)]
    async with measured(bench) as cost:
        await bench.create([*extra, *names])
        await bench.watched.until(names, settled)
    return cost.wire()


async def label_peers(bench: Bench) -> dict[str, Any]:
    """Every node of the stage names all of them as peers. Their Pods run: before that nobody is asked for its node id."""
    names = [f"peer-{i}" for i in range(SIDE_NODES)]
    before = await bench.sidecar_counts()
    running = asyncio.create_task(_run_pods(bench, {f"{name}-0" for name in names}))
    async with measured(bench) as cost:
        await bench.create(names, peers=[{"label": {"selector": {"bench": "peer"}}}])
        await bench.watched.until(names, lambda raw: settled(raw) and len(_peers(raw)) == SIDE_NODES - 1)
        await running
    asked = await bench.sidecar_counts()
    asked.subtract(before)
    return {**cost.wire(), "node-id lookups/node": asked["GET /v0/node-id"] / SIDE_NODES}


def _peers(raw: Obj) -> list[str]:
    found: list[str] = raw["status"].get("resolvedPeers") or []
    return found


async def _run_pods(bench: Bench, names: set[str]) -> None:
    """The kubelet's part: these Pods run as soon as they exist."""
    status = {"status": {"phase": "Running", "podIP": bench.address, "podIPs": [{"ip": bench.address}]}}
    while names:
        for pod in (await bench.client.list(PODS, FLEET)).items:
            name = pod["metadata"]["name"]
            if name in names:
                await bench.client.patch(PODS, name, FLEET, status, field_manager=USER, subresource="status")
                names.discard(name)
        await asyncio.sleep(0.5)


async def bare(bench: Bench, nodes: int, status_patches: int, events: int) -> dict[str, Any]:
    """The writes of the stage `settle`, rendered beforehand, by a process that does nothing else."""
    await bench.client.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": BARE}}, field_manager=USER
    )
    platform = decode("bench", yaml.safe_dump(CONFIG).encode())
    waiting = iter(range(nodes))
    planned: list[list[tuple[str, str, str, str]]] = []

    async def prepare() -> None:
        for i in waiting:
            raw = await bench.client.create(SEI_NODES, manifest(f"bare-{i}", BARE), field_manager=USER)
            settled_status = {**bench.watched.last[f"node-{i}"]["status"]}
            planned.append(_writes(SeiNode.decode(raw), platform, settled_status, status_patches, events))

    await asyncio.gather(*(prepare() for _ in range(CREATORS)))
    given = {
        "server": bench.cluster.access.url,
        "token": bench.cluster.access.token(),
        "ca_file": bench.cluster.access.ca_file,
        "nodes": planned,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, HERE / "fleet_bare.py", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate(orjson.dumps(given))
    found: dict[str, Any] = orjson.loads(out)
    return found


def _writes(
    node: SeiNode, platform: AppConfig, status: Obj, status_patches: int, events: int
) -> list[tuple[str, str, str, str]]:
    found = []
    merge, apply = "application/merge-patch+json", "application/apply-patch+yaml"
    own = SEI_NODES.path(BARE, node.name)

    def add(method: str, path: str, content_type: str, body: Any) -> None:
        found.append((method, path, content_type, orjson.dumps(body).decode()))

    add("PATCH", f"{own}?fieldManager=manager", merge, {"metadata": {"finalizers": ["bench.sei.io/x"]}})
    applied = (
        (STATEFUL_SETS, statefulset(node, platform)),
        (CONFIG_MAPS, proxy_config(node)),
        (SERVICES, service(node)),
    )
    for resource, rendered in applied:
        path = resource.path(BARE, rendered["metadata"]["name"])
        add("PATCH", f"{path}?fieldManager=seinode-controller&force=true", apply, rendered)
    claim = data_pvc(node, platform)
    add("POST", PERSISTENT_VOLUME_CLAIMS.path(BARE), "application/json", claim)
    for number in range(status_patches):
        body = {"status": {**status, "phaseTransitionTime": f"2026-01-01T00:00:{number:02}Z"}}
        add("PATCH", f"{own}/status?fieldManager=manager", merge, body)
    for number in range(events):
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{node.name}.{number}", "namespace": BARE},
            "involvedObject": {
                "kind": "SeiNode",
                "name": node.name,
                "namespace": BARE,
                "apiVersion": "sei.io/v1alpha1",
            },
            "reason": "PhaseTransition",
            "message": "bare",
            "type": "Normal",
        }
        add("POST", f"/api/v1/namespaces/{BARE}/events", "application/json", event)
    return found


async def measure(nodes: int, idle_seconds: float, profile: str, skip: list[str], flags: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"nodes": nodes, "machine": {"host": socket.gethostname(), "cores": os.cpu_count()}}
    with tempfile.TemporaryDirectory(prefix="seiops-fleet-") as scratch:
        async with set_up(Path(scratch), profile, flags) as bench:
            stages: dict[str, Callable[[], Any]] = {
                "settle": lambda: settle(bench, nodes),
                "idle": lambda: idle(bench, idle_seconds),
                "roll": lambda: roll(bench, nodes),
                "single edits": lambda: single_edits(bench, nodes),
                "syncer edit": lambda: syncer_edit(bench, nodes // 2),
                "slow sidecars": lambda: beside(bench, "slow", []),
                "beside a hung one": lambda: beside(bench, "calm", ["hung-0"]),
                "beside ten hung ones": lambda: beside(bench, "still", [f"hung-{i}" for i in range(1, 10)]),
                "label peers": lambda: label_peers(bench),
            }
            for name, stage in stages.items():
                if name in skip:
                    continue
                log.print(f"{name} ...", style="dim")
                found[name] = await stage()
                log.print(_line(found[name]), style="dim")
            found["peak rss MiB"] = memory_mib(bench.pid, "VmHWM")
            await bench.stop_controller()
            if "bare" not in skip:
                log.print("bare ...", style="dim")
                requests = found["settle"]["requests"]
                patches = round(requests.get("patch seinodes/status", 0) / nodes)
                events = round(requests.get("create events", 0) / nodes)
                found["bare"] = await bare(bench, nodes, patches, events)
                log.print(_line(found["bare"]), style="dim")
    found["at"] = datetime.now().isoformat(timespec="seconds")
    return found


def _line(stage: dict[str, Any]) -> str:
    shown = {key: round(value, 3) for key, value in stage.items() if isinstance(value, float)}
    return f"  {shown} {stage.get('requests', '')}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=120.0, help="seconds of the idle stage")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    parser.add_argument("--profile", default="", help="run the controller under cProfile and write its file")
    parser.add_argument("--skip", action="append", default=[], help="leave a stage out; may be repeated")
    parser.add_argument("--flag", action="append", default=[], help="a flag for the controller, as --flag=--workers=8")
    given = parser.parse_args()
    found = asyncio.run(measure(given.nodes, given.idle, given.profile, given.skip, given.flag))
    if given.json:
        given.json.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    Console().print(table(found))
    print(json.dumps({key: value for key, value in found.items() if not isinstance(value, dict)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
