"""Stopping seid and asking whether it serves, shared by the tasks that need it out of the way (sidecar.md 5.1, 5.8)."""

from __future__ import annotations

import asyncio
import signal

from seiops.seid.comet import CometClient, CometError
from seiops.seid.durations import SECOND, format_duration
from seiops.seid.process import NOT_FOUND, Handle, SeidProcess, SignalError, find, is_node, survivor, ticks_now
from seiops.sidecar.task import TaskContext, TaskError

STOP_GRACE_S = 90.0


async def rpc_serves(ctx: TaskContext) -> bool:
    """One probe: a status with a height inside the short deadline. Any failure means no."""
    try:
        await CometClient(ctx.settings.rpc_url, ctx.http).status()
    except CometError:
        return False
    return True


async def stop_seid(ctx: TaskContext, *, refusing_to_report: str) -> None:
    """Ends seid with one SIGTERM and waits for it; never a SIGKILL. A seid that does not run is stopped already.

    Raises TaskError when seid serves but cannot be seen, or outlives the grace period.
    """
    found = await asyncio.to_thread(find, is_node)
    if found is None:
        if await rpc_serves(ctx):
            raise TaskError(
                f"seid RPC is serving but its process was not found in /proc: {NOT_FOUND} — "
                f"refusing to report {refusing_to_report} that did not happen"
            )
        return
    grace = format_duration(round(STOP_GRACE_S * SECOND))
    deadline = asyncio.get_running_loop().time() + STOP_GRACE_S
    asked_at = ticks_now()
    while found is not None:
        ctx.log.info("stopping seid", extra={"attrs": {"pid": found.pid, "grace": grace}})
        await _end(found, max(0.0, deadline - asyncio.get_running_loop().time()), grace)
        ctx.log.info("seid exited after SIGTERM", extra={"attrs": {"pid": found.pid}})
        # a fork that seid left behind still holds its data; what the runtime started meanwhile does not count
        found = await asyncio.to_thread(survivor, is_node, asked_at)


async def _end(process: SeidProcess, within_s: float, grace: str) -> None:
    with Handle(process) as seid:
        try:
            seid.send(signal.SIGTERM)
        except SignalError as error:
            raise TaskError(f"sending SIGTERM to seid pid {process.pid}: {error}") from error
        if not await seid.ended(within_s):
            raise TaskError(
                f"seid pid {process.pid} still alive {grace} after SIGTERM; "
                "leaving it running (not force-killing a validator mid-commit)",
                retryable=True,
            )
