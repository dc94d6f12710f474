"""How the replay rebuilds what a recorded `report` command read, and what it compares of a report in Markdown."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from replay.sidecar_cli import Asked, _listed, _objects
from replay.sidecar_markdown import IN_FULL, beside, sections
from replay.sidecar_stage import NotPosableError

LISTING = {
    "pages": [{"key": "shadow-results/1-9.compare.ndjson.gz"}, {"key": "shadow-results/in/10-10.compare.ndjson.gz"}],
    "divergenceReports": [{"key": "shadow-results/divergence-4.report.json.gz"}],
}
REPORT = """# Divergence Report — Height 4

**Detected at:** 2026-11-20T23:58:36Z

Some words.

## Layer 2: Logical State Comparison

**Accounts checked:** 3 &nbsp;&nbsp; **Keys checked:** 10

| Kind | Address | Shadow |
|------|---------|--------|
| code | {address} | {value} |
"""


def line(*words: str, **other: Any) -> dict[str, Any]:
    said = {"exit": 0, "stdout": "", "stderr": "", "note": ""}
    return {"case": "report-x", "args": ["report", *words], "env": {}, **said, **other}


def golden(folder: Path, *lines: dict[str, Any]) -> Path:
    (folder / "cli.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    (folder / "tasks").mkdir()
    written = {"b/shadow/x/divergence-5.report.json.gz": {"decompressed": {"text": '{"height":5}'}}, "b/o.gz": {}}
    (folder / "tasks" / "compare-one.json").write_text(json.dumps({"s3_objects_written": written}))
    return folder


@pytest.mark.parametrize(
    ("words", "env", "bucket", "prefix", "named"),
    [
        (("list", "--bucket=b", "-prefix", "p"), {}, "b", "p/", {"bucket": "flag", "prefix": "flag"}),
        (("list", "--env", "e"), {"SEI_RESULT_EXPORT_BUCKET": "b"}, "e-sei-shadow-results", "shadow-results/",
         {"bucket": "environment", "env": "flag"}),
        (("list", "--json"), {"SEI_RESULT_EXPORT_PREFIX": "q/"}, "", "q/", {"prefix": "environment"}),
    ],
)  # fmt: skip
def test_the_place_is_read_as_the_go_program_reads_it(
    words: tuple[str, ...], env: dict[str, str], bucket: str, prefix: str, named: dict[str, str]
) -> None:
    asked = Asked.of(line(*words, env=env))
    assert (asked.command, asked.bucket, asked.prefix, asked.named) == ("list", bucket, prefix, named)


def test_a_table_is_listed_from_the_keys_that_another_line_names(tmp_path: Path) -> None:
    told = line("list", "--bucket", "b", "--json", stdout=json.dumps(LISTING))
    table = "TYPE        HEIGHT RANGE  BLOCKS\npage        1 - 9         9\npage        10 - 10       1\ndivergence  4             -\n"
    asked = line("list", "--bucket", "b", stdout=table)
    keys = _listed(golden(tmp_path, told, asked), asked, Asked.of(asked))
    assert {one["key"] for group in LISTING.values() for one in group} <= set(keys)
    assert "shadow-results/1-1000.ndjson.gz" in keys
    other_day = line("list", "--bucket", "b", stdout=table.replace("10 - 10", "11 - 11"))
    assert "shadow-results/11-11.compare.ndjson.gz" in _listed(tmp_path, other_day, Asked.of(other_day))
    elsewhere = line("list", "--bucket", "other", stdout=table)
    assert "shadow-results/10-10.compare.ndjson.gz" in _listed(tmp_path, elsewhere, Asked.of(elsewhere))


def test_a_report_object_comes_from_the_task_case_that_is_named(tmp_path: Path) -> None:
    words = ("divergence", "--bucket", "b", "--key", "r/divergence-5.report.json.gz")
    named = line(*words, note="report object of task case compare-one")
    [(key, body)] = _objects(golden(tmp_path), named, Asked.of(named)).items()
    assert (key, gzip.decompress(body)) == ("r/divergence-5.report.json.gz", b'{"height":5}')
    for unnamed, reason in (
        (line(*words), "no recorded task is named"),
        (
            line(*words, exit=1, stderr="TIMESTAMP decompressing report: gzip: invalid header\n"),
            "left out of the record",
        ),
    ):
        with pytest.raises(NotPosableError, match=reason):
            _objects(tmp_path, unnamed, Asked.of(unnamed))
    missing = line(*words, exit=1, stderr="TIMESTAMP downloading s3://b/r: x, StatusCode: 404, NoSuchKey: y\n")
    assert _objects(tmp_path, missing, Asked.of(missing)) == {}


def test_of_markdown_prose_is_left_out_and_values_in_full_are_marked() -> None:
    theirs = REPORT.format(address="0xABaBaB...ABaB", value="0x6002")
    ours = REPORT.replace("Some words.", "Other words.").format(address="0xABaBaB" + "0" * 20 + "ABaB", value="0x6002")
    left, right = beside(theirs, ours)
    layer = "## Layer 2: Logical State Comparison"
    assert left[layer]["labels"] == {"Accounts checked": "3", "Keys checked": "10"} == right[layer]["labels"]
    assert right[layer]["rows"] == [{"Kind": "code", "Address": IN_FULL, "Shadow": "0x6002"}]
    assert left["# Divergence Report — Height 4"] == right["# Divergence Report — Height 4"]
    _, other = beside(theirs, ours.replace("0xABaBaB0", "0xCDCDCD0"))
    assert other[layer]["rows"][0]["Address"].startswith("0xCDCDCD")


def test_cells_of_ours_are_read_without_their_escapes() -> None:
    text = "## T\n\n| Field | Shadow |\n|---|---|\n| log | a\\|b &lt;c> \\`d\\` |\n"
    assert sections(text, escaped=True)["## T"]["rows"] == [{"Field": "log", "Shadow": "a|b <c> `d`"}]


def test_the_error_of_an_indeterminate_layer_is_what_follows_the_prose() -> None:
    theirs = sections("## L\n**Indeterminate** — could not run, not validated: tracing: x\n")
    assert theirs == sections("## L\n**Indeterminate**: tracing: x\n")
    assert theirs["## L"]["labels"] == {"Indeterminate": "tracing: x"}
