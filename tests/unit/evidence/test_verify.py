"""Verification of a run on disk: what stands in a chain beside its pages, and what a bounded reader does with large objects."""

from __future__ import annotations

import gzip
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seiops.evidence.findings import Finding
from seiops.evidence.verify import UnknownSealError, Verification, verify, verify_object
from seiops.objectstore import open_store, publish_gzip
from seiops.shadow.hashlog import slice_lines
from seiops.shadow.manifest import ChainHead, What, Writer, read_chain
from support.hash_logs import folder as hash_log_folder
from support.published_run import BLOCKS, publish
from support.shadow_nodes import Node, flat_error, receipt, results
from support.silent import Silent


@pytest.fixture
async def run(tmp_path: Path) -> Path:
    return await publish(tmp_path / "home")


async def verified(folder: Path, **given: Any) -> Verification:
    return await verify(open_store(f"file://{folder}"), str(folder), Silent(), **given)


def names(found: Verification) -> list[str]:
    return [str(finding.name) for finding in found.findings]


async def _writer(folder: Path, upto: int) -> Writer:
    """A writer that goes on behind entry `upto`; what stands behind it is removed."""
    store = open_store(f"file://{folder}")
    head = ChainHead()
    async for entry, key in read_chain(store, "run-1"):
        if entry.seq <= upto:
            head = ChainHead("run-1", entry.seq, _sha(folder / key))
        else:
            (folder / key).unlink()
    return Writer(store, head)


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_key_published_again_in_one_run_counts_once(run: Path) -> None:
    """A crash between a page and its progress: the page is made again, and its entry with it."""
    writer = await _writer(run, 3)
    store = open_store(f"file://{run}")
    payload = gzip.decompress((run / "101-130.compare.ndjson.gz").read_bytes())

    async def chunks() -> Any:
        yield payload.replace(b'"totalTxs":2', b'"totalTxs":1')

    again = await publish_gzip(store, "101-130.compare.ndjson.gz", chunks())
    assert "seal-differs" in names(await verified(run, accept=frozenset({"open"})))
    await writer.append(What("page", "2099-01-01T00:00:00Z", (101, 130), {"clean": 30}, again))
    await writer.append(What("end", "2099-01-01T00:00:00Z", counts={"clean": BLOCKS}, info={"reason": "end-height"}))
    found = await verified(run)
    assert (found.findings, found.runs[0].counts) == ([], {"clean": BLOCKS})


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (What("page", "t", (131, 230), {"clean": 100}), "entry-contradicts"),
        (What("report", "t", (7, 7)), "entry-contradicts"),
    ],
)
async def test_an_entry_without_an_object_contradicts_itself(run: Path, what: What, expected: str) -> None:
    writer = await _writer(run, 4)
    await writer.append(what)
    assert expected in names(await verified(run))
    assert "after-end" in names(await verified(run))


async def test_a_run_that_goes_on_is_open_and_may_be_accepted(run: Path) -> None:
    await _writer(run, 3)
    found = await verified(run)
    assert names(found) == ["run-open"]
    assert f"it speaks up to {BLOCKS}" in str(found.findings[0])
    taken = await verified(run, accept=frozenset({"open"}))
    assert (taken.findings, [finding.name for finding in taken.accepted]) == ([], ["run-open"])


async def test_a_page_stored_before_its_entry_is_unfinished_not_foreign(run: Path) -> None:
    await _writer(run, 2)
    found = await verified(run)
    assert sorted(names(found)) == ["run-open", "unfinished-object"]


async def test_a_run_that_says_it_reached_its_end_must_have(run: Path) -> None:
    writer = await _writer(run, 2)
    (run / "101-130.compare.ndjson.gz").unlink()
    await writer.append(What("end", "t", counts={"clean": 100}, info={"reason": "end-height"}))
    assert names(await verified(run)) == ["range-short"]


async def test_a_tripwire_run_without_its_report_is_incomplete(tmp_path: Path) -> None:
    other = Node(latest=BLOCKS, identity="other")
    other.plant("block_results", 42, results(42, [receipt(42, 0, code=5), receipt(42, 1)]))
    folder = await publish(tmp_path / "home", canonical=other, survey=False)
    assert names(await verified(folder)) == ["not-clean"]
    (folder / "divergence-42.report.json.gz").unlink()
    manifest = folder / "manifest" / "run-1"
    assert json.loads((manifest / "00000002.json").read_bytes())["kind"] == "report"
    writer = await _writer(folder, 1)
    page = next(folder.glob("*.compare.ndjson.gz"))
    payload = gzip.decompress(page.read_bytes())

    async def chunks() -> Any:
        yield payload

    again = await publish_gzip(open_store(f"file://{folder}"), page.name, chunks())
    await writer.append(What("page", "t", (1, 42), {"clean": 41, "diverged": 1}, again))
    await writer.append(What("end", "t", counts={"clean": 41, "diverged": 1}, info={"reason": "divergence"}))
    assert sorted(names(await verified(folder))) == ["not-clean", "report-missing"]


