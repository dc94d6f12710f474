"""`seiops report`: places and forms, the recorded flags and shapes, and errors that are one sentence (docs/contracts/shadow.md 7)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from seiops.cli import report
from seiops.cli.clusters import CommandError
from seiops.cli.main import app
from seiops.evidence.listing import Listing, listing_lines
from seiops.evidence.render import markdown
from seiops.objectstore import open_store
from support.evidence import (
    AT,
    CONTRACT,
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

VARIABLES = ("SEI_RESULT_EXPORT_BUCKET", "SEI_RESULT_EXPORT_PREFIX", "SEI_RESULT_EXPORT_REGION")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def seiops(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


def fill(folder: Path | str, *, prefix: str = "shadow-results/", line: Callable[[int], dict[str, Any]] = clean) -> str:
    """A bucket (of local files, or a URL) with blocks 100 to 299, a report at 150 and objects of other kinds; its URL."""

    url = folder if isinstance(folder, str) else f"file://{folder}"

    async def work() -> None:
        store = open_store(url)
        await put_page(store, prefix, [line(height) for height in range(200, 300)])
        await put_page(store, prefix, [line(height) for height in range(100, 200)])
        await put_json(store, f"{prefix}divergence-150.report.json.gz", a_report())
        await put_json(store, f"{prefix}1-1000.ndjson.gz", {})
        await put_json(store, f"{prefix}endpoint-digest-150-semantic.json.gz", {})

    if isinstance(folder, Path):
        folder.mkdir(exist_ok=True)
    asyncio.run(work())
    return url


def a_report(comparison: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    told = comparison or receipts_differ(150, ("gasUsed", "21546", "21000"))
    answers = {"block": {"zz": 1.50, "aa": "<b>"}, "blockResults": {"height": "150"}}
    return {"height": 150, "timestamp": AT, "comparison": told, "shadow": answers, "canonical": answers} | changes


# --- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "environment", "where"),
    [
        ({"env": "prod"}, {}, ("s3://prod-sei-shadow-results/shadow-results/", "eu-central-1")),
        ({"bucket": "b"}, {}, ("s3://b/shadow-results/", "eu-central-1")),
        ({"bucket": "b", "prefix": "a"}, {}, ("s3://b/a/", "eu-central-1")),
        ({"bucket": "b", "prefix": "a/b/c/"}, {}, ("s3://b/a/b/c/", "eu-central-1")),
        ({"bucket": "b", "region": "us-east-2"}, {}, ("s3://b/shadow-results/", "us-east-2")),
        ({}, {"SEI_RESULT_EXPORT_BUCKET": "v", "SEI_RESULT_EXPORT_PREFIX": "p", "SEI_RESULT_EXPORT_REGION": "eu-west-1"},
         ("s3://v/p/", "eu-west-1")),
        ({"env": "prod"}, {"SEI_RESULT_EXPORT_BUCKET": "v"}, ("s3://prod-sei-shadow-results/shadow-results/", "eu-central-1")),
    ],
)  # fmt: skip
def test_resolver(
    flags: dict[str, str], environment: dict[str, str], where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/contracts/shadow.md 7.2; the last case is D-25."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    given = {"url": "", "env": "", "bucket": "", "prefix": "", "region": ""} | flags
    place = report._place(**given)
    assert (place.store.url(), place.store.region) == where


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["list", "--env", "prod", "--bucket", "b"], "--env and --bucket are mutually exclusive"),
        (["list"], "one of --env or --bucket is required"),
        (["divergence", "--bucket", "b", "--key", "k", "--height", "5"], "--key and --height are mutually exclusive"),
        (["divergence", "--bucket", "b"], "one of --key or --height is required"),
        (["divergence", "--key", "k"], "one of --env or --bucket is required"),
        (["list", "s3://b/p", "--bucket", "b"], "by a URL, or by --env or --bucket"),
        (["summary", "/no/such/place"], "/no/such/place: no such directory"),
        (["summary", "file:///no/such/place"], "no such directory"),
        (["divergence", ".", "--layer", "7"], "--layer 7: use one of 0, 1, 2, H"),
        (["divergence", ".", "--verdict", "bad"], "--verdict bad: use one of clean"),
        (["divergence", ".", "--from", "9", "--to", "5"], "--from 9 is above --to 5"),
        (["summary", ".", "-o", "html"], "-o names a file; for the form write --output html"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], text: str) -> None:
    done = seiops(*arguments)
    assert done.exit_code == 1
    assert text in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1


def test_report_alone_is_its_help_and_no_mistake() -> None:
    done = CliRunner().invoke(app, ["report"])
    assert done.exit_code == 0
    assert "divergence" in done.output


def test_key_alone_ignores_the_prefix(tmp_path: Path) -> None:
    bucket = fill(tmp_path / "bucket", prefix="elsewhere/")
    done = seiops("divergence", "--bucket", bucket, "--key", "elsewhere/divergence-150.report.json.gz")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("# Divergence Report — Height 150\n")


def test_url_may_name_the_report_itself(tmp_path: Path) -> None:
    fill(tmp_path / "bucket", prefix="")
    done = seiops("divergence", f"{tmp_path}/bucket/divergence-150.report.json.gz")
    assert done.exit_code == 0, done.stderr
    assert "Block 150" in done.stdout
    assert "21546" in done.stdout


@pytest.mark.parametrize("form", ["table", "markdown", "html", "json"])
def test_place_where_the_traces_part_is_shown(form: str, tmp_path: Path) -> None:
    first = {"path": "calls[3].gasUsed", "shadow": "0x5208", "canonical": "0x9999"}
    traces = [{"txIndex": 1, "txHash": "0x1", "shadow": {"a": 1}, "canonical": None, "firstDifference": first}]
    fill(tmp_path / "bucket", prefix="")
    key = "divergence-150.report.json.gz"
    asyncio.run(put_json(open_store(f"file://{tmp_path}/bucket"), key, a_report(traces=traces)))
    done = seiops("divergence", f"{tmp_path}/bucket/{key}", "--output", form)
    assert done.exit_code == 0, done.stderr
    for text in ("calls[3].gasUsed", "5208", "9999"):
        assert text in done.stdout, text


# --- list, in the recorded shape --------------------------------------------------------------------------------------


def test_list_json_is_the_recorded_shape() -> None:
    done = seiops("list", "--bucket", fill("memory://test-list-json"), "--json")
    page = {"key": "shadow-results/100-199.compare.ndjson.gz", "startHeight": 100, "endHeight": 199, "blocks": 100}
    found = json.loads(done.stdout)
    assert list(found) == ["pages", "divergenceReports", "totalBlocks"]
    assert found["pages"][0] == page
    assert [one["startHeight"] for one in found["pages"]] == [100, 200]
    assert [one["height"] for one in found["divergenceReports"]] == [150]
    assert found["totalBlocks"] == 200
    assert done.stdout.startswith('{\n  "pages": [\n    {\n      "key": ')


def test_list_json_is_never_null(tmp_path: Path) -> None:
    (tmp_path / "shadow-results").mkdir()
    done = seiops("list", "--bucket", f"file://{tmp_path}", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"pages": [], "divergenceReports": [], "totalBlocks": 0}


def test_list_table_is_the_recorded_one(tmp_path: Path) -> None:
    done = seiops("list", "--bucket", fill(tmp_path / "bucket"))
    assert done.stderr == "2 comparison page(s), 1 divergence report(s), 200 blocks covered\n\n"
    assert done.stdout.splitlines() == [
        "TYPE        HEIGHT RANGE  BLOCKS",
        "page        100 - 199     100",
        "page        200 - 299     100",
        "divergence  150           -",
    ]


def test_nothing_found_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "shadow-results").mkdir()
    done = seiops("list", "--bucket", f"file://{tmp_path}")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr.endswith("no data found\n")


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("100-199.compare.ndjson.gz", True),
        ("deeper/100-199.compare.ndjson.gz", True),
        ("divergence-7.report.json.gz", True),
        ("100-199.ndjson.gz", False),
        ("100-199.compare.ndjson", False),
        ("a-199.compare.ndjson.gz", False),
        ("divergence-x.report.json.gz", False),
        ("divergence-7.report.json.gz.tmp", False),
        ("endpoint-digest-7-semantic.json.gz", False),
    ],
)
def test_key_patterns(name: str, listed: bool, tmp_path: Path) -> None:
    asyncio.run(put_json(open_store(f"file://{tmp_path}"), f"shadow-results/{name}", {}))
    found = json.loads(seiops("list", "--bucket", f"file://{tmp_path}", "--json").stdout)
    assert bool(found["pages"] or found["divergenceReports"]) is listed


def test_blocks_covered_twice_are_said() -> None:
    found = Listing([("a", 1, 50), ("b", 1, 80), ("c", 200, 210)], [])
    assert (found.total, found.repeated) == (141, 50)
    assert found.headline.endswith("141 blocks covered, 50 of them repeatedly")
    assert len(list(listing_lines(found))) == 4


# --- one block --------------------------------------------------------------------------------------------------------


def test_report_json_keeps_what_it_does_not_know(tmp_path: Path) -> None:
    bucket = fill(tmp_path / "bucket")
    document = a_report(unknown={"b": 1, "a": [1.50]})
    asyncio.run(put_json(open_store(bucket), "shadow-results/divergence-150.report.json.gz", document))
    done = seiops("divergence", "--bucket", bucket, "--height", "150", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout) == document
    assert done.stdout == json.dumps(document, indent=2) + "\n"


LITERALS = {
    "receipts": (
        receipts_differ(150, ("gasUsed", "21546", "21000"), ("log", "a|b\nc", "<b>")),
        ["## Layer 1: Transaction Receipt Comparison", "**Total transactions:** 2", "**Divergent transactions:** 1", "### Transaction 1",
         "| Field | Shadow | Canonical |", "| gasUsed | 21546 | 21000 |", "| log | a\\|b c | &lt;b> |"],
    ),
    "state": (
        state_differs(150, ("storage", CONTRACT, SLOT, "0x" + "0" * 63 + "1", "0x" + "0" * 63 + "2"), ("balance", CONTRACT, "", "1", "2")),
        ["## Layer 2: Logical State Comparison", "**Accounts checked:** 2 &nbsp;&nbsp; **Keys checked:** 9", "**Divergent keys:** 2",
         "| Kind | Address | Slot | Shadow | Canonical |", f"| storage | {CONTRACT} | {SLOT} | 0x{'0' * 63}1 | 0x{'0' * 63}2 |",
         f"| balance | {CONTRACT} | — | 1 | 2 |"],
    ),
    "indeterminate": (
        undecided(150, "rpc", "shadow storage 0x1/0x2: no answer"),
        ["## Layer 2: Logical State Comparison", "**Indeterminate**: shadow storage 0x1/0x2: no answer"],
    ),
    "headers": (
        clean(150, match=False, migrationMode=False, divergenceLayer=0, verdict="diverged", layer1={"totalTxs": 2, "txCountMatch": False},
              layer0={"appHashMatch": False, "lastResultsHashMatch": True, "gasUsedMatch": True,
                      "shadowAppHash": "AABBCCDD11223344AABBCCDD11223344", "canonicalAppHash": "BB"}),
        ["## Layer 0: Block Header Comparison", "| Field | Shadow | Canonical | Match |", "| AppHash | AABBCCDD...3344 | BB | ❌ |",
         "| LastResultsHash | — | — | ✅ |", "| GasUsed | — | — | not compared |", "**Transaction count mismatch**"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LITERALS)
def test_markdown_literals(name: str, tmp_path: Path) -> None:
    """docs/contracts/shadow.md 7.4, with the corrections of D-24."""
    comparison, wanted = LITERALS[name]
    bucket = fill(tmp_path / "bucket")
    asyncio.run(put_json(open_store(bucket), "shadow-results/divergence-150.report.json.gz", a_report(comparison)))
    text = seiops("divergence", "--bucket", bucket, "--height", "150").stdout
    lines = text.splitlines()
    assert lines[0] == "# Divergence Report — Height 150"
    assert f"**Detected at:** {AT}" in lines
    assert "## Raw Data" in lines
    for one in wanted:
        assert any(line.startswith(one) for line in lines), (one, text)
    mode = "migration mode" if comparison.get("migrationMode") else "default mode"
    assert mode in text.split("**Verdict:**")[1].splitlines()[0]
    if name in ("indeterminate",):
        assert "**Divergent keys:**" not in text


def test_shortened_values_never_look_alike() -> None:
    ours, theirs = "0" * 200 + "1", "0" * 200 + "2"
    shown = markdown.pair(ours, theirs)
    assert shown[0] != shown[1]
    assert max(map(len, shown)) <= markdown.CELL
    assert markdown.pair("a" * 81, "b") == ("a" * 77 + "...", "b")
    assert markdown.short_hash("AABBCCDD11223344AABBCCDD11223344") == "AABBCCDD...3344"
    assert markdown._short_pair("AABBCCDD1122AAAA3344", "AABBCCDD9999AAAA3344")[0] == "AABBCCDD1122AAAA3344"


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"no gzip", "decompressing report: "), (b"", "decompressing report: "), (None, "downloading ")],
)
def test_report_that_cannot_be_read_is_told(content: bytes | None, text: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "divergence-7.report.json.gz").write_bytes(content)
    done = seiops("divergence", "--bucket", f"file://{tmp_path}", "--key", "divergence-7.report.json.gz")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {text}")


@pytest.mark.parametrize("document", [[], {}, {"height": 1, "comparison": 5}, {"height": "1", "comparison": clean(1)}])
def test_report_that_is_none_is_told(document: Any, tmp_path: Path) -> None:
    asyncio.run(put_json(open_store(f"file://{tmp_path}"), "divergence-7.report.json.gz", document))
    done = seiops("divergence", "--bucket", f"file://{tmp_path}", "--key", "divergence-7.report.json.gz")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: decoding report: ")


def test_block_of_a_survey_is_shown_from_its_page(tmp_path: Path) -> None:
    url = fill(
        tmp_path / "bucket",
        prefix="",
        line=lambda h: state_differs(h, ("nonce", CONTRACT, "", "1", "2")) if h == 220 else clean(h),
    )
    table = seiops("divergence", url, "--height", "220").stdout
    assert "200-299.compare.ndjson.gz" in table
    assert "report: none published" in table
    found = json.loads(seiops("divergence", url, "--height", "220", "--output", "json").stdout)
    assert [one["kind"] for one in found["differences"]] == ["nonce"]
    assert found["comparison"]["verdict"] == "diverged"
    whole = json.loads(seiops("divergence", url, "--height", "220", "--json").stdout)
    assert list(whole) == ["height", "timestamp", "comparison"]
    done = seiops("divergence", url, "--height", "999")
    assert (done.exit_code, "speaks of block 999" in done.stderr) == (1, True)


# --- lists and summaries ----------------------------------------------------------------------------------------------


def planted(height: int) -> dict[str, Any]:
    match height:
        case 110:
            return receipts_differ(height, ("gasUsed", "1", "2"))
        case 120:
            return undecided(height, "rpc", "[bold]no\x1b[31m answer")
        case 130:
            return gap(height)
        case _:
            return clean(height)


@pytest.fixture
def run(tmp_path: Path) -> str:
    folder = tmp_path / "run"
    folder.mkdir()
    asyncio.run(put_run(open_store(f"file://{folder}"), range(100, 200), planted))
    return str(folder)


@pytest.mark.parametrize("command", ["list", "divergence", "summary"])
@pytest.mark.parametrize("form", ["table", "json", "markdown", "html"])
def test_every_form_of_every_report(run: str, command: str, form: str, tmp_path: Path) -> None:
    done = seiops(command, run, "--output", form)
    assert done.exit_code == 0, done.stderr
    starts = {"table": "", "json": "{", "markdown": "# ", "html": "<!doctype html>"}
    assert done.stdout.startswith(starts[form])
    assert "\x1b" not in done.stdout
    suffix = {"table": "txt", "json": "json", "markdown": "md", "html": "html"}[form]
    file = tmp_path / f"report.{suffix}"
    written = seiops(command, run, "-o", str(file))
    assert (written.exit_code, written.stdout) == (0, "")
    if form != "html":
        # a page tells when it was made
        assert file.read_text() == done.stdout
    assert [path.name for path in tmp_path.iterdir()] == sorted(path.name for path in tmp_path.iterdir())
    assert not list(tmp_path.glob(".*"))


def test_list_tells_runs_by_their_manifests(run: str) -> None:
    (found,) = json.loads(seiops("list", run, "--output", "json").stdout)["runs"]
    assert (found["run"], found["sealed"], found["state"], found["reason"]) == ("run-1", True, "finished", "end-height")
    assert (found["chain"], found["firstHeight"], found["lastHeight"]) == ("test-1", 100, 199)
    assert found["counts"] == {"clean": 97, "diverged": 1, "indeterminate": 1, "gap": 1}
    assert found["mode"] == "comparison, migration, survey"


def test_summary_json_has_the_whole_verdict(run: str) -> None:
    found = json.loads(seiops("summary", run, "--json").stdout)
    assert (found["format"], found["verdict"], found["blocks"]) == ("seiops-report/1", "diverged", 100)
    assert {one["what"] for one in found["open"]} == {"indeterminate", "gap"}
    assert [one["height"] for one in found["divergentBlocks"]] == [110, 120, 130]


def test_a_divergence_is_no_failure_of_the_command(run: str) -> None:
    assert seiops("summary", run).exit_code == 0


def test_runs_in_several_folders_are_not_mixed(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}")
    for prefix in ("one/", "two/"):
        asyncio.run(put_run(store, range(1, 11), clean, prefix=prefix))
    done = seiops("summary", str(tmp_path))
    assert done.exit_code == 1
    assert "name one of" in done.stderr
    assert f"file://{tmp_path}/two/" in done.stderr
    assert len(json.loads(seiops("list", str(tmp_path), "--output", "json").stdout)["runs"]) == 2


def test_unwritable_file_is_told_and_nothing_is_left(run: str, tmp_path: Path) -> None:
    done = seiops("summary", run, "-o", str(tmp_path / "none" / "report.html"))
    assert done.exit_code == 1
    assert "No such file or directory" in done.stderr
    with pytest.raises(CommandError, match=r"report\.html"):
        report._put_file(tmp_path / "none" / "report.html", "x")
