"""Layer 1: the receipts of one block on two nodes, field by field (docs/contracts/shadow.md 3.3).

The chain itself agrees on `code`, `data`, `gas_wanted` and `gas_used`; `log` and `events` describe and may be shaped
by a node's own settings. Both kinds are compared, and a record says which kind differed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from seiops.shadow import rawjson

CONSENSUS_FIELDS = frozenset({"code", "data", "gasUsed", "gasWanted", "presence"})
BLOCK_FIELDS = ("finalizeBlockEvents", "validatorUpdates", "consensusParamUpdates")
_NULL = msgspec.Raw(b"null")


class ShapeError(ValueError):
    """An answer without the shape its path promises; says what is wrong."""


class Receipt(msgspec.Struct):
    """One element of `txs_results`; absent and null members have their defaults (docs/contracts/shadow.md 2.5)."""

    code: int | None = None
    gas_used: str | None = None
    gas_wanted: str | None = None
    log: str | None = None
    events: msgspec.Raw = msgspec.Raw()
    data: str | None = None
    codespace: str | None = None
    info: str | None = None
    evm_tx_info: msgspec.Raw = msgspec.Raw()


class _TxInfo(msgspec.Struct):
    tx_hash: str = msgspec.field(default="", name="txHash")


class _Results(msgspec.Struct):
    height: str | None = None
    txs_results: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    total_gas_used: str | None = None
    finalize_block_events: msgspec.Raw = msgspec.Raw()
    validator_updates: msgspec.Raw = msgspec.Raw()
    consensus_param_updates: msgspec.Raw = msgspec.Raw()


class _Header(msgspec.Struct):
    height: str = ""
    app_hash: str = ""
    last_results_hash: str = ""
    chain_id: str = ""


class _Data(msgspec.Struct):
    txs: list[msgspec.Raw] | None = None


class _BlockBody(msgspec.Struct):
    header: _Header
    data: _Data | None = None


class _BlockId(msgspec.Struct):
    hash: str = ""


class _Block(msgspec.Struct):
    block: _BlockBody | None = None
    block_id: _BlockId | None = None


_blocks = msgspec.json.Decoder(_Block)
_results = msgspec.json.Decoder(_Results)
_receipts = msgspec.json.Decoder(list[Receipt | None] | None)
_raws = msgspec.json.Decoder(list[msgspec.Raw] | None)
_info = msgspec.json.Decoder(_TxInfo | None)


@dataclass(frozen=True, slots=True)
class Block:
    """What comparison needs of `/block`. `txs`: how many transactions the block holds."""

    app_hash: str
    last_results_hash: str
    block_id: str
    txs: int


@dataclass(frozen=True, slots=True)
class Results:
    """What comparison needs of `/block_results`; `raw` is the text of `txs_results`, `gas` is None where not told.

    `block`: the texts of what the block itself returned, in the order of BLOCK_FIELDS.
    """

    raw: bytes
    gas: int | None
    block: tuple[bytes, ...] = (b"", b"", b"")


def parse_block(body: bytes, height: int) -> Block:
    """Raises ShapeError for an answer that is not the block at this height (docs/contracts/shadow.md 2.4)."""
    try:
        found = _blocks.decode(body)
    except msgspec.MsgspecError as error:
        raise ShapeError(f"decoding /block response: {error}") from None
    if found.block is None:
        raise ShapeError("decoding /block response: the node has no block at this height")
    header = found.block.header
    if header.height != str(height):
        raise ShapeError(f"decoding /block response: asked for height {height}, got {header.height or 'none'}")
    for name, value in (("app_hash", header.app_hash), ("last_results_hash", header.last_results_hash)):
        if len(value) % 2:
            raise ShapeError(f"decoding /block response: header.{name} is {value!r}, not a hash")
    txs = found.block.data.txs if found.block.data is not None else None
    return Block(
        header.app_hash, header.last_results_hash, found.block_id.hash if found.block_id else "", len(txs or [])
    )


def check_headers(shadow: Block, canonical: Block, height: int) -> None:
    """Raises ShapeError where neither node shows a hash: nothing must not compare equal to nothing (T11).

    The chain's first block has nothing behind it to hash.
    """
    for name in ("app_hash", "last_results_hash"):
        if height > 1 and not getattr(shadow, name) and not getattr(canonical, name):
            raise ShapeError(f"header.{name} is empty on both nodes")


def parse_results(body: bytes, height: int) -> Results:
    """Raises ShapeError for an answer that does not hold the results of this height (docs/contracts/shadow.md 2.5)."""
    try:
        found = _results.decode(body)
    except msgspec.MsgspecError as error:
        raise ShapeError(f"decoding /block_results response: {error}") from None
    if found.height is not None and found.height != str(height):
        raise ShapeError(f"decoding /block_results response: asked for height {height}, got {found.height}")
    if found.height is None and isinstance(found.txs_results, msgspec.UnsetType):
        raise ShapeError("decoding /block_results response: neither height nor txs_results")
    raw = b"null" if isinstance(found.txs_results, msgspec.UnsetType) else bytes(found.txs_results)
    gas = found.total_gas_used
    block = (bytes(found.finalize_block_events), bytes(found.validator_updates), bytes(found.consensus_param_updates))
    return Results(raw, int(gas) if gas is not None and gas.isascii() and gas.isdigit() else None, block)


@dataclass(slots=True)
class ReceiptComparison:
    """Layer 1 of one block. `problems`: why it cannot be trusted as a whole; differences found stay beside them."""

    total: int = 0
    counts_match: bool = True
    divergences: list[dict[str, Any]] = field(default_factory=list)
    consensus_match: bool = True
    only_index_differs: bool = False
    reason: str = ""
    problems: list[str] = field(default_factory=list)
    block: list[dict[str, Any]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The `layer1` member (docs/contracts/shadow.md 5.3), additive members last."""
        found: dict[str, Any] = {"totalTxs": self.total, "txCountMatch": self.counts_match}
        if self.divergences:
            found["divergences"] = self.divergences
        if self.problems:
            found |= {"indeterminate": True, "error": "; ".join(self.problems)}
        if self.divergences:
            found["consensusMatch"] = self.consensus_match
        if self.only_index_differs:
            found["ignoredEventIndex"] = True
        if self.block:
            found["block"] = self.block
        return found

    @property
    def differs(self) -> bool:
        return bool(self.divergences or self.block)

    @property
    def fired(self) -> bool:
        return bool(self.differs or self.problems)


