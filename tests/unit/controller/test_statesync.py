"""The gate: rows of docs/contracts/controller-behaviour.md 2.5, and the watch that opens it."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from seiops.api.node import NodeCondition, SeiNode
from seiops.controller import statesync
from seiops.controller.appconfig import SyncerSourceError
from seiops.controller.conditions import condition
from seiops.controller.syncer_watch import SyncerWatch
from support.reaching import reach


class _Source:
    def __init__(self, *endpoints: str, error: str = "") -> None:
        self.endpoints, self.error, self.reads = list(endpoints), error, 0

    def syncers(self, chain_id: str) -> list[str]:
        self.reads += 1
        if self.error:
            raise SyncerSourceError(self.error)
        return self.endpoints


def _node(**spec: Any) -> SeiNode:
    return SeiNode.decode(
        {"metadata": {"name": "n", "namespace": "ns", "generation": 3}, "spec": {"chainId": "c", **spec}}
    )


def _snapshot(**fields: Any) -> dict[str, Any]:
    return {"fullNode": {"snapshot": {"stateSync": {}, **fields}}}


def _verdict(node: SeiNode, source: _Source) -> tuple[str, str]:
    statesync.resolve(node, source)
    found = condition(node, NodeCondition.STATE_SYNC_READY)
    assert found is not None and found.observed_generation == 3
    return found.status, found.reason


def test_a_node_without_snapshot_needs_no_witnesses() -> None:
    modes: tuple[dict[str, Any], ...] = ({"fullNode": {}}, {"archive": {}})
    for mode in modes:
        node, source = _node(**mode), _Source()
        assert _verdict(node, source) == ("False", "NotApplicable")
        assert not statesync.blocks_plan(node) and source.reads == 0


def test_two_declared_witnesses_are_enough_and_the_registry_is_not_read() -> None:
    node, source = _node(**_snapshot(rpcServers=["b:1", "a:1", "b:1"])), _Source(error="broken")
    assert _verdict(node, source) == ("True", "Ready")
    assert node.status.resolved_state_syncers == ["a:1", "b:1"]
    assert source.reads == 0 and not statesync.reads_registry(node)


def test_one_declared_witness_is_not_enough() -> None:
    node = _node(**_snapshot(rpcServers=["a:1", "a:1"]))
    assert _verdict(node, _Source("x:1", "y:1")) == ("True", "Ready")
    assert node.status.resolved_state_syncers == ["x:1", "y:1"]


@pytest.mark.parametrize(
    ("source", "verdict"),
    [
        (_Source(), ("False", "NoSyncersConfigured")),
        (_Source("a:1"), ("False", "NoSyncersConfigured")),
        (_Source(error="parsing"), ("Unknown", "SyncerSourceError")),
    ],
)
def test_too_few_or_an_unreadable_registry_block(source: _Source, verdict: tuple[str, str]) -> None:
    node = _node(**_snapshot())
    node.status.resolved_state_syncers = ["old:1", "older:1"]
    assert _verdict(node, source) == verdict
    assert node.status.resolved_state_syncers == []
    assert statesync.blocks_plan(node)


def test_a_running_node_is_never_blocked() -> None:
    node = _node(**_snapshot())
    node.status.phase = "Running"
    assert _verdict(node, _Source()) == ("False", "NoSyncersConfigured")
    assert not statesync.blocks_plan(node)


def test_s3_sources_are_gated_as_well() -> None:
    node = _node(fullNode={"snapshot": {"s3": {"targetHeight": 5}}})
    assert _verdict(node, _Source()) == ("False", "NoSyncersConfigured")


def _mount(directory: Path, version: int, content: str) -> None:
    """As the kubelet does it: a new directory, and a symlink swapped over."""
    fresh = directory / f"..v{version}"
    fresh.mkdir()
    (fresh / "config.yaml").write_text(content, encoding="utf-8")
    (directory / "..data_tmp").symlink_to(fresh.name)
    os.replace(directory / "..data_tmp", directory / "..data")  # noqa: PTH105
    if not (directory / "config.yaml").is_symlink():
        (directory / "config.yaml").symlink_to("..data/config.yaml")


async def test_a_symlink_swap_wakes_the_chains_that_changed(tmp_path: Path) -> None:
    woken: list[set[str] | None] = []
    _mount(tmp_path, 1, "stateSync: {syncers: {one: [a:1], two: [b:1]}}")
    watch = SyncerWatch(str(tmp_path / "config.yaml"), woken.append)
    running = asyncio.create_task(watch.run())
    try:
        _mount(tmp_path, 2, "stateSync: {syncers: {one: [a:1, c:1], two: [b:1]}}")
        await reach(lambda: woken, seconds=10)
        assert woken == [{"one"}]
        _mount(tmp_path, 3, "stateSync: [")
        await reach(lambda: len(woken) > 1, seconds=10)
        _mount(tmp_path, 4, "stateSync: {syncers: {one: [a:1]}}")
        await reach(lambda: len(woken) > 2, seconds=10)
        assert woken[1:] == [None, None]
    finally:
        running.cancel()


async def test_a_directory_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    woken: list[set[str] | None] = []
    watch = SyncerWatch(str(tmp_path / "later" / "config.yaml"), woken.append)
    running = asyncio.create_task(watch.run())
    try:
        await asyncio.sleep(0)
        (tmp_path / "later").mkdir()
        (tmp_path / "later" / "config.yaml").write_text("stateSync: {syncers: {one: [a:1]}}", encoding="utf-8")
        await reach(lambda: woken, seconds=10)
        assert woken == [{"one"}]
    finally:
        running.cancel()
