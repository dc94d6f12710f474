"""Routes, access and the shape of a task, over real sockets (docs/contracts/sidecar.md 2)."""

import asyncio
import contextlib
import json
import sqlite3
from pathlib import Path

import aiohttp
import pytest

from seiops.sidecar import openapi, target
from seiops.sidecar.api import Api
from seiops.sidecar.http1 import HttpServer
from seiops.sidecar.task import TaskError

from .fakes import FakeType, Registry, life
from .fakes import settings as sidecar_settings

ID = "3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a11"
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="


async def fails(ctx, params):
    raise TaskError.structured("fails", "S3", "it <failed>", retryable=True, hint="try again")


@contextlib.asynccontextmanager
async def api(home: Path, **changed: str):
    """(client session with the base address, the world behind it)"""
    registry = Registry(fails=FakeType(fails))
    async with life(home, registry, **changed) as world:
        server = HttpServer(Api(sidecar_settings(home, **changed), world.engine, world.store).handle)
        port = await server.start("127.0.0.1", 0)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session, world
        await server.drain(2)


async def test_a_task_goes_in_and_comes_out(tmp_path):
    async with api(tmp_path) as (session, world):
        async with session.post(
            "/v0/tasks", data=b'{"TYPE":"fails","id":"%s","params":{"n":1.0}} tail' % ID.encode()
        ) as answer:
            assert (answer.status, await answer.text()) == (201, f'{{"id":"{ID}"}}\n')
        await world.ended(ID)
        async with session.get(f"/v0/tasks/{ID}?x=1") as answer:
            text = await answer.text()
            task = json.loads(text)
        assert list(task) == [
            "id",
            "type",
            "status",
            "run",
            "params",
            "error",
            "errorDetail",
            "submittedAt",
            "completedAt",
        ]
        assert task["error"] == "fails: S3: it <failed> [hint: try again]"
        assert "\\u003cfailed\\u003e" in text
        assert task["errorDetail"] == {"task": "fails", "operation": "S3", "retryable": True, "hint": "try again"}
        async with session.get("/v0/tasks") as answer:
            assert json.loads(await answer.text()) == [task]
        async with session.delete(f"/v0/tasks/{ID}") as answer:
            assert (answer.status, await answer.text(), "Content-Type" in answer.headers) == (204, "", False)
        async with session.delete(f"/v0/tasks/{ID}") as answer:
            assert (answer.status, await answer.json()) == (404, {"error": "task not found"})


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"", 400, "invalid request body"),
        (b"[]", 400, "invalid request body"),
        (b'{"type":5}', 400, "invalid request body"),
        (b'{"type":"fails","params":[]}', 400, "invalid request body"),
        (b'{"type":"fails","id":7}', 400, "invalid request body"),
        (b"{}", 400, "type is required"),
        (b'{"type":"no-such"}', 400, "unknown task type: no-such"),
        (b'{"type":"fails","id":"zzz"}', 400, 'task ID must be a valid UUID: "zzz"'),
        (b'{"type":"fails","params":{"a":"' + b"x" * 2000 + b'"}}', 413, "request body is larger than 1000 bytes"),
    ],
)
async def test_refused_submissions(tmp_path, body, status, error):
    async with (
        api(tmp_path, SEI_SIDECAR_MAX_BODY_BYTES="1000") as (session, _),
        session.post("/v0/tasks", data=body) as answer,
    ):
        assert (answer.status, await answer.json()) == (status, {"error": error})


async def test_a_store_that_fails_is_a_503_that_asks_to_retry(tmp_path):
    async with api(tmp_path) as (session, _):
        with sqlite3.connect(tmp_path / "sidecar.db") as db:
            db.execute("ALTER TABLE task_results RENAME TO hidden")
        for method, path in (
            ("GET", "/v0/tasks"),
            ("GET", f"/v0/tasks/{ID}"),
            ("DELETE", f"/v0/tasks/{ID}"),
            ("POST", "/v0/tasks"),
        ):
            async with session.request(method, path, data=b'{"type":"fails"}' if method == "POST" else None) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), method
                assert "error" in await answer.json()
        async with session.get("/v0/livez") as answer:
            assert answer.status == 200


async def test_liveness_tells_why_when_asked(tmp_path):
    async with api(tmp_path) as (session, world):
        world.store.close()
        async with session.get("/v0/livez") as answer:
            assert (answer.status, await answer.text()) == (503, "")
        async with session.get("/v0/livez?verbose=1") as answer:
            assert (answer.status, await answer.json()) == (503, {"error": "the store is closed"})
        world.store.close = lambda: None


