"""The list of deliberate differences: closed, narrow, and explained to users."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay.differences import DifferenceBook, DifferenceListError

LIST = """
differences:
  - id: D5
    about: a new condition says whether the spec can be used
    cases: ["flows/*"]
    rules:
      - {stream: status, path: status.conditions.SpecValid, produced: {like: {status: "True", reason: Valid}}}
      - {stream: status, extra: {status: {phase: null, conditions: {SpecValid: {status: "False", reason: "*"}}}}}
  - id: D26
    about: the Event comes on each change
    cases: ["flows/state*"]
    rules:
      - stream: events
        path: '["SeiNode/* Warning StateSyncBlocked *"].times'
        recorded: {equals: once}
        produced: {equals: repeated}
"""
GOOD = {"status": "True", "reason": "Valid", "message": "m"}


def book(tmp_path: Path, text: str = LIST) -> DifferenceBook:
    path = tmp_path / "differences.yaml"
    path.write_text(text)
    return DifferenceBook.load(path)


def test_listed_addition_is_settled_and_named(tmp_path: Path) -> None:
    rules = book(tmp_path).for_case("flows", "any")
    recorded = {"status": {"conditions": {"Paused": 1}}}
    assert rules.compare("status", recorded, {"status": {"conditions": {"Paused": 1, "SpecValid": GOOD}}}) == []
    assert rules.used == {"D5"}


def test_what_is_expected_instead_counts(tmp_path: Path) -> None:
    rules = book(tmp_path).for_case("flows", "any")
    other = {"status": {"conditions": {"SpecValid": {**GOOD, "reason": "Perhaps"}}}}
    assert rules.compare("status", {"status": {"conditions": {}}}, other) != []


def test_only_its_cases_and_its_stream(tmp_path: Path) -> None:
    listed = book(tmp_path)
    document = {"status": {"conditions": {"SpecValid": GOOD}}}
    empty: dict[str, object] = {"status": {"conditions": {}}}
    assert listed.for_case("objects", "any").compare("status", empty, document) != []
    assert listed.for_case("flows", "any").compare("objects", empty, document) != []


def test_other_deviations_stay(tmp_path: Path) -> None:
    rules = book(tmp_path).for_case("flows", "any")
    recorded = {"status": {"phase": "Running", "conditions": {}}}
    left = rules.compare("status", recorded, {"status": {"phase": "Failed", "conditions": {"SpecValid": GOOD}}})
    assert [deviation.path for deviation in left] == ["status.phase"]


def test_extra_items(tmp_path: Path) -> None:
    rules = book(tmp_path).for_case("flows", "any")
    invalid = {"status": "False", "reason": "PlanInvalid"}
    assert rules.may_be_extra("status", {"status": {"conditions": {"SpecValid": invalid}}})
    assert not rules.may_be_extra("status", {"status": {"phase": "Running", "conditions": {"SpecValid": invalid}}})
    assert not rules.may_be_missing("status", {"status": {"conditions": {"SpecValid": invalid}}})


def test_quoted_names_with_patterns(tmp_path: Path) -> None:
    rules = book(tmp_path).for_case("flows", "statesync-gate")
    key = "SeiNode/n0 Warning StateSyncBlocked state sync enabled but [not] ready"
    assert rules.compare("events", {key: {"times": "once"}}, {key: {"times": "repeated"}}) == []
    assert rules.compare("events", {key: {"times": "repeated"}}, {key: {"times": "once"}}) != []


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "differences: [{about: x, cases: [], rules: []}]",
        "differences: [{id: D1, about: x, cases: ['*'], rules: [{stream: s}]}]",
        "differences: [{id: D1, about: x, cases: ['*'], rules: [{stream: s, path: a, recorded: maybe}]}]",
        "differences: [{id: D1, about: x, cases: ['*'], rules: [], more: 1}]",
        "differences: [{id: D1, cases: ['*'], rules: []}]",
        "differences: [{id: D1, about: x, cases: ['*'], when: [{on: task}], rules: []}]",
    ],
)
def test_unusable_lists_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DifferenceListError, match=r"differences\.yaml"):
        book(tmp_path, text)


def test_every_id_has_a_row_for_users() -> None:
    listed = DifferenceBook.load()
    assert listed.unexplained() == []


def test_a_missing_row_is_noticed(tmp_path: Path) -> None:
    document = tmp_path / "differences.md"
    document.write_text("| id | what |\n|---|---|\n| D5 | conditions |\n\nD26 is only mentioned.\n")
    assert book(tmp_path).unexplained(document) == ["D26"]
