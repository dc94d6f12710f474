"""The controller as a process: probes and metrics, leadership, its ways to end."""

import asyncio
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from seidev import processes
from seidev.cluster import Access
from seiops.kube import ApiError, KubeClient, from_kubeconfig
from seiops.kube.client.resource import LEASES
from support.controlled import CONFIG

ROOT = Path(__file__).resolve().parents[2]
LEASE = "test-lease"


class Started:
    """One controller process and the ports it listens on."""

    def __init__(self, access: Access, namespace: str, directory: Path) -> None:
        self.health, self.metrics = processes.free_port(), processes.free_port()
        config = directory / "config.yaml"
        config.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
        self.log = directory / f"log-{self.health}"
        self._arguments = [
            f"--kubeconfig={access.kubeconfig()}",
            f"--health-probe-bind-address=127.0.0.1:{self.health}",
            f"--metrics-bind-address=127.0.0.1:{self.metrics}",
            f"--namespaces={namespace}",
            f"--lease-namespace={namespace}",
            f"--lease-name={LEASE}",
        ]
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT / "src"),
            "SEI_CONTROLLER_CONFIG": str(config),
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> "Started":
        with self.log.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "seiops.controller",
                *self._arguments,
                env=self._environment,
                stdout=output,
                stderr=output,
            )
        return self

    async def ask(self, port: int, path: str) -> str:
        url = f"http://127.0.0.1:{port}{path}"

        def get() -> str:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())

        async with asyncio.timeout(60):
            while True:
                assert self.process is not None and self.process.returncode is None, self.log.read_text("utf-8")
                try:
                    return await asyncio.to_thread(get)
                except OSError:
                    await asyncio.sleep(0.1)

    async def end(self, number: signal.Signals | None = None) -> int:
        assert self.process is not None
        if number is not None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 60)


@pytest.fixture
async def client(cluster: Access) -> AsyncIterator[KubeClient]:
    async with KubeClient(from_kubeconfig(cluster.kubeconfig())) as client:
        yield client


async def _holder(client: KubeClient, namespace: str) -> str:
    try:
        lease = await client.get(LEASES, LEASE, namespace)
    except ApiError as error:
        assert error.not_found
        return ""
    return str(lease["spec"].get("holderIdentity") or "")


async def _until_held(client: KubeClient, namespace: str, *, by_other_than: str = "") -> str:
    async with asyncio.timeout(60):
        while True:
            holder = await _holder(client, namespace)
            if holder not in ("", by_other_than):
                return holder
            await asyncio.sleep(0.1)


async def test_a_terminated_leader_gives_its_lease_to_the_one_that_waits(
    cluster: Access, namespace: str, client: KubeClient, tmp_path: Path
) -> None:
    first = await Started(cluster, namespace, tmp_path).start()
    holder = await _until_held(client, namespace)
    second = await Started(cluster, namespace, tmp_path).start()
    assert await second.ask(second.health, "/readyz") == "ok"
    assert 'leader_election_master_status{name="test-lease"} 0.0' in await second.ask(second.metrics, "/metrics")
    assert await first.end(signal.SIGTERM) == 0
    assert await _until_held(client, namespace, by_other_than=holder)
    assert 'leader_election_master_status{name="test-lease"} 1.0' in await second.ask(second.metrics, "/metrics")
    assert await second.end(signal.SIGTERM) == 0
    assert await _holder(client, namespace) == ""


async def test_a_leader_whose_lease_is_taken_away_ends_with_1(
    cluster: Access, namespace: str, client: KubeClient, tmp_path: Path
) -> None:
    started = await Started(cluster, namespace, tmp_path).start()
    await _until_held(client, namespace)
    taken = {"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 3600}}
    await client.patch(LEASES, LEASE, namespace, taken, field_manager="test")
    assert await started.end() == 1
    assert "leader election lost" in started.log.read_text("utf-8")


async def test_metrics_have_the_process_the_runtime_and_the_nodes(
    cluster: Access, namespace: str, client: KubeClient, tmp_path: Path
) -> None:
    started = await Started(cluster, namespace, tmp_path).start()
    await _until_held(client, namespace)
    text = await started.ask(started.metrics, "/metrics")
    for name in ("process_cpu_seconds_total", "controller_runtime_max_concurrent_reconciles", "workqueue_depth"):
        assert name in text
    assert await started.end(signal.SIGINT) == 0
