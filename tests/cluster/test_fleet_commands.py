"""`seiops nodes` and `seiops explain` against the real API server: nodes made by the real controller, read by a process."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from seidev.chain import ChainServer, Recording, Replay, Window
from seidev.cluster import Access
from seiops.cli.fleet.heights import ProxyRpc
from seiops.controller.kinds import SEI_NODES
from seiops.kube.client.resource import PODS
from seiops.seid.comet import CometError
from support.command import SOURCE, command_environment, seiops
from support.controlled import CHAIN, USER, Controlled, controlled
from support.kubectl import Kubectl
from support.reaching import reach

RECORDING = Path(__file__).resolve().parents[1] / "data" / "chain" / "rpc-memiavl.jsonl.zst"
STATE_SYNC: dict[str, Any] = {"fullNode": {"snapshot": {"stateSync": {}}}}


@pytest.fixture
async def world(
    cluster: Access, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Controlled]:
    async with controlled(cluster, namespace, tmp_path, monkeypatch) as world:
        yield world


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.load(RECORDING)


def access_flags(world: Controlled) -> tuple[str, ...]:
    return f"--kubeconfig={world.access.kubeconfig()}", "-n", world.namespace


async def rows(world: Controlled, *flags: str, **environment: str) -> dict[str, dict[str, Any]]:
    done = await seiops("nodes", *access_flags(world), "-o", "json", *flags, environment=environment)
    assert done.status == 0, done.err
    return {row["name"]: row for row in done.json()}


async def test_the_table_says_of_every_node_where_it_stands_and_why(world: Controlled) -> None:
    world.rule("failing", on="task", type="config-apply", error="unknown key [chain.nonsense]")
    world.rule("slow", on="task", type="config-apply", ms=60_000)
    world.start()
    await world.create_node("running")
    await world.create_node("blocked", STATE_SYNC, chainId="gold-9")
    await world.create_node("failing")
    await world.create_node("slow", STATE_SYNC)
    await world.create_node("paused", paused=True)
    await world.steady("running")
    await world.until(lambda node: node["status"].get("phase") == "Failed", "failing")
    await world.until(lambda node: node["status"].get("conditions"), "blocked")
    await world.until(lambda node: node["status"].get("conditions"), "paused")
    await world.until(lambda node: node["status"]["plan"]["tasks"][5]["status"] == "Running", "slow")

    found = await rows(world, "--rpc=off")
    assert {name: (row["phase"], (row["concern"] or {}).get("reason")) for name, row in found.items()} == {
        "running": ("Running", None),
        "blocked": ("", "NoSyncersConfigured"),
        "failing": ("Failed", "Failed"),
        "slow": ("Initializing", None),
        "paused": ("", "Paused"),
    }
    assert found["slow"]["plan"] | {"submittedAt": ""} == {
        "type": "init",
        "phase": "Active",
        "done": 5,
        "total": 9,
        "task": "config-apply",
        "taskStatus": "Running",
        "attempt": 1,
        "attempts": 1,
        "submittedAt": "",
    }
    assert found["slow"]["syncers"] == ["sync-a.example:26657", "sync-b.example:26657"]
    assert "unknown key [chain.nonsense]" in found["failing"]["concern"]["what"]

    table = await seiops("nodes", *access_flags(world), "--rpc=off")
    assert table.status == 0, table.err
    lines = {line.split()[0]: line for line in table.out.splitlines() if line.strip()}
    assert "init 5/9" in lines["slow"] and "Initializing" in lines["slow"]
    assert "NoSyncersConfigured" in lines["blocked"]
    assert lines["running"].split()[:4] == ["running", CHAIN, "node", "Running"]
    assert "3 need somebody" in table.out

    narrow = await seiops("nodes", *access_flags(world), "--rpc=off", environment={"COLUMNS": "80"})
    assert narrow.out.splitlines()[0].split() == ["NAME", "CHAIN", "PHASE", "FOR", "PLAN"]
    assert "blocked: NoSyncersConfigured: " in narrow.out
    assert max(map(len, narrow.out.splitlines())) <= 80


async def test_heights_and_lag_are_read_from_the_nodes(world: Controlled, recording: Recording, tmp_path: Path) -> None:
    world.start()
    for name in ("first", "second", "silent"):
        await world.create_node(name)
    for name in ("first", "second", "silent"):
        await world.steady(name)
    block = world.sidecars.address.rsplit(".", 1)[0]
    names = tmp_path / "rpc-names.json"
    hosts = {"first": f"{block}.101", "second": f"{block}.102", "silent": f"{block}.103"}
    names.write_text(
        json.dumps({f"{name}-0.{name}.{world.namespace}.svc.cluster.local": host for name, host in hosts.items()})
    )
    ahead = ChainServer(Replay(recording, Window(421, 2500)), host=hosts["first"], comet_port=26657)
    behind = ChainServer(Replay(recording, Window(421, 2100, True)), host=hosts["second"], comet_port=26657)
    async with ahead, behind:
        found = await rows(world, SEIOPS_RESOLVE_FILE=str(names))
    told = {name: (row["height"], row["behind"], row["catchingUp"]) for name, row in found.items()}
    assert told == {"first": (2500, 0, False), "second": (2100, 400, True), "silent": (None, None, None)}


def own_address() -> str | None:
    """An address of this machine that is not loopback: the API server proxies to no other."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


