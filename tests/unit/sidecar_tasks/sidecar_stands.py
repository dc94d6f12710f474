"""Stand-ins for a seid as the tasks meet it: an RPC that answers what a test wants, a process that behaves as it wants."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from aiohttp import web


class Rpc:
    """A seid RPC whose answers a test changes while it serves."""

    def __init__(self) -> None:
        self.status: Any = status(10_000)
        self.block: Any = {"block_id": {"hash": "AB" * 32}}
        self.http_status = 200
        self.delay_s = 0.0
        self.asked: list[str] = []
        self._runner: web.AppRunner | None = None
        self.endpoint = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Rpc:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: tuple[str, int] = self._runner.addresses[0]
        self.endpoint = f"{host}:{bound[1]}"
        return self

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        body = self.status if request.path == "/status" else self.block
        if isinstance(body, str):
            return web.Response(text=body, status=self.http_status)
        return web.json_response(body, status=self.http_status)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()


def status(height: int, *, network: str = "golden-1", node_id: str = "aa", catching_up: bool = False) -> dict[str, Any]:
    return {
        "node_info": {"id": node_id, "network": network},
        "sync_info": {"latest_block_height": str(height), "catching_up": catching_up},
    }


class Child:
    """A real process that looks like seid, entered into a test's own process table."""

    def __init__(
        self, table: Path, script: str, *, name: str = "seid", arguments: tuple[str, ...] = ("start",)
    ) -> None:
        self._table = table
        self.folder = Path(tempfile.mkdtemp(dir=table.parent))
        program = self.folder / name
        program.symlink_to(sys.executable)
        # python takes its first argument, `start`, as the script to run
        (self.folder / arguments[0]).write_text(script)
        self.process = subprocess.Popen(
            [str(program), *arguments], cwd=self.folder, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        # the script prints a line once its signal handlers stand
        self.first_line = self.process.stdout.readline().strip()
        self.enter(self.process.pid)

    def enter(self, pid: int) -> None:
        (self._table / str(pid)).symlink_to(f"/proc/{pid}")

    @property
    def pid(self) -> int:
        return self.process.pid

    def received(self) -> str:
        """What the process wrote after its first line; waits for its end."""
        return self.process.communicate(timeout=20)[0]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=20)


WAITS = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: (print("TERM", flush=True), {action}))
print("up", flush=True)
while True:
    signal.pause()
"""
OBEYS = WAITS.format(action="sys.exit(0)")
IGNORES = WAITS.format(action="None")
FORKS = """
import os, signal
parent = os.getpid()
def stop(*_):
    print("parent TERM" if os.getpid() == parent else "child TERM", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
child = os.fork()
if child:
    print(child, flush=True)
while True:
    signal.pause()
"""
