"""The real comparison's own lines, read back: the report says of every block what the comparison said."""

from __future__ import annotations

from pathlib import Path

from seiops.evidence import oneblock
from seiops.evidence.advice import advice
from seiops.evidence.catalog import read_runs, take_stock
from seiops.evidence.collect import gather
from seiops.evidence.summary import Summary
from seiops.objectstore import open_store
from support.published_pair import FIRST, LAST, publish
from support.tampered_chain import Tampered


async def summed(url: str) -> Summary:
    store = open_store(url)
    (stock,) = await take_stock(store)
    await read_runs(store, stock)
    return await gather(store, stock)


async def test_report_and_comparison_agree(tmp_path: Path) -> None:
    found = await summed(await publish(tmp_path))
    (run,) = found.runs
    assert {name: count for name, count in found.counts.items() if count} == run.counts
    assert (found.contradictions, found.problem_count, found.seals_held) == (0, 0, 1)
    assert (found.ledger.first, found.ledger.last, found.missing) == (FIRST, LAST, 0)
    assert [(block.height, block.layers) for block in found.listed()] == [
        (425, ["1"]), (430, ["1"]), (436, ["1"]), (440, ["2"]), (444, ["2"])
    ]  # fmt: skip
    assert (found.descriptive, run.chain, set(run.nodes)) == (1, "seiops-local-1", {"shadow", "canonical"})
    assert found.strange == {"shadow": 2}


async def test_untouched_pair_is_clean(tmp_path: Path) -> None:
    found = await summed(await publish(tmp_path, tampered=Tampered()))
    assert (found.verdict, found.counts["clean"]) == ("clean", LAST - FIRST + 1)
    assert found.keys > 500


async def test_stopped_run_shows_its_block_with_both_nodes_answers(tmp_path: Path) -> None:
    url = await publish(tmp_path, survey=False)
    found = await summed(url)
    assert (found.verdict, found.missing, found.ledger.last) == ("diverged", 0, 425)
    assert any("tripwire and ended at block 425" in one.text for one in advice(found))
    store = open_store(url)
    view = await oneblock.load(store, await take_stock(store), 425)
    assert view.report is not None
    assert set(view.report.answers) == {
        "shadow block",
        "shadow blockResults",
        "canonical block",
        "canonical blockResults",
    }
    assert [one.finding.verdict for one in view.said] == ["diverged"]
    assert [(one.kind, one.shadow) for one in view.finding.differences] == [("gasUsed", "21546")]
