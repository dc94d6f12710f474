"""What a comparison shows to Prometheus: names, labels, help texts, and values after a run that met everything (D-26)."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from seiops.shadow import loop
from seiops.sidecar import exposition
from seiops.sidecar.metrics import REGISTRY
from seiops.sidecar.tasks import result_export
from support.shadow_nodes import EvmFault, Node, block, receipt, results, serving, with_state
from support.task_context import context_for

HELP = {
    "seictl_shadow_blocks_compared_total": "Total blocks compared between the shadow node and the canonical chain.",
    "seictl_shadow_divergences_total": "Blocks that did not match, by the deepest layer that says so; blocks that could"
    " not be decided are among them.",
    "seictl_shadow_indeterminate_total": "Blocks whose comparison could not be carried out, by the deepest layer"
    " concerned and why.",
    "seictl_shadow_height": "Heights of a running comparison: the head of either node (shadow, canonical), and the last"
    " compared block.",
    "seictl_shadow_lag_blocks": "Blocks the shadow has that are not compared yet.",
    "seictl_shadow_keys_checked_total": "State values read on both nodes and compared.",
    "seictl_shadow_stuck_total": "Heights that could not be read for minutes; the run waits there or passes over them.",
    "seictl_shadow_pages_published_total": "Comparison pages stored and entered in the manifest.",
    "seictl_shadow_gap_blocks_total": "Heights that were passed over because they could not be read.",
    "seictl_shadow_rpc_seconds": "Time of one request of a comparison to a node, errors included; method is batch where"
    " one request asks for several.",
    "seictl_shadow_rpc_errors_total": "Reads of a comparison that a node did not answer with a result, every attempt"
    " counted, by what was wrong.",
}
COUNTERS = {name for name in HELP if name.endswith("_total")}
METHODS = {
    "batch", "block", "block_results", "status", "debug_traceBlockByNumber", "eth_getBalance", "eth_getCode",
    "eth_getStorageAt", "eth_getTransactionCount", "eth_getBlockTransactionCountByNumber",
}  # fmt: skip
_SERIES = re.compile(r"^(seictl_shadow_\w+?)\{(.*)\} (\S+)$", re.MULTILINE)


def exposed() -> str:
    return exposition.text(REGISTRY).decode()


def series_of(pod: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every shadow series of one process, without the labels all of them carry."""
    found = {}
    for name, labels, value in _SERIES.findall(exposed()):
        given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if given.pop("pod_name") == pod:
            assert given.pop("chain_id") == "test-1", name
            found[name, frozenset(given.items())] = float(value)
    return found


