"""Two recorded nodes, one of them tampered with the way a broken migration would be: each layer reports what it must.

The nodes answer on real sockets; what was not recorded is an error there, and must neither hide a finding nor make one up.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from seidev.chain import ChainServer, Recording, Replay, Window
from seiops.shadow import assemble, preflight
from seiops.shadow.loop import Course
from seiops.shadow.request import Request
from seiops.shadow.traps import Plan
from support.shadow_nodes import Heard, loop_for, pages_in, shelf_in
from support.tampered_chain import CHAIN as DATA
from support.tampered_chain import NEW_ACCOUNT, Tampered

FIRST, LAST = 421, 450


async def _compare(tampered: Recording, home: Path, **changes: Any) -> dict[int, dict[str, Any]]:
    window = Window(FIRST, LAST + 1)
    canonical = Recording.load(DATA / "rpc-memiavl.jsonl.zst")
    async with (
        ChainServer(Replay(tampered, window)) as ours,
        ChainServer(Replay(canonical, window)) as theirs,
        aiohttp.ClientSession() as session,
    ):
        request = Request("b", "r", rpc_endpoint=ours.comet_url, canonical_rpc=theirs.comet_url, migration=True, survey=True,
                          shadow_evm_rpc=ours.evm_url, canonical_evm_rpc=theirs.evm_url, **changes)  # fmt: skip
        comparator = assemble.comparator(request, session, FIRST)

        class _Head:
            latest = LAST + 1

        course = Course(FIRST, end=LAST, survey=True)
        await loop_for(comparator, shelf_in(home), _Head(), Heard(), course).run()  # type: ignore[arg-type]
    return {line["height"]: line for lines in pages_in(home).values() for line in lines}


async def test_untouched_pair_is_clean_at_every_layer(tmp_path: Path) -> None:
    lines = await _compare(Tampered().recording, tmp_path)
    assert sorted(lines) == list(range(FIRST, LAST + 1))
    assert {line["verdict"] for line in lines.values()} == {"clean"}
    assert sum(line["layer2"]["keysChecked"] for line in lines.values()) > 500


async def test_each_layer_reports_its_own_heights(tmp_path: Path) -> None:
    node = Tampered()

    def gas(document: dict[str, Any]) -> None:
        document["txs_results"][0]["gas_used"] = "21546"

    def data(document: dict[str, Any]) -> None:
        document["txs_results"][0]["data"] = "AAAA"

    def shape(document: dict[str, Any]) -> None:
        for receipt in document["txs_results"]:
            receipt["log"] = "[]"
            receipt["events"] = [{"type": "tx", "attributes": []}]
            receipt["evm_tx_info"] = dict(receipt.get("evm_tx_info") or {}, senderAddress="0x1")

    node.results(425, gas)
    node.results(430, data)
    node.results(436, shape)
    node.state("eth_getBalance", 440, "0x1234")
    node.state("eth_getStorageAt", 444, "0x" + "00" * 31 + "63")
    lines = await _compare(node.recording, tmp_path)
    consensus = [h for h, line in lines.items() if line["layer1"].get("consensusMatch") is False]
    assert consensus == [425, 430]
    assert [h for h, line in lines.items() if line["layer2"].get("divergences")] == [440, 444]
    assert (lines[436]["verdict"], lines[436]["reason"]) == ("diverged", "descriptive-fields")
    assert lines[436]["layer1"]["consensusMatch"] is True
    odd = {425, 430, 436, 440, 444}
    assert {line["verdict"] for h, line in lines.items() if h not in odd} == {"clean"}


async def test_what_only_the_shadow_touched_is_looked_at(tmp_path: Path) -> None:
    node = Tampered()
    node.trace_more(426)
    node.state("eth_getBalance", 426, "0x99")
    line = (await _compare(node.recording, tmp_path))[426]
    # the reads of that account were not recorded on either side: indeterminate, and the finding stays
    assert line["layer2"]["indeterminate"] is True
    assert NEW_ACCOUNT in line["layer2"]["error"].lower()
    assert [entry["kind"] for entry in line["layer2"]["divergences"]] == ["balance"]
    assert line["verdict"] == "diverged"


async def test_missing_transaction_shows(tmp_path: Path) -> None:
    node = Tampered()
    node.results(428, lambda document: document["txs_results"].pop())
    line = (await _compare(node.recording, tmp_path))[428]
    assert line["layer1"]["txCountMatch"] is False
    assert re.search(r"shadow block_results hold \d+ results for a block of \d+", line["layer1"]["error"])


@pytest.mark.parametrize("strict", [False, True])
async def test_preflight_of_the_recorded_pair(strict: bool) -> None:
    window = Window(FIRST, LAST + 1)
    async with (
        ChainServer(Replay(Tampered().recording, window)) as ours,
        ChainServer(Replay(Recording.load(DATA / "rpc-memiavl.jsonl.zst"), window)) as theirs,
        aiohttp.ClientSession() as session,
    ):
        extra = {"shadow_metrics": "http://127.0.0.1:1/metrics"} if strict else {}
        request = Request("b", "r", rpc_endpoint=ours.comet_url, canonical_rpc=theirs.comet_url, migration=True,
                          shadow_evm_rpc=ours.evm_url, canonical_evm_rpc=theirs.evm_url, end_height=LAST,
                          start_height=FIRST, **extra)  # fmt: skip
        comparator = assemble.comparator(request, session, FIRST)
        plan = Plan(request, FIRST, "seiops-local-1")
        found = await preflight.run(plan, comparator, session)
    checks = found.checks
    states = {check.name: check.state for check in checks}
    for name in ("distinct-nodes", "same-chain", "right-direction", "retained-history", "traces-work", "executors",
                 "event-settings", "lenient-decoder", "headers-mean-something", "same-software", "state-readable", "keeps-up"):  # fmt: skip
        assert states[name] == "held", (name, [check.wire() for check in checks if check.name == name])
    assert states["two-engines"] == "not checked"
    stops = {check.name for check in found.stopping}
    assert ("two-engines" in stops) is strict
