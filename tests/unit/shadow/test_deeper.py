"""What goes beyond upstream's layers: own results, second pass, read sets, block-level fields, traces of transactions."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from seidev.chain import Recording
from seiops.shadow import progress
from seiops.shadow.loop import Course
from seiops.shadow.receipts import Results, parse_block, parse_results
from seiops.shadow.roots import results_root
from seiops.shadow.touched import parse_read_set
from seiops.shadow.tracing import Tracer
from seiops.shadow.txtraces import first_difference
from support.shadow_nodes import (
    ACCOUNT,
    EvmFault,
    Heard,
    Node,
    block,
    comparator_for,
    compare_one,
    loop_for,
    pages_in,
    receipt,
    reports_in,
    request_for,
    results,
    serving,
    shelf_in,
    trace,
    with_state,
)  # fmt: skip

DATA = Path(__file__).resolve().parents[2] / "data" / "chain"
OTHER = "0x" + "22" * 20


# --- own results ----------------------------------------------------------------------------------------------------


def test_results_root_is_what_the_next_header_shows() -> None:
    recording = Recording.load(DATA / "rpc-flatkv.jsonl.zst")
    for height in range(421, 540):
        own = results_root(parse_results(recording.comet[f"/block_results?height={height}"].body, height))
        header = parse_block(recording.comet[f"/block?height={height + 1}"].body, height + 1)
        assert own == header.last_results_hash


def test_results_root_of_an_empty_block() -> None:
    assert results_root(Results(b"null", None)) == "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"


def test_results_root_sees_every_consensus_field_and_no_other() -> None:
    def root(**changes: Any) -> str:
        given = [receipt(1, 0), receipt(1, 1), receipt(1, 2) | changes]
        return results_root(Results(json.dumps(given).encode(), None))

    same = root()
    assert root(log="other", events=[], codespace="sdk", info="x") == same
    changed = {root(code=1), root(data="AQ=="), root(gas_wanted="1"), root(gas_used="-1")}
    assert len(changed | {same}) == 5


async def _run(
    shadow: Node, canonical: Node, home: Path, *, state: bool = False, **course: Any
) -> tuple[Any, Heard, str]:
    heard = Heard()
    async with serving(shadow, canonical) as session:
        extra = with_state(shadow, canonical) if state else {}
        request = request_for(shadow, canonical, migration=True, **extra)
        given = {"start": 1, "poll_s": 0.01, "survey": True} | course
        shelf = shelf_in(home)
        shelf.progress = progress.load(home, shelf.progress.key)
        if shelf.progress.manifest.run:
            shelf.writer.head = shelf.progress.manifest
        else:
            shelf.progress.manifest = shelf.writer.head
        loop = loop_for(comparator_for(request, session), shelf, shadow, heard, Course(**given))
        return loop, heard, await loop.run()


@pytest.mark.parametrize("side", ["shadow", "canonical"])
async def test_own_results_are_held_against_the_header_of_the_next_block(tmp_path: Path, side: str) -> None:
    """One node executes block 4 otherwise and serves the network's headers all the same."""
    shadow, canonical = Node(latest=30), Node(latest=30)
    for height in range(1, 10):
        below = results(height - 1) if height > 1 else results(0, [])
        root = results_root(parse_results(json.dumps(below).encode(), height - 1))
        for node in (shadow, canonical):
            node.plant("block", height, block(height, results=root))
    other = {"shadow": shadow, "canonical": canonical}[side]
    other.plant("block_results", 4, results(4, [receipt(4, 0, gas_used="1"), receipt(4, 1)]))
    loop, _, _ = await _run(shadow, canonical, tmp_path, end=9)
    lines = pages_in(tmp_path)["1-9.compare.ndjson.gz"]
    told = {line["height"]: line["layer0"].get("ownResultsMatch") for line in lines}
    assert told[1] is None
    assert told[5] == {"shadow": True, "canonical": True} | {side: False}
    assert all(one == {"shadow": True, "canonical": True} for height, one in told.items() if height not in (1, 5))
    assert loop.own_results == {"checked": 8, "shadow": 0, "canonical": 0} | {side: 1}
    assert [line["height"] for line in lines if not line["match"]] == [4]


# --- second pass ----------------------------------------------------------------------------------------------------


