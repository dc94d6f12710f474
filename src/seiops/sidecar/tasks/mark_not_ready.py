"""Holds the node: forgets every recorded mark-ready, then the engine clears readiness (docs/contracts/sidecar.md 5.7).

The purge closes the path by which a stranded mark-ready would run again after a restart and release seid onto wiped
data. When it fails, readiness stays as it was.
"""

from __future__ import annotations

from typing import Any

from seiops.sidecar.store import StoreUnavailableError
from seiops.sidecar.task import Params, TaskContext, TaskError


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    try:
        removed = await ctx.records.purge("mark-ready")
    except StoreUnavailableError as error:
        raise TaskError(f"mark-not-ready: purging mark-ready records: {error}", retryable=True) from error
    ctx.log.info("purged mark-ready records before hold", extra={"attrs": {"count": removed}})
    return None
