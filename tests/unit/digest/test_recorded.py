"""The reference engine against what seidb printed, and against every vector."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay import digest_vectors, stores
from replay.context import ReplayContext


async def test_every_recorded_command_prints_what_seidb_printed(
    context: ReplayContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "has_native", lambda: False)
    results = [result async for result in stores.run(context)]
    assert [result.line() for result in results if result.outcome != "pass"] == []
    assert len(results) > 700


def test_every_vector_holds(golden: Path, tmp_path: Path) -> None:
    found = {name: check() for name, check in digest_vectors.cases(golden / "digest-vectors.json", tmp_path)}
    assert {name: difference for name, difference in found.items() if difference} == {}
    assert len(found) > 100
