"""Odd requests and bodies, answered as the Go server and its JSON reader answer them (tests/data/sidecar)."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from seiops.sidecar.api import Api
from seiops.sidecar.http1 import HttpServer

from .fakes import FakeType, Registry, life
from .fakes import settings as sidecar_settings

DATA = Path(__file__).parents[2] / "data" / "sidecar"
TYPES = ("config-validate", "await-condition", "config-patch", "config-apply")
AT_ONCE = 32


def recorded(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


async def nothing(ctx, params):
    return None


@contextlib.asynccontextmanager
async def serving(home: Path, mode: str = ""):
    changed = {"SEI_SIDECAR_AUTHN_MODE": mode}
    registry = Registry(**{name: FakeType(nothing) for name in TYPES})
    async with life(home, registry, **changed) as world:
        server = HttpServer(Api(sidecar_settings(home, **changed), world.engine, world.store).handle)
        port = await server.start("127.0.0.1", 0)
        try:
            yield port, world
        finally:
            await server.drain(2)


async def exchange(port: int, sent: bytes, half_close: bool) -> tuple[str, str]:
    """(status line and headers without the date, body)"""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        if half_close:
            writer.write_eof()
        answer = (await reader.read()).decode("latin-1")
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    lines = (line for line in head.split("\r\n") if not line.startswith("Date: "))
    # of several answers in a row only the first head is split off
    rest = "\r\n".join("Date: X" if line.startswith("Date: ") else line for line in body.split("\r\n"))
    return "\r\n".join(lines), rest


@pytest.mark.parametrize("mode", ["", "trusted-header"])
async def test_requests_are_answered_as_the_go_server_answers_them(tmp_path, mode):
    cases = [case for case in recorded("go-http.jsonl") if case.get("mode", "") == mode]
    assert len(cases) > 100
    turns = asyncio.Semaphore(AT_ONCE)
    differing = []

    async def pose(port: int, case: dict) -> None:
        async with turns:
            head, body = await exchange(port, case["sent"].encode("latin-1"), case.get("half_close", False))
        if (head, body) != (case["head"], case["body"]):
            differing.append((case["case"], case["head"], case["body"], head, body))

    async with serving(tmp_path, mode) as (port, _), asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(pose(port, case))
    assert not differing, differing[:3]


async def test_bodies_are_read_as_the_go_server_reads_them(tmp_path):
    differing = []
    async with serving(tmp_path) as (port, world):
        for case in recorded("go-json.jsonl"):
            body = case["sent"].encode("latin-1")
            request = b"POST /v0/tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
                body
            )
            head, text = await exchange(port, request + body, half_close=False)
            answer = json.loads(text.encode("latin-1"))
            produced = {"status": int(head.split(" ")[1])}
            if "error" in answer:
                produced["error"] = answer["error"]
            else:
                row = await world.store.get(answer["id"])
                if row.params is not None:
                    produced["params"] = row.params.encode().decode("latin-1")
                if "id" in case:
                    produced["id"] = answer["id"]
            if produced != {key: value for key, value in case.items() if key not in ("case", "sent")}:
                differing.append((case, produced))
    assert not differing, differing[:5]