@dataclass(frozen=True, slots=True)
class ReceiptRules:
    """How receipts are compared. `ignore_index`: the index flag of event attributes is a node's own setting (T12).

    `value_limit`: bytes from which a recorded value is replaced by its hash; 0 records everything. `deep`: also what
    neither the chain nor upstream compares: `info`, `evm_tx_info`, and what the block itself returned.
    """

    ignore_index: bool = True
    value_limit: int = 0
    deep: bool = False


def unreadable(reason: str, error: str) -> ReceiptComparison:
    """Layer 1 that could not be evaluated at all: not clean, and nothing counted."""
    return ReceiptComparison(counts_match=False, reason=reason, problems=[error])


def compare_receipts(
    shadow: Results, canonical: Results, txs: tuple[int | None, int | None], rules: ReceiptRules
) -> ReceiptComparison:
    """`txs`: how many transactions each side's own block holds, None where not known. Raises ShapeError."""
    if shadow.raw == canonical.raw:
        both = _count(shadow.raw)
        found = ReceiptComparison(total=both)
        counts = (both, both)
    else:
        left, right = _decode(shadow.raw, "shadow"), _decode(canonical.raw, "canonical")
        counts = (len(left), len(right))
        found = ReceiptComparison(total=max(counts), counts_match=counts[0] == counts[1])
        _compare_pairs(found, left, right, rules)
    if rules.deep:
        found.block = [_limited(entry, rules) for entry in _block_fields(shadow, canonical)]
    for side, block_txs, results in zip(("shadow", "canonical"), txs, counts, strict=True):
        if block_txs is not None and block_txs != results:
            found.problems.append(
                f"{side} block_results hold {results} results for a block of {block_txs} transactions"
            )
            found.reason = "incomplete-results"
    return found


def _count(raw: bytes) -> int:
    try:
        return len(_raws.decode(raw) or [])
    except msgspec.MsgspecError as error:
        raise ShapeError(f"decoding /block_results response: {error}") from None


def _decode(raw: bytes, side: str) -> list[Receipt]:
    try:
        return [receipt or Receipt() for receipt in _receipts.decode(raw) or []]
    except msgspec.MsgspecError as error:
        raise ShapeError(f"{side}: decoding /block_results response: {error}") from None


def _compare_pairs(found: ReceiptComparison, left: list[Receipt], right: list[Receipt], rules: ReceiptRules) -> None:
    for index in range(max(len(left), len(right))):
        if index >= len(right):
            fields = [_presence("present", "missing")]
        elif index >= len(left):
            fields = [_presence("missing", "present")]
        else:
            fields = [_limited(entry, rules) for entry in _fields(left[index], right[index], rules, found)]
        if fields:
            found.divergences.append({"txIndex": index, "fields": fields})
            if any(entry["field"] in CONSENSUS_FIELDS for entry in fields):
                found.consensus_match = False


