"""Area `sidecar`: the recordings of the node sidecar posed to `seictl serve`, over real sockets.

The recordings speak of fixed ports and of all processes of the machine, so every lane is a worker inside its own
network, process and host-name namespace (`unshare`). Workers print one JSON line a case.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator

from replay.context import ReplayContext
from replay.report import CaseResult

AREA = "sidecar"
SLOW_LANES = 3
_NAMESPACES = ("unshare", "--net", "--pid", "--uts", "--mount", "--fork", "--kill-child", "--mount-proc")
_AS_USER = ("--user", "--map-root-user")


async def run(context: ReplayContext) -> AsyncIterator[CaseResult]:
    wrapper = await _wrapper()
    if wrapper is None:
        yield CaseResult(f"{AREA}/*", "skip", "this machine allows no network and process namespaces (unshare)")
        return
    queue: asyncio.Queue[CaseResult | None] = asyncio.Queue()
    # Lanes beyond those asked for: cases that mostly wait (a seid that ignores SIGTERM for 90 s) cost nothing there.
    lanes = [f"quick:{index}/{context.lanes}" for index in range(context.lanes)]
    lanes += [f"slow:{index}/{SLOW_LANES}" for index in range(SLOW_LANES)]
    workers = [asyncio.create_task(_worker(context, wrapper, lane, queue)) for lane in lanes]
    try:
        left = len(workers)
        while left:
            result = await queue.get()
            if result is None:
                left -= 1
            else:
                yield result
        for worker in workers:
            await worker
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _wrapper() -> tuple[str, ...] | None:
    if shutil.which("unshare") is None:
        return None
    for candidate in (_NAMESPACES, (*_NAMESPACES, *_AS_USER)):
        process = await asyncio.create_subprocess_exec(
            *candidate, "true", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        if await process.wait() == 0:
            return candidate
    return None


async def _worker(
    context: ReplayContext, wrapper: tuple[str, ...], lane: str, queue: asyncio.Queue[CaseResult | None]
) -> None:
    scratch = context.scratch / AREA / lane.replace("/", "-").replace(":", "-")
    scratch.mkdir(parents=True, exist_ok=True)
    arguments = [str(context.area_dir(AREA)), str(scratch), lane, context.case_glob or "*"]
    path = os.pathsep.join(str(context.root / folder) for folder in ("src", "tools", "tests"))
    process = await asyncio.create_subprocess_exec(
        *wrapper, context.python, "-m", "replay.sidecar_worker", *arguments,
        env={**os.environ, "PYTHONPATH": path}, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        while line := await process.stdout.readline():
            queue.put_nowait(CaseResult(**json.loads(line)))
        status = await process.wait()
        if status:
            queue.put_nowait(CaseResult(f"{AREA}/lane-{lane}", "fail", f"the worker ended with status {status}"))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        queue.put_nowait(None)