async def test_a_height_comes_through_the_api_server(world: Controlled, recording: Recording) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback, to which the API server does not proxy")
    world.start()
    await world.create_node()
    await world.steady()
    async with ChainServer(Replay(recording, Window(421, 2222)), host=address) as server:
        port = int(server.comet_url.rpartition(":")[2])
        status = {"podIP": address, "podIPs": [{"ip": address}]}
        await world.client.patch(
            PODS, "n0-0", world.namespace, {"status": status}, field_manager=USER, subresource="status"
        )
        found = await ProxyRpc(world.client, port).status((world.namespace, "n0"))
    assert (found.height, found.network) == (2222, "seiops-local-1")
    with pytest.raises(CometError):
        await ProxyRpc(world.client, port).status((world.namespace, "nobody"))


async def test_watching_tells_every_change(world: Controlled) -> None:
    # Long enough for the process to come up beside it.
    world.rule(on="task", type="config-apply", ms=3000)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "seiops.cli", "nodes", "-w", "-o", "json", "--rpc=off", *access_flags(world)),
        env=command_environment(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    seen: list[dict[str, Any]] = []

    async def follow(until: str) -> None:
        async for line in process.stdout:  # type: ignore[union-attr]
            seen.append(json.loads(line))
            if seen[-1].get("deleted") or seen[-1].get("phase") == until:
                return

    try:
        world.start()
        await world.create_node()
        async with asyncio.timeout(60):
            await follow("Running")
            await world.delete_node()
            await follow("gone")
    finally:
        process.terminate()
        await process.wait()
    assert seen[-1] == {"namespace": world.namespace, "name": "n0", "deleted": True}
    assert any(change["phase"] == "Initializing" for change in seen[:-1])


async def test_explain_tells_the_story_of_a_failed_node(world: Controlled) -> None:
    world.rule(on="task", type="config-apply", error="unknown key [chain.nonsense]")
    world.start()
    await world.create_node(mode=STATE_SYNC)
    await world.until(lambda node: node["status"].get("phase") == "Failed")
    await world.until_event("NodeFailed")
    done = await seiops("explain", "n0", *access_flags(world), "--rpc=off", "-o", "json")
    assert done.status == 0, done.err
    story = done.json()
    assert story["node"]["phase"] == "Failed"
    assert [task["type"] for task in story["tasks"] if task["status"] == "Failed"] == ["config-apply"]
    told = [moment["what"] for moment in story["timeline"]]
    assert told[0].startswith("SeiNode created")
    assert any("Phase changed from Initializing to Failed" in what for what in told)
    assert [moment["at"] for moment in story["timeline"]] == sorted(moment["at"] for moment in story["timeline"])
    (failed,) = [concern for concern in story["concerns"] if concern["reason"] == "Failed"]
    assert failed["severity"] == "stopped"
    assert any("kubectl delete seinode n0" in step for step in failed["do"])

    page = await seiops("explain", f"{world.namespace}/n0", f"--kubeconfig={world.access.kubeconfig()}", "--rpc=off")
    assert page.status == 0, page.err
    for expected in ("Failed", "✗", "unknown key [chain.nonsense]", "What to do", "kubectl delete seinode n0"):
        assert expected in page.out


async def test_explain_tells_what_the_pod_waits_for(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    waiting = {
        "containerStatuses": [
            {
                "name": "seid",
                "image": "i",
                "imageID": "",
                "ready": False,
                "restartCount": 7,
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}},
                "lastState": {"terminated": {"exitCode": 2, "reason": "Error"}},
            }
        ]
    }
    await world.client.patch(
        PODS, "n0-0", world.namespace, {"status": waiting}, field_manager=USER, subresource="status"
    )
    story = (await seiops("explain", "n0", *access_flags(world), "--rpc=off", "-o", "json")).json()
    (found,) = [concern for concern in story["concerns"] if concern["reason"] == "CrashLoopBackOff"]
    assert "last exit 2" in found["what"]
    assert found["do"] == [f"kubectl logs n0-0 -n {world.namespace} -c seid --previous"]


