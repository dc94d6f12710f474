"""One line of a compare page, read as evidence: what it says, and whether that follows from its own layers.

Upstream's lines carry no verdict and ours do; both are judged here by the same rules, and of a stated and a derived
verdict the worse one counts (docs/contracts/shadow.md 1.3, 5.3, 9.1). Nothing in a line is trusted further than its type.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from seiops.shadow.receipts import CONSENSUS_FIELDS

SEVERITY = ("missing", "clean", "vacuous", "gap", "indeterminate", "diverged")
"""Verdicts of a height from harmless to grave; the place in this tuple is the code the ledger keeps."""
CODES = {name: code for code, name in enumerate(SEVERITY)}
UNDECIDED = ("indeterminate", "gap")
LAYERS = ("0", "1", "2", "H")
LAYER_NAMES = {"0": "Headers", "1": "Receipts", "2": "State", "H": "Hash log"}
HASH_LOG_COLUMNS = ("changeset", "resultHash", "blockHash")


class LineError(ValueError):
    """A line that is not a comparison of one block; says why."""


class _Struct(msgspec.Struct, rename="camel"):
    pass


class Layer0(_Struct):
    app_hash_match: bool
    last_results_hash_match: bool
    gas_used_match: bool = True
    same_source: bool = False
    own_results_match: dict[str, bool] | None = None
    shadow_app_hash: str = ""
    canonical_app_hash: str = ""
    shadow_last_results_hash: str = ""
    canonical_last_results_hash: str = ""
    shadow_gas_used: int = 0
    canonical_gas_used: int = 0


class FieldDifference(_Struct):
    field: str
    shadow: msgspec.Raw = msgspec.Raw(b"null")
    canonical: msgspec.Raw = msgspec.Raw(b"null")


class TxDifference(_Struct):
    tx_index: int
    fields: list[FieldDifference] = []


class Layer1(_Struct):
    total_txs: int = 0
    tx_count_match: bool = True
    divergences: list[TxDifference] = []
    indeterminate: bool = False
    error: str = ""
    block: list[FieldDifference] = []


class StateDifference(_Struct):
    kind: str
    addr: str
    slot: str = ""
    shadow: str = ""
    canonical: str = ""


class Layer2(_Struct):
    accounts_checked: int = 0
    keys_checked: int = 0
    divergences: list[StateDifference] = []
    indeterminate: bool = False
    error: str = ""


class Previous(_Struct):
    height: int
    layer1: Layer1 | None = None
    layer2: Layer2 | None = None


class Line(_Struct):
    """A CompareResult as published by either program; members unknown here are ignored."""

    height: int
    match: bool
    layer0: Layer0
    timestamp: str = ""
    migration_mode: bool = False
    divergence_layer: int | None = None
    layer1: Layer1 | None = None
    layer2: Layer2 | None = None
    layer_h: dict[str, Any] | None = msgspec.field(default=None, name="layerH")
    previous: Previous | None = None
    verdict: str = ""
    reason: str = ""
    error: str = ""


_decoder = msgspec.json.Decoder(Line)


def parse_line(raw: bytes) -> Line:
    """Raises LineError."""
    try:
        return _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise LineError(f"not a comparison of one block: {error}") from None


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs. `place`: `tx 3`, an address, or nothing for a header; values are JSON text or plain text."""

    layer: str
    kind: str
    place: str = ""
    slot: str = ""
    shadow: str = ""
    canonical: str = ""
    consensus: bool = True

    @property
    def name(self) -> str:
        return f"{LAYER_NAMES[self.layer].lower()}: {self.kind}"


@dataclass(slots=True)
class Finding:
    """What one line proves. `contradiction`: its stated verdict or match does not follow from its layers.

    `undecided`: layers that could not be evaluated. `headers_only`: a match for which nothing but headers was compared.
    `strange`: sides whose own receipts of the block before do not hash to what the header says.
    """

    height: int
    verdict: str
    timestamp: str
    differences: list[Difference]
    undecided: list[str] = field(default_factory=list)
    reason: str = ""
    error: str = ""
    contradiction: str = ""
    txs: int = 0
    accounts: int = 0
    keys: int = 0
    headers_only: bool = False
    app_hash_expected: bool = False
    settled_by_hash_log: bool = False
    migration: bool = False
    strange: tuple[str, ...] = ()

    @property
    def consensus(self) -> bool:
        """Whether anything differs that the chain itself agrees on."""
        return any(one.consensus for one in self.differences)

    @property
    def layers(self) -> list[str]:
        return [layer for layer in LAYERS if any(one.layer == layer for one in self.differences)]