@pytest.mark.parametrize(
    ("path", "headers", "error"),
    [
        ("/v0/healthz", [], None),
        ("/v0/%68ealthz", [], None),
        ("/v0/livez?verbose=1", [], None),
        ("/v0/metrics", [], None),
        ("/v0/status", [], "missing X-Remote-User header"),
        ("/v0/openapi.json", [], "missing X-Remote-User header"),
        ("/nope", [], "missing X-Remote-User header"),
        ("//v0/healthz", [], "missing X-Remote-User header"),
        ("/v0/status", [("X-Remote-User", " \t")], "empty X-Remote-User header"),
        ("/v0/status", [("X-Remote-User", ""), ("x-remote-user", "")],
         "expected exactly one X-Remote-User header \u2014 proxy must overwrite, not append"),
        ("/v0/status", [("x-remote-USER", "alice,bob")], None),
    ],
)  # fmt: skip
async def test_trusted_header_mode(tmp_path, path, headers, error):
    async with api(tmp_path, SEI_SIDECAR_AUTHN_MODE="trusted-header") as (session, _):
        base = session._base_url
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers)
        reader, writer = await asyncio.open_connection(base.host, base.port)
        writer.write(head.encode() + b"\r\n")
        answer = (await reader.read()).decode()
        writer.close()
    if error is None:
        assert " 401 " not in answer.split("\r\n")[0]
    else:
        assert answer.startswith("HTTP/1.1 401 Unauthorized")
        assert json.loads(answer.split("\r\n\r\n")[1]) == {"error": error}


@pytest.mark.parametrize(
    ("path", "clean"),
    [("//v0/tasks", "/v0/tasks"), ("/v0/./tasks", "/v0/tasks"), ("/v0/x/../tasks", "/v0/tasks"), ("/v0/tasks/..", "/v0"),
     ("/v0/tasks/", "/v0/tasks/"), ("/", "/"), ("/..", "/"), ("", "/"), ("/a//b/", "/a/b/")],
)  # fmt: skip
def test_paths_are_cleaned(path, clean):
    assert target.clean(path) == clean


async def test_a_path_that_is_not_clean_is_redirected(tmp_path):
    async with api(tmp_path) as (session, _):
        url = f"{session._base_url}/v0/x/../tasks?a=1&b=2".replace("//v0", "/v0")
        async with session.get(aiohttp.client.URL(url, encoded=True), allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (307, "/v0/tasks?a=1&b=2")
            assert await answer.text() == '<a href="/v0/tasks?a=1&amp;b=2">Temporary Redirect</a>.\n\n'
        async with session.post(aiohttp.client.URL(url, encoded=True), allow_redirects=False) as answer:
            assert (answer.status, await answer.text()) == (307, "")


@pytest.mark.parametrize(
    ("content", "status", "body"),
    [
        (json.dumps({"id": "ffff", "PRIV_KEY": {"Value": KEY[:40] + "\n" + KEY[40:]}}), 200,
         {"nodeId": "72dbb7336c76780023f83da4c355f2eeea85733b"}),
        (None, 500, {"error": "node_key.json not found \u2014 generate-identity may not have run yet"}),
        ("", 500, {"error": "failed to parse node_key.json"}),
        ('{"priv_key":"x"}', 500, {"error": "failed to parse node_key.json"}),
        ("{} x", 500, {"error": "failed to parse node_key.json"}),
        ("null", 500, {"error": "invalid Ed25519 key in node_key.json"}),
        ('{"priv_key":{"value":"AAAA"}}', 500, {"error": "invalid Ed25519 key in node_key.json"}),
    ],
)  # fmt: skip
async def test_node_id(tmp_path, content, status, body):
    (tmp_path / "config").mkdir()
    if content is not None:
        (tmp_path / "config" / "node_key.json").write_text(content)
    async with api(tmp_path) as (session, _), session.get("/v0/node-id") as answer:
        assert (answer.status, await answer.json()) == (status, body)


async def test_metrics_come_as_text_compressed_on_request(tmp_path):
    async with api(tmp_path) as (session, _):
        async with session.get("/v0/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
            assert answer.headers.get("Content-Encoding") == "gzip"
            assert "seictl_task_submissions_total" in await answer.text()
        async with session.get("/v0/metrics", headers={"Accept-Encoding": "gzip;q=0, identity"}) as answer:
            assert "Content-Encoding" not in answer.headers
        accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
        async with session.get("/v0/metrics", headers={"Accept": accept}) as answer:
            assert answer.headers["Content-Type"].startswith("application/vnd.google.protobuf; ")
            assert b"seictl_task_submissions_total" in await answer.read()


def test_the_checked_in_description_is_the_served_one():
    path = Path(__file__).parents[3] / "docs" / "contracts" / "sidecar-openapi.json"
    assert json.loads(path.read_text()) == openapi.document(), "regenerate: python -m seiops.sidecar.openapi > " + str(
        path
    )
