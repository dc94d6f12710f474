"""Acceptance, comparator: which layers run, which one is blamed, and what the record says (docs/contracts/shadow.md 10.3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from seiops.shadow.receipts import ReceiptRules
from seiops.shadow.verdicts import Compared, Unread
from support.shadow_nodes import (
    ACCOUNT,
    SLOT,
    EvmFault,
    Node,
    block,
    comparator_for,
    compare_one,
    receipt,
    request_for,
    results,
    serving,
    trace,
)


def _differing(**planted: Any) -> Node:
    node = Node()
    for method, answer in planted.items():
        node.plant(method, 5, answer)
    return node


def _receipts(*changes: dict[str, Any]) -> dict[str, Any]:
    return results(5, [receipt(5, index, **change) for index, change in enumerate(changes)])


async def test_match_runs_no_layer_1() -> None:
    found = await compare_one(Node(), Node())
    assert (found.match, found.layer1, found.verdict) == (True, None, "vacuous")
    assert found.record()["layer0"]["sameSource"] is True


async def test_app_hash_mismatch_shows_both_values() -> None:
    found = await compare_one(_differing(block=block(5, app="DE01", identity="X")), Node())
    record = found.record()
    assert (record["match"], record["divergenceLayer"]) == (False, 0)
    assert record["layer0"]["shadowAppHash"] == "DE01"
    assert record["layer0"]["canonicalAppHash"] == f"AA{5:062X}"
    assert "shadowLastResultsHash" not in record["layer0"]
    assert record["layer1"] == {"totalTxs": 2, "txCountMatch": True}


async def test_receipts_differ_with_fields_in_order() -> None:
    odd = _receipts(
        {"code": 7, "gas_used": "1", "gas_wanted": "2", "log": "x", "events": [], "data": "BB==", "codespace": "sdk"},
        {},
    )
    found = await compare_one(_differing(block_results=odd), Node(), migration=True)
    entry = found.record()["layer1"]["divergences"][0]
    assert entry["txIndex"] == 0
    assert [field["field"] for field in entry["fields"]] == [
        "code", "gasUsed", "gasWanted", "log", "events", "data", "codespace",
    ]  # fmt: skip
    assert (found.divergence_layer, found.verdict) == (1, "diverged")


async def test_count_mismatch_is_presence() -> None:
    shadow = _differing(block=block(5, txs=1), block_results=_receipts({}))
    found = await compare_one(shadow, Node(), migration=True)
    layer1 = found.record()["layer1"]
    assert (layer1["totalTxs"], layer1["txCountMatch"]) == (2, False)
    fields = layer1["divergences"][0]["fields"]
    assert fields == [{"field": "presence", "shadow": "missing", "canonical": "present"}]


async def test_results_that_do_not_fit_their_block_are_indeterminate() -> None:
    empty = results(5, []) | {"txs_results": None}
    found = await compare_one(_differing(block_results=empty), _differing(block_results=empty), migration=True)
    assert (found.match, found.verdict, found.reason) == (False, "indeterminate", "incomplete-results")


async def test_last_results_only() -> None:
    found = await compare_one(_differing(block=block(5, results="EF01", identity="X")), Node())
    assert (found.divergence_layer, found.layer0.app_hash_match, found.layer0.results_match) == (0, True, False)


async def test_migration_app_hash_only_is_a_match_with_layer_1() -> None:
    found = await compare_one(_differing(block=block(5, app="DE01", identity="X")), Node(), migration=True)
    assert (found.match, found.verdict) == (True, "clean")
    assert found.record()["layer1"] == {"totalTxs": 2, "txCountMatch": True}


async def test_migration_layer_1_failure_is_indeterminate_layer_1() -> None:
    found = await compare_one(_differing(block_results=(500, "boom")), Node(batches=False), migration=True)
    record = found.record()
    assert (record["match"], record["divergenceLayer"], record["verdict"]) == (False, 1, "indeterminate")
    assert record["layer1"] == {
        "totalTxs": 0,
        "txCountMatch": False,
        "indeterminate": True,
        "error": "querying shadow block_results at height 5: HTTP 500: boom",
    }


async def test_default_mode_layer_1_failure_attaches_nothing() -> None:
    shadow = _differing(block=block(5, app="DE01", identity="X"), block_results=(500, "boom"))
    found = await compare_one(shadow, Node())
    assert (found.divergence_layer, found.layer1) == (0, None)


async def test_migration_results_mismatch_is_layer_0() -> None:
    found = await compare_one(_differing(block=block(5, results="EF01", identity="X")), Node(), migration=True)
    assert (found.match, found.divergence_layer) == (False, 0)


async def test_migration_receipt_mismatch_is_layer_1() -> None:
    shadow = _differing(block=block(5, results="EF01", identity="X"), block_results=_receipts({"code": 1}, {}))
    found = await compare_one(shadow, Node(), migration=True)
    assert found.divergence_layer == 1


async def test_gas_is_compared_for_real() -> None:
    shadow = _differing(block_results=results(5, total_gas_used="101"))
    record = (await compare_one(shadow, Node(), migration=True)).record()
    assert (record["match"], record["divergenceLayer"]) == (False, 0)
    assert record["layer0"]["gasUsedMatch"] is False
    assert (record["layer0"]["shadowGasUsed"], record["layer0"]["canonicalGasUsed"]) == (101, 100)
    in_default_mode = await compare_one(shadow, Node(), depth={"gas": True})
    assert in_default_mode.layer0.gas_match is False


@pytest.mark.parametrize(
    "events",
    [
        [{"attributes": [{"index": True, "value": "dmFsdWU=", "key": "a2V5"}], "type": "message"}],
        [{"type": "message", "attributes": [{"key": "a2V5", "value": "dmFsdWU=", "index": False}]}],
    ],
    ids=["member-order", "index-flag"],
)
async def test_events_are_compared_as_values_without_node_local_flags(events: Any) -> None:
    found = await compare_one(_differing(block_results=_receipts({"events": events}, {})), Node(), migration=True)
    assert found.verdict == "clean"
    assert found.layer1.only_index_differs == (events[0]["attributes"][0]["index"] is False)


async def test_index_flag_counts_where_asked() -> None:
    events = [{"type": "message", "attributes": [{"key": "a2V5", "value": "dmFsdWU=", "index": False}]}]
    found = await compare_one(
        _differing(block_results=_receipts({"events": events}, {})), Node(), migration=True,
        depth={"rules": ReceiptRules(ignore_index=False)},
    )  # fmt: skip
    assert found.verdict == "diverged"


async def test_absent_null_and_empty_events_are_one() -> None:
    bare = receipt(5, 0)
    del bare["events"]
    shadow = _differing(block_results=results(5, [bare, receipt(5, 1, events=None)]))
    canonical = _differing(block_results=_receipts({"events": []}, {"events": []}))
    assert (await compare_one(shadow, canonical, migration=True)).verdict == "clean"


async def test_descriptive_fields_are_told_from_consensus_fields() -> None:
    found = await compare_one(
        _differing(block_results=_receipts({"log": "", "events": []}, {})), Node(), migration=True
    )
    record = found.record()
    assert (record["verdict"], record["reason"]) == ("diverged", "descriptive-fields")
    assert record["layer1"]["consensusMatch"] is True


async def test_values_are_capped_where_asked() -> None:
    shadow = _differing(block_results=_receipts({"log": "y" * 5000}, {}))
    found = await compare_one(shadow, Node(), migration=True, depth={"rules": ReceiptRules(value_limit=100)})
    (field,) = found.record()["layer1"]["divergences"][0]["fields"]
    assert field["shadow"]["bytes"] == 5000
    assert len(field["shadow"]["sha256"]) == 64
    assert field["canonical"] == "[]"


async def test_header_mismatch_looks_at_the_block_before() -> None:
    shadow = _differing(block=block(5, results="EF01", identity="X"))
    shadow.plant("block_results", 4, results(4, [receipt(4, 0, code=9), receipt(4, 1)]))
    found = await compare_one(shadow, Node())
    assert found.previous["height"] == 4
    assert found.previous["layer1"]["divergences"][0]["fields"] == [{"field": "code", "shadow": 9, "canonical": 0}]


# --- layer 2 ---------------------------------------------------------------------------------------------------------


async def test_layer_2_clean() -> None:
    found = await compare_one(Node(), Node(), migration=True, state=True)
    assert found.record()["layer2"] == {"accountsChecked": 1, "keysChecked": 4}
    assert found.verdict == "clean"


@pytest.mark.parametrize(
    ("method", "value", "entry"),
    [
        (
            "eth_getStorageAt",
            "0x4d",
            {"kind": "storage", "slot": SLOT, "shadow": "0x4d", "canonical": "0x" + "00" * 31 + "2a"},
        ),
        ("eth_getBalance", "0x6", {"kind": "balance", "shadow": "6", "canonical": "5"}),
        ("eth_getCode", "0x", {"kind": "code", "shadow": "0x", "canonical": "0x6001"}),
        ("eth_getTransactionCount", "0x6", {"kind": "nonce", "shadow": "6", "canonical": "5"}),
    ],
)
async def test_layer_2_mismatch_though_layer_1_is_clean(method: str, value: str, entry: dict[str, Any]) -> None:
    shadow = Node()
    shadow.plant_state(method, 5, value)
    found = await compare_one(shadow, Node(), migration=True, state=True)
    assert (found.divergence_layer, found.verdict) == (2, "diverged")
    (shown,) = found.record()["layer2"]["divergences"]
    assert {name: value for name, value in shown.items() if name != "addr"} == entry
    assert shown["addr"].lower() == ACCOUNT


async def test_storage_is_padded_before_it_is_compared() -> None:
    shadow = Node()
    shadow.plant_state("eth_getStorageAt", 5, "0x2a")
    assert (await compare_one(shadow, Node(), migration=True, state=True)).verdict == "clean"


async def test_layer_2_cannot_run() -> None:
    canonical = Node()
    canonical.plant_state("debug_traceBlockByNumber", 5, EvmFault("block number 5 is beyond max lookback of 10000"))
    record = (await compare_one(Node(), canonical, migration=True, state=True)).record()
    assert (record["divergenceLayer"], record["verdict"], record["reason"]) == (2, "indeterminate", "pruned")
    text = "resolving touched accounts at height 5: debug_traceBlockByNumber at height 5: block number 5 is beyond"
    assert record["layer2"]["error"].startswith(text)


@pytest.mark.parametrize("side", ["shadow", "canonical"])
async def test_read_error_on_either_side_keeps_what_was_found(side: str) -> None:
    nodes = {"shadow": Node(), "canonical": Node()}
    nodes[side].plant_state("eth_getBalance", 5, EvmFault("missing trie node"))
    nodes["shadow"].plant_state("eth_getTransactionCount", 5, "0x9")
    found = await compare_one(**nodes, migration=True, state=True)
    layer2 = found.record()["layer2"]
    assert layer2["indeterminate"] is True
    assert layer2["error"] == f"{side} balance 0x{'11' * 20}: missing trie node"
    assert layer2["failedReads"] == 1
    assert [entry["kind"] for entry in layer2["divergences"]] == ["nonce"]


async def test_both_nodes_trace_and_the_union_is_compared() -> None:
    only_shadow = "0x" + "77" * 20
    shadow, canonical = Node(), Node()
    shadow.plant_state("debug_traceBlockByNumber", 5, trace((only_shadow, {"storage": {SLOT: SLOT}})))
    found = await compare_one(shadow, canonical, migration=True, state=True)
    assert found.record()["layer2"]["accountsChecked"] == 2
    one = await compare_one(Node(), Node(), migration=True, state=True, trace_sides="one")
    assert one.record()["layer2"]["accountsChecked"] == 1


async def test_node_without_debug_namespace_is_left_out_of_the_union() -> None:
    shadow = Node()
    shadow.plant_state("debug_traceBlockByNumber", 5, EvmFault("the method does not exist", code=-32601))
    assert (await compare_one(shadow, Node(), migration=True, state=True)).verdict == "clean"


async def test_state_that_is_not_there_yet_is_no_verdict() -> None:
    shadow = Node()
    fault = EvmFault("requested height 5 is not yet available; safe latest is 4: block height not yet available")
    shadow.plant_state("eth_getBalance", 5, fault)
    outcome = await compare_one(shadow, Node(), migration=True, state=True)
    assert isinstance(outcome, Unread)
    assert outcome.not_ready
    settled = await compare_one(shadow, Node(), migration=True, state=True, settle=True)
    assert settled.verdict == "indeterminate"


async def test_results_that_are_not_there_yet_are_no_divergence() -> None:
    shadow = Node()
    shadow.plant(
        "block_results",
        5,
        {"code": -32603, "message": "Internal error", "data": "could not find results for height #5"},
    )
    outcome = await compare_one(shadow, Node(), migration=True)
    assert isinstance(outcome, Unread)
    assert outcome.not_ready


async def test_cancellation_mid_block_yields_no_record() -> None:
    shadow = Node(hang=asyncio.Event(), hanging=("block_results", 5))
    canonical = Node()
    async with serving(shadow, canonical) as session:
        comparator = comparator_for(request_for(shadow, canonical, migration=True), session)
        running = asyncio.ensure_future(comparator.group([5]))
        await asyncio.wait_for(shadow.hung.wait(), 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_group_gives_its_outcomes_in_order() -> None:
    shadow, canonical = Node(), Node()
    shadow.plant("block", 7, {"code": -32603, "message": "Internal error", "data": "gone"})
    async with serving(shadow, canonical) as session:
        comparator = comparator_for(request_for(shadow, canonical, migration=True), session)
        found = await comparator.group([5, 6, 7, 8])
    assert [type(one) for one in found] == [Compared, Compared, Unread, Compared]
    assert [one.height for one in found] == [5, 6, 7, 8]
