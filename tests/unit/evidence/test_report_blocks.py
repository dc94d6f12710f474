"""Lines of pages judged as evidence: by their layers, whoever wrote them, and never better than they state."""

from __future__ import annotations

import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seiops.evidence.blocks import SEVERITY, Finding, LineError, judge, parse_line
from seiops.evidence.ledger import Ledger
from support.evidence import CONTRACT, SLOT, clean, gap, receipts_differ, state_differs, undecided, upstreams


def read(line: dict[str, Any]) -> Finding:
    return judge(parse_line(orjson.dumps(line)))


HEADERS = clean(5)["layer0"] | {"lastResultsHashMatch": False}
PLANTED = [
    (clean(5), "clean", []),
    (receipts_differ(5, ("gasUsed", "21546", "21000")), "diverged", ["1"]),
    (state_differs(5, ("storage", CONTRACT, SLOT, "0x01", "0x02")), "diverged", ["2"]),
    (undecided(5, "pruned", "beyond max lookback"), "indeterminate", []),
    (clean(5, match=False, divergenceLayer=0, layer0=HEADERS, verdict="diverged"), "diverged", ["0"]),
]  # fmt: skip


@pytest.mark.parametrize(("line", "verdict", "layers"), PLANTED)
def test_both_programs_lines_are_judged_alike(line: dict[str, Any], verdict: str, layers: list[str]) -> None:
    for written in (line, upstreams(line)):
        found = read(written)
        assert (found.verdict, found.layers, found.contradiction) == (verdict, layers, "")


def test_gap_is_not_taken_for_a_divergence_of_headers() -> None:
    found = read(gap(7))
    assert (found.verdict, found.differences, found.reason) == ("gap", [], "unreadable")


def test_app_hash_counts_outside_a_migration_only() -> None:
    layer0 = clean(5)["layer0"] | {"appHashMatch": False, "shadowAppHash": "AA", "canonicalAppHash": "BB"}
    assert read(clean(5, layer0=layer0)).verdict == "clean"
    assert read(clean(5, layer0=layer0)).app_hash_expected
    outside = clean(5, layer0=layer0, migrationMode=False, match=False, divergenceLayer=0, verdict="diverged")
    assert [one.kind for one in read(outside).differences] == ["app hash"]


def test_equal_headers_of_one_source_prove_nothing() -> None:
    line = clean(5, layer0=clean(5)["layer0"] | {"sameSource": True}, verdict="vacuous")
    for name in ("layer1", "layer2"):
        del line[name]
    assert read(line).verdict == "vacuous"
    assert read(line | {"verdict": "clean"}).verdict == "vacuous"


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (receipts_differ(5, ("code", 0, 11)) | {"verdict": "clean", "match": True}, "diverged"),
        (undecided(5, "rpc", "no answer") | {"verdict": "clean"}, "indeterminate"),
        (clean(5, verdict="diverged"), "diverged"),
        (clean(5, match=False), "indeterminate"),
        (clean(5, verdict="fine"), "indeterminate"),
    ],
)
def test_line_that_contradicts_itself_counts_as_the_graver(line: dict[str, Any], verdict: str) -> None:
    found = read(line)
    assert found.verdict == verdict
    assert found.contradiction


def test_descriptive_fields_are_told_from_consensus_fields() -> None:
    found = read(receipts_differ(5, ("log", "a", "b"), ("events", [], [1]), consensus=False))
    assert (found.verdict, found.consensus, found.reason) == ("diverged", False, "descriptive-fields")
    assert read(receipts_differ(5, ("log", "a", "b"), ("data", "", "AA"))).consensus


def test_what_the_block_itself_returned_is_descriptive() -> None:
    entry = {"field": "validatorUpdates", "shadow": [1], "canonical": None}
    layer1 = {"totalTxs": 2, "txCountMatch": True, "block": [entry]}
    line = clean(5, match=False, divergenceLayer=1, layer1=layer1, verdict="diverged", reason="descriptive-fields")
    found = read(line)
    assert (found.verdict, found.contradiction, found.consensus) == ("diverged", "", False)
    assert [(one.kind, one.shadow, one.canonical) for one in found.differences] == [("validatorUpdates", "[1]", "null")]


