"""Hash logs: read as seid writes them, compared in a stream, published in slices, and as a layer of their own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seiops.cli.main import app
from seiops.shadow.hashlog import HashLogError, LogReader, diff, rows, slice_lines
from seiops.shadow.hashlog_layer import HashLogLayer
from seiops.shadow.loop import Course, Loop
from support.hash_logs import folder, write
from support.shadow_nodes import Heard, Node, comparator_for, loop_for, pages_in, request_for, serving, shelf_in


def test_rows_of_a_directory_come_in_order_and_once(tmp_path: Path) -> None:
    log = folder(tmp_path / "a")
    with (log / "2-unknown.hlog.u").open("a") as torn:
        torn.write("101,00")
    assert [row.height for row in rows(log)] == list(range(1, 101))
    assert [row.height for row in rows(log, 79)] == list(range(79, 101))


def test_engines_are_compared_by_what_they_share(tmp_path: Path) -> None:
    left = folder(tmp_path / "a", changed={50: "changeset", 60: "resultHash"})
    right = folder(tmp_path / "b", engine="memIAVL/root")
    found = diff(left, right)
    assert found.columns == {"changeset": [50], "resultHash": [60], "blockHash": []}
    assert (found.compared, found.first, found.last, found.found) == (100, 1, 100, True)


def test_heights_of_one_log_only_are_missing_inside_the_common_range(tmp_path: Path) -> None:
    left = write(tmp_path / "a.csv", range(10, 31))
    right = tmp_path / "b.csv"
    write(right, range(1, 51))
    right.write_text(
        "".join(line for line in right.read_text().splitlines(keepends=True) if not line.startswith("20,"))
    )
    found = diff(left, right)
    assert (found.only_left, found.only_right, found.compared) == ([20], [], 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [("height,x\n1,2\n", "names no column block_number"), ("block_number,x\n1,2,3\n", "line 2: 3 cells under 2"),
     ("block_number,x\nabc,2\n", "block_number is 'abc'")],
)  # fmt: skip
def test_damaged_logs_name_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(HashLogError, match=message):
        list(rows(tmp_path / "x.csv"))


def test_slice_is_whole_or_an_error(tmp_path: Path) -> None:
    log = folder(tmp_path / "a")
    lines = b"".join(slice_lines(log, 30, 90)).splitlines()
    assert lines[0].startswith(b"block_number,changeset,resultHash,blockHash,appHash,flatKV/root")
    assert (len(lines), lines[1].split(b",")[0], lines[-1].split(b",")[0]) == (62, b"30", b"90")
    for low, high in ((0, 5), (90, 200)):
        with pytest.raises(HashLogError):
            list(slice_lines(log, low, high))
    (tmp_path / "s.csv.gz").write_bytes(gzip.compress(b"".join(slice_lines(log, 30, 90))))
    assert not diff(log, tmp_path / "s.csv.gz").found


def test_reader_follows_a_growing_log(tmp_path: Path) -> None:
    path = write(tmp_path / "0-unknown.hlog.u", range(1, 11))
    reader = LogReader(tmp_path, ahead=5)
    assert reader.row(3) is not None
    assert reader.row(11) is None
    write(path, range(1, 21))
    found = reader.row(11)
    assert found is not None
    assert found.height == 11


@pytest.mark.parametrize(("changed", "status"), [({}, 0), ({50: "changeset"}, 2)])
def test_command_line(tmp_path: Path, changed: dict[int, str], status: int) -> None:
    left, right = folder(tmp_path / "a", changed=changed), folder(tmp_path / "b", engine="memIAVL/root")
    found = CliRunner().invoke(app, ["hashlog", "diff", str(left), str(right), "--output", "json"])
    assert found.exit_code == status
    document = json.loads(found.stdout)
    assert document["columns"]["changeset"]["heights"] == list(changed)
    assert "log" in document["covers"]
    text = CliRunner().invoke(app, ["hashlog", "diff", str(left), str(right)])
    assert "100 blocks compared" in text.stdout


def test_command_line_errors_are_sentences(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["hashlog", "diff", str(tmp_path / "none"), str(tmp_path)])
    assert found.exit_code == 1
    assert "no such hash log" in found.stderr


async def _run(
    tmp_path: Path, mode: str, *, changed: dict[int, str], shadow: Node, upto: int = 30
) -> list[dict[str, Any]]:
    ours = folder(tmp_path / "ours", changed=changed)
    theirs = write(tmp_path / "theirs.csv", range(1, 26), engine="memIAVL/root")
    layer = HashLogLayer(mode, ours, str(theirs), "r", True)
    canonical = Node(latest=upto)
    async with serving(shadow, canonical) as session:
        comparator = comparator_for(request_for(shadow, canonical, migration=True), session)
        course = Course(1, end=upto, survey=True, poll_s=0.01, gap_after_s=0.05)
        loop: Loop = loop_for(comparator, shelf_in(tmp_path), shadow, Heard(), course)
        loop.settle, loop.annotate = layer.settle, layer.annotate
        await loop.run()
    return [line for lines in pages_in(tmp_path).values() for line in lines]


async def test_first_settles_equal_blocks_and_looks_deeper_at_the_rest(tmp_path: Path) -> None:
    shadow = Node(latest=30)
    lines = await _run(tmp_path, "first", changed={7: "changeset"}, shadow=shadow)
    settled = [line["height"] for line in lines if "layer1" not in line]
    assert settled == [height for height in range(1, 26) if height != 7]
    assert lines[0]["verdict"] == "clean"
    assert lines[0]["layerH"]["notCovered"] == ["log", "events"]
    assert (lines[6]["verdict"], lines[6]["reason"], lines[6]["match"]) == ("diverged", "hash-log", False)
    assert lines[6]["layer1"] == {"totalTxs": 2, "txCountMatch": True}
    assert lines[28]["layerH"] == {"source": "hash-log", "missing": "canonical"}
    assert lines[28]["verdict"] == "clean"


async def test_only_asks_no_node_and_passes_nothing_it_has_no_row_for(tmp_path: Path) -> None:
    shadow = Node(latest=30)
    lines = await _run(tmp_path, "only", changed={7: "resultHash"}, shadow=shadow, upto=26)
    assert shadow.requests == []
    assert lines[6]["verdict"] == "diverged"
    assert lines[25]["verdict"] == "gap"
    assert "canonical hash log has no row for block 26" in lines[25]["error"]
