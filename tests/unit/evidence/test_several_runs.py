"""Several runs below one prefix: which entry of an object counts, whose second look decides, and what is never taken back."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import pytest

from seiops.digest.model import Backend
from seiops.digest.record import Provenance, build_record, record_key
from seiops.digest.seidb_report import parse_report
from seiops.evidence.catalog import read_runs, take_stock
from seiops.evidence.collect import gather
from seiops.evidence.summary import Summary
from seiops.evidence.verify import Verification, verify
from seiops.objectstore import Store, open_store, publish_gzip
from seiops.shadow import rawjson
from seiops.shadow.manifest import ChainHead, What, Writer
from seiops.shadow.progress import Progress, RunKey, begin, save
from support.digest_reports import report
from support.evidence import AT, clean, put_json, put_page, receipts_differ, undecided
from support.silent import Silent

PARAMS = {"canonical_rpc": "http://canonical:26657", "migration": True, "survey": True}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}")


async def verified(store: Store, *accept: str) -> Verification:
    return await verify(store, "here", Silent(), accept=frozenset(accept))


async def summed(store: Store) -> Summary:
    (stock,) = await take_stock(store)
    await read_runs(store, stock)
    return await gather(store, stock)


def names(found: Verification) -> list[str]:
    return sorted(str(finding.name) for finding in found.findings)


async def begun(store: Store, run: str, start: int = 1) -> Writer:
    writer = Writer(store, ChainHead(run))
    await writer.append(What("run", AT, info={"params": PARAMS, "startHeight": start}))
    return writer


async def ended(writer: Writer, **counts: int) -> None:
    await writer.append(What("end", AT, counts=counts, info={"reason": "end-height"}))


async def recheck(store: Store, number: int, lines: list[dict[str, Any]], writer: Writer | None) -> None:
    async def payload() -> Any:
        yield b"".join(map(rawjson.line, lines))

    published = await publish_gzip(store, f"recheck-{number}.compare.ndjson.gz", payload())
    if writer is not None:
        await writer.append(What("recheck", AT, (lines[0]["height"], lines[-1]["height"]), published=published))


@pytest.mark.parametrize("last", ["run-1", "run-2"])
async def test_of_entries_of_one_second_the_one_that_knows_the_object_counts(store: Store, last: str) -> None:
    """Two tasks publish the same page within a second: no name and no clock tells which of them was last."""
    writers = {run: await begun(store, run) for run in ("run-1", "run-2")}
    for run in sorted(writers, key=lambda run: run == last):
        lines = [clean(height, timestamp=run) for height in range(1, 11)]
        await put_page(store, "", lines, writers[run])
        await ended(writers[run], clean=10)
    found = await verified(store)
    assert (found.findings, found.objects[0].task.run) == ([], last)
    assert [run.run for run in found.runs if run.superseded] == [run for run in writers if run != last]
    told = await summed(store)
    assert (told.problems, told.seals_held, told.verdict) == ([], 1, "clean")


async def test_a_later_run_counts_whatever_it_is_called(store: Store) -> None:
    early = await begun(store, "zz")
    await put_page(store, "", [clean(height, timestamp="early") for height in range(1, 11)], early)
    await ended(early, clean=10)
    late = Writer(store, ChainHead("aa"))
    await late.append(What("run", "2027", info={"params": PARAMS, "startHeight": 1}))

    async def payload() -> Any:
        yield b"".join(map(rawjson.line, map(clean, range(1, 11))))

    published = await publish_gzip(store, "1-10.compare.ndjson.gz", payload())
    await late.append(What("page", "2027", (1, 10), {"clean": 10}, published))
    await late.append(What("end", "2027", counts={"clean": 10}, info={"reason": "end-height"}))
    assert (await verified(store)).findings == []
    assert (await summed(store)).problems == []


async def test_a_divergence_that_was_published_is_not_taken_back(store: Store) -> None:
    first = await begun(store, "run-1")
    lines = [clean(height) for height in range(1, 11)]
    await put_page(store, "", [*lines[:4], receipts_differ(5, ("code", 0, 1)), *lines[5:]], first)
    await ended(first, clean=9, diverged=1)
    second = await begun(store, "run-2")
    await put_page(store, "", lines, second)
    await ended(second, clean=10)
    found = await verified(store)
    assert names(found) == ["not-clean"]
    assert "an earlier entry of the same page counted 1" in str(found.findings[0])
    assert (await verified(store, "diverged")).findings == []
    assert (await summed(store)).verdict == "incomplete"


async def test_totals_go_on_behind_the_run_before_and_not_behind_others(store: Store) -> None:
    """The end of a task that was submitted again counts what it had published before, and nothing of its neighbours."""
    other = await begun(store, "other")
    await put_page(store, "", [clean(height) for height in range(1, 11)], other)
    await ended(other, clean=10)
    failed = await begun(store, "task", 11)
    await put_page(store, "", [clean(height) for height in range(11, 21)], failed)
    again = await begun(store, "task-2", 21)
    await put_page(store, "", [clean(height) for height in range(21, 31)], again)
    await ended(again, clean=20)
    assert (await verified(store)).findings == []
    for entry in (Path(store.url("").removeprefix("file://")) / "manifest/task-2").glob("*3.json"):
        entry.unlink()
    await ended(Writer(store, ChainHead("task-2", 2, _sha(store, "task-2", 2))), clean=25)
    assert names(await verified(store)) == ["counts-differ"]


def _sha(store: Store, run: str, number: int) -> str:
    place = Path(store.url("").removeprefix("file://")) / f"manifest/{run}/{number:08d}.json"
    return hashlib.sha256(place.read_bytes()).hexdigest()


async def test_a_run_that_goes_on_settles_what_the_one_before_left_open(store: Store) -> None:
    first = await begun(store, "task")
    lines = [undecided(height, "rpc", "no") if height == 5 else clean(height) for height in range(1, 11)]
    await put_page(store, "", lines, first)
    info = {"reason": "stopped", "verdict": "indeterminate"}
    await first.append(What("end", AT, counts={"clean": 9, "indeterminate": 1}, info=info))
    second = await begun(store, "task-2", 11)
    await put_page(store, "", [clean(height) for height in range(11, 21)], second)
    await recheck(store, 1, [clean(5)], second)
    await ended(second, clean=19, indeterminate=1)
    found = await verified(store)
    assert (found.findings, [run.verdict for run in found.runs]) == ([], ["clean", "clean"])
    assert (await summed(store)).verdict == "clean"


async def test_a_second_look_nobody_entered_decides_nothing(store: Store) -> None:
    writer = await begun(store, "run-1")
    lines = [undecided(height, "rpc", "no") if height == 5 else clean(height) for height in range(1, 11)]
    await put_page(store, "", lines, writer)
    await ended(writer, clean=9, indeterminate=1)
    await recheck(store, 1, [clean(5)], None)
    assert names(await verified(store)) == ["foreign-object", "not-clean"]
    told = await summed(store)
    assert (told.rechecked, told.counts["indeterminate"], told.problem_count) == (0, 1, 1)


async def test_of_several_looks_a_divergence_stays(store: Store) -> None:
    writer = await begun(store, "run-1")
    lines = [undecided(height, "rpc", "no") if height == 5 else clean(height) for height in range(1, 11)]
    await put_page(store, "", lines, writer)
    await recheck(store, 1, [clean(5), receipts_differ(6, ("code", 0, 1))], writer)
    await recheck(store, 2, [receipts_differ(5, ("code", 0, 1)), clean(6)], writer)
    await ended(writer, clean=9, indeterminate=1)
    (run,) = (await verified(store)).runs
    assert run.after == {"clean": 8, "diverged": 2}
    assert (await summed(store)).counts["diverged"] == 2


async def test_an_open_run_may_be_accepted_but_not_what_its_last_page_says(store: Store) -> None:
    writer = await begun(store, "run-1")
    await put_page(store, "", [clean(height) for height in range(1, 11)], writer)
    await put_page(store, "", [*map(clean, range(11, 20)), receipts_differ(20, ("code", 0, 1))])
    assert names(await verified(store, "open")) == ["not-clean"]


async def test_a_task_killed_right_behind_its_end_does_its_work_again(store: Store) -> None:
    writer = await begun(store, "run-1")
    for _ in range(2):
        await put_page(store, "", [clean(height) for height in range(1, 11)], writer)
        await ended(writer, clean=10)
        await writer.append(What("run", AT, info={"params": PARAMS, "startHeight": 1}))
    await ended(writer, clean=10)
    assert (await verified(store)).findings == []


async def test_a_page_under_a_name_that_is_none_is_named(store: Store, tmp_path: Path) -> None:
    writer = await begun(store, "run-1")

    async def payload() -> Any:
        yield rawjson.line(receipts_differ(1, ("code", 0, 1)))

    await writer.append(What("page", AT, (1, 1), None, await publish_gzip(store, "1.compare.gz", payload())))
    await ended(writer)
    assert names(await verified(store)) == ["entry-contradicts"]


@pytest.mark.parametrize("row", ["x" * 200_000, '"1,2\n2,3', "1\0,2"])
async def test_hash_log_rows_of_any_shape_are_findings_and_no_crash(store: Store, tmp_path: Path, row: str) -> None:
    text = f"block_number,changeset\n{row}\n"
    (tmp_path / "hashlog-1-1.csv.gz").write_bytes(gzip.compress(text.encode()))
    assert "content-invalid" in names(await verified(store))


async def test_a_run_is_of_the_kind_it_published(store: Store) -> None:
    writer = Writer(store, ChainHead("run-1"))
    await writer.append(What("run", AT, info={"params": {}}))
    await put_page(store, "", [clean(1)], writer)
    await ended(writer, clean=1)
    told = await summed(store)
    assert ([run.kind for run in told.runs], [run.kind for run in (await verified(store)).runs]) == (
        ["comparison"],
        ["compare"],
    )


async def test_an_end_without_anything_is_not_fine(store: Store) -> None:
    await ended(await begun(store, "run-1"))
    assert names(await verified(store)) == ["not-clean"]
    assert (await verified(store, "vacuous")).findings == []


async def test_one_digest_without_the_other_proves_nothing(store: Store) -> None:
    side = parse_report(report(), Backend.FLATKV, 100)
    for normalization, findings, verdict in (
        ("semantic", ["records-disagree"], "incomplete"),
        ("translator", [], "clean"),
    ):
        record = build_record(100, normalization, side, side, AT, Provenance("native", {"native": "0.1.0"}))
        await put_json(store, record_key("", 100, normalization), record)
        assert (names(await verified(store)), (await summed(store)).verdict) == (findings, verdict)


def test_another_run_below_the_prefix_does_not_overwrite_second_looks(tmp_path: Path) -> None:
    """The number of a second look is part of its key; a run that starts elsewhere goes on counting."""
    key = RunKey("bucket", "run/", "compare")
    save(tmp_path, Progress(key, last=100, first=1, rechecks=2, undecided={7: "gap"}))
    own = begin(tmp_path, key, asked=101).progress
    assert (own.rechecks, own.undecided, own.last) == (2, {}, None)
