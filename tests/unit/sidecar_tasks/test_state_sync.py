"""configure-state-sync: who may be a witness, which trust point is pinned, and what is written."""

from __future__ import annotations

import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sidecar_context import ContextFactory
from sidecar_stands import Rpc, status

from seiops.sidecar.task import TaskError
from seiops.sidecar.tasks import configure_state_sync

Rpcs = Callable[[], Awaitable[Rpc]]
MARKER = ".sei-sidecar-statesync-done"
CONFIG = (
    '# mine\n[p2p]\nladdr = "x"\npersistent-peers = "{}"\n\n[statesync]\nenable = false\ntrust-period = "168h0m0s"\n'
)


def written(home: Path) -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((home / "config" / "config.toml").read_text())["statesync"]
    return table


async def test_the_point_is_pinned_and_the_file_keeps_the_rest(context: ContextFactory, home: Path, rpcs: Rpcs) -> None:
    first, second = await rpcs(), await rpcs()
    (home / "config" / "config.toml").write_text(CONFIG.format("a@b:1"))
    params = {"rpcServers": [first.endpoint, second.endpoint], "backfillBlocks": 100}
    result = await configure_state_sync.run(context(), params)
    assert written(home) == {
        "enable": True,
        "trust-period": "168h0m0s",
        "trust-height": 8000,
        "trust-hash": "AB" * 32,
        "rpc-servers": f"{first.endpoint},{second.endpoint}",
        "use-local-snapshot": False,
        "backfill-blocks": 100,
    }
    assert (home / "config" / "config.toml").read_text().startswith("# mine\n")
    assert result is not None
    assert not result["filledFromOneWitness"]
    assert [item["usable"] for item in result["witnesses"]] == [True, True]
    assert (home / MARKER).exists()
    assert await configure_state_sync.run(context(), params) is None
    assert "/block?height=8000" in first.asked
    assert "/block?height=8000" not in second.asked


async def test_a_lone_witness_is_listed_twice_and_the_result_says_so(
    context: ContextFactory, home: Path, rpcs: Rpcs
) -> None:
    alive = await rpcs()
    result = await configure_state_sync.run(context(), {"rpcServers": ["127.0.0.1:1", alive.endpoint]})
    assert written(home)["rpc-servers"] == f"{alive.endpoint},{alive.endpoint}"
    assert result is not None
    assert result["filledFromOneWitness"]
    dead = result["witnesses"][0]
    assert (dead["endpoint"], dead["usable"]) == ("127.0.0.1:1", False)
    assert dead["detail"].endswith("connection refused")


async def test_a_witness_of_another_chain_is_dropped(context: ContextFactory, home: Path, rpcs: Rpcs) -> None:
    ours, theirs, silent = await rpcs(), await rpcs(), await rpcs()
    theirs.status = status(99_999, network="other-1")
    silent.status = status(10_000, network="")
    servers = [theirs.endpoint, ours.endpoint, silent.endpoint]
    result = await configure_state_sync.run(context(), {"rpcServers": servers})
    assert written(home)["rpc-servers"] == f"{ours.endpoint},{silent.endpoint}"
    assert written(home)["trust-height"] == 8000
    assert result is not None
    assert "other-1" in result["witnesses"][0]["detail"]


async def test_witnesses_are_asked_at_once_and_a_slow_one_costs_only_its_deadline(
    context: ContextFactory, home: Path, rpcs: Rpcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configure_state_sync, "PROBE_TIMEOUT_S", 0.5)
    slow, other_slow, quick = await rpcs(), await rpcs(), await rpcs()
    slow.delay_s = other_slow.delay_s = 30
    servers = [slow.endpoint, other_slow.endpoint, quick.endpoint]
    result = await configure_state_sync.run(context(), {"rpcServers": servers})
    assert result is not None
    assert [item["usable"] for item in result["witnesses"]] == [False, False, True]
    assert "no answer within 0.5 s" in result["witnesses"][0]["detail"]
    # both slow ones had been asked before either could have timed out
    assert slow.asked == other_slow.asked == ["/status"]


@pytest.mark.parametrize(
    "answer, problem",
    [
        (status(500), None),
        (status(2001), None),
        ({}, 'querying latest height: parsing height "": strconv.ParseInt: parsing "": invalid syntax'),
        ({"sync_info": {"latest_block_height": 5}}, "querying latest height: parsing status response: "),
        ({"sync_info": "x"}, "querying latest height: parsing status response: "),
        ({"code": -32603, "message": "x"}, 'querying latest height: parsing height ""'),
        ({"jsonrpc": "2.0", "error": {"code": 1, "message": "no"}}, "no reachable RPC witness among ["),
        ([], "no reachable RPC witness among ["),
        ("hello", "no reachable RPC witness among ["),
    ],
)
async def test_the_trust_height(
    answer: Any, problem: str | None, context: ContextFactory, home: Path, rpcs: Rpcs
) -> None:
    rpc = await rpcs()
    rpc.status = answer
    run = configure_state_sync.run(context(), {"rpcServers": [rpc.endpoint]})
    if problem is None:
        await run
        assert written(home)["trust-height"] == 1
        return
    with pytest.raises(TaskError) as failure:
        await run
    assert str(failure.value).startswith(f"configure-state-sync: {problem}")
    assert not (home / MARKER).exists()
    assert not (home / "config" / "config.toml").exists()


