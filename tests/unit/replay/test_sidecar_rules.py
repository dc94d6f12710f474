"""The sidecar stand-in answers as the recordings' README says."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest

from replay.sidecar_rules import NodeSidecar, Rule
from replay.sidecar_server import PORT, SidecarServer

CASES = Path(__file__).resolve().parents[2] / "data" / "replay"


def node(*rules: dict[str, object]) -> NodeSidecar:
    made = NodeSidecar("ns", "n0")
    made.rules += [Rule.of(dict(rule)) for rule in rules]
    return made


def post(sidecar: NodeSidecar, ident: str, kind: str, now: float = 0.0, **params: object) -> int:
    body = {"id": ident, "type": kind, **({"params": params} if params else {})}
    answer = sidecar.answer("POST", "/v0/tasks", json.dumps(body).encode(), now)
    assert answer.how == "http"
    return answer.status


def shown(sidecar: NodeSidecar, ident: str, now: float = 0.0) -> dict[str, object]:
    return dict(sidecar.answer("GET", f"/v0/tasks/{ident}", b"", now).body)


def test_a_task_without_rule_is_complete_at_once() -> None:
    sidecar = node()
    assert post(sidecar, "t1", "config-apply", 5.0, mode="full") == 201
    assert list(shown(sidecar, "t1")) == ["id", "type", "status", "run", "params", "submittedAt", "completedAt"]
    assert shown(sidecar, "t1")["status"] == "completed"
    assert sidecar.answer("GET", "/v0/tasks/t2", b"", 5.0).encoded() == b'{"error":"task not found"}\n'


def test_failed_tasks_run_again_only_on_a_post() -> None:
    sidecar = node({"on": "task", "type": "x", "error": "broke", "ms": 2500, "times": 3})
    post(sidecar, "t", "x", 0.0)
    assert shown(sidecar, "t", 2.4)["status"] == "running"
    assert shown(sidecar, "t", 2.5)["error"] == "broke"
    post(sidecar, "t", "x", 3.0)
    assert shown(sidecar, "t", 3.1)["run"] == 2
    post(sidecar, "t", "x", 3.2)
    assert shown(sidecar, "t", 3.3)["run"] == 2
    post(sidecar, "t", "x", 6.0)
    post(sidecar, "t", "x", 9.0)
    assert (shown(sidecar, "t", 9.0)["run"], shown(sidecar, "t", 9.0)["status"]) == (4, "completed")


def test_ready_flag_follows_new_mark_ready_tasks_only() -> None:
    sidecar = node({"on": "task", "type": "mark-ready", "ms": 1000, "times": 1})
    assert sidecar.answer("GET", "/v0/healthz", b"", 0.0).status == 503
    post(sidecar, "m", "mark-ready", 0.0)
    assert sidecar.answer("GET", "/v0/healthz", b"", 0.9).status == 503
    assert sidecar.answer("GET", "/v0/healthz", b"", 1.0).status == 200
    sidecar.ready = False
    post(sidecar, "m", "mark-ready", 2.0)
    assert sidecar.answer("GET", "/v0/healthz", b"", 2.0).status == 503
    post(sidecar, "m2", "mark-ready", 2.0)
    assert sidecar.answer("GET", "/v0/healthz", b"", 2.0).status == 200


def test_first_matching_rule_that_has_not_run_out() -> None:
    sidecar = node(
        {"on": "post", "type": "other", "do": "http", "status": 418},
        {"on": "post", "do": "http", "status": 500, "body": {"error": "boom"}, "times": 1},
        {"on": "post", "do": "http", "status": 201, "body": {}, "times": 1},
        {"on": "task", "type": "x", "error": "unused while post rules answer", "times": 1},
    )
    assert post(sidecar, "t", "x") == 500
    assert post(sidecar, "t", "x") == 201
    assert sidecar.tasks == {}
    post(sidecar, "t", "x")
    assert shown(sidecar, "t")["status"] == "failed"


def test_get_rules_leave_health_alone() -> None:
    sidecar = node({"on": "get", "do": "close", "times": 1}, {"on": "healthz", "do": "hang"})
    assert sidecar.answer("GET", "/v0/healthz", b"", 0.0).how == "hang"
    assert sidecar.answer("GET", "/v0/tasks/t", b"", 0.0).how == "close"
    assert sidecar.answer("GET", "/v0/tasks/t", b"", 0.0).status == 404
    assert sidecar.answer("GET", "/v0/node-id", b"", 0.0).body == {"nodeId": sidecar.node_id}


@pytest.mark.parametrize("folder", sorted((CASES / "flows").iterdir()), ids=lambda folder: folder.name)
def test_recorded_requests_get_the_recorded_answers(folder: Path) -> None:
    """Posed again at their recorded times, with the script's rules for the tasks, all requests are answered alike."""
    script = [json.loads(line) for line in (folder / "script.jsonl").read_text().splitlines()]
    sidecars: dict[str, NodeSidecar] = {}
    for step in script:
        if step["do"] == "sidecar-rule":
            sidecars.setdefault(step["node"], NodeSidecar(folder.name, step["node"])).rules.append(
                Rule.of(step["rule"])
            )
    for line in map(json.loads, (folder / "sidecar.jsonl").read_text().splitlines()):
        # Health and node ids also depend on Pods and on rules that the script adds later.
        if not line["path"].startswith("/v0/tasks") or not isinstance(line["response"], dict):
            continue
        sidecar = sidecars.setdefault(line["node"], NodeSidecar(folder.name, line["node"]))
        answer = sidecar.answer(line["method"], line["path"], (line.get("raw") or "").encode(), line["t"])
        wanted = line["response"]
        assert answer.status == wanted["status"], line
        assert without_times(answer.body) == without_times(wanted["body"]), line


def without_times(body: object) -> object:
    if not isinstance(body, dict):
        return body
    return {name: value for name, value in body.items() if not name.endswith("At")}


async def test_server_records_bytes_and_publishes_names(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    server = SidecarServer("127.0.99.54", "127.0.99.55", names)
    await server.start()
    host = "n0-0.n0.ns.svc.cluster.local"
    try:
        assert json.loads(names.read_text()) == {}
        server.pod_started("ns", "n0", "u1")
        assert json.loads(names.read_text()) == {host: "127.0.99.54"}
        async with aiohttp.ClientSession() as session:
            headers = {"Host": f"{host}:8443", "Authorization": "Bearer t"}
            async with session.get(f"http://127.0.99.54:{PORT}/v0/healthz", headers=headers) as answer:
                assert (answer.status, await answer.read()) == (503, b"")
            server.add_rule("ns", "n0", {"on": "post", "do": "hang"})
            hanging = asyncio.create_task(
                session.post(f"http://127.0.99.54:{PORT}/v0/tasks", headers=headers, data=b"{ }")
            )
            while len(server.seen) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            server.set_address("ns", "n0", "refused")
            with pytest.raises(aiohttp.ClientError):
                await hanging
        assert json.loads(names.read_text()) == {host: "127.0.99.55"}
        server.set_address("ns", "n0", "nx")
        assert json.loads(names.read_text()) == {}
        server.set_address("ns", "n0", "normal")
        server.pod_ended("ns", "n0", "u1")
        assert json.loads(names.read_text()) == {}
        assert server.seen[1].raw == b"{ }"
        assert ["Authorization", "Bearer t"] in server.seen[1].headers
    finally:
        await server.stop()
