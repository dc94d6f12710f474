"""Area `objects`: one node each, from creation to rest (golden objects README)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from replay.cases import run_sorted, sort_cases
from replay.context import ReplayContext
from replay.report import CaseResult


async def run(ctx: ReplayContext) -> AsyncIterator[CaseResult]:
    area = ctx.area_dir("objects")
    folders = [folder for folder in sorted(area.iterdir()) if folder.is_dir() and ctx.wants(folder.name)]
    async for result in run_sorted(ctx, "objects", sort_cases(ctx, "objects", folders)):
        yield result