@pytest.mark.parametrize(
    "block, problem",
    [
        ({"block_id": {"hash": ""}}, "empty block hash at height 8000"),
        ({"code": -32603, "message": "no"}, "empty block hash at height 8000"),
        ({"block_id": "AB"}, "parsing block response: hash is no string"),
        ({"block_id": {"hash": "AB"}}, "unexpected block hash length at height 8000: got 2, want 64"),
        ({"block_id": {"hash": "z" * 64}}, None),
        ({"block_id": {"hash": "é" * 32}}, None),
    ],
)
async def test_the_trust_hash(block: Any, problem: str | None, context: ContextFactory, home: Path, rpcs: Rpcs) -> None:
    rpc = await rpcs()
    rpc.block = block
    run = configure_state_sync.run(context(), {"rpcServers": [rpc.endpoint]})
    if problem is None:
        await run
        assert written(home)["trust-hash"] == block["block_id"]["hash"]
        return
    with pytest.raises(TaskError) as failure:
        await run
    assert str(failure.value) == f"configure-state-sync: querying block hash at height 8000: {problem}"
    assert not (home / MARKER).exists()


async def test_distinct_witnesses_can_be_required(context: ContextFactory, home: Path, rpcs: Rpcs) -> None:
    first, second = await rpcs(), await rpcs()
    servers = {"rpcServers": [first.endpoint, second.endpoint]}
    # two addresses, one node
    with pytest.raises(TaskError, match="two distinct RPC witnesses are required"):
        await configure_state_sync.run(context(), {**servers, "requireDistinctWitnesses": True})
    with pytest.raises(TaskError, match="two distinct RPC witnesses are required"):
        await configure_state_sync.run(context(SEI_SIDECAR_REQUIRE_DISTINCT_WITNESSES="true"), servers)
    second.status = status(10_000, node_id="bb")
    await configure_state_sync.run(context(), {**servers, "requireDistinctWitnesses": True})


@pytest.mark.parametrize(
    "peers, problem",
    [
        ("", "no peers in config.toml"),
        (" , ", "no peers in config.toml"),
        ("no-at-sign:26656", "could not extract RPC hosts from peers"),
        (
            "a@127.77.0.9:1,b@127.77.0.8:1,c@127.77.0.7:1",
            "no reachable RPC witness among [127.77.0.9:26657 127.77.0.8:26657]",
        ),
    ],
)
async def test_candidates_from_peers(peers: str, problem: str, context: ContextFactory, home: Path) -> None:
    (home / "config" / "config.toml").write_text(CONFIG.format(peers))
    with pytest.raises(TaskError) as failure:
        await configure_state_sync.run(context(), {})
    assert str(failure.value) == f"configure-state-sync: {problem}"


@pytest.mark.parametrize(
    "peer, host",
    [("id@h:1", "h"), ("id@h", "h"), ("id@[::1]:1", "[::1]"), ("id@[::1]", "[::1]"), ("a@b@c:1", "b@c"), ("h:1", "")],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert configure_state_sync._host(peer) == host


@pytest.mark.parametrize(
    "endpoint, url",
    [("h:443", "https://h:443"), ("h:26657", "http://h:26657"), ("h", "http://h"), ("443", "http://443")],
)
def test_tls_goes_by_the_port(endpoint: str, url: str) -> None:
    assert configure_state_sync.base_url(endpoint) == url


async def test_the_newest_local_snapshot(context: ContextFactory, home: Path, rpcs: Rpcs) -> None:
    rpc = await rpcs()
    params = {"rpcServers": [rpc.endpoint], "useLocalSnapshot": True}
    folder = home / "data" / "snapshots"
    with pytest.raises(TaskError, match=f"reading snapshots directory: open {folder}: no such file or directory"):
        await configure_state_sync.run(context(), params)
    for name in ("0123", "900", "1000", "abc", "99x", str(2**63), "9" * 200):
        (folder / name).mkdir(parents=True)
    (folder / "5000").write_text("a file")
    await configure_state_sync.run(context(), params)
    assert (written(home)["trust-height"], written(home)["use-local-snapshot"]) == (1000, True)