async def test_a_second_look_settles_what_was_open_and_is_checked_too(tmp_path: Path) -> None:
    other = Node(latest=BLOCKS, identity="other")
    other.plant("block_results", 42, *[flat_error("not now")] * 3, results(42))
    folder = await publish(tmp_path / "home", canonical=other)
    found = await verified(folder)
    (run,) = found.runs
    assert found.findings == []
    assert (run.counts, run.after, run.verdict) == ({"clean": 129, "indeterminate": 1}, {"clean": BLOCKS}, "clean")
    again = folder / "recheck-1.compare.ndjson.gz"
    kept = again.read_bytes()
    again.write_bytes(gzip.compress(gzip.decompress(kept).replace(b'"clean"', b'"vacuous"')))
    assert {"seal-differs", "verdict-contradicts", "not-clean"} <= set(names(await verified(folder)))
    again.unlink()
    assert {"object-missing", "verdict-contradicts", "not-clean"} <= set(names(await verified(folder)))
    for entry in (folder / "manifest").rglob("*.json"):
        entry.unlink()
    again.write_bytes(kept)
    assert (await verified(folder)).findings == []


async def test_two_runs_that_follow_each_other_are_no_gap(run: Path, tmp_path: Path) -> None:
    """A failed task that was submitted again: the first run has no end, the second goes on where it stopped."""
    await _writer(run, 2)
    store = open_store(f"file://{run}")
    payload = gzip.decompress((run / "101-130.compare.ndjson.gz").read_bytes())

    async def chunks() -> Any:
        yield payload

    page = await publish_gzip(store, "101-130.compare.ndjson.gz", chunks())
    writer = Writer(store, ChainHead("run-1-2"))
    await writer.append(What("run", "2099", info={"startHeight": 101, "params": {"end_height": BLOCKS}}))
    await writer.append(What("page", "2099", (101, 130), {"clean": 30}, page))
    await writer.append(What("end", "2099", counts={"clean": BLOCKS}, info={"reason": "end-height"}))
    assert (await verified(run)).findings == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: text.replace("\n14,", "\n15,", 1), "line 10 is of height 15, expected 14"),
        (lambda text: "\n".join(text.split("\n")[:-3]) + "\n", "lines, its name says 91"),
        (lambda text: text.replace("block_number", "height", 1), "names no column block_number"),
    ],
)
async def test_a_hash_log_slice_is_checked_row_by_row(tmp_path: Path, change: Callable[[str], str], text: str) -> None:
    source, folder = tmp_path / "hash.log", tmp_path / "bucket"
    hash_log_folder(source)
    rows = b"".join(slice_lines(source, 5, 95)).decode()
    folder.mkdir()
    place = folder / "hashlog-5-95.csv.gz"
    place.write_bytes(gzip.compress(rows.encode()))
    assert (await verified(folder)).findings == []
    place.write_bytes(gzip.compress(change(rows).encode()))
    found = await verified(folder)
    assert found.findings and text in " ".join(map(str, found.findings))


async def test_seals_of_a_task_result_are_held_against_the_objects(run: Path) -> None:
    key = "1-100.compare.ndjson.gz"
    assert names(await verified(run, seals={key: "0" * 64})) == ["seal-differs"]
    with pytest.raises(UnknownSealError, match=r"no object other\.gz"):
        await verified(run, seals={"other.gz": "0"})
    alone = await verify_object(open_store(f"file://{run}"), key, key, Silent())
    assert (alone.findings, len(alone.objects), alone.runs[0].verdict) == ([], 1, "clean")


async def test_one_page_by_itself_still_tells_its_verdict(tmp_path: Path) -> None:
    other = Node(latest=BLOCKS, identity="other")
    other.plant("block_results", 42, results(42, [receipt(42, 0, code=5), receipt(42, 1)]))
    folder = await publish(tmp_path / "home", canonical=other)
    found = await verify_object(open_store(f"file://{folder}"), "1-100.compare.ndjson.gz", "x", Silent())
    assert names(found) == ["not-clean"]


async def test_other_objects_are_counted_and_left_alone(run: Path) -> None:
    (run / "README.txt").write_text("notes")
    found = await verified(run)
    assert (found.findings, found.others) == ([], 1)


async def test_memory_does_not_grow_with_an_object(tmp_path: Path) -> None:
    line = b'{"block_results":{"height":"%d","x":"' + b"y" * 20_000 + b'"},"exported_at":"t","height":%d}\n'
    payload = b"".join(line % (height, height) for height in range(1, 5001))
    (tmp_path / "1-5000.ndjson.gz").write_bytes(gzip.compress(payload, 1))
    size = len(payload)
    del payload
    tracemalloc.start()
    try:
        found = await verified(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.findings == []
    assert found.objects[0].payload_bytes == size
    assert peak < size // 5


async def test_many_findings_of_one_object_are_cut_and_counted(run: Path) -> None:
    place = run / "1-100.compare.ndjson.gz"
    place.write_bytes(gzip.compress(gzip.decompress(place.read_bytes()).replace(b'"match":true', b'"match":1')))
    found: list[Finding] = [one for one in (await verified(run)).findings if one.name == "content-invalid"]
    assert len(found) == 6
    assert "and 95 more findings like these" in str(found[-1])
