"""Stops seid and waits until the one the container runtime starts next answers (docs/contracts/sidecar.md 5.9).

On a held node the next one waits at the start gate, so nothing is stopped there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from seiops.seid.durations import SECOND, format_duration
from seiops.sidecar.store import StoreUnavailableError
from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks.seid_control import rpc_serves, stop_seid

PROBE_INTERVAL_S = 1.0
COMES_UP_WITHIN_S = 300.0


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    if await _held(ctx):
        raise TaskError(
            "restart-seid: the node is held by mark-not-ready and a stopped seid would not start again; "
            "submit mark-ready first, or stop-seid to stop it for good",
            retryable=True,
        )
    await stop_seid(ctx, refusing_to_report="a restart")
    ctx.progress({"phase": "waiting for the RPC"})
    try:
        async with asyncio.timeout(COMES_UP_WITHIN_S):
            await _comes_up(ctx)
    except TimeoutError:
        waited = format_duration(round(COMES_UP_WITHIN_S * SECOND))
        raise TaskError(f"seid RPC did not come up within {waited} after restart", retryable=True) from None
    return None


async def _held(ctx: TaskContext) -> bool:
    try:
        return await ctx.records.held()
    except StoreUnavailableError as error:
        raise TaskError(f"restart-seid: asking whether the node is held: {error}", retryable=True) from error


async def _comes_up(ctx: TaskContext) -> None:
    while True:
        if await rpc_serves(ctx):
            return
        await asyncio.sleep(PROBE_INTERVAL_S)
