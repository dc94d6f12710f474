"""The divergence report: a block's comparison with both nodes' raw answers (docs/contracts/shadow.md 5.4).

One answer that cannot be had does not lose the others. Headers speak of the block before, so where a header differs that
block's results are captured, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from seiops.seid.bulk import Want
from seiops.seid.comet import CometError
from seiops.shadow import rawjson, txtraces
from seiops.shadow.pages import now
from seiops.shadow.receipts import ShapeError, parse_results
from seiops.shadow.sides import Side
from seiops.shadow.verdicts import Compared

_MEMBERS = {"block": "block", "block_results": "blockResults"}


async def build(compared: Compared, shadow: Side, canonical: Side) -> bytes:
    """The report's payload: indented JSON."""
    errors: list[str] = []
    ours, theirs = await asyncio.gather(*(_snapshot(side, compared.height, errors) for side in (shadow, canonical)))
    report: dict[str, Any] = {
        "height": compared.height,
        "timestamp": now(),
        "comparison": compared.record(),
        "shadow": ours,
        "canonical": theirs,
    }
    if compared.previous is not None:
        before = compared.height - 1
        ours, theirs = await asyncio.gather(*(_results(side, before, errors) for side in (shadow, canonical)))
        report["previous"] = {"height": before, "shadow": ours, "canonical": theirs}
    if traced := await _traces(compared, shadow, canonical, errors):
        report["traces"] = traced
    if errors:
        report["captureErrors"] = errors
    return rawjson.document(report)


async def _snapshot(side: Side, height: int, errors: list[str]) -> dict[str, msgspec.Raw | None]:
    wants = [Want(method, height) for method in _MEMBERS]
    return {_MEMBERS[w.method]: body for w, body in zip(wants, await _served(side, wants, errors), strict=True)}


async def _traces(compared: Compared, shadow: Side, canonical: Side, errors: list[str]) -> list[dict[str, Any]]:
    """Traces of the divergent transactions, where both nodes' EVM is known and both have the receipts."""
    if shadow.evm is None or canonical.evm is None or compared.layer1 is None or not compared.layer1.divergences:
        return []
    wanted = [Want("block_results", compared.height)]
    answers = await asyncio.gather(*(side.comet.read(wanted) for side in (shadow, canonical)))
    bodies = [body for (body,) in answers if isinstance(body, bytes)]
    if len(bodies) < len(answers):
        return []
    try:
        results = [parse_results(body, compared.height) for body in bodies]
    except ShapeError as error:
        errors.append(f"tracing transactions: {error}")
        return []
    return await txtraces.traces(compared, results, (shadow.evm, canonical.evm), errors)


async def _results(side: Side, height: int, errors: list[str]) -> dict[str, msgspec.Raw | None]:
    (body,) = await _served(side, [Want("block_results", height)], errors)
    return {"blockResults": body}


async def _served(side: Side, wants: list[Want], errors: list[str]) -> list[msgspec.Raw | None]:
    """Answers as the node serves them, envelope included; null for one that could not be captured."""
    found: list[msgspec.Raw | None] = []
    for want, answer in zip(wants, await side.comet.read_as_served(wants), strict=True):
        try:
            if isinstance(answer, CometError):
                raise answer
            found.append(msgspec.Raw(rawjson.compact(answer)))
        except (CometError, rawjson.BadJsonError) as error:
            errors.append(f"capturing {side.name} snapshot at height {want.height}: {want.method}: {error}")
            found.append(None)
    return found


async def payload(document: bytes) -> AsyncIterator[bytes]:
    yield document
