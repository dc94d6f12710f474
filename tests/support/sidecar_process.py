"""The real sidecar as a process, and tasks submitted to it over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def sidecar(home: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Its URL and the process; killed at the end if it still runs."""
    port = _free_port()
    names = ("SEI_GENESIS_BUCKET", "SEI_GENESIS_REGION", "SEI_SNAPSHOT_BUCKET", "SEI_SNAPSHOT_REGION")
    environment = {
        **os.environ, **dict.fromkeys(names, "none"), "SEI_CHAIN_ID": "test-1", "SEI_HOME": str(home),
        "SEI_SIDECAR_PORT": str(port), "SEI_SIDECAR_BIND_HOST": "127.0.0.1",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "seiops.sidecar", "serve", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def submit(url: str, params: dict[str, Any], kind: str = "result-export") -> str:
    task_id = str(uuid.uuid4())
    body = {"id": task_id, "type": kind, "params": params}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v0/tasks", json=body) as answer:
        assert answer.status == 201, await answer.text()
    return task_id


async def task(url: str, task_id: str) -> dict[str, Any] | None:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/v0/tasks/{task_id}") as answer:
        found: dict[str, Any] = await answer.json()
        return found if answer.status == 200 else None


async def until(url: str, task_id: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while True:
            found = await task(url, task_id)
            if found is not None and condition(found):
                return found
            await asyncio.sleep(0.05)


def ended(found: dict[str, Any]) -> bool:
    return bool(found["status"] != "running")
