"""A run summed up: every block once, holes and open ends named, bounded however long the run is."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from seiops.evidence import summary as limits
from seiops.evidence.advice import advice, headline
from seiops.evidence.catalog import read_runs, take_stock
from seiops.evidence.collect import Filters, gather, matching
from seiops.evidence.render import machine
from seiops.evidence.summary import Summary
from seiops.objectstore import Store, open_store
from support.evidence import (
    CONTRACT,
    OTHER,
    SLOT,
    clean,
    gap,
    put_json,
    put_page,
    put_run,
    receipts_differ,
    state_differs,
    undecided,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}")


async def summed(store: Store) -> Summary:
    (stock,) = await take_stock(store)
    await read_runs(store, stock)
    return await gather(store, stock)


def planted(height: int) -> dict[str, Any]:
    match height:
        case 120:
            return receipts_differ(height, ("gasUsed", "21546", "21000"), ("data", "AA", "AB"))
        case 130:
            return state_differs(height, ("storage", CONTRACT, SLOT, "0x01", "0x02"), ("balance", OTHER, "", "1", "2"))
        case 140:
            return receipts_differ(height, ("log", "a", "b"), consensus=False)
        case 150 | 151:
            return undecided(height, "pruned", "beyond max lookback of 10000")
        case 160:
            return gap(height)
        case _:
            return clean(height)


async def test_planted_run_in_numbers(store: Store) -> None:
    await put_run(store, range(1, 301), planted)
    found = await summed(store)
    assert found.counts == {"clean": 294, "vacuous": 0, "gap": 1, "indeterminate": 2, "diverged": 3}
    assert (found.verdict, found.missing, found.descriptive, found.pages, found.seals_held) == ("diverged", 0, 1, 3, 3)
    assert found.layers == {"0": 0, "1": 2, "2": 1, "H": 0}
    assert found.undecided["2"] == 2
    assert found.kinds.top(9) == [
        ("receipts: data", 1, 1), ("receipts: gasUsed", 1, 1), ("receipts: log", 1, 1), ("state: balance", 1, 1), ("state: storage", 1, 1)
    ]  # fmt: skip
    assert {name for name, _, _ in found.contracts.top(9)} == {CONTRACT, OTHER}
    assert [(block.height, block.verdict) for block in found.listed()] == [
        (120, "diverged"), (130, "diverged"), (140, "diverged"), (150, "indeterminate"), (151, "indeterminate"), (160, "gap")
    ]  # fmt: skip
    texts = " ".join(one.text for one in advice(found))
    assert "Begin with block 120" in texts
    assert "2 blocks could not be decided (pruned)" in texts
    assert headline(found) == "3 blocks of 300 differ, 2 of them in what the chain settles"


async def test_clean_run_says_what_it_does_not_prove(store: Store) -> None:
    await put_run(store, range(1, 201), clean)
    found = await summed(store)
    assert (found.verdict, headline(found)) == ("clean", "Every one of 200 blocks is clean")
    assert [one.weight for one in advice(found)] == ["know"]
    assert "digest of the whole state" in advice(found)[0].text


async def test_hole_is_named_with_what_to_submit(store: Store) -> None:
    await put_run(store, [*range(1, 101), *range(151, 201)], clean, params={"start_height": 1, "end_height": 220})
    found = await summed(store)
    assert (found.verdict, found.missing) == ("incomplete", 70)
    spans, in_all = found.open_spans()
    assert [(span.start, span.end) for span in spans] == [(101, 150), (201, 220)]
    assert in_all == 2
    assert any("startHeight 101, endHeight 150" in one.text for one in advice(found))


async def test_unfinished_run_is_incomplete(store: Store) -> None:
    await put_run(store, range(1, 101), clean, ended="")
    found = await summed(store)
    assert (found.runs[0].state, found.verdict) == ("open", "incomplete")


async def test_overlapping_pages_count_a_block_once_and_the_graver_verdict(store: Store) -> None:
    await put_page(store, "", [clean(height) for height in range(1, 51)])
    await put_page(
        store, "", [clean(height) if height != 40 else undecided(40, "rpc", "no") for height in range(1, 81)]
    )
    found = await summed(store)
    assert (found.blocks, found.lines, found.repeated, found.conflicts) == (80, 130, 50, 1)
    assert found.counts["indeterminate"] == 1
    assert any("block 40" in problem for problem in found.problems)


async def test_later_divergence_in_an_overlap_is_listed(store: Store) -> None:
    await put_page(store, "", [clean(height) for height in range(1, 101)])
    await put_page(store, "", [receipts_differ(50, ("code", 0, 1))])
    found = await summed(store)
    assert (found.counts["diverged"], [block.height for block in found.listed()]) == (1, [50])


async def test_second_look_decides_what_was_open_and_takes_no_divergence_back(store: Store, tmp_path: Path) -> None:
    odd = {10: undecided(10, "rpc", "no"), 11: undecided(11, "rpc", "no"), 12: receipts_differ(12, ("code", 0, 1))}
    await put_run(store, range(1, 101), lambda height: odd.get(height) or clean(height), sealed=False)
    key = await put_page(store, "second/", [clean(10), undecided(11, "rpc", "no"), clean(12)])
    (tmp_path / key).rename(tmp_path / "recheck-1.compare.ndjson.gz")
    (tmp_path / "second").rmdir()
    found = await summed(store)
    assert (found.rechecked, found.counts["indeterminate"], found.counts["diverged"]) == (1, 1, 1)


async def test_run_of_the_go_program_is_summed_without_seals(store: Store) -> None:
    await put_run(store, range(1, 301), planted, sealed=False)
    found = await summed(store)
    # without a verdict member a gap cannot be told from a mismatch of headers
    assert (found.counts["diverged"], found.counts["indeterminate"], found.counts["gap"]) == (4, 2, 0)
    assert found.runs[0].sealed is False
    assert any("without a manifest" in one.text for one in advice(found))


@pytest.mark.parametrize("harm", ["cut", "changed", "line", "gone", "name"])
async def test_damage_is_a_problem_and_never_clean(store: Store, tmp_path: Path, harm: str) -> None:
    await put_run(store, range(1, 301), clean)
    page = tmp_path / "101-200.compare.ndjson.gz"
    lines = gzip.decompress(page.read_bytes()).splitlines(keepends=True)
    match harm:
        case "cut":
            page.write_bytes(page.read_bytes()[:-20])
        case "changed":
            page.write_bytes(gzip.compress(b"".join(lines).replace(b'"totalTxs":2', b'"totalTxs":3')))
        case "line":
            page.write_bytes(gzip.compress(b"".join([*lines[:-1], b"{}\n"])))
        case "gone":
            page.unlink()
        case "name":
            page.rename(tmp_path / "301-400.compare.ndjson.gz")
    found = await summed(store)
    assert found.verdict == "incomplete"
    assert found.problem_count
    assert any("seiops verify" in one.command for one in advice(found))


async def test_digests_beside_a_run_are_part_of_its_verdict(store: Store) -> None:
    await put_run(store, range(1, 101), clean)
    await put_json(store, "endpoint-digest-100-semantic.json.gz", {"height": 100, "match": True})
    found = await summed(store)
    assert (found.digests[0].match, found.verdict) == (None, "incomplete")


async def test_long_run_stays_bounded(store: Store) -> None:
    def line(height: int) -> dict[str, Any]:
        if height % 3:
            return clean(height)
        address = f"0x{height:040x}"
        return state_differs(height, ("storage", address, SLOT, "0x" + "ab" * 4000, "0x" + "cd" * 4000))

    await put_run(store, range(1, 30_001), line)
    found = await summed(store)
    assert found.counts["diverged"] == 10_000
    assert len(found.grave) == limits.KEPT_BLOCKS
    assert max(len(one.shadow) for block in found.grave for one in block.samples) < 2 * limits.SAMPLE_CHARS
    wire = machine.summary_wire(found)
    assert (len(wire["divergentBlocks"]), wire["divergentBlocksInAll"]) == (limits.KEPT_BLOCKS, 10_000)
    assert len(wire["matchRate"]) <= limits.COLUMNS
    assert wire["contractsInAll"] == 10_000


def test_names_beyond_the_limit_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEPT_NAMES", 2)
    tally = limits.Tally()
    for name in ("a", "b", "c", "c"):
        tally.add(limits.Counter({name: 1}))
    assert (tally.top(9), tally.beyond) == ([("a", 1, 1), ("b", 1, 1)], 2)


async def test_filters_find_the_blocks(store: Store) -> None:
    await put_run(store, range(1, 301), planted)
    (stock,) = await take_stock(store)

    async def heights(filters: Filters) -> list[int]:
        found = Summary("", [])
        await matching(store, stock, filters, found, lambda done, total: None)
        return [block.height for block in found.listed()]

    assert await heights(Filters()) == [120, 130, 140]
    assert await heights(Filters(first=125, last=139)) == [130]
    assert await heights(Filters(layers=("2",))) == [130]
    assert await heights(Filters(kinds=("gasused",))) == [120]
    assert await heights(Filters(contracts=(OTHER[4:12].casefold(),))) == [130]
    assert await heights(Filters(verdicts=("indeterminate", "gap"))) == [150, 151, 160]


async def test_everything_published_is_in_the_list_of_runs(store: Store) -> None:
    await put_run(store, range(1, 11), clean, prefix="a/")
    await put_page(store, "b/", [clean(height) for height in range(1, 11)])
    for name in (
        "c/1-1000.ndjson.gz",
        "c/hashlog-1-50.csv.gz",
        "c/endpoint-digest-9-semantic.json.gz",
        "c/notes.txt.gz",
    ):
        await put_json(store, name, {})
    found = []
    for stock in await take_stock(store):
        await read_runs(store, stock)
        found += [(run.folder, run.kind, run.sealed, run.state, run.first, run.last, run.blocks) for run in stock.runs]
    assert found == [
        ("a/", "comparison", True, "finished", 1, 10, 10),
        ("b/", "comparison", False, "unknown", 1, 10, 10),
        ("c/", "export", False, "unknown", 1, 1000, 1000),
        ("c/", "hash-log slice", False, "unknown", 1, 50, 50),
        ("c/", "digest", False, "unknown", 9, 9, 0),
    ]


async def test_object_beside_a_sealed_run_that_no_manifest_names_is_a_problem(store: Store) -> None:
    await put_run(store, range(1, 101), clean)
    await put_page(store, "", [clean(height) for height in range(101, 151)])
    found = await summed(store)
    assert found.problems == ["1 objects are in no manifest, the first: 101-150.compare.ndjson.gz"]
    assert found.verdict == "incomplete"


async def test_broken_chain_is_a_problem(store: Store, tmp_path: Path) -> None:
    await put_run(store, range(1, 301), clean)
    (tmp_path / "manifest" / "run-1" / "00000003.json").unlink()
    found = await summed(store)
    assert (found.runs[0].state, found.verdict) == ("broken", "incomplete")
