"""Comparison as a task of the real sidecar process: stopped, deleted, killed - no block is lost, none counted twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import aiohttp

from seiops.evidence.verify import verify
from seiops.objectstore import open_store
from seiops.shadow.manifest import read_chain
from support.hash_logs import folder
from support.shadow_nodes import Node, pages_in, serving
from support.sidecar_process import sidecar, submit, until
from support.sidecar_process import task as task_of
from support.silent import Silent


def _params(shadow: Node, canonical: Node, home: Path, **changes: Any) -> dict[str, Any]:
    return {
        "bucket": f"file://{home}/bucket", "region": "local", "prefix": "run",
        "rpcEndpoint": shadow.comet_url, "canonicalRpc": canonical.comet_url,
        "migrationMode": True, "continueOnDivergence": True,
    } | changes  # fmt: skip


def _at(height: int) -> Any:
    return lambda task: (task.get("result") or {}).get("height", 0) >= height


def _heights(home: Path) -> list[int]:
    pages = sorted(pages_in(home).values(), key=lambda lines: lines[0]["height"])
    return [line["height"] for lines in pages for line in lines]


async def test_stopped_process_leaves_a_survey_that_goes_on(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=130), Node(latest=300, identity="other")
    home = tmp_path / "home"
    async with serving(shadow, canonical):
        params = _params(shadow, canonical, tmp_path, endHeight=250)
        async with sidecar(home) as (url, process):
            task_id = await submit(url, params)
            await until(url, task_id, _at(130))
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 40) == 0
        assert _heights(tmp_path) == list(range(1, 131))
        shadow.latest = 300
        async with sidecar(home) as (url, _):
            task = await until(url, task_id, lambda task: task["status"] != "running")
    assert (task["status"], task["result"]["verdict"]) == ("completed", "clean")
    assert _heights(tmp_path) == list(range(1, 251))
    assert task["result"]["counts"] == {"clean": 250}
    entries = [entry async for entry, _ in read_chain(open_store(f"file://{tmp_path}/bucket/run"), task_id)]
    assert [entry.kind for entry in entries] == ["run", "page", "page", "end", "page", "page", "end"]
    reasons = [entry.info["reason"] for entry in entries if entry.kind == "end" and entry.info]
    assert reasons == ["stopped", "end-height"]
    assert (await verify(open_store(f"file://{tmp_path}/bucket/run"), "run", Silent())).findings == []


async def test_killed_process_repeats_at_most_an_unfinished_page(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=170), Node(latest=300, identity="other")
    home = tmp_path / "home"
    async with serving(shadow, canonical):
        async with sidecar(home) as (url, process):
            task_id = await submit(url, _params(shadow, canonical, tmp_path, endHeight=200))
            await until(url, task_id, _at(170))
            process.kill()
            await process.wait()
        assert _heights(tmp_path) == list(range(1, 101))
        shadow.latest = 300
        async with sidecar(home) as (url, _):
            task = await until(url, task_id, lambda task: task["status"] != "running")
    assert _heights(tmp_path) == list(range(1, 201))
    assert task["result"]["counts"] == {"clean": 200}
    found = await verify(open_store(f"file://{tmp_path}/bucket/run"), "run", Silent())
    assert (found.findings, [run.counts for run in found.runs]) == ([], [{"clean": 200}])


async def test_deleted_survey_publishes_its_rest_and_stays_deleted(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=30), Node(latest=30, identity="other")
    home = tmp_path / "home"
    async with serving(shadow, canonical):
        async with sidecar(home) as (url, process):
            task_id = await submit(url, _params(shadow, canonical, tmp_path))
            await until(url, task_id, _at(30))
            async with aiohttp.ClientSession() as session, session.delete(f"{url}/v0/tasks/{task_id}") as answer:
                assert answer.status == 204
            async with asyncio.timeout(30):
                while _heights(tmp_path) != list(range(1, 31)):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            await process.wait()
        async with sidecar(home) as (url, _):
            assert await task_of(url, task_id) is None
    (run,) = (await verify(open_store(f"file://{tmp_path}/bucket/run"), "run", Silent())).runs
    assert (run.finished, run.reason, run.counts) == (True, "stopped", {"clean": 30})


async def test_strict_preflight_stops_the_task_before_it_publishes(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=30, identity="same"), Node(latest=30, identity="same")
    async with serving(shadow, canonical), sidecar(tmp_path / "home") as (url, _):
        task_id = await submit(url, _params(shadow, canonical, tmp_path, preflight="strict"))
        task = await until(url, task_id, lambda task: task["status"] != "running")
    assert task["status"] == "failed"
    assert "distinct-nodes: node ids same and same" in task["error"].replace("preflight: ", "")
    assert not (tmp_path / "bucket").exists() or not list((tmp_path / "bucket").rglob("*.json"))


async def test_half_set_params_are_refused(tmp_path: Path) -> None:
    async with sidecar(tmp_path / "home") as (url, _):
        for changes, text in (
            ({"canonicalRpc": ""}, "comparison-mode fields require CanonicalRPC"),
            ({"shadowEvmRpc": "http://127.0.0.1:1"}, "needed both, or neither"),
            ({"traceRpc": "http://127.0.0.1:1"}, "traceRpc needs"),
            ({"hashLog": "first"}, "hashLog needs canonicalHashLog"),
            ({"endHeight": -1}, "endHeight -1 is below"),
            ({"preflight": "maybe"}, "preflight is 'maybe'"),
            ({"startHeight": "x"}, "parsing params: startHeight"),
        ):
            node = Node(comet_url="http://127.0.0.1:1")
            task_id = await submit(url, _params(node, node, tmp_path, **changes))
            task = await until(url, task_id, lambda task: task["status"] != "running")
            assert task["status"] == "failed"
            assert text in task["error"]


async def test_hash_log_slice_is_published_and_sealed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    folder(home / "data" / "hash.log")
    params = {
        "bucket": f"file://{tmp_path}/bucket",
        "region": "local",
        "prefix": "run",
        "startHeight": 5,
        "endHeight": 95,
    }
    async with sidecar(home) as (url, _):
        task_id = await submit(url, params, "hash-log-export")
        task = await until(url, task_id, lambda task: task["status"] != "running")
    assert task["status"] == "completed"
    assert task["result"]["key"] == "run/hashlog-5-95.csv.gz"
    entries = [entry async for entry, _ in read_chain(open_store(f"file://{tmp_path}/bucket/run"), task_id)]
    seal = task["result"]["sha256"]
    assert [(entry.kind, entry.sha256) for entry in entries] == [("run", None), ("hashlog", seal), ("end", None)]
    assert (await verify(open_store(f"file://{tmp_path}/bucket/run"), "run", Silent())).findings == []
