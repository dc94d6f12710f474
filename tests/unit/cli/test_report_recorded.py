"""What the Go program printed for the same objects, line by line; the lines that differ on purpose are named here."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seiops.cli.main import app
from seiops.objectstore import open_store
from support.evidence import put_json

RECORDED = json.loads((Path(__file__).resolve().parents[2] / "data" / "report" / "cases.json").read_text())
LEAD = re.compile(r"App-hash divergence detected\..*|Full block and block_results.*|Use `--json` flag.*|\|-+(\|-+)*\|")
GAS = "| GasUsed | — | — | ✅ |"


def _told(recorded: str) -> list[str]:
    """The contract's lines: headings, labels, table heads and rows; the prose around them is free (7.4)."""
    return [line for line in recorded.splitlines() if line and not LEAD.fullmatch(line)]


@pytest.mark.parametrize("case", RECORDED["divergence"], ids=lambda case: case["case"])
def test_markdown_says_what_was_recorded(case: dict[str, Any], tmp_path: Path) -> None:
    report = case["report"]
    key = f"r/divergence-{report['height']}.report.json.gz"
    asyncio.run(put_json(open_store(f"file://{tmp_path}"), key, report))
    done = CliRunner().invoke(app, ["report", "divergence", "--bucket", f"file://{tmp_path}", "--key", key])
    assert done.exit_code == 0, done.stderr
    ours = done.stdout.splitlines()
    at = 0
    for line in _told(case["markdown"]):
        if line == GAS:
            # D-24: never claimed to match where it was not compared
            line = "| GasUsed | — | — | not compared |"
        if line.startswith("**Indeterminate**"):
            error = line.rpartition("validated: ")[2]
            wanted = f"**Indeterminate**: {error}"
        elif "..." in line and line.split(" | ")[0] in ("| storage", "| balance", "| code", "| nonce"):
            # D-24: values of layer 2 are shown in full
            wanted = line.split(" | ")[0]
        else:
            wanted = line
        place = next((number for number in range(at, len(ours)) if ours[number].startswith(wanted)), None)
        assert place is not None, (wanted, done.stdout)
        at = place


@pytest.mark.parametrize("case", RECORDED["divergence"], ids=lambda case: case["case"])
def test_json_holds_what_was_recorded(case: dict[str, Any], tmp_path: Path) -> None:
    key = f"r/divergence-{case['report']['height']}.report.json.gz"
    asyncio.run(put_json(open_store(f"file://{tmp_path}"), key, case["report"]))
    arguments = ["--prefix", "r", "--height", str(case["report"]["height"]), "--json"]
    done = CliRunner().invoke(app, ["report", "divergence", "--bucket", f"file://{tmp_path}", *arguments])
    assert json.loads(done.stdout) == case["report"]


@pytest.mark.parametrize("case", RECORDED["list"], ids=lambda case: case["case"])
def test_list_prints_what_was_recorded(case: dict[str, Any]) -> None:
    bucket = f"memory://recorded-{case['case']}"
    names = ["9-10.compare.ndjson.gz", "100-199.compare.ndjson.gz", "200-249.compare.ndjson.gz", "nested/300-300.compare.ndjson.gz",
             "divergence-20.report.json.gz", "divergence-150.report.json.gz", "1-1000.ndjson.gz"]  # fmt: skip
    for name in names:
        asyncio.run(put_json(open_store(bucket), f"shadow-results/{name}", {}))
    arguments = [bucket if one == "res-bucket" else one for one in case["args"]]
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout, done.stderr) == (case["exit"], case["stdout"], case["stderr"])
