"""A recorded divergence counts as spelling only where the values are the same; flat errors excuse nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from replay.differences import DifferenceBook
from replay.sidecar_lines import MEMBER, SPELLING, mark_spelling

EVENT = {"type": "message", "attributes": [{"key": "a", "value": "b", "index": True}]}
QUIET = {"type": "message", "attributes": [{"key": "a", "value": "b", "index": False}]}
OTHER = {"type": "message", "attributes": [{"key": "a", "value": "c", "index": True}]}


def events(shadow: Any, canonical: Any) -> dict[str, Any]:
    return {"field": "events", "shadow": shadow, "canonical": canonical}


def line(*fields: dict[str, Any], results_match: bool = True) -> dict[str, Any]:
    layer0 = {"appHashMatch": True, "lastResultsHashMatch": results_match}
    layer1 = {"totalTxs": 1, "txCountMatch": True, "divergences": [{"txIndex": 0, "fields": list(fields)}]}
    return {"height": 7, "match": False, "divergenceLayer": 1, "layer0": layer0, "layer1": layer1}


def settled(recorded: dict[str, Any], produced: dict[str, Any], requests: list[Any]) -> list[Any]:
    """What is left of one page's line once the list of differences was applied."""
    rules = DifferenceBook.load().for_case("sidecar", "tasks/compare-x", requests)
    both = [{"res-bucket/p/7-7.compare.ndjson.gz": {"payload": {"7": one}}} for one in (recorded, produced)]
    return rules.compare("objects", *both)


CLEAN = {
    "height": 7, "match": True, "layer0": {"appHashMatch": True, "lastResultsHashMatch": True},
    "layer1": {"totalTxs": 1, "txCountMatch": True},
}  # fmt: skip


@pytest.mark.parametrize(
    ("shadow", "canonical"),
    [([EVENT], [EVENT]), ([EVENT], [QUIET]), (None, []), (None, None)],
    ids=["text", "index", "absent-empty", "absent-null"],
)
def test_same_events_in_another_spelling_are_settled_at_any_height(shadow: Any, canonical: Any) -> None:
    recorded = line(events(shadow, canonical))
    mark_spelling(recorded)
    assert (recorded["match"], recorded["layer1"][MEMBER]) == (SPELLING, [0])
    assert settled(recorded, CLEAN, []) == []
    # a line of ours that diverges over it is still wrong
    assert settled(recorded, line(events(shadow, canonical)), [])


@pytest.mark.parametrize(
    "recorded",
    [
        line(events([EVENT], [OTHER])),
        line(events([EVENT, OTHER], [OTHER, EVENT])),
        line(events([EVENT], [EVENT]), {"field": "code", "shadow": 1, "canonical": 0}),
        line(events([EVENT], [EVENT]), results_match=False),
    ],
    ids=["values", "order", "another-field", "header"],
)
def test_what_else_differs_is_not_settled(recorded: dict[str, Any]) -> None:
    mark_spelling(recorded)
    assert recorded["match"] is False
    assert settled(recorded, CLEAN, [])


FLAT = {
    "target": "/block_results?height=7",
    "answer": {"status": 200, "body": '{"code":-32603,"message":"Internal error","data":"height 7 is not available"}'},
}
INDETERMINATE = {
    "height": 7, "match": False, "divergenceLayer": 1, "layer0": CLEAN["layer0"],
    "layer1": {
        "totalTxs": 0, "txCountMatch": False, "indeterminate": True,
        "error": "querying shadow block_results at height 7: JSON-RPC error from /block_results?height=7: Internal error"
        " (code -32603, data: height 7 is not available)",
    },
    "verdict": "indeterminate", "reason": "rpc",
}  # fmt: skip
MISSING = [{"txIndex": 0, "fields": [{"field": "presence", "shadow": "missing", "canonical": "present"}]}]


@pytest.mark.parametrize(
    "recorded",
    [
        CLEAN | {"layer1": {"totalTxs": 0, "txCountMatch": True}},
        line() | {"layer1": {"totalTxs": 1, "txCountMatch": False, "divergences": MISSING}},
    ],
    ids=["both-nodes", "one-node"],
)
def test_flat_errors_are_settled_only_where_a_node_answered_with_one(recorded: dict[str, Any]) -> None:
    assert settled(recorded, INDETERMINATE, [FLAT]) == []
    assert settled(recorded, INDETERMINATE, [FLAT | {"answer": {"status": 500, "body": FLAT["answer"]["body"]}}])
    assert settled(recorded, INDETERMINATE, [])


def test_flat_errors_do_not_excuse_a_divergence_that_we_lost() -> None:
    code = [{"txIndex": 0, "fields": [{"field": "code", "shadow": 7, "canonical": 0}]}]
    recorded = line() | {"layer1": {"totalTxs": 1, "txCountMatch": True, "divergences": code}}
    assert settled(recorded, INDETERMINATE, [FLAT])
    assert settled(recorded, CLEAN, [FLAT])
