"""`seiops task` against a real sidecar process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from support.waiting import until_async

HEIGHT = {"condition": "height", "targetHeight": 5}


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "seiops.sidecar", "--home", str(tmp_path), "serve",
        env={
            "PATH": os.environ["PATH"],
            "SEI_CHAIN_ID": "local-1",
            "SEI_SIDECAR_PORT": str(port),
            "SEI_SIDECAR_AUTHN_MODE": "unauthenticated",
            "SEI_SIDECAR_RPC_URL": "http://127.0.0.1:9",
            "SEI_GENESIS_BUCKET": "genesis",
            "SEI_GENESIS_REGION": "eu-central-1",
            "SEI_SNAPSHOT_BUCKET": "snapshots",
            "SEI_SNAPSHOT_REGION": "eu-central-1",
        },
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{address}/v0/livez") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    await until_async(answers, "the sidecar answers")
    yield address
    process.kill()
    await process.wait()


async def seiops(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "seiops.cli", "task", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_task_is_submitted_seen_and_cancelled(url: str) -> None:
    status, out, _ = await seiops("submit", "await-condition", "--params", json.dumps(HEIGHT), "--url", url)
    assert status == 0
    task_id = json.loads(out)["id"]
    status, out, _ = await seiops("get", task_id, "--url", url)
    found = json.loads(out)
    assert (found["status"], found["params"]) == ("running", HEIGHT)
    status, out, _ = await seiops("list", "--url", url)
    assert task_id in out and "await-condition" in out
    assert await seiops("cancel", task_id, "--url", url) == (0, f"task {task_id} deleted\n", "")
    status, _, err = await seiops("get", task_id, "--url", url)
    assert (status, err) == (1, f"Error: task {task_id} not found on {url}\n")


async def test_watching_ends_as_the_task_ends(url: str) -> None:
    status, out, _ = await seiops("submit", "mark-ready", "--watch", "--url", url)
    assert status == 0
    assert '"status": "completed"' in out
    status, out, err = await seiops("submit", "config-apply", "--params", '{"mode": "nonsense"}', "-w", "--url", url)
    assert status == 1
    assert "failed: " in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("submit", "no-such-task"), "answered 400: unknown task type: no-such-task"),
        (("submit", "mark-ready", "--params", "[1]"), "--params must be a JSON object"),
        (("submit", "mark-ready", "--params", "{"), "--params must be a JSON object"),
        (("get", "not-a-uuid"), "id argument must be a task UUID"),
        (("cancel", str(uuid.UUID(int=7))), "not found on"),
    ],
)
async def test_a_mistake_is_one_line(url: str, arguments: tuple[str, ...], says: str) -> None:
    status, out, err = await seiops(*arguments, "--url", url)
    assert (status, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1


async def test_a_sidecar_that_is_not_there_is_named() -> None:
    status, _, err = await seiops("list", "--url", "http://127.0.0.1:9")
    assert status == 1
    assert "http://127.0.0.1:9" in err