def _presence(shadow: str, canonical: str) -> dict[str, Any]:
    return {"field": "presence", "shadow": shadow, "canonical": canonical}


def _fields(left: Receipt, right: Receipt, rules: ReceiptRules, found: ReceiptComparison) -> Iterator[dict[str, Any]]:
    """Fields in the order of docs/contracts/shadow.md 3.3.2; `data` and `codespace` follow (3.3.3)."""
    plain = (
        ("code", left.code or 0, right.code or 0),
        ("gasUsed", left.gas_used or "", right.gas_used or ""),
        ("gasWanted", left.gas_wanted or "", right.gas_wanted or ""),
        ("log", left.log or "", right.log or ""),
    )
    for name, shadow, canonical in plain:
        if shadow != canonical:
            yield {"field": name, "shadow": shadow, "canonical": canonical}
    ours, theirs = bytes(left.events), bytes(right.events)
    if ours != theirs and _events_differ(ours, theirs, rules, found):
        yield {"field": "events", "shadow": _recorded(ours), "canonical": _recorded(theirs)}
    texts = [("data", left.data, right.data), ("codespace", left.codespace, right.codespace)]
    if rules.deep:
        texts.append(("info", left.info, right.info))
    for name, one, other in texts:
        if (one or "") != (other or ""):
            yield {"field": name, "shadow": one or "", "canonical": other or ""}
    ours, theirs = bytes(left.evm_tx_info), bytes(right.evm_tx_info)
    if rules.deep and ours != theirs and _value(ours) != _value(theirs):
        yield {"field": "evmTxInfo", "shadow": _recorded(ours), "canonical": _recorded(theirs)}


def _block_fields(shadow: Results, canonical: Results) -> Iterator[dict[str, Any]]:
    for name, ours, theirs in zip(BLOCK_FIELDS, shadow.block, canonical.block, strict=True):
        if ours != theirs and _value(ours) != _value(theirs):
            yield {"field": name, "shadow": _recorded(ours), "canonical": _recorded(theirs)}


def _events_differ(left: bytes, right: bytes, rules: ReceiptRules, found: ReceiptComparison) -> bool:
    """Whether the values differ; spelling, order of members, and absent against empty do not count (3.3.4)."""
    ours, theirs = _value(left), _value(right)
    if ours == theirs:
        return False
    if not rules.ignore_index or _without_index(ours) != _without_index(theirs):
        return True
    found.only_index_differs = True
    return False


def _value(raw: bytes) -> Any:
    value = orjson.loads(raw) if raw else None
    return [] if value is None else value


def _without_index(events: Any) -> Any:
    if isinstance(events, list):
        return [_without_index(event) for event in events]
    if isinstance(events, dict):
        return {name: _without_index(value) for name, value in events.items() if name != "index"}
    return events


def _recorded(raw: bytes) -> msgspec.Raw:
    return msgspec.Raw(rawjson.compact(raw)) if raw else _NULL


def _limited(entry: dict[str, Any], rules: ReceiptRules) -> dict[str, Any]:
    if not rules.value_limit:
        return entry
    return {name: _limit(value, rules.value_limit) if name != "field" else value for name, value in entry.items()}


def _limit(value: Any, limit: int) -> Any:
    text = bytes(value) if isinstance(value, msgspec.Raw) else str(value).encode("utf-8", "replace")
    if len(text) <= limit:
        return value
    return {"sha256": hashlib.sha256(text).hexdigest(), "bytes": len(text)}


def transaction_hashes(results: Results) -> list[str]:
    """The EVM hash of each transaction of the block, empty for those that have none. Raises ShapeError."""
    return [_evm_hash(receipt) for receipt in _decode(results.raw, "results")]


def _evm_hash(receipt: Receipt) -> str:
    try:
        info = _info.decode(receipt.evm_tx_info) if bytes(receipt.evm_tx_info) else None
    except msgspec.MsgspecError:
        return ""
    return info.tx_hash.lower() if info is not None else ""


def evm_hashes(results: Results) -> list[str]:
    """Hashes of the EVM transactions that took effect: those a trace of the block has to name. Raises ShapeError."""
    if b"txHash" not in results.raw:
        return []
    hashes = [_evm_hash(receipt) for receipt in _decode(results.raw, "results") if not receipt.code]
    return [one for one in hashes if one]
