"""The real API server admits, defaults, prunes and refuses with our CRDs exactly as it did with those we replace."""

from pathlib import Path
from typing import Any

import pytest

from replay.admission import Admission, judged
from replay.context import read_jsonl
from seidev.cluster import Access

CASES: list[dict[str, Any]] = read_jsonl(Path(__file__).parents[1] / "data/admission/cases.jsonl")
OPERATIONS = sorted({case["operation"] for case in CASES})


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_recorded_request_gets_the_recorded_answer(operation: str, cluster: Access, namespace: str) -> None:
    async with Admission(cluster, namespace) as admission:
        results = [await judged(admission, case) for case in CASES if case["operation"] == operation]
    assert [result.line() for result in results if result.outcome != "pass"] == []
    assert results


async def test_a_changed_record_is_noticed(cluster: Access, namespace: str) -> None:
    """The comparison itself: each part of an answer, altered in the record, makes the case fail."""
    accepted = next(case for case in CASES if case["case"] == "minimal full")
    refused = next(case for case in CASES if case.get("causes") and len(case["causes"]) > 1)
    altered = [
        {**accepted, "code": 422},
        {**accepted, "warnings": ['299 - "unknown field"']},
        {**accepted, "object": {**accepted["object"], "spec": {**accepted["object"]["spec"], "paused": False}}},
        {**refused, "reason": "Forbidden"},
        {**refused, "message": refused["message"] + "."},
        {**refused, "causes": refused["causes"][1:]},
    ]
    async with Admission(cluster, namespace) as admission:
        outcomes = [(await judged(admission, case)).outcome for case in altered]
    assert outcomes == ["fail"] * len(altered)