def test_receipts_that_do_not_hash_to_the_header_are_told() -> None:
    layer0 = clean(5)["layer0"] | {"ownResultsMatch": {"shadow": False, "canonical": True}}
    found = read(clean(5, layer0=layer0))
    assert (found.verdict, found.strange) == ("clean", ("shadow",))


def test_hash_log_settles_and_tells() -> None:
    equal = {"source": "hash-log", "changesetMatch": True, "resultHashMatch": True, "blockHashMatch": True}
    line = clean(5, layerH=equal)
    for name in ("layer1", "layer2"):
        del line[name]
    assert read(line).settled_by_hash_log
    different = equal | {"changesetMatch": False, "shadowChangeset": "a", "canonicalChangeset": "b"}
    found = read(line | {"layerH": different, "match": False, "verdict": "diverged", "divergenceLayer": 0})
    assert [(one.layer, one.kind, one.shadow) for one in found.differences] == [("H", "changeset", "a")]


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b'{"height":"5"}', b'{"height":5,"match":1,"layer0":{}}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_comparison_is_refused(raw: bytes) -> None:
    with pytest.raises(LineError):
        parse_line(raw)


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 2**70), st.text(max_size=5))
NESTED = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)
MEMBERS = (
    "match",
    "migrationMode",
    "divergenceLayer",
    "layer0",
    "layer1",
    "layer2",
    "layerH",
    "previous",
    "verdict",
    "reason",
    "error",
)
INNER = ("divergences", "indeterminate", "error", "totalTxs", "txCountMatch", "appHashMatch", "changesetMatch")


@given(base=st.sampled_from([line for line, _, _ in PLANTED]), top=st.dictionaries(st.sampled_from(MEMBERS), NESTED, max_size=3),
       inner=st.dictionaries(st.sampled_from(INNER), NESTED, max_size=2))  # fmt: skip
def test_any_line_is_judged_or_refused_and_never_better_than_it_states(
    base: dict[str, Any], top: dict[str, Any], inner: dict[str, Any]
) -> None:
    line = {name: value | inner if name.startswith("layer") else value for name, value in base.items()} | top
    try:
        parsed = parse_line(json.dumps(line).encode())
    except LineError:
        return
    found = judge(parsed)
    assert found.verdict in SEVERITY[1:]
    assert line["match"] is True or found.verdict not in ("clean", "vacuous")
    if line.get("verdict") in SEVERITY[1:]:
        assert SEVERITY.index(found.verdict) >= SEVERITY.index(line["verdict"])


def test_ledger_agrees_with_a_plain_dictionary() -> None:
    draw = random.Random(3)
    ledger, plain = Ledger(), dict[int, int]()
    order = ("missing", "clean", "vacuous", "gap", "indeterminate", "diverged")
    for _ in range(4000):
        height = draw.choice((1, 4095, 4096, 30_000, 79_000_000)) + draw.randrange(900)
        verdict = draw.choice(order[1:])
        before = ledger.enter(height, verdict)
        assert before == order[plain.get(height, 0)]
        plain[height] = max(plain.get(height, 0), order.index(verdict))
    assert ledger.blocks == len(plain)
    assert ledger.counts() == {name: sum(code == at for code in plain.values()) for at, name in enumerate(order) if at}
    spans = list(ledger.spans())
    assert [span.start for span in spans[1:]] == [span.end + 1 for span in spans[:-1]]
    for span in spans:
        heights = (span.start, span.end) if span.blocks > 5000 else range(span.start, span.end + 1)
        assert {order[plain.get(height, 0)] for height in heights} == {span.verdict}
    columns = ledger.columns(7)
    assert sum(column.blocks for column in columns) == max(plain) - min(plain) + 1
    assert sum(column.counts["diverged"] for column in columns) == ledger.counts()["diverged"]
    assert all(sum(column.counts.values()) == column.blocks for column in columns)
