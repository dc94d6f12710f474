"""Replay of the recordings, where they are found: beside the checkout, or where GOLDEN says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from replay.context import AREAS, DEFAULT_GOLDEN, ROOT
from replay.differences import CaseRules
from replay.judge import judge
from replay.record import Record

GOLDEN = Path(os.environ["GOLDEN"]) if os.environ.get("GOLDEN") else DEFAULT_GOLDEN
recordings = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no recordings at {GOLDEN}: set GOLDEN to a folder that holds them to replay them"
)


@recordings
def test_every_recording_passes_against_itself() -> None:
    folders = [path.parent for area in ("objects", "flows") for path in (GOLDEN / area).glob("*/status.jsonl")]
    assert folders
    for folder in folders:
        assert judge(Record.load(folder), Record.load(folder), CaseRules([])) == [], folder


@recordings
@pytest.mark.cluster
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("area", AREAS)
def test_area(area: str) -> None:
    command = [sys.executable, "-m", "replay", "--golden", str(GOLDEN), "--only", area]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tools'}:{ROOT / 'tests'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    failed = [line for line in done.stdout.splitlines() if line.startswith("fail")]
    assert done.returncode == 0, "\n".join(failed) or done.stderr
