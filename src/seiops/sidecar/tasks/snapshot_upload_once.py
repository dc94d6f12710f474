"""Publishes one snapshot under a deadline and says what came of it (docs/contracts/sidecar.md 5.20.4)."""

from __future__ import annotations

from typing import Any

from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks.upload_attempt import attempt, count_failure


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    try:
        return await attempt(ctx, ctx.settings.upload_timeout)
    except TaskError as error:
        count_failure(ctx)
        error.result = {"outcome": "error"}
        raise
