"""Runs of the Go program, which writes no manifest: everything that can be checked is, and what cannot be is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from seiops.evidence.verify import Verification, verify
from seiops.objectstore import open_store
from support.silent import Silent

RECORDED = Path(__file__).parents[2] / "data" / "evidence" / "go-objects.json.gz"


async def _verified(case: str, root: Path) -> Verification:
    for key, text in json.loads(gzip.decompress(RECORDED.read_bytes()))[case].items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))
    return await verify(open_store(f"file://{root}"), str(root), Silent())


@pytest.mark.parametrize(
    ("case", "counts", "findings"),
    [
        ("compare-survey-pages-and-trailing", {"clean": 250}, []),
        ("compare-enveloped-canonical", {"clean": 4, "diverged": 1}, ["not-clean"]),
        ("compare-cancel-inside-layer1", {"clean": 4, "indeterminate": 1}, ["not-clean"]),
        ("compare-survey-layer1-kinds", {"clean": 82, "diverged": 18}, ["not-clean"]),
        ("compare-layer2-survey", {"clean": 80, "diverged": 6, "indeterminate": 14}, ["not-clean", "not-clean"]),
    ],
)
async def test_recorded_runs_hold_and_their_verdict_is_recomputed(
    tmp_path: Path, case: str, counts: dict[str, int], findings: list[str]
) -> None:
    found = await _verified(case, tmp_path)
    (run,) = found.runs
    assert (run.counts, run.sealed) == (counts, False)
    assert [finding.name for finding in found.findings] == findings
    assert "without seals" in found.statements[0]


async def test_a_report_whose_page_was_never_stored_is_a_finding(tmp_path: Path) -> None:
    found = await _verified("compare-page-upload-denied", tmp_path)
    assert [str(finding) for finding in found.findings] == [
        "shadow/x/divergence-5.report.json.gz: no page speaks of height 5"
    ]
