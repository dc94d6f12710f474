"""Publishes a snapshot again and again for the life of the node (docs/contracts/sidecar.md 5.20.3).

A failed attempt is logged, counted and shown in the running task's result; the next interval tries again. Only
cancellation ends the task.
"""

from __future__ import annotations

import asyncio
from typing import Any

from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks.upload_attempt import attempt, count_failure


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    interval = ctx.settings.upload_interval
    attrs = {"interval": f"{interval:g}s", "bucket": ctx.settings.snapshot_bucket}
    ctx.log.info("starting snapshot upload loop", extra={"attrs": attrs})
    while True:
        try:
            ctx.progress(await attempt(ctx, None))
        except TaskError as error:
            count_failure(ctx)
            ctx.progress({"outcome": "error", "error": str(error)})
            ctx.log.warning("upload attempt failed, will retry next interval", extra={"attrs": {"error": str(error)}})
        await asyncio.sleep(interval)
