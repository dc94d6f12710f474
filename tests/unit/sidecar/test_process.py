"""The sidecar as a process: start-up, signals, sudden death, and what an idle one costs (docs/contracts/sidecar.md 1)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import uuid
from pathlib import Path

import aiohttp
import pytest

from .fakes import ENVIRONMENT

AWAIT = {"type": "await-condition", "params": {"condition": "height", "targetHeight": 5}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Sidecar:
    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.process: asyncio.subprocess.Process
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{port}")

    async def start(self, *arguments: str, **changed: str) -> Sidecar:
        environment = {
            "PATH": os.environ["PATH"],
            **ENVIRONMENT,
            "SEI_SIDECAR_PORT": str(self.port),
            "SEI_SIDECAR_RPC_URL": "http://127.0.0.1:9",
            **changed,
        }
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "seiops.sidecar", "--home", str(self.home), "serve", *arguments,
            env={name: value for name, value in environment.items() if value is not None},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return self

    async def ready(self) -> Sidecar:
        for _ in range(2000):
            with contextlib.suppress(aiohttp.ClientError):
                async with self.session.get("/v0/livez") as answer:
                    if answer.status == 200:
                        return self
            assert self.process.returncode is None, (await self.process.communicate())[1].decode()
            await asyncio.sleep(0.01)
        raise AssertionError("the sidecar does not answer")

    async def submit(self, **task: object) -> str:
        async with self.session.post("/v0/tasks", data=json.dumps(task)) as answer:
            assert answer.status == 201, await answer.text()
            return str((await answer.json())["id"])

    async def task(self, task_id: str) -> dict[str, object]:
        async with self.session.get(f"/v0/tasks/{task_id}") as answer:
            found: dict[str, object] = await answer.json()
            return found

    async def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        if self.process.returncode is None:
            self.process.send_signal(number)
        out, err = await asyncio.wait_for(self.process.communicate(), 40)
        return self.process.returncode or 0, out.decode(), err.decode()

    async def close(self) -> None:
        await self.session.close()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@pytest.fixture
async def sidecar(tmp_path):
    one = Sidecar(tmp_path / "home", free_port())
    yield one
    await one.close()


async def test_a_fresh_home_is_prepared_and_a_signal_ends_it_well(sidecar):
    await (await sidecar.start()).ready()
    status, out, err = await sidecar.end(signal.SIGINT)
    assert (status, err) == (0, "")
    assert f'msg="sidecar HTTP" logger=seictl/serve authnMode="" bind=:{sidecar.port}' in out
    assert (sidecar.home / "config" / "config.toml").exists()
    assert (sidecar.home / "data").is_dir()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"SEI_CHAIN_ID": None}, "required environment variable SEI_CHAIN_ID is not set"),
        ({"SEI_SIDECAR_AUTHN_MODE": "token"}, 'SEI_SIDECAR_AUTHN_MODE="token" is not recognized'),
        ({"SEI_KEYRING_BACKEND": "file"}, "SEI_KEYRING_PASSPHRASE required"),
    ],
)
async def test_a_wrong_setting_ends_the_process_before_it_touched_anything(sidecar, changed, message):
    await sidecar.start(**changed)
    status, _, err = await sidecar.end(0)
    assert status == 1
    assert err.count("\n") == 1
    assert message in err
    assert not sidecar.home.exists()


async def test_a_taken_port_is_named(sidecar):
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", sidecar.port))
        taken.listen()
        await sidecar.start()
        status, _, err = await asyncio.wait_for(sidecar.end(0), 30)
    assert status == 1
    assert f"server error: listen tcp :{sidecar.port}: bind: address already in use" in err


async def test_a_passphrase_is_neither_kept_nor_shown(sidecar):
    await (await sidecar.start(SEI_KEYRING_PASSPHRASE="hunter2", SEI_LOG_LEVEL="debug")).ready()
    _, out, err = await sidecar.end()
    assert "hunter2" not in out + err


async def test_every_accepted_task_survives_sudden_death_and_runs_again_under_its_id(sidecar):
    await (await sidecar.start()).ready()
    done = [await sidecar.submit(id=str(uuid.uuid4()), type="mark-ready") for _ in range(20)]
    waiting = [await sidecar.submit(id=str(uuid.uuid4()), **AWAIT) for _ in range(20)]
    os.kill(sidecar.process.pid, signal.SIGKILL)
    await sidecar.process.wait()
    with sqlite3.connect(sidecar.home / "sidecar.db") as db:
        kept = {row[0] for row in db.execute("SELECT id FROM task_results")}
    assert kept == {*done, *waiting}

    await (await sidecar.start()).ready()
    for task_id in waiting:
        task = await sidecar.task(task_id)
        assert (task["status"], task["run"]) == ("running", 1)
    async with sidecar.session.get("/v0/metrics") as answer:
        assert 'seictl_task_submissions_total{type="await-condition"}' not in await answer.text()
    assert (await sidecar.end())[0] == 0
    with sqlite3.connect(sidecar.home / "sidecar.db") as db:
        counted = dict(db.execute("SELECT type, count(*) FROM task_results WHERE status = 'running' GROUP BY type"))
    assert counted == {"await-condition": 20}


async def test_a_stop_answers_what_it_has_begun_to_read(sidecar):
    await (await sidecar.start()).ready()
    reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
    task_id = str(uuid.uuid4())
    body = json.dumps({"type": "mark-ready", "id": task_id}).encode()
    writer.write(b"POST /v0/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body[:5])
    await writer.drain()
    await sidecar.submit(**AWAIT)
    sidecar.process.send_signal(signal.SIGTERM)
    await refused(sidecar.port)
    writer.write(body[5:])
    answer = (await reader.read()).decode()
    writer.close()
    assert "\r\nConnection: close\r\n" in answer
    assert (await sidecar.end())[0] == 0
    with sqlite3.connect(sidecar.home / "sidecar.db") as db:
        kept = db.execute("SELECT count(*) FROM task_results WHERE id = ?", (task_id,)).fetchone()[0]
    # Either the task was taken and is kept, or it was refused and the caller is told to come back.
    assert (answer.split()[1], kept) in (("201", 1), ("503", 0))


async def refused(port: int) -> None:
    for _ in range(2000):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        writer.close()
        await asyncio.sleep(0.01)
    raise AssertionError("the listener stays open")


async def test_an_idle_sidecar_has_not_loaded_what_only_tasks_need(sidecar):
    await (await sidecar.start()).ready()
    maps = mapped(sidecar.process.pid)
    for heavy in ("aiohttp", "obstore", "pydantic", "_native", "cramjam"):
        assert heavy not in maps, heavy


def mapped(pid: int) -> str:
    """The files a process has mapped, extension modules among them."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_the_entry_loads_no_command_line_and_no_client_libraries():
    code = "import sys, seiops.sidecar.entry; print('\\n'.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert not loaded & {
        "typer",
        "rich",
        "aiohttp",
        "pydantic",
        "obstore",
        "yaml",
        "structlog",
        "tomlkit",
        "seiops.kube",
    }
