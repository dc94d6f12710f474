"""One block with everything published about it: the lines of pages, the report with both nodes' raw answers, what it means.

The report object is there for a run that stopped at the block; a survey leaves lines only. Either is enough to show both
sides field by field (docs/contracts/shadow.md 5.3, 5.4, 7.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from seiops.evidence.blocks import (
    Difference,
    Finding,
    Line,
    LineError,
    judge,
    parse_line,
    receipt_differences,
    state_differences,
    text_of,
)
from seiops.evidence.catalog import Stock
from seiops.evidence.collect import Said, block_at
from seiops.evidence.reader import Kind
from seiops.objectstore import Store, StoreError, read_gzip
from seiops.shadow import rawjson

LARGEST_REPORT = 512 << 20

_MEANS = {
    "app hash": "the two engines commit to different state; outside a migration that alone is a divergence",
    "last results hash": "the receipts of the block before differ in what the chain settles: look at that block",
    "gas used": "the block's transactions used another amount of gas in all",
    "code": "a transaction succeeded on one node and failed on the other, or failed for another reason",
    "gasUsed": "execution took another path, or read another amount of state",
    "gasWanted": "the transaction was decoded differently: versions of the two nodes are the first suspect",
    "log": "text for people; the chain does not agree on it, and executors word it differently (T27)",
    "events": "indexed for clients; the chain does not agree on them, and executors emit different ones (T27)",
    "data": "the transaction returned something else",
    "codespace": "the error was classed differently; the chain does not agree on it",
    "info": "text for people; the chain does not agree on it",
    "evmTxInfo": "what the node tells EVM clients of the transaction; executors fill it differently (T27)",
    "finalizeBlockEvents": "events of the block itself, indexed for clients; the chain does not agree on them",
    "validatorUpdates": "the block changed the set of validators differently: the next headers will part",
    "consensusParamUpdates": "the block changed the parameters of consensus differently: the next headers will part",
    "presence": "one node has a result where the other has none",
    "storage": "a storage slot holds different words after the block: a wrongly migrated or wrongly written key",
    "balance": "an account holds different balances after the block",
    "nonce": "an account has sent a different number of transactions",
    "code of an account": "a contract's code differs: it was deployed or migrated differently",
    "changeset": "the blocks wrote different state in some module, EVM or not",
    "resultHash": "the receipts differ in what the chain settles",
    "blockHash": "the nodes executed different blocks: they are not on the same chain or fork",
}


class BlockError(Exception):
    """Why a block or a report cannot be shown; one line for the person who asked."""


@dataclass(slots=True)
class Report:
    """A divergence report as published. `raw` is its payload; the nodes' answers stay raw JSON."""

    key: str
    raw: bytes
    line: Line
    comparison: bytes
    timestamp: str
    answers: dict[str, bytes] = field(default_factory=dict)
    capture_errors: list[str] = field(default_factory=list)
    parted: list[Difference] = field(default_factory=list)
    """Where both nodes' traces of a transaction part first; `kind` is the path inside of the trace."""


@dataclass(slots=True)
class BlockView:
    """`line` and `comparison` (its raw JSON) are what is shown; `said` is every line of a page about the block."""

    height: int
    place: str
    line: Line
    comparison: bytes
    finding: Finding
    said: list[Said]
    report: Report | None = None

    @property
    def timestamp(self) -> str:
        return self.report.timestamp if self.report is not None else self.line.timestamp

    @property
    def previous(self) -> tuple[int, list[Difference]] | None:
        """The block before, where headers made it the one to look at."""
        before = self.line.previous
        if before is None:
            return None
        found = [*(receipt_differences(before.layer1) if before.layer1 is not None else ()),
                 *(state_differences(before.layer2) if before.layer2 is not None else ())]  # fmt: skip
        return before.height, found

    def meanings(self) -> Iterator[tuple[str, str]]:
        """Each kind of difference that occurs, and what it says about the nodes."""
        seen = dict.fromkeys((one.layer, one.kind) for one in self.finding.differences)
        for layer, kind in seen:
            name = "code of an account" if (layer, kind) == ("2", "code") else kind
            if name in _MEANS:
                yield name, _MEANS[name]
        if self.finding.undecided:
            yield "indeterminate", "a check could not be carried out: this is no evidence for either side"

    def document(self) -> bytes:
        """The report as JSON, indented by two; what is unknown here is kept. Without one, the comparison in its shape."""
        if self.report is not None:
            return msgspec.json.format(self.report.raw, indent=2).rstrip(b"\n") + b"\n"
        members = {"height": self.height, "timestamp": self.timestamp, "comparison": msgspec.Raw(self.comparison)}
        return rawjson.document(members)