def judge(line: Line) -> Finding:
    """The finding of a line. Never raises: what contradicts itself is said and counts as the worse of both."""
    gap = line.verdict == "gap"
    differences = [] if gap else list(_differences(line))
    undecided = [
        name for name, layer in (("1", line.layer1), ("2", line.layer2)) if layer is not None and layer.indeterminate
    ]
    hash_log = line.layer_h if line.layer_h is not None and "missing" not in line.layer_h else None
    derived = _derived(line, differences, undecided, settled=hash_log is not None)
    finding = Finding(line.height, derived, line.timestamp, differences, undecided, migration=line.migration_mode)
    _state(finding, line, derived)
    errors = [layer.error for layer in (line.layer2, line.layer1) if layer is not None and layer.error]
    finding.error = line.error or "; ".join(errors)
    finding.reason = line.reason or _reason(finding)
    if line.layer1 is not None:
        finding.txs = line.layer1.total_txs
    if line.layer2 is not None:
        finding.accounts, finding.keys = line.layer2.accounts_checked, line.layer2.keys_checked
    finding.headers_only = line.match and line.layer1 is None and line.layer2 is None and hash_log is None
    finding.settled_by_hash_log = hash_log is not None and line.layer1 is None
    finding.strange = tuple(side for side, match in (line.layer0.own_results_match or {}).items() if not match)
    finding.app_hash_expected = line.migration_mode and not gap and not line.layer0.app_hash_match
    return finding


def settled(first: str, again: str) -> str:
    """The verdict of a block after another look: it decides what was open, and a divergence seen by any look stays one
    (docs/contracts/shadow.md 9.3)."""
    if "diverged" in (first, again):
        return "diverged"
    return again if first in UNDECIDED and again not in UNDECIDED else first


def _derived(line: Line, differences: list[Difference], undecided: list[str], *, settled: bool) -> str:
    if line.verdict == "gap":
        return "gap"
    if differences:
        return "diverged"
    if undecided:
        return "indeterminate"
    if line.layer1 is None and not settled and line.layer0.same_source:
        return "vacuous"
    return "clean"


def _state(finding: Finding, line: Line, derived: str) -> None:
    """Holds what the line states against what its layers say; the worse counts."""
    stated = line.verdict
    if stated and (stated not in CODES or stated == "missing"):
        finding.contradiction = f"its verdict is {stated!r}, which is none"
        stated = "indeterminate"
    elif stated and stated != derived:
        finding.contradiction = f"it states {stated}, its layers say {derived}"
    elif line.match and derived not in ("clean", "vacuous"):
        finding.contradiction = f"it states a match, its layers say {derived}"
    elif not line.match and derived in ("clean", "vacuous"):
        finding.contradiction = "it states no match, its layers name no reason"
        stated = "indeterminate"
    if stated and CODES[stated] > CODES[derived]:
        finding.verdict = stated


def _reason(finding: Finding) -> str:
    if finding.verdict == "diverged":
        return "" if finding.consensus else "descriptive-fields"
    return "not-told" if finding.verdict == "indeterminate" else ""


def _differences(line: Line) -> Iterator[Difference]:
    yield from _headers(line)
    if line.layer1 is not None:
        yield from receipt_differences(line.layer1)
    if line.layer2 is not None:
        yield from state_differences(line.layer2)
    if line.layer_h is not None:
        yield from _hash_log(line.layer_h)


def _headers(line: Line) -> Iterator[Difference]:
    found = line.layer0
    if not found.app_hash_match and not line.migration_mode:
        yield Difference("0", "app hash", "", "", found.shadow_app_hash, found.canonical_app_hash)
    if not found.last_results_hash_match:
        values = found.shadow_last_results_hash, found.canonical_last_results_hash
        yield Difference("0", "last results hash", "", "", *values)
    if not found.gas_used_match:
        yield Difference("0", "gas used", "", "", str(found.shadow_gas_used), str(found.canonical_gas_used))


def receipt_differences(layer: Layer1) -> Iterator[Difference]:
    """Fields of receipts, in the order of the record."""
    for tx in layer.divergences:
        for one in tx.fields:
            values = text_of(one.shadow), text_of(one.canonical)
            yield Difference("1", one.field, f"tx {tx.tx_index}", "", *values, one.field in CONSENSUS_FIELDS)
    for one in layer.block:
        yield Difference(
            "1", one.field, "the block itself", "", text_of(one.shadow), text_of(one.canonical), consensus=False
        )
    if not layer.tx_count_match and not layer.indeterminate and not layer.divergences:
        yield Difference("1", "presence", "number of transactions")


def state_differences(layer: Layer2) -> Iterator[Difference]:
    for one in layer.divergences:
        yield Difference("2", one.kind, one.addr, one.slot, one.shadow, one.canonical)


def _hash_log(found: dict[str, Any]) -> Iterator[Difference]:
    for column in HASH_LOG_COLUMNS:
        if found.get(f"{column}Match", True) is not True:
            name = column[0].upper() + column[1:]
            values = str(found.get(f"shadow{name}", "")), str(found.get(f"canonical{name}", ""))
            yield Difference("H", column, "", "", *values)


def text_of(raw: msgspec.Raw) -> str:
    """A recorded value as a person reads it: the string itself, everything else as its JSON text."""
    text = bytes(raw)
    if text[:1] == b'"':
        try:
            return str(msgspec.json.decode(text))
        except msgspec.MsgspecError:
            pass
    return text.decode("utf-8", "replace")