async def test_second_pass_settles_what_could_not_be_decided(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=30), Node(latest=30)
    broken = EvmFault("tracer broke")
    # three attempts in the first pass fail; the second pass is answered
    canonical.plant_state("debug_traceBlockByNumber", 6, *[broken] * 3, trace((ACCOUNT, {})))
    canonical.plant_state("debug_traceBlockByNumber", 8, broken)
    loop, heard, reason = await _run(shadow, canonical, tmp_path, state=True, end=10)
    assert reason == "end-height"
    pages = pages_in(tmp_path)
    assert [line["height"] for line in pages["1-10.compare.ndjson.gz"] if line["verdict"] == "indeterminate"] == [6, 8]
    assert [(line["height"], line["verdict"]) for line in pages["recheck-1.compare.ndjson.gz"]] == [
        (6, "clean"), (8, "indeterminate"),
    ]  # fmt: skip
    own = progress.load(tmp_path, loop.shelf.progress.key)
    assert (own.counts, own.undecided) == ({"clean": 8, "indeterminate": 2}, {8: "indeterminate"})
    assert own.after_rechecks == {"clean": 9, "indeterminate": 1}
    assert len(heard.blocks) == 10, "a block that is looked at again is not counted again"


async def test_second_pass_goes_on_in_the_next_run_and_looks_at_gaps(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=30), Node(latest=30, batches=False)
    canonical.plant("block", 5, {"code": -32603, "message": "Internal error", "data": "gone"})
    loop, heard, _ = await _run(shadow, canonical, tmp_path, end=8, gap_after_s=0.05)
    assert (heard.gaps, loop.shelf.progress.undecided) == ([5], {5: "gap"})
    assert "recheck-1.compare.ndjson.gz" not in pages_in(tmp_path)
    loop, _, _ = await _run(Node(latest=30), Node(latest=30), tmp_path, start=9, end=8)
    assert [line["height"] for line in pages_in(tmp_path)["recheck-1.compare.ndjson.gz"]] == [5]
    assert loop.shelf.progress.after_rechecks == {"clean": 8, "gap": 0}


async def test_tripwire_has_no_second_pass(tmp_path: Path) -> None:
    canonical = Node(latest=30)
    canonical.plant_state("debug_traceBlockByNumber", 6, EvmFault("tracer broke"))
    _, _, reason = await _run(Node(latest=30), canonical, tmp_path, state=True, survey=False)
    assert (reason, list(pages_in(tmp_path))) == ("indeterminate", ["1-6.compare.ndjson.gz"])


# --- busy tracers, read sets, sweeps --------------------------------------------------------------------------------


async def test_busy_tracer_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seiops.shadow.tracing._BUSY_PAUSE_S", 0.01)
    canonical = Node()
    busy = EvmFault("trace request rejected due to concurrency limit: server busy")
    canonical.plant_state("debug_traceBlockByNumber", 5, *[busy] * 12, trace((ACCOUNT, {})))
    found = await compare_one(Node(), canonical, state=True, migration=True)
    assert (found.verdict, found.layer2.problems) == ("clean", [])


async def test_tracer_that_stays_busy_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seiops.shadow.tracing.BUSY_BUDGET_S", 0.0)
    canonical = Node()
    canonical.plant_state("debug_traceBlockByNumber", 5, EvmFault("concurrency limit: server busy"))
    found = await compare_one(Node(), canonical, state=True, migration=True)
    assert (found.verdict, found.reason) == ("indeterminate", "trace-limit")


class _Tracing(Node):
    """Refuses more than three requests at once, as a node with many other askers does."""

    running = 0
    most = 0

    def evm_call(self, method: str, params: list[Any]) -> Any:
        return EvmFault("concurrency limit: server busy") if self.running > 3 else super().evm_call(method, params)

    async def evm(self, request: Any) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.002)
            return await super().evm(request)
        finally:
            self.running -= 1


async def test_fewer_traces_at_once_where_the_node_refuses_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seiops.shadow.tracing._BUSY_PAUSE_S", 0.01)
    node = _Tracing()
    async with serving(node) as session:
        request = request_for(node, node, migration=True, **with_state(node, node))
        (tracer, *_) = comparator_for(request, session).tracers
        assert isinstance(tracer, Tracer)
        from seiops.seid.evm import Call
        from seiops.shadow.sides import Patience

        calls = [Call("debug_traceBlockByNumber", [hex(height), {}]) for height in (5, 6)]
        found = await asyncio.gather(*(tracer.read(calls, Patience(())) for _ in range(40)))
    assert all(isinstance(answer, bytes) for answers in found for answer in answers)
    assert node.most <= 8


def test_read_set_has_no_sides() -> None:
    found = parse_read_set(json.dumps([{"txHash": "0x1", "result": {OTHER: {"balance": "0x1"}}}]).encode())
    assert [address.hex() for address in found.accounts] == [OTHER[2:]]


@pytest.mark.parametrize(("every", "seen"), [(0, False), (5, True), (4, False)])
async def test_what_was_only_read_is_compared_at_sampled_heights(every: int, seen: bool) -> None:
    shadow, canonical = Node(), Node()
    for node in (shadow, canonical):
        touched = trace((ACCOUNT, {}))
        read = [{"txHash": touched[0]["txHash"], "result": {ACCOUNT: {}, OTHER: {"balance": "0x1"}}}]
        answers = [touched, read] if seen else [touched]
        node.plant_state("debug_traceBlockByNumber", 5, *answers)
    found = await compare_one(shadow, canonical, state=True, migration=True, depth={"read_set_every": every})
    assert found.verdict == "clean"
    assert found.layer2.accounts == (2 if seen else 1)