def one(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"seictl_shadow_{name}", frozenset(labels.items())


async def run(tmp_path: Path, shadow: Node, canonical: Node, pod: str, **params: Any) -> dict[str, Any]:
    async with serving(shadow, canonical) as session:
        given = {
            "bucket": f"file://{tmp_path}/bucket", "region": "r", "prefix": "run", "rpcEndpoint": shadow.comet_url,
            "canonicalRpc": canonical.comet_url, "preflight": "off",
        }  # fmt: skip
        if params.pop("state", False):
            urls = with_state(shadow, canonical)
            given |= {"shadowEvmRpc": urls["shadow_evm_rpc"], "canonicalEvmRpc": urls["canonical_evm_rpc"]}
        result = await result_export.run(context_for(tmp_path / "home", session, HOSTNAME=pod), given | params)
    assert result is not None
    return result


def test_every_family_has_its_help_text_and_type() -> None:
    lines = [line for line in exposed().splitlines() if line.startswith("# ") and " seictl_shadow_" in line]
    kinds = {name: "counter" if name in COUNTERS else "gauge" for name in HELP} | {
        "seictl_shadow_rpc_seconds": "histogram"
    }
    assert sorted(lines) == sorted(
        [f"# HELP {name} {text}" for name, text in HELP.items()] + [f"# TYPE {name} {kinds[name]}" for name in HELP]
    )


async def test_counters_after_a_run_with_one_block_of_each_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "POLL_S", 0.01)
    shadow, canonical = Node(latest=12), Node(latest=700, identity="other")
    shadow.plant("block_results", 3, results(3, [receipt(3, 0, code=7), receipt(3, 1)]))
    gone = {"code": -32603, "message": "Internal error", "data": "height is not available (base height: 9)"}
    canonical.plant("block_results", 5, gone)
    canonical.plant_state("debug_traceBlockByNumber", 7, EvmFault("required historical state pruned"))
    canonical.plant_state("eth_getBalance", 8, "0x6")
    shadow.plant("block", 10, {"code": -32603, "message": "Internal error", "data": "gone"})
    pod = "pod-of-each-verdict"
    result = await run(
        tmp_path, shadow, canonical, pod,
        state=True, migrationMode=True, continueOnDivergence=True, endHeight=12, gapAfterSeconds=1,
    )  # fmt: skip
    assert result["counts"] == {"clean": 7, "diverged": 2, "indeterminate": 2, "gap": 1}
    found = series_of(pod)
    counted = {key: value for key, value in found.items() if not key[0].startswith("seictl_shadow_rpc_")}
    assert counted == {
        one("blocks_compared_total"): 11,
        one("divergences_total", divergence_layer="1"): 2,
        one("divergences_total", divergence_layer="2"): 2,
        one("indeterminate_total", layer="1", reason="pruned"): 1,
        one("indeterminate_total", layer="2", reason="pruned"): 1,
        one("height", role="shadow"): 12,
        one("height", role="canonical"): 700,
        one("height", role="compared"): 12,
        one("lag_blocks"): 0,
        # four values of the one account every block touched; the block one node did not trace is in the other's trace
        one("keys_checked_total"): 44,
        one("stuck_total"): 1,
        one("gap_blocks_total"): 1,
        one("pages_published_total"): 1,
    }


async def test_requests_are_timed_and_what_failed_is_told_apart(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=10), Node(latest=700, identity="other", batches=False)
    gone = {"code": -32603, "message": "Internal error", "data": "height is not available (base height: 9)"}
    canonical.plant("block_results", 4, gone)
    canonical.plant("block", 6, (502, "bad gateway"), (502, "bad gateway"), canonical.comet("block", 6))
    canonical.plant_state("debug_traceBlockByNumber", 7, EvmFault("execution timeout"))
    pod = "pod-of-requests"
    await run(tmp_path, shadow, canonical, pod, state=True, migrationMode=True, continueOnDivergence=True, endHeight=10)
    found = series_of(pod)
    errors = {key[1]: value for key, value in found.items() if key[0] == "seictl_shadow_rpc_errors_total"}

    def failed(side: str, method: str, kind: str) -> frozenset[tuple[str, str]]:
        return frozenset({"side": side, "method": method, "class": kind}.items())

    trace = errors.pop(failed("canonical", "debug_traceBlockByNumber", "trace-limit"))
    assert trace >= 3
    # the second pass of the survey meets the pruned height once more
    assert errors == {
        failed("canonical", "block_results", "pruned"): 2,
        failed("canonical", "block", "rpc"): 2,
    }
    counts = {dict(key[1])["side"] + " " + dict(key[1])["method"]: value
              for key, value in found.items() if key[0] == "seictl_shadow_rpc_seconds_count"}  # fmt: skip
    assert {"shadow batch", "shadow status", "canonical block", "canonical block_results"} <= set(counts)
    assert {name.split()[1] for name in counts} <= METHODS
    assert counts["canonical block"] >= 12
    sums = [value for key, value in found.items() if key[0] == "seictl_shadow_rpc_seconds_sum"]
    assert sums
    assert all(value > 0 for value in sums)


