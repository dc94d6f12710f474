"""Empties the node's data folder for a new start, only while seid is certainly down (docs/contracts/sidecar.md 5.10).

A seid that is slow to answer is not a seid that is down: besides the RPC, the process table is asked.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from pathlib import Path
from typing import Any

from seiops.seid.files import write_atomic
from seiops.seid.identity import LAST_SIGN_STATE
from seiops.seid.process import find, is_node
from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks.seid_control import rpc_serves

MARKER = ".sei-sidecar-statesync-done"
_NOTHING = {"wipedBytes": 0}
_REFUSING = "node is not held — refusing to wipe a live data directory"


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    if await rpc_serves(ctx):
        raise TaskError(f"reset-data: seid RPC is serving; {_REFUSING}", retryable=True, result=_NOTHING)
    if running := await asyncio.to_thread(find, is_node):
        raise TaskError(
            f"reset-data: seid is running (pid {running.pid}); {_REFUSING}", retryable=True, result=_NOTHING
        )
    wiped = await ctx.blocking(_reset, ctx.home / "data", ctx.marker(MARKER))
    ctx.log.info("data wiped", extra={"attrs": {"bytes": wiped}})
    return {"wipedBytes": wiped}


def _reset(data: Path, marker: Path) -> int:
    wiped = _size(data)
    _wipe(data)
    try:
        data.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise TaskError(f"reset-data: recreating {data}: {error}") from error
    state = data / "priv_validator_state.json"
    try:
        write_atomic(state, LAST_SIGN_STATE, mode=0o600)
    except OSError as error:
        raise TaskError(f"reset-data: writing {state}: {error}") from error
    try:
        marker.unlink(missing_ok=True)
    except OSError as error:
        raise TaskError(f"reset-data: removing marker {marker}: {error}") from error
    return wiped


def _size(data: Path) -> int:
    """Bytes of the regular files, 0 without a folder, -1 where they cannot be counted."""
    total = 0

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    try:
        for folder, _, names in os.walk(data, onerror=refuse):
            for name in names:
                try:
                    found = (Path(folder) / name).lstat()
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    total += found.st_size
    except OSError:
        return -1
    return total


def _wipe(data: Path) -> None:
    try:
        entries = list(data.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise TaskError(f"reset-data: wiping {data}: {error}") from error
    for entry in entries:
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TaskError(f"reset-data: wiping {data}: removing {entry}: {error}") from error
