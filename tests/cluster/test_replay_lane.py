"""A lane of the replay harness on the real API server: Pods run and go, names follow them, states are all seen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from replay.context import ReplayContext
from replay.differences import DifferenceBook
from replay.lane import Lane
from replay.script import Run, ScriptError

pytestmark = pytest.mark.cluster
CASES = Path(__file__).resolve().parents[1] / "data" / "replay"
NODE = {
    "apiVersion": "sei.io/v1alpha1",
    "kind": "SeiNode",
    "metadata": {"name": "n0"},
    "spec": {"chainId": "c", "image": "i", "fullNode": {}},
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "n0-0", "labels": {"sei.io/node": "n0"}},
    "spec": {"containers": [{"name": "seid", "image": "i"}]},
}
RUNS = {"object": "Pod/n0-0", "path": "status.phase", "equals": "Running"}


@pytest.fixture
async def lane(tmp_path: Path) -> AsyncIterator[Lane]:
    lane = Lane(ReplayContext(tmp_path / "golden", DifferenceBook([]), tmp_path), "lane", 0.2)
    try:
        await lane.start()
        yield lane
    finally:
        await lane.stop()


async def test_a_script_without_controller(lane: Lane) -> None:
    run = Run(lane, "case", None)
    await run.execute(
        [
            {"do": "begin", "namespace": "case", "controller": "shared"},
            {"n": 1, "do": "create", "manifest": NODE},
            {"n": 2, "do": "create", "manifest": POD},
            {"n": 3, "do": "wait", "what": "runs", "until": RUNS, "timeout": 30},
            {"n": 4, "do": "check", "object": "SeiNode/n0", "path": "status.phase", "recorded": None},
        ]
    )
    assert run.checks == {"4 SeiNode/n0 status.phase": None}
    assert json.loads(lane.resolve_file.read_text()) == {"n0-0.n0.case.svc.cluster.local": lane.sidecars.address}
    away = {"object": "Pod/n0-0", "absent": True}
    await run.execute(
        [
            {"n": 5, "do": "delete", "object": "Pod/n0-0"},
            {"n": 6, "do": "wait", "what": "gone", "until": away, "timeout": 30},
            {"n": 7, "do": "patch", "object": "SeiNode/n0", "body": {"spec": {"image": "j"}}},
            {
                "n": 8,
                "do": "wait",
                "what": "edit",
                "until": {"object": "SeiNode/n0", "path": "spec.image", "equals": "j"},
                "timeout": 30,
            },
        ]
    )
    assert json.loads(lane.resolve_file.read_text()) == {}
    states = next(history for history in lane.recorder.histories("case") if history.kind == "SeiNode").states
    assert [(state.event, state.object["spec"]["image"]) for state in states] == [("ADDED", "i"), ("MODIFIED", "j")]
    await lane.close_namespace("case")
    assert lane.recorder.histories("case") == []


async def test_a_refused_step_says_which(lane: Lane) -> None:
    run = Run(lane, "case", None)
    with pytest.raises(ScriptError, match=r"step 2 \(create\): the API server answered 409"):
        await run.execute(
            [
                {"do": "begin", "namespace": "case", "controller": "shared"},
                {"n": 1, "do": "create", "manifest": NODE},
                {"n": 2, "do": "create", "manifest": NODE},
            ]
        )