async def test_an_object_that_cannot_be_decoded_is_a_row_like_any_other(world: Controlled) -> None:
    await world.create_node("odd", sidecar={"port": 2**40})
    await world.create_node("even")
    found = await rows(world, "--rpc=off")
    assert found.keys() == {"odd", "even"}
    assert found["odd"]["concern"]["reason"] == "Undecodable"
    assert "spec.sidecar.port" in found["odd"]["concern"]["what"]
    assert found["odd"]["chainId"] == CHAIN


async def test_what_cannot_be_done_is_one_line_and_status_1(world: Controlled, tmp_path: Path) -> None:
    missing = await seiops("explain", "nobody", *access_flags(world))
    assert (missing.status, missing.err) == (1, 'Error: seinodes.sei.io "nobody" not found\n')
    no_file = await seiops("nodes", f"--kubeconfig={tmp_path}/none")
    assert no_file.status == 1 and no_file.err.startswith("Error: kubeconfig ")
    no_context = await seiops("nodes", f"--kubeconfig={world.access.kubeconfig()}", "--context=other")
    assert no_context.status == 1 and "'other'" in no_context.err
    refused = await seiops("nodes", "-A", f"--kubeconfig={world.access.kubeconfig('controller')}", "--rpc=off")
    if refused.status:  # another test of the run may have bound the controller's role
        assert "forbidden" in refused.err


async def test_without_access_to_pods_the_node_is_still_explained(world: Controlled, kubectl: Kubectl) -> None:
    user = "system:serviceaccount:sei-k8s-controller-system:sei-k8s-controller-manager"
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=seinodes.sei.io")
    kubectl("create", "rolebinding", "reader", "--role=reader", f"--user={user}")
    await world.create_node()
    flags = f"--kubeconfig={world.access.kubeconfig('controller')}", "-n", world.namespace, "--rpc=off", "-o", "json"
    done = await seiops("explain", "n0", *flags)
    assert done.status == 0, done.err
    reasons = {concern["reason"] for concern in done.json()["concerns"]}
    assert "NoPod" not in reasons


async def test_it_is_a_plugin_of_the_real_kubectl(world: Controlled, tmp_path: Path) -> None:
    await world.create_node("plugged")
    plugin = tmp_path / "bin" / "kubectl-sei"
    plugin.parent.mkdir()
    plugin.write_text(f"#!{sys.executable}\nfrom seiops.cli.main import kubectl\nkubectl()\n")
    plugin.chmod(0o755)
    environment = command_environment(
        {
            "PATH": f"{plugin.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(SOURCE),
            "KUBECONFIG": str(world.access.kubeconfig("admin", world.namespace)),
            "KUBERC": "off",
        }
    )
    command = [world.access.kubectl_program, "sei", "nodes", "--rpc=off", "-o", "json"]
    done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)] == ["plugged"]


async def test_labels_and_all_namespaces(world: Controlled) -> None:
    await world.create_node("plain")
    labelled = {
        "apiVersion": SEI_NODES.api_version,
        "kind": SEI_NODES.kind,
        "metadata": {"name": "chosen", "namespace": world.namespace, "labels": {"team": "a"}},
        "spec": {"chainId": CHAIN, "image": "i:1", "archive": {}},
    }
    await world.client.create(SEI_NODES, labelled, field_manager=USER)
    assert (await rows(world, "--rpc=off", "-l", "team=a")).keys() == {"chosen"}
    everywhere = await seiops("nodes", "-A", f"--kubeconfig={world.access.kubeconfig()}", "--rpc=off")
    assert everywhere.status == 0, everywhere.err
    assert "NAMESPACE" in everywhere.out
    assert any(
        line.split()[:4] == [world.namespace, "chosen", CHAIN, "archive"] for line in everywhere.out.splitlines()
    )


async def test_the_live_table_draws_on_a_terminal_and_ends_on_ctrl_c(world: Controlled) -> None:
    await world.create_node("watched")
    ours, theirs = os.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 150, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "seiops.cli", "nodes", "-w", "--rpc=off", *access_flags(world)),
        env=command_environment({"TERM": "xterm-256color"}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, lambda: drawn.extend(os.read(ours, 65536)))
    try:
        await reach(lambda: b"watched" in drawn)
        world.start()
        await reach(lambda: b"Running" in drawn)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 130
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        if process.returncode is None:
            process.kill()
    # The screen is given back as it was.
    assert b"\x1b[?1049l" in drawn
