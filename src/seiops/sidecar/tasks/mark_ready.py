"""Releases the node: the engine sets readiness when this task succeeds (docs/contracts/sidecar.md 5.6)."""

from __future__ import annotations

from typing import Any

from seiops.sidecar.task import Params, TaskContext


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    return None
