"""The controller's calls to sidecars over real sockets: what counts as ready, refused, unreachable, and in which words."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from seiops.controller import sidecar_client
from seiops.controller.sidecar_client import Health, RefusedError, SidecarClient, SidecarError

NODE = ("ns", "n0")
HOST = "n0-0.n0.ns.svc.cluster.local"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Stage:
    """A sidecar of our own behind the name of a node."""

    def __init__(self, directory: Path) -> None:
        self.names = directory / "names.json"
        self.token = directory / "token"
        self.token.write_text("one", encoding="utf-8")
        self.point({})
        self.client = SidecarClient(str(self.token), str(self.names))
        self.runner: web.ServerRunner | None = None

    def point(self, names: dict[str, str]) -> None:
        self.names.write_text(json.dumps(names), encoding="utf-8")

    async def serve(self, answer: Answer) -> None:
        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            assert isinstance(request, web.BaseRequest)
            return await answer(request)  # type: ignore[arg-type]

        self.runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
        await self.runner.setup()
        for last in range(2, 250):
            address = f"127.77.{last}.{last}"
            try:
                await web.TCPSite(self.runner, address, 8443).start()
            except OSError:
                continue
            self.point({HOST: address})
            return
        raise AssertionError("no loopback address has port 8443 free")

    async def close(self) -> None:
        await self.client.close()
        if self.runner is not None:
            await self.runner.cleanup()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    await stage.close()


@pytest.mark.parametrize(
    ("status", "body", "health", "error"),
    [
        (200, "", Health.READY, ""),
        (503, "", Health.NOT_READY, ""),
        (418, '{"error":"teapot"}', Health.UNREACHABLE, 'sidecar healthz returned 418: {"error":"teapot"}'),
        (302, "", Health.UNREACHABLE, "sidecar healthz returned 302: "),
    ],
)
async def test_health(stage: Stage, status: int, body: str, health: Health, error: str) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=body)

    await stage.serve(answer)
    probe = await stage.client.health(NODE)
    assert (probe.health, probe.error) == (health, error)


async def test_a_name_that_does_not_exist(stage: Stage) -> None:
    probe = await stage.client.health(NODE)
    assert probe.error == (
        f'querying sidecar healthz: Get "http://{HOST}:8443/v0/healthz": dial tcp: lookup {HOST}: no such host'
    )


async def test_a_port_where_nobody_listens(stage: Stage) -> None:
    stage.point({HOST: "127.78.1.1"})
    probe = await stage.client.health(NODE)
    assert probe.error.endswith("dial tcp 127.78.1.1:8443: connect: connection refused")


async def test_d4_a_sidecar_that_never_answers_costs_two_deadlines(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar_client, "PROBE_DEADLINE", 0.1)

    async def answer(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    await stage.serve(answer)
    probe = await stage.client.health(NODE)
    assert probe.error.endswith("context deadline exceeded")


async def test_one_late_answer_does_not_count(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_client, "PROBE_DEADLINE", 0.3)
    asked: list[int] = []

    async def answer(_: web.Request) -> web.StreamResponse:
        asked.append(1)
        await asyncio.sleep(60 if len(asked) == 1 else 0)
        return web.Response()

    await stage.serve(answer)
    assert (await stage.client.health(NODE)).health is Health.READY


async def test_a_connection_closed_without_an_answer(stage: Stage) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    await stage.serve(answer)
    with pytest.raises(SidecarError, match="EOF"):
        await stage.client.submit(NODE, "config-apply", b"{}")


async def test_submits_and_refusals(stage: Stage) -> None:
    answers = iter(
        [
            (201, {"id": "x"}),
            (202, {"id": "x"}),
            (400, {"error": "unknown task type"}),
            (403, None),
            (201, {}),
            (500, {"error": "boom"}),
        ]
    )
    bodies: list[bytes] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        bodies.append(await request.read())
        status, body = next(answers)
        return web.json_response(body, status=status) if body is not None else web.Response(status=status)

    await stage.serve(answer)
    await stage.client.submit(NODE, "t", b'{"id":"x"}')
    await stage.client.submit(NODE, "t", b'{"id":"x"}')
    for words in (
        r"^sidecar rejected t task: unknown task type$",
        r"^sidecar t task submission returned 403:",
        r"without a task id",
        r'^sidecar t task submission returned 500: {"error": "boom"}$',
    ):
        with pytest.raises(RefusedError, match=words):
            await stage.client.submit(NODE, "t", b'{"id":"x"}')
    assert set(bodies) == {b'{"id":"x"}'}


async def test_polls(stage: Stage) -> None:
    answers = iter([(200, {"status": "failed", "error": "e"}), (404, {}), (500, {"error": "db"}), (200, [1])])

    async def answer(_: web.Request) -> web.StreamResponse:
        status, body = next(answers)
        return web.json_response(body, status=status)

    await stage.serve(answer)
    found = await stage.client.task(NODE, "x")
    assert found is not None and (found.status, found.error) == ("failed", "e")
    assert await stage.client.task(NODE, "x") is None
    for _ in range(2):
        with pytest.raises(SidecarError, match="sidecar task query returned"):
            await stage.client.task(NODE, "x")


async def test_a_node_id_must_be_there(stage: Stage) -> None:
    answers = iter([(200, {"nodeId": "abc"}), (200, {}), (503, {"error": "none yet"})])

    async def answer(_: web.Request) -> web.StreamResponse:
        status, body = next(answers)
        return web.json_response(body, status=status)

    await stage.serve(answer)
    assert await stage.client.node_id(NODE) == "abc"
    for _ in range(2):
        with pytest.raises(SidecarError, match="node-id returned"):
            await stage.client.node_id(NODE)


async def test_a_refused_token_is_read_again(stage: Stage) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        return web.Response(status=401 if len(seen) == 1 else 200)

    await stage.serve(answer)
    stage.token.write_text("two", encoding="utf-8")
    await stage.client.health(NODE)
    stage.token.write_text("three", encoding="utf-8")
    await stage.client.health(NODE)
    await stage.client.health(NODE)
    assert seen == ["Bearer two", "Bearer three", "Bearer three"]


async def test_without_a_token_nothing_is_sent(stage: Stage) -> None:
    stage.token.unlink()
    probe = await stage.client.health(NODE)
    assert "failed to read token file" in probe.error


async def test_an_answer_without_end_is_cut(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sidecar_client, "MAX_ANSWER", 1000)

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * 5000)

    await stage.serve(answer)
    with pytest.raises(SidecarError, match="larger than 1000"):
        await stage.client.task(NODE, "x")


async def test_other_names_are_resolved_as_usual(stage: Stage) -> None:
    resolver = sidecar_client.FileResolver(stage.names)
    found = await resolver.resolve("localhost", 1, socket.AF_INET)
    assert found[0]["host"] == "127.0.0.1"
    await resolver.close()
