"""Hash logs as real nodes left them, whole and damaged; and a node that renames its file while it is being read."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from seiops.shadow import hashlog
from seiops.shadow.hashlog import HashLogError, LogReader, diff, rows, slice_lines
from seiops.shadow.hashlog_layer import HashLogLayer
from seiops.shadow.loop import Course
from support.hash_logs import write
from support.shadow_nodes import Heard, Node, comparator_for, loop_for, pages_in, request_for, serving, shelf_in

DATA = Path(__file__).resolve().parents[2] / "data" / "shadow"
MEMIAVL, FLATKV, SEALED = (
    DATA / name for name in ("hashlog-memiavl.csv", "hashlog-flatkv.csv", "1-755-780-unknown.hlog")
)
FIRST, LAST = 421, 431


def test_two_engines_agree_on_what_they_share() -> None:
    found = diff(MEMIAVL, FLATKV)
    assert (found.compared, found.first, found.last, found.found, found.missing) == (11, FIRST, LAST, False, 0)


def test_sealed_file_of_a_real_node(tmp_path: Path) -> None:
    heights = [row.height for row in rows(SEALED)]
    assert heights == list(range(755, 781))
    published = b"".join(slice_lines(SEALED, 760, 770))
    (tmp_path / "slice.csv.gz").write_bytes(gzip.compress(published))
    again = diff(SEALED, tmp_path / "slice.csv.gz")
    assert (again.compared, again.found) == (11, False)


def test_columns_that_change_where_a_migration_starts(tmp_path: Path) -> None:
    found = {row.height: row.values for row in rows(DATA / "hashlog-migration-start.csv")}
    assert list(found) == [987, 988, 989, 990, 991]
    assert "flatKV/root" not in found[988]
    assert found[989]["flatKV/root"]
    assert all(hash_ in found[height] for height in found for hash_ in hashlog.SHARED_COLUMNS)
    (tmp_path / "s.csv").write_bytes(b"".join(slice_lines(DATA / "hashlog-migration-start.csv", 987, 991)))
    again = diff(tmp_path / "s.csv", DATA / "hashlog-migration-start.csv")
    assert (again.compared, again.found) == (5, False)


async def _compared(
    home: Path, mode: str, ours: Path, theirs: Path, *, end: int = LAST
) -> tuple[list[dict[str, Any]], Node]:
    shadow, canonical = Node(latest=end + 5), Node(latest=end + 5)
    layer = HashLogLayer(mode, ours, str(theirs), "r", True)
    async with serving(shadow, canonical) as session:
        comparator = comparator_for(request_for(shadow, canonical, migration=True), session)
        course = Course(FIRST, end=end, survey=True, poll_s=0.01, gap_after_s=0.05)
        loop = loop_for(comparator, shelf_in(home), shadow, Heard(), course)
        loop.settle, loop.annotate = layer.settle, layer.annotate
        await loop.run()
    return [line for lines in pages_in(home).values() for line in lines], shadow


@pytest.mark.parametrize("mode", ["first", "only"])
async def test_real_logs_settle_every_block_without_a_request(tmp_path: Path, mode: str) -> None:
    lines, shadow = await _compared(tmp_path, mode, FLATKV, MEMIAVL)
    assert [(line["height"], line["verdict"]) for line in lines] == [(h, "clean") for h in range(FIRST, LAST + 1)]
    assert all(line["layerH"]["notCovered"] == ["log", "events"] and "layer1" not in line for line in lines)
    assert shadow.requests == []


def _changed(folder: Path, height: int, column: str, value: str) -> Path:
    lines = FLATKV.read_text().splitlines()
    names = lines[0].split(",")
    for at, line in enumerate(lines):
        cells = line.split(",")
        if cells[0] == str(height):
            cells[names.index(column)] = value
            lines[at] = ",".join(cells)
    path = folder / "changed.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("column", ["changeset", "resultHash", "blockHash"])
@pytest.mark.parametrize("mode", ["first", "only"])
async def test_tampered_row_of_a_real_log_is_a_divergence(tmp_path: Path, mode: str, column: str) -> None:
    lines, shadow = await _compared(tmp_path, mode, _changed(tmp_path, 425, column, "f" * 16), MEMIAVL)
    assert [line["height"] for line in lines if line["verdict"] == "diverged"] == [425]
    assert lines[4]["layerH"][f"{column}Match"] is False
    # only the block that differs is looked at over RPC, and only where that is wanted
    assert bool(shadow.requests) is (mode == "first")
    assert ("layer1" in lines[4]) is (mode == "first")


@pytest.mark.parametrize(("mode", "verdict"), [("first", "clean"), ("only", "gap")])
async def test_hash_that_was_not_written_is_missing_and_no_divergence(tmp_path: Path, mode: str, verdict: str) -> None:
    lines, _ = await _compared(tmp_path, mode, _changed(tmp_path, 425, "resultHash", ""), MEMIAVL)
    assert [line["verdict"] for line in lines if line["height"] == 425] == [verdict]
    if mode == "first":
        assert lines[4]["layerH"] == {"source": "hash-log", "missing": "shadow"}
    else:
        assert "the shadow hash log has no resultHash for block 425" in lines[4]["error"]


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1-755-780-unknown.hlog", "1-unknown.hlog.u"])
def test_line_written_in_part_is_left_out_and_missed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(SEALED.read_bytes()[:-40])
    assert [row.height for row in rows(tmp_path)] == list(range(755, 780))
    with pytest.raises(HashLogError, match="ends at block 779, before 780"):
        list(slice_lines(tmp_path, 755, 780))


def test_gap_between_two_files_is_found(tmp_path: Path) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    left.mkdir()
    right.mkdir()
    write(left / "0-1-40-unknown.hlog", range(1, 41))
    write(right / "0-1-10-unknown.hlog", range(1, 11))
    write(right / "1-21-40-unknown.hlog", range(21, 41))
    found = diff(left, right)
    assert (found.missing, found.only_left, found.compared) == (10, list(range(11, 21)), 30)
    with pytest.raises(HashLogError, match="no row for block 11"):
        list(slice_lines(right, 5, 30))


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[: len(raw) // 2], lambda raw: raw[:200] + b"\xff\xff\xff\xff" + raw[204:], lambda raw: raw[:-8] + bytes(8),
     lambda raw: b"no gzip at all"],
    ids=["cut", "flipped", "wrong-checksum", "no-gzip"],
)  # fmt: skip
async def test_broken_slice_is_an_error_that_names_the_file(tmp_path: Path, damage: Any) -> None:
    slice_ = tmp_path / "hashlog-421-431.csv.gz"
    slice_.write_bytes(damage(gzip.compress(b"".join(slice_lines(MEMIAVL, FIRST, LAST)))))
    with pytest.raises(HashLogError, match="hashlog-421-431"):
        await _compared(tmp_path, "only", FLATKV, slice_)


def test_file_renamed_while_it_is_read_is_found_under_its_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = write(tmp_path / "0-unknown.hlog.u", range(1, 21))
    sealed, listed = tmp_path / "0-1-20-unknown.hlog", hashlog.files_of

    def and_then_renamed(source: Path) -> Any:
        found = listed(source)
        if opened.exists():
            opened.rename(sealed)
            write(tmp_path / "1-unknown.hlog.u", range(21, 26))
        return found

    monkeypatch.setattr(hashlog, "files_of", and_then_renamed)
    assert [row.height for row in rows(tmp_path)] == list(range(1, 26))


def test_reader_follows_a_log_over_its_rotation(tmp_path: Path) -> None:
    opened = write(tmp_path / "0-unknown.hlog.u", range(1, 11))
    reader = LogReader(tmp_path, ahead=5)
    assert [reader.row(height) is not None for height in (3, 10, 11)] == [True, True, False]
    write(opened, range(1, 21)).rename(tmp_path / "0-1-20-unknown.hlog")
    write(tmp_path / "1-unknown.hlog.u", range(20, 31))
    assert [reader.row(height) is not None for height in (11, 20, 21, 30, 31)] == [True, True, True, True, False]


def test_log_that_vanishes_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "0-unknown.hlog.u", range(1, 21))
    gone = hashlog.files_of(tmp_path)
    (tmp_path / "0-unknown.hlog.u").unlink()
    monkeypatch.setattr(hashlog, "files_of", lambda source: gone)
    with pytest.raises(HashLogError, match="No such file"):
        list(rows(tmp_path))
