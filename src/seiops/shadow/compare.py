"""One group of neighbouring heights compared on two nodes, from headers down to single storage slots.

Both nodes are read at the same time and each read covers the whole group, so a group costs a handful of requests
whatever its size. The layers and what they mean: docs/contracts/shadow.md 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from seiops.seid.bulk import HeightNotReadyError, Want
from seiops.seid.comet import CometError
from seiops.seid.evm import EvmError
from seiops.shadow.faults import why
from seiops.shadow.receipts import (
    Block,
    ReceiptComparison,
    ReceiptRules,
    Results,
    ShapeError,
    check_headers,
    compare_receipts,
    parse_block,
    parse_results,
    unreadable,
)
from seiops.shadow.roots import results_root
from seiops.shadow.sides import Patience, Side, read_blocks, read_state
from seiops.shadow.statereads import StateComparison, compare_state, keys_of
from seiops.shadow.touched import Touched, TraceError
from seiops.shadow.tracing import Trace, Tracer, held_against, traced
from seiops.shadow.verdicts import Compared, HeaderComparison, Unread


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep every block is looked into. `first`: the first height of the run.

    `gas`: read block results for their gas also where no other layer needs them. `after_snapshot`: the height whose
    trace cannot work because the node was restored right below it (T13), 0 for none. At every `read_set_every`th height
    what was only read is compared, too (0: nowhere); at every `sweep_every`th the watched accounts.
    """

    migration: bool = False
    gas: bool = False
    first: int = 1
    after_snapshot: int = 0
    read_set_every: int = 0
    sweep_every: int = 1
    rules: ReceiptRules = field(default_factory=ReceiptRules)
    patience: Patience = field(default_factory=Patience)


@dataclass(slots=True)
class _Block:
    """A height on its way through the layers."""

    compared: Compared
    results: dict[str, Results] = field(default_factory=dict)
    not_ready: str = ""