async def test_vacuous_blocks_are_compared_and_diverge_nowhere(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=5), Node(latest=700, identity="other")
    for height in (1, 2, 3, 4):
        canonical.plant("block", height, block(height, identity="F" * 64))
    pod = "pod-of-vacuous"
    result = await run(tmp_path, shadow, canonical, pod, endHeight=5)
    assert result["counts"] == {"clean": 4, "vacuous": 1}
    found = series_of(pod)
    assert found[one("blocks_compared_total")] == 5
    assert not [
        key for key in found if key[0] in ("seictl_shadow_divergences_total", "seictl_shadow_indeterminate_total")
    ]
    # one request held all five heights
    assert found[one("rpc_seconds_count", side="shadow", method="block")] == 1


async def test_head_of_a_canonical_node_that_does_not_tell_is_not_made_up(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=10), Node(latest=700, identity="other")
    canonical.plant("status", 0, (503, "starting"))
    pod = "pod-without-head"
    await run(tmp_path, shadow, canonical, pod, endHeight=5)
    found = series_of(pod)
    assert one("height", role="canonical") not in found
    assert found[one("height", role="shadow")] == 10
    assert found[one("rpc_errors_total", side="canonical", method="status", **{"class": "rpc"})] >= 1


async def test_waiting_for_the_canonical_node_keeps_its_head_in_view(tmp_path: Path) -> None:
    """A run that stands still shows where the other node is: no page has to be filled for that."""
    shadow, canonical = Node(latest=10), Node(latest=4, identity="other")
    pod = "pod-that-waits"
    waiting = asyncio.ensure_future(run(tmp_path, shadow, canonical, pod, endHeight=10))
    try:
        async with asyncio.timeout(20):
            while series_of(pod).get(one("height", role="canonical")) != 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


RECORDED = {
    "app-hash": (
        'seictl_shadow_blocks_compared_total{chain_id="golden-1",pod_name="golden-pod-0"} 5',
        'seictl_shadow_divergences_total{chain_id="golden-1",divergence_layer="0",pod_name="golden-pod-0"} 1',
    ),
    "results-hash-and-receipt": (
        'seictl_shadow_blocks_compared_total{chain_id="golden-1",pod_name="golden-pod-0"} 5',
        'seictl_shadow_divergences_total{chain_id="golden-1",divergence_layer="1",pod_name="golden-pod-0"} 1',
    ),
}
"""What the Go sidecar showed after two tripwire runs, each in a process of its own (recordings `compare-tripwire-*`)."""


def _golden() -> dict[str, float]:
    lines = [line for line in exposed().splitlines() if line.startswith("seictl_shadow_") and "golden-pod-0" in line]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize("case", RECORDED)
async def test_upstreams_counters_count_as_recorded(case: str, tmp_path: Path) -> None:
    shadow, canonical = Node(latest=20), Node(latest=20, identity="other")
    if case == "app-hash":
        shadow.plant("block", 5, block(5, app="DE" + "0" * 62))
    else:
        shadow.plant("block", 5, block(5, results="EF" + "0" * 62))
        shadow.plant("block_results", 5, results(5, [receipt(5, 0, code=7, log="out of gas"), receipt(5, 1)]))
    before = _golden()
    async with serving(shadow, canonical) as session:
        context = context_for(tmp_path / "home", session, SEI_CHAIN_ID="golden-1", HOSTNAME="golden-pod-0")
        params = {
            "bucket": f"file://{tmp_path}/bucket", "region": "r", "rpcEndpoint": shadow.comet_url,
            "canonicalRpc": canonical.comet_url, "preflight": "off",
        }  # fmt: skip
        await result_export.run(context, params)
    upstreams = ("seictl_shadow_blocks_compared_total", "seictl_shadow_divergences_total")
    grown = {
        f"{series} {value - before.get(series, 0):g}"
        for series, value in _golden().items()
        if series.startswith(upstreams) and value != before.get(series, 0)
    }
    assert grown == set(RECORDED[case])
