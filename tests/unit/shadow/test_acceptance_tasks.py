"""Acceptance, what only the task as a whole shows: nothing to export, one count a divergence, nothing left behind (10.3)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from seiops.sidecar.metrics import REGISTRY
from seiops.sidecar.tasks import result_export
from support.shadow_nodes import Node, receipt, results, serving, with_state
from support.task_context import context_for


def _params(home: Path, shadow: Node, canonical: Node | None = None, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "bucket": f"file://{home}/bucket",
        "region": "r",
        "prefix": "run",
        "rpcEndpoint": shadow.comet_url,
    }
    if canonical is not None:
        given |= {"canonicalRpc": canonical.comet_url, "preflight": "off"}
    return given | changes


def _published(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "bucket").rglob("*.gz"))


@pytest.mark.parametrize("trouble", ["down", "http-503", "height-0", "no-status"])
async def test_export_without_an_answering_node_succeeds_without_output(trouble: str, tmp_path: Path) -> None:
    node = Node(latest=5000)
    match trouble:
        case "http-503":
            node.plant("status", 0, (503, "starting"))
        case "height-0":
            node.latest = 0
        case "no-status":
            node.plant("status", 0, "{}")
    async with serving(node) as session:
        params = _params(tmp_path, node)
        if trouble == "down":
            params["rpcEndpoint"] = "http://127.0.0.1:9"
        result = await result_export.run(context_for(tmp_path / "home", session), params)
    assert result is not None
    assert result["reason"].startswith("RPC unavailable: ")
    if trouble == "height-0":
        assert "latest_block_height is 0, node may still be syncing" in result["reason"]
    if trouble == "http-503":
        assert "HTTP 503: starting" in result["reason"]
    assert (result["pages"], _published(tmp_path)) == (0, [])
    assert not (tmp_path / "home" / ".sei-sidecar-last-export.json").exists()


async def test_tripwire_counts_its_divergence_once(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=30), Node(latest=30, identity="other")
    shadow.plant("block_results", 7, results(7, [receipt(7, 0, code=7), receipt(7, 1)]))
    pod = f"pod-{tmp_path.name}"

    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, {"chain_id": "test-1", "pod_name": pod} | labels) or 0.0

    async with serving(shadow, canonical) as session:
        context = context_for(tmp_path / "home", session, HOSTNAME=pod)
        result = await result_export.run(context, _params(tmp_path, shadow, canonical, migrationMode=True))
    assert result is not None
    assert (result["reason"], result["lastHeight"]) == ("divergence", 7)
    assert counted("seictl_shadow_divergences_total", divergence_layer="1") == 1
    assert counted("seictl_shadow_blocks_compared_total") == 7
    assert _published(tmp_path) == ["1-7.compare.ndjson.gz", "divergence-7.report.json.gz"]


@pytest.mark.parametrize("state", [False, True], ids=["without-layer-2", "with-layer-2"])
@pytest.mark.parametrize("ending", ["completed", "cancelled"])
async def test_nothing_of_a_comparison_is_left_running_or_open(state: bool, ending: str, tmp_path: Path) -> None:
    shadow, canonical = Node(latest=40), Node(latest=40, identity="other")
    async with serving(shadow, canonical) as session:
        extra = {"shadowEvmRpc": with_state(shadow, canonical)["shadow_evm_rpc"],
                 "canonicalEvmRpc": with_state(shadow, canonical)["canonical_evm_rpc"]} if state else {}  # fmt: skip
        params = _params(tmp_path, shadow, canonical, migrationMode=True, continueOnDivergence=True, **extra)
        if ending == "completed":
            params["endHeight"] = 40
        else:
            shadow.hang, shadow.hanging = asyncio.Event(), ("block_results", 38)
        before = asyncio.all_tasks()
        running = asyncio.create_task(result_export.run(context_for(tmp_path / "home", session), params))
        if ending == "cancelled":
            await asyncio.wait_for(shadow.hung.wait(), 30)
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(running, 60)
        ours = {task for task in asyncio.all_tasks() - before if "shadow" in repr(task.get_coro())}
        assert ours == set()
        assert not session.closed
        # the same prefix may be written again at once: the run gave back what it held
        again = await result_export.run(
            context_for(tmp_path / "home", session), params | {"endHeight": 1, "startHeight": 1, "prefix": "b"}
        )
        assert again is not None