@dataclass(frozen=True, slots=True)
class Comparator:
    """Compares groups; holds no state between them, so any number may run at once."""

    shadow: Side
    canonical: Side
    depth: Depth
    tracers: Sequence[Tracer] = ()
    watched: Touched = field(default_factory=Touched)

    async def group(self, heights: Sequence[int], *, settle: bool = False) -> list[Compared | Unread]:
        """The outcome of each height, in order. With `settle`, results that are still missing count as a failure."""
        wide = self.depth.migration or self.depth.gas
        wants = [Want(method, h) for h in heights for method in _methods(wide)]
        answers = await self._both(wants)
        outcomes: dict[int, _Block | Unread] = {}
        for height in heights:
            outcomes[height] = self._headers(height, answers)
        blocks = [one for one in outcomes.values() if isinstance(one, _Block)]
        if wide:
            for block in blocks:
                self._gas(block, answers)
        deep = [one for one in blocks if self.depth.migration or one.compared.layer0.real(False)]
        if not self.depth.migration:
            await self._fetch_results(deep, answers)
        self._receipts(deep, answers)
        await self._state(deep)
        await self._previous([one for one in deep if one.compared.layer0.real(self.depth.migration)])
        return [self._outcome(one, settle) for one in outcomes.values()]

    @staticmethod
    def _outcome(one: _Block | Unread, settle: bool) -> Compared | Unread:
        if isinstance(one, Unread):
            return one
        if one.not_ready and not settle:
            return Unread(one.compared.height, one.not_ready, not_ready=True)
        return one.compared

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _both(self, wants: Sequence[Want]) -> _Answers:
        shadow, canonical = await asyncio.gather(
            *(read_blocks(side, wants, self.depth.patience) for side in (self.shadow, self.canonical))
        )
        return _Answers(
            {("shadow", *want): one for want, one in zip(wants, shadow, strict=True)}
            | {("canonical", *want): one for want, one in zip(wants, canonical, strict=True)}
        )

    async def _fetch_results(self, blocks: Sequence[_Block], answers: _Answers) -> None:
        wants = [Want("block_results", block.compared.height) for block in blocks]
        if wants:
            answers.found.update((await self._both(wants)).found)

    # --- layer 0 ----------------------------------------------------------------------------------------------------

    def _headers(self, height: int, answers: _Answers) -> _Block | Unread:
        timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found: dict[str, Block] = {}
        for side in ("shadow", "canonical"):
            try:
                found[side] = parse_block(answers.body(side, "block", height), height)
            except (CometError, ShapeError) as error:
                text = f"querying {side} block at height {height}: {error}"
                return Unread(height, text, isinstance(error, HeightNotReadyError))
        try:
            check_headers(found["shadow"], found["canonical"], height)
        except ShapeError as error:
            return Unread(height, f"querying shadow block at height {height}: {error}")
        layer0 = HeaderComparison(found["shadow"], found["canonical"])
        return _Block(Compared(height, timestamp, self.depth.migration, layer0))

    @staticmethod
    def _gas(block: _Block, answers: _Answers) -> None:
        height = block.compared.height
        try:
            both = [parse_results(answers.body(side, "block_results", height), height) for side in _SIDES]
        except (CometError, ShapeError):
            return
        if both[0].gas is not None and both[1].gas is not None:
            block.compared.layer0.gas = (both[0].gas, both[1].gas)

    # --- layer 1 ----------------------------------------------------------------------------------------------------

    def _receipts(self, blocks: Sequence[_Block], answers: _Answers) -> None:
        for block in blocks:
            height, layer0 = block.compared.height, block.compared.layer0
            txs = (layer0.shadow.txs, layer0.canonical.txs)
            found = self._receipts_at(height, answers, block, txs)
            if self.depth.migration or not found.reason or found.differs or found.reason == "incomplete-results":
                block.compared.layer1 = found
            block.compared.roots = _roots(block.results)

    def _receipts_at(
        self, height: int, answers: _Answers, block: _Block, txs: tuple[int | None, int | None]
    ) -> ReceiptComparison:
        for side in _SIDES:
            try:
                block.results[side] = parse_results(answers.body(side, "block_results", height), height)
            except (CometError, ShapeError) as error:
                text = f"querying {side} block_results at height {height}: {error}"
                if isinstance(error, HeightNotReadyError):
                    block.not_ready = text
                return unreadable(why(error), text)
        try:
            return compare_receipts(block.results["shadow"], block.results["canonical"], txs, self.depth.rules)
        except ShapeError as error:
            return unreadable("shape", f"querying block_results at height {height}: {error}")

    # --- layer 2 ----------------------------------------------------------------------------------------------------

    async def _state(self, blocks: Sequence[_Block]) -> None:
        """Traces of the whole group in one request a node, then all reads of the group in one request a node."""
        if not self.tracers or not blocks:
            return
        depth = self.depth
        traces = await asyncio.gather(
            *(
                traced(tracer, [(b.compared.height, b.results.get(tracer.side)) for b in blocks], depth.read_set_every,
                       depth.patience)
                for tracer in self.tracers
            )
        )  # fmt: skip
        touched = []
        for index, block in enumerate(blocks):
            block.compared.layer2 = StateComparison()
            whole = Touched()
            if block.compared.height % depth.sweep_every == 0:
                whole.merge(self.watched)
            seen: list[Trace] = []
            for per_tracer in traces:
                trace = per_tracer[index]
                # nodes that agree give the same trace; once is enough
                if trace is not None and trace not in seen:
                    seen.append(trace)
                    self._merge(whole, held_against(trace), block)
            touched.append(whole)
        await self._read(blocks, touched)

    @staticmethod
    def _merge(whole: Touched, found: Touched | EvmError | TraceError, block: _Block) -> None:
        layer2, height = block.compared.layer2, block.compared.height
        assert layer2 is not None
        prefix = f"resolving touched accounts at height {height}: debug_traceBlockByNumber at height {height}: "
        if isinstance(found, Exception):
            layer2.problems.append(f"{prefix}{found}")
            layer2.reason = layer2.reason or why(found)
            if isinstance(found, EvmError) and found.not_ready:
                block.not_ready = layer2.problems[-1]
        else:
            layer2.problems += [f"{prefix}{problem}" for problem in found.problems]
            if found.problems:
                layer2.reason = "incomplete-trace"
            found.problems = []
            whole.merge(found)

    async def _read(self, blocks: Sequence[_Block], touched: Sequence[Touched]) -> None:
        keys = [keys_of(one) for one in touched]
        calls = [key.call(hex(b.compared.height)) for b, own in zip(blocks, keys, strict=True) for key in own]
        if not calls:
            self._mark_expected(blocks)
            return
        assert self.shadow.evm is not None and self.canonical.evm is not None
        shadow, canonical = await asyncio.gather(
            read_state(self.shadow.evm, calls, self.depth.patience),
            read_state(self.canonical.evm, calls, self.depth.patience),
        )
        start = 0
        for block, own in zip(blocks, keys, strict=True):
            end = start + len(own)
            assert block.compared.layer2 is not None
            compare_state(own, shadow[start:end], canonical[start:end], block.compared.layer2)
            for answer in (*shadow[start:end], *canonical[start:end]):
                if isinstance(answer, EvmError) and answer.not_ready:
                    block.not_ready = f"reading state at height {block.compared.height}: {answer}"
            start = end
        self._mark_expected(blocks)

    def _mark_expected(self, blocks: Sequence[_Block]) -> None:
        for block in blocks:
            layer2 = block.compared.layer2
            if block.compared.height == self.depth.after_snapshot and layer2 is not None:
                block.compared.expected_gap = bool(layer2.problems) and not layer2.divergences

    # --- the block before -------------------------------------------------------------------------------------------

    async def _previous(self, blocks: Sequence[_Block]) -> None:
        """Headers show the outcome of the block before: where one differs, that block is looked into as well (D-4)."""
        for block in blocks:
            height = block.compared.height - 1
            done_before = self.depth.migration and height >= self.depth.first
            if height < 1 or done_before:
                continue
            answers = await self._both([Want("block_results", height)])
            earlier = _Block(Compared(height, block.compared.timestamp, self.depth.migration, block.compared.layer0))
            layer1 = self._receipts_at(height, answers, earlier, (None, None))
            block.compared.previous = {"height": height, "layer1": layer1.record()}
            await self._state([earlier])
            if earlier.compared.layer2 is not None:
                block.compared.previous["layer2"] = earlier.compared.layer2.record()


_SIDES = ("shadow", "canonical")


@dataclass(slots=True)
class _Answers:
    found: dict[tuple[str, str, int], bytes | CometError]

    def body(self, side: str, method: str, height: int) -> bytes:
        """Raises the CometError that came instead."""
        answer = self.found[(side, method, height)]
        if isinstance(answer, CometError):
            raise answer
        return answer


def _methods(wide: bool) -> tuple[str, ...]:
    return ("block", "block_results") if wide else ("block",)


def _roots(results: dict[str, Results]) -> tuple[str, str] | None:
    if len(results) < len(_SIDES):
        return None
    shadow, canonical = (results[side] for side in _SIDES)
    try:
        ours = results_root(shadow)
        return ours, ours if shadow.raw == canonical.raw else results_root(canonical)
    except ShapeError:
        return None
