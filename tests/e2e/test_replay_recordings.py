"""Replay of the recordings, where they are found: beside the checkout, or where GOLDEN says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from replay.context import DEFAULT_GOLDEN
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