async def test_read_set_that_fails_is_told() -> None:
    canonical = Node()
    canonical.plant_state("debug_traceBlockByNumber", 5, trace((ACCOUNT, {})), EvmFault("pruned"))
    found = await compare_one(Node(), canonical, state=True, migration=True, depth={"read_set_every": 1})
    assert (found.verdict, "read set: pruned" in found.layer2.problems[0]) == ("indeterminate", True)


@pytest.mark.parametrize(("height", "accounts"), [(4, 2), (5, 1)])
async def test_watched_accounts_are_swept_at_intervals(height: int, accounts: int) -> None:
    found = await compare_one(
        Node(), Node(), height, state=True, migration=True, watch_accounts=(OTHER,), depth={"sweep_every": 4}
    )
    assert found.layer2.accounts == accounts


# --- deep receipts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [False, True])
async def test_fields_nobody_else_compares_are_compared_where_asked(asked: bool) -> None:
    shadow, canonical = Node(), Node()
    shadow.plant("block_results", 5, results(5, [receipt(5, 0, info="a", evm_tx_info={"nonce": 1}), receipt(5, 1)]))
    found = await compare_one(shadow, canonical, migration=True, deep_receipts=asked)
    fields = [field["field"] for one in found.layer1.divergences for field in one["fields"]]
    assert fields == (["info", "evmTxInfo"] if asked else [])
    assert (found.verdict, found.reason) == (("diverged", "descriptive-fields") if asked else ("clean", ""))


async def test_what_the_block_itself_returned_is_compared_where_asked() -> None:
    shadow = Node()
    shadow.plant("block_results", 5, results(5, validator_updates=[{"power": "1"}], finalize_block_events=None))
    canonical = Node()
    canonical.plant("block_results", 5, results(5, finalize_block_events=[]))
    found = await compare_one(shadow, canonical, migration=True, deep_receipts=True)
    record = found.record()
    assert record["layer1"]["block"][0]["field"] == "validatorUpdates"
    assert len(record["layer1"]["block"]) == 1
    assert (record["match"], record["divergenceLayer"], record["verdict"]) == (False, 1, "diverged")


# --- traces of transactions -----------------------------------------------------------------------------------------


def test_first_difference_is_the_deepest_call_that_did_something_else() -> None:
    ours = {"gasUsed": "0x10", "calls": [{"to": "0x1"}, {"to": "0x2", "gasUsed": "0x5"}]}
    theirs = {"gasUsed": "0x11", "calls": [{"to": "0x1"}, {"to": "0x2", "gasUsed": "0x6"}]}
    assert first_difference(ours, theirs) == {"path": "calls[1].gasUsed", "shadow": "0x5", "canonical": "0x6"}
    assert first_difference(ours, ours) is None
    assert first_difference({"calls": [1]}, {"calls": []}) == {"path": "calls[0]", "shadow": 1, "canonical": None}


class _Transactions(Node):
    def evm_call(self, method: str, params: list[Any]) -> Any:
        if method != "debug_traceTransaction":
            return super().evm_call(method, params)
        return {"gasUsed": "0x5", "error": f"node {self.identity}"}


@pytest.mark.parametrize("broken", [False, True])
async def test_report_holds_traces_of_divergent_transactions(tmp_path: Path, broken: bool) -> None:
    name = "0x" + "cd" * 32
    shadow = _Transactions(latest=30, identity="a")
    canonical = (Node if broken else _Transactions)(latest=30, identity="b")
    given = {"evm_tx_info": {"txHash": name}}
    traces = [{"txHash": name, "result": {"pre": {}, "post": {}}}]
    for node, gas in ((shadow, "1"), (canonical, "2")):
        node.plant("block_results", 4, results(4, [receipt(4, 0), receipt(4, 1, gas_used=gas, **given)]))
        node.plant_state("debug_traceBlockByNumber", 4, traces)
    if broken:
        canonical.plant_state("debug_traceTransaction", int(name, 16), EvmFault("transaction not found"))
    _, _, reason = await _run(shadow, canonical, tmp_path, state=True, survey=False)
    assert reason == "divergence"
    (report,) = reports_in(tmp_path).values()
    (entry,) = report["traces"]
    assert (entry["txIndex"], entry["txHash"]) == (1, name)
    if broken:
        assert entry["canonical"] is None
        assert report["captureErrors"] == [f"tracing transaction {name} on the canonical node: transaction not found"]
    else:
        assert entry["firstDifference"] == {"path": "error", "shadow": "node a", "canonical": "node b"}
