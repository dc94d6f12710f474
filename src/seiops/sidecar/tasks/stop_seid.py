"""Stops seid and confirms that it ended; never kills it, never waits for it to come back (docs/contracts/sidecar.md 5.8)."""

from __future__ import annotations

from typing import Any

from seiops.sidecar.task import Params, TaskContext
from seiops.sidecar.tasks.seid_control import stop_seid


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    await stop_seid(ctx, refusing_to_report="a stop")
    return None
