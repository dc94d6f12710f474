"""Asking nodes what a block touched: patiently with a busy tracer, and held against what each node itself counted.

A node runs a few traces at once and refuses the rest on the spot (docs/contracts/shadow.md 1.4 T10, 9.2). A refusal says
nothing about the block: fewer traces are asked at a time, and the refused ones again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from seiops.seid.evm import Call, EvmClient, EvmError
from seiops.shadow.faults import is_busy
from seiops.shadow.receipts import Results, ShapeError, evm_hashes
from seiops.shadow.sides import Patience, read_state
from seiops.shadow.touched import Touched, TraceError, parse_count, parse_read_set, parse_trace

TRACE = "debug_traceBlockByNumber"
MODIFIED = {"tracer": "prestateTracer", "tracerConfig": {"diffMode": True}}
_TOUCHED = {"tracer": "prestateTracer"}
_MOST = 8
"""Requests with traces under way at one node; it runs ten traces at once by default, for everybody who asks."""
_BUSY_PAUSE_S = 0.2
BUSY_BUDGET_S = 60.0
"""For so long a busy tracer is asked again before its refusal counts."""


@dataclass(slots=True)
class _Gate:
    """How many requests run at once: halved by a refusal, one more after each request that went through."""

    limit: int = _MOST
    running: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __aenter__(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.running < self.limit)
            self.running += 1

    async def __aexit__(self, *_: object) -> None:
        # nothing here waits: a cancelled request gives its place back all the same
        self.running -= 1
        async with self._changed:
            self._changed.notify_all()

    def refused(self) -> None:
        self.limit = max(1, self.limit // 2)

    def went_through(self) -> None:
        self.limit = min(_MOST, self.limit + 1)


@dataclass(slots=True)
class Tracer:
    """A node that is asked what a block touched. `side` is whose receipts its traces are held against.

    A node of `optional` that has no `debug` namespace is left out; the first tracer has to answer.
    """

    side: str
    evm: EvmClient
    optional: bool = False
    missing: bool = False
    _gate: _Gate = field(default_factory=_Gate)

    async def read(self, calls: Sequence[Call], patience: Patience) -> list[bytes | EvmError]:
        """Results in order. What a busy tracer refused is asked again, fewer at a time, for a minute."""
        until = time.monotonic() + BUSY_BUDGET_S
        found = await self._ask(calls, patience)
        while time.monotonic() < until:
            refused = [index for index, answer in enumerate(found) if is_busy(answer)]
            if not refused:
                self._gate.went_through()
                break
            self._gate.refused()
            await asyncio.sleep(_BUSY_PAUSE_S)
            again = await self._ask([calls[index] for index in refused], patience)
            for index, answer in zip(refused, again, strict=True):
                found[index] = answer
        return found

    async def _ask(self, calls: Sequence[Call], patience: Patience) -> list[bytes | EvmError]:
        async with self._gate:
            return await read_state(self.evm, calls, patience)


@dataclass(frozen=True, slots=True)
class Trace:
    """What one node said a block touched, how many transactions it counts, and its receipts.

    `read_set`: the trace of everything read or written, at the heights where it is asked for.
    """

    trace: bytes | EvmError
    count: bytes | EvmError
    results: Results | None
    read_set: bytes | EvmError | None = None


async def traced(
    tracer: Tracer, blocks: Sequence[tuple[int, Results | None]], read_set_every: int, patience: Patience
) -> list[Trace | None]:
    """One answer a block; None from an optional node that does not trace. `blocks`: height and the tracer's own receipts."""
    if tracer.missing:
        return [None] * len(blocks)
    calls = []
    for height, _ in blocks:
        calls.append(Call(TRACE, [hex(height), MODIFIED]))
        calls.append(Call("eth_getBlockTransactionCountByNumber", [hex(height)]))
        if _sampled(height, read_set_every):
            calls.append(Call(TRACE, [hex(height), _TOUCHED]))
    answers = iter(await tracer.read(calls, patience))
    found: list[Trace | None] = []
    for height, results in blocks:
        trace, count = next(answers), next(answers)
        read_set = next(answers) if _sampled(height, read_set_every) else None
        if tracer.optional and isinstance(trace, EvmError) and trace.method_missing:
            tracer.missing = True
            found.append(None)
        else:
            found.append(Trace(trace, count, results, read_set))
    return found


def _sampled(height: int, every: int) -> bool:
    return every > 0 and height % every == 0


def held_against(asked: Trace) -> Touched | EvmError | TraceError:
    """The trace with what it lacks; the node's own count and its receipts say what it should hold."""
    trace, count, results = asked.trace, asked.count, asked.results
    if isinstance(trace, EvmError):
        return trace
    try:
        found = parse_trace(trace)
    except TraceError as error:
        return error
    expected = None
    if isinstance(count, EvmError):
        # a node that does not offer the count at all is held against its receipts alone
        if not count.method_missing:
            found.problems.append(f"incomplete trace: the node's count of transactions is not known: {count}")
    else:
        try:
            expected = parse_count(count)
        except TraceError as error:
            found.problems.append(f"incomplete trace: {error}")
    try:
        found.miss(evm_hashes(results) if results is not None else (), expected)
    except ShapeError as error:
        found.problems.append(f"incomplete trace: {error}")
    _widen(found, asked.read_set)
    return found


def _widen(found: Touched, read_set: bytes | EvmError | None) -> None:
    if read_set is None:
        return
    try:
        if isinstance(read_set, EvmError):
            raise read_set
        found.merge(parse_read_set(read_set))
    except (EvmError, TraceError) as error:
        found.problems.append(f"read set: {error}")
