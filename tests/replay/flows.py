"""Area `flows`: nodes over time, with faults, edits, restarts and deletions (golden flows README)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from replay import startup
from replay.cases import run_sorted, sort_cases
from replay.context import ReplayContext
from replay.report import CaseResult


async def run(ctx: ReplayContext) -> AsyncIterator[CaseResult]:
    folders = [folder for folder in sorted(ctx.area_dir("flows").iterdir()) if folder.is_dir()]
    starts = [folder for folder in folders if startup.holds_starts(folder)]
    flows = [folder for folder in folders if folder not in starts and ctx.wants(folder.name)]
    async for result in run_sorted(ctx, "flows", sort_cases(ctx, "flows", flows)):
        yield result
    for folder in starts:
        async for result in startup.run(ctx, folder):
            yield result
