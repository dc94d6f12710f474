"""Why a transaction ended differently: both nodes' traces of it, and the first place where they part (docs/contracts/shadow.md 9.7).

For a divergence report only, so of a few transactions, and never at the price of the report.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import orjson

from seiops.seid.evm import Call, EvmClient, EvmError
from seiops.shadow import rawjson
from seiops.shadow.receipts import Results, ShapeError, transaction_hashes
from seiops.shadow.verdicts import Compared

_MOST = 5
_LARGEST = 1 << 20
"""A larger trace is named by its hash: a report is read by people."""
_CALLS = {"tracer": "callTracer"}


async def traces(
    compared: Compared, results: Sequence[Results], clients: Sequence[EvmClient], errors: list[str]
) -> list[dict[str, Any]]:
    """One entry for each of the first divergent EVM transactions. `results` and `clients`: shadow, then canonical."""
    asked = list(_divergent(compared, results, errors))[:_MOST]
    if not asked:
        return []
    calls = [Call("debug_traceTransaction", [name, _CALLS]) for _, name in asked]
    ours, theirs = await asyncio.gather(*(client.batch(calls) for client in clients))
    found = []
    for (index, name), one, other in zip(asked, ours, theirs, strict=True):
        entry: dict[str, Any] = {"txIndex": index, "txHash": name}
        for side, answer in (("shadow", one), ("canonical", other)):
            entry[side] = _shown(side, name, answer, errors)
        if isinstance(one, bytes) and isinstance(other, bytes):
            entry["firstDifference"] = first_difference(orjson.loads(one), orjson.loads(other))
        found.append(entry)
    return found


def _divergent(compared: Compared, results: Sequence[Results], errors: list[str]) -> Iterator[tuple[int, str]]:
    """Index and hash of each transaction whose receipts differ and that either side knows as an EVM transaction."""
    if compared.layer1 is None:
        return
    try:
        known = [transaction_hashes(one) for one in results]
    except ShapeError as error:
        errors.append(f"tracing transactions: {error}")
        return
    for divergence in compared.layer1.divergences:
        index = divergence["txIndex"]
        names = [one[index] for one in known if index < len(one) and one[index]]
        if names:
            yield index, names[0]


def _shown(side: str, name: str, answer: bytes | EvmError, errors: list[str]) -> msgspec.Raw | dict[str, Any] | None:
    if isinstance(answer, EvmError):
        errors.append(f"tracing transaction {name} on the {side} node: {answer}")
        return None
    if len(answer) > _LARGEST:
        return {"sha256": hashlib.sha256(answer).hexdigest(), "bytes": len(answer)}
    return msgspec.Raw(rawjson.compact_parsed(answer))


def first_difference(shadow: Any, canonical: Any, path: str = "") -> dict[str, Any] | None:
    """The place where two JSON values part, in the order of the shadow's; None for equal ones."""
    pairs: list[tuple[str, Any, Any]]
    if isinstance(shadow, dict) and isinstance(canonical, dict):
        names = [*shadow, *(name for name in canonical if name not in shadow)]
        pairs = [(f"{path}.{name}" if path else name, shadow.get(name), canonical.get(name)) for name in names]
    elif isinstance(shadow, list) and isinstance(canonical, list):
        longest = max(len(shadow), len(canonical))
        ours, theirs = (one + [None] * (longest - len(one)) for one in (shadow, canonical))
        pairs = [(f"{path}[{at}]", one, other) for at, (one, other) in enumerate(zip(ours, theirs, strict=True))]
    elif shadow != canonical:
        return {"path": path, "shadow": shadow, "canonical": canonical}
    else:
        return None
    # what a call did before what it came to: the totals of a frame differ because one of its calls does
    pairs.sort(key=lambda pair: not pair[0].endswith("calls"))
    return next((found for where, one, other in pairs if (found := first_difference(one, other, where))), None)
