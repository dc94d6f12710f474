"""Waits until the node reaches a height or has caught up, then may stop it (docs/contracts/sidecar.md 5.11)."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from seiops.seid.comet import CometClient, CometError, Status
from seiops.seid.process import NOT_FOUND, Handle, SignalError, find, is_seid
from seiops.seid.quoting import quoted
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError

POLL_S = 0.1
GRACE_S = 30.0
_SIGTERM_SEID = "SIGTERM_SEID"


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    decoder = Decoder(params)
    condition, target = decoder.text("condition"), decoder.integer("targetHeight")
    action, seconds = decoder.text("action"), decoder.integer("timeoutSeconds")
    _check(condition, target, action)
    try:
        async with asyncio.timeout(seconds if seconds > 0 else None):
            await _wait(ctx, condition, target)
    except TimeoutError:
        raise TaskError(f"condition {quoted(condition)} was not met within {seconds} s", retryable=True) from None
    if action == _SIGTERM_SEID:
        await _stop_seid(ctx)
    return None


def _check(condition: str, target: int, action: str) -> None:
    """Everything is checked before the wait, which may last for days."""
    if not condition:
        raise TaskError("condition is required", retryable=False)
    if condition not in ("height", "catchingUp"):
        raise TaskError(f"unknown condition {quoted(condition)}", retryable=False)
    if condition == "height" and target <= 0:
        raise TaskError(f"targetHeight must be > 0, got {target}", retryable=False)
    if action not in ("", _SIGTERM_SEID):
        raise TaskError(f"unknown action {quoted(action)}", retryable=False)


async def _wait(ctx: TaskContext, condition: str, target: int) -> None:
    client = CometClient(ctx.settings.rpc_url, ctx.http)
    ctx.log.info(f"awaiting {condition}", extra={"attrs": {"target": target, "rpc": ctx.settings.rpc_url}})
    answering: bool | None = None
    while True:
        await asyncio.sleep(POLL_S)
        try:
            status = await client.status()
        except CometError as error:
            if answering is not False:
                ctx.log.info("rpc unavailable", extra={"attrs": {"err": str(error)}})
            answering = False
            continue
        if answering is not True:
            ctx.log.info("rpc available", extra={"attrs": {"height": status.height}})
        answering = True
        ctx.progress(_progress(condition, target, status))
        if _met(condition, target, status):
            ctx.log.info("condition met", extra={"attrs": {"condition": condition, "height": status.height}})
            return


def _met(condition: str, target: int, status: Status) -> bool:
    if condition == "height":
        return status.height >= target
    # a node that has just started may call itself caught up at height 0 or 1
    return not status.catching_up and status.height > 1


def _progress(condition: str, target: int, status: Status) -> dict[str, Any]:
    if condition == "height":
        return {"phase": "awaiting height", "done": min(status.height, target), "total": target, "unit": "blocks"}
    return {"phase": "catching up", "done": status.height, "unit": "blocks"}


async def _stop_seid(ctx: TaskContext) -> None:
    """SIGTERM, and SIGKILL for a seid that does not end in time: this node was asked to stop at a height."""
    found = find(is_seid)
    if found is None:
        raise TaskError(f"finding seid process: {NOT_FOUND}")
    attrs = {"process": "seid", "pid": found.pid}
    with Handle(found) as seid:
        ctx.log.info("sending SIGTERM", extra={"attrs": attrs})
        _send(seid, signal.SIGTERM)
        if await seid.ended(GRACE_S):
            ctx.log.info("process exited after SIGTERM", extra={"attrs": attrs})
            return
        ctx.log.warning("process ignored SIGTERM, sending SIGKILL", extra={"attrs": attrs})
        _send(seid, signal.SIGKILL)


def _send(seid: Handle, number: signal.Signals) -> None:
    try:
        seid.send(number)
    except SignalError as error:
        raise TaskError(f"sending {number.name} to pid {seid.process.pid}: {error}") from error