class _Side(msgspec.Struct, rename="camel"):
    block: msgspec.Raw = msgspec.Raw(b"null")
    block_results: msgspec.Raw = msgspec.Raw(b"null")


class _First(msgspec.Struct):
    path: str = ""
    shadow: msgspec.Raw = msgspec.Raw(b"null")
    canonical: msgspec.Raw = msgspec.Raw(b"null")


class _Trace(msgspec.Struct, rename="camel"):
    tx_index: int
    first_difference: _First | None = None
    shadow: msgspec.Raw = msgspec.Raw(b"null")
    canonical: msgspec.Raw = msgspec.Raw(b"null")


class _Report(msgspec.Struct, rename="camel"):
    height: int
    comparison: msgspec.Raw
    timestamp: str = ""
    shadow: _Side = msgspec.field(default_factory=_Side)
    canonical: _Side = msgspec.field(default_factory=_Side)
    capture_errors: list[str] = []
    traces: list[_Trace] = []


async def load(store: Store, stocks: list[Stock], height: int) -> BlockView:
    """The block at a height, wherever below the prefix something is said of it. Raises BlockError, StoreError."""
    found: list[BlockView] = []
    for stock in stocks:
        keys = [one.key for one in stock.of(Kind.REPORT) if one.first == height]
        report = await load_report(store, keys[0]) if keys else None
        try:
            said = await block_at(store, stock, height)
        except LineError as error:
            raise BlockError(str(error)) from None
        if report is not None:
            found.append(of_report(report, store.url(stock.name), said))
        elif said:
            worst = said[0]
            found.append(BlockView(height, store.url(stock.name), worst.line, worst.raw, worst.finding, said))
    if len(found) > 1:
        places = ", ".join(view.place for view in found)
        raise BlockError(f"block {height} was compared in several places: name one of {places}")
    if not found:
        raise BlockError(
            f"nothing below {store.url()} speaks of block {height}: `seiops report list` shows which heights are covered"
        )
    return found[0]


def of_report(report: Report, place: str, said: list[Said]) -> BlockView:
    return BlockView(report.line.height, place, report.line, report.comparison, judge(report.line), said, report)


async def load_report(store: Store, key: str) -> Report:
    """One report object; a key that does not end in `.gz` is read as it is (7.4). Raises BlockError in the recorded words."""
    raw = await _payload(store, key)
    try:
        found: _Report = msgspec.json.decode(raw, type=_Report)
        line = parse_line(found.comparison)
    except (msgspec.MsgspecError, RecursionError, LineError) as error:
        raise BlockError(f"decoding report: {error}") from None
    answers = {
        f"{side} {name}": bytes(value)
        for side, answer in (("shadow", found.shadow), ("canonical", found.canonical))
        for name, value in (("block", answer.block), ("blockResults", answer.block_results))
        if bytes(value) != b"null"
    }
    answers |= {
        f"{side} trace of transaction {trace.tx_index}": bytes(value)
        for trace in found.traces
        for side, value in (("shadow", trace.shadow), ("canonical", trace.canonical))
        if bytes(value) != b"null"
    }
    parted = [
        Difference("1", first.path, f"tx {trace.tx_index}", "", text_of(first.shadow), text_of(first.canonical))
        for trace in found.traces
        if (first := trace.first_difference) is not None
    ]
    return Report(key, raw, line, bytes(found.comparison), found.timestamp, answers, found.capture_errors, parted)


async def _payload(store: Store, key: str) -> bytes:
    payload = bytearray()
    source = read_gzip(store, key) if key.endswith(".gz") else store.stream(key)
    try:
        async for chunk in source:
            payload += chunk
            if len(payload) > LARGEST_REPORT:
                raise BlockError(f"decoding report: {key} is larger than {LARGEST_REPORT} bytes")
    except StoreError as error:
        what = "decompressing report" if error.code == "BadGzip" else f"downloading {store.url(key)}"
        raise BlockError(f"{what}: {error}") from None
    return bytes(payload)
