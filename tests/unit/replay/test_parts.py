"""Paths, conditions, report and the sorting of cases."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from replay import paths
from replay.__main__ import main
from replay.cases import sort_cases
from replay.compare import deviations
from replay.conditions import holds, values
from replay.context import ReplayContext
from replay.differences import DifferenceBook
from replay.kubelet import waits_for_bootstrap
from replay.report import CaseResult, Report
from replay.startup import recorded_names

CASES = Path(__file__).resolve().parents[2] / "data" / "replay"
NODE: dict[str, Any] = {
    "status": {
        "phase": "Running",
        "conditions": [{"type": "A", "status": "True"}, {"type": "B.c", "status": "False"}],
        "empty": [],
    }
}


def lookup(reference: str) -> dict[str, Any] | None:
    return NODE if reference == "SeiNode/n0" else None


@pytest.mark.parametrize(
    ("condition", "true"),
    [
        ({"object": "SeiNode/n0", "path": "status.phase", "equals": "Running"}, True),
        ({"object": "SeiNode/n0", "path": "status.conditions[type=B.c].status", "equals": "False"}, True),
        ({"object": "SeiNode/n0", "path": "status.conditions[*].status", "equals": "False"}, True),
        ({"object": "SeiNode/n0", "path": "status.conditions", "count": 2}, True),
        ({"object": "SeiNode/n0", "path": "status.nothing", "count": 0}, True),
        ({"object": "SeiNode/n0", "path": "status.empty", "exists": True}, False),
        ({"object": "SeiNode/n0", "path": "status.empty", "absent": True}, True),
        ({"object": "SeiNode/n0", "path": "status.phase", "endsWith": "ing"}, True),
        ({"object": "SeiNode/n0", "path": "status.phase", "equalsPath": "status.phase"}, True),
        ({"object": "SeiNode/n0", "path": "status.phase", "equalsPath": "status.nothing"}, False),
        ({"object": "SeiNode/n1", "path": "status.phase", "absent": True}, True),
        ({"object": "SeiNode/n1", "absent": True}, True),
        ({"any": [{"object": "SeiNode/n0", "absent": True}, {"object": "SeiNode/n1", "absent": True}]}, True),
        ({"all": [{"object": "SeiNode/n0", "absent": True}, {"object": "SeiNode/n1", "absent": True}]}, False),
    ],
)
def test_conditions(condition: dict[str, Any], true: bool) -> None:
    assert holds(condition, lookup) is true


def test_unknown_predicates_are_errors() -> None:
    with pytest.raises(ValueError, match="no known predicate"):
        holds({"object": "SeiNode/n0", "path": "status.phase", "startsWith": "R"}, lookup)


def test_values_of_a_missing_object() -> None:
    assert values(None, "status.phase") == []


def test_paths_round_trip() -> None:
    text = 'metadata.labels["sei.io/node"].containers[name=seid].env[0]'
    assert paths.join(paths.parse(text)) == text


def test_deviations_align_named_items() -> None:
    recorded = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}
    produced = {"env": [{"name": "B", "value": "3"}]}
    assert [str(one) for one in deviations(recorded, produced)] == [
        'env[name=A]: recorded {"name": "A", "value": "1"}, got nothing',
        'env[name=B].value: recorded "2", got "3"',
    ]


def test_true_is_not_one() -> None:
    assert list(deviations({"a": True}, {"a": 1})) != []


def test_report_ends_with_the_counts() -> None:
    out = io.StringIO()
    report = Report(out)
    report.add(CaseResult("a", "pass", differences=["D5", "D1"]))
    report.add(CaseResult("b", "fail", "two\nlines"))
    report.add(CaseResult("c", "skip", "not yet in scope"))
    assert report.finish() == 1
    assert out.getvalue().splitlines() == [
        "pass a [listed: D1, D5]",
        "fail b: two lines",
        "skip c: not yet in scope",
        "1 passed, 1 failed, 1 skipped",
    ]


def test_missing_recordings_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--golden", str(tmp_path / "nowhere")]) == 2
    assert "GOLDEN=DIR" in capsys.readouterr().err


def context(golden: Path) -> ReplayContext:
    return ReplayContext(golden, DifferenceBook([]), golden)


def test_scope_comes_from_the_content(tmp_path: Path) -> None:
    folder = tmp_path / "flows" / "task-like-name"
    folder.mkdir(parents=True)
    for name in ("status.jsonl", "objects.json", "sidecar.jsonl", "events.json"):
        (folder / name).write_text("")
    steps = [
        {"do": "begin", "namespace": "x", "controller": "shared"},
        {"do": "create", "manifest": {"kind": "SeiNetwork", "metadata": {"name": "net"}}},
    ]
    (folder / "script.jsonl").write_text("\n".join(map(json.dumps, steps)))
    (tmp_path / "flows" / "no-record").mkdir()
    found = sort_cases(context(tmp_path), "flows", sorted((tmp_path / "flows").iterdir()))
    assert [(one.name, one.outcome) for one in found.skipped] == [
        ("flows/no-record", "skip"),
        ("flows/task-like-name", "skip"),
    ]
    assert "SeiNetwork" in found.skipped[1].detail


def test_cases_that_change_the_configuration_have_their_own_controller() -> None:
    found = sort_cases(context(CASES), "flows", sorted((CASES / "flows").iterdir()))
    assert [case.name for case in found.own] == ["statesync-gate"]
    assert {case.name for case in found.shared} == {"label-peers-change", "task-fails-for-good"}


def test_pods_behind_a_bootstrap_job_wait() -> None:
    spec = {"fullNode": {"snapshot": {"bootstrapImage": "x", "s3": {"targetHeight": 1}}}}
    tasks = [{"type": "teardown-bootstrap", "status": "Pending"}]
    assert waits_for_bootstrap({"spec": spec})
    assert waits_for_bootstrap({"spec": spec, "status": {"phase": "Initializing", "plan": {"tasks": tasks}}})
    tasks[0]["status"] = "Complete"
    assert not waits_for_bootstrap({"spec": spec, "status": {"phase": "Initializing", "plan": {"tasks": tasks}}})
    assert not waits_for_bootstrap({"spec": spec, "status": {"phase": "Running"}})
    assert not waits_for_bootstrap({"spec": {"fullNode": {}}})


def test_names_in_recorded_errors() -> None:
    error = {"level": "error", "error": 'resources.node.memory: invalid quantity "true": x'}
    assert recorded_names([error]) == ["resources.node.memory"]
    shape = 'parsing controller config file "/etc/sei-controller/config.yaml": json: Go struct field FileConfig.scheduling of'
    assert recorded_names([{"level": "error", "error": shape}]) == ["/etc/sei-controller/config.yaml", "scheduling"]
    assert recorded_names([{"text": "flag provided but not defined: -no-such-flag"}]) == ["no-such-flag"]
