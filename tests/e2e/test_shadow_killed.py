"""The sidecar killed or told to stop at the worst moments of a run: no gap, nothing counted twice, the chain of its manifest holds."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from seidev.s3 import Bucket
from seiops.objectstore import open_store, read_gzip
from seiops.shadow.manifest import read_chain
from support.fault_proxy import Fault, FaultProxy
from support.shadow_nodes import Node, pages_in, serving
from support.sidecar_process import sidecar, submit, until
from support.sidecar_process import task as task_of


def _params(shadow: Node, canonical: Node, bucket: str, **changes: Any) -> dict[str, Any]:
    return {
        "bucket": bucket, "region": "us-east-1", "prefix": "run",
        "rpcEndpoint": shadow.comet_url, "canonicalRpc": canonical.comet_url,
        "migrationMode": True, "continueOnDivergence": True,
    } | changes  # fmt: skip


def _heights(home: Path) -> list[int]:
    pages = sorted(pages_in(home).values(), key=lambda lines: lines[0]["height"])
    return [line["height"] for lines in pages for line in lines]


def _over(task: dict[str, Any]) -> bool:
    return bool(task["status"] != "running")


async def test_deleted_in_the_middle_of_a_group_and_submitted_again(tmp_path: Path) -> None:
    shadow, canonical = Node(latest=60), Node(latest=60, identity="other")
    canonical.hang, canonical.hanging = asyncio.Event(), ("block", 33)
    bucket = f"file://{tmp_path}/bucket"
    async with serving(shadow, canonical), sidecar(tmp_path / "home") as (url, _):
        first = await submit(url, _params(shadow, canonical, bucket))
        await asyncio.wait_for(canonical.hung.wait(), 60)
        await until(url, first, lambda task: (task.get("result") or {}).get("height", 0) >= 30)
        async with aiohttp.ClientSession() as session, session.delete(f"{url}/v0/tasks/{first}") as answer:
            assert answer.status == 204
        canonical.hang.set()
        canonical.hang = None
        # the prefix is free again once the trailing page is stored
        async with asyncio.timeout(60):
            while True:
                second = await submit(url, _params(shadow, canonical, bucket, endHeight=60))
                task = await until(url, second, _over)
                if "another task is writing" not in task.get("error", ""):
                    break
        assert await task_of(url, first) is None
    assert (task["status"], task["result"]["counts"]) == ("completed", {"clean": 60})
    assert _heights(tmp_path) == list(range(1, 61))
    assert list(pages_in(tmp_path)) == ["1-30.compare.ndjson.gz", "31-60.compare.ndjson.gz"]
    store = open_store(f"{bucket}/run")
    for run, covered in ((first, [(1, 30)]), (second, [(31, 60)])):
        entries = [entry async for entry, _ in read_chain(store, run)]
        assert [(one.start_height, one.end_height) for one in entries if one.kind == "page"] == covered


async def test_export_killed_in_the_middle_of_a_page_makes_that_page_again(tmp_path: Path) -> None:
    node = Node(latest=2000)
    node.hang, node.hanging = asyncio.Event(), ("block_results", 1500)
    home = tmp_path / "home"
    async with serving(node):
        params = {
            "bucket": f"file://{tmp_path}/bucket",
            "region": "local",
            "prefix": "run",
            "rpcEndpoint": node.comet_url,
        }
        async with sidecar(home) as (url, process):
            task_id = await submit(url, params)
            await asyncio.wait_for(node.hung.wait(), 60)
            process.kill()
            await process.wait()
        assert list(pages_in(tmp_path)) == ["1-1000.ndjson.gz"]
        node.hang.set()
        node.hang = None
        async with sidecar(home) as (url, _):
            task = await until(url, task_id, _over)
    assert (task["status"], task["result"]["counts"], task["result"]["pages"]) == ("completed", {"exported": 2000}, 2)
    assert _heights(tmp_path) == list(range(1, 2001))
    assert json.loads((home / ".sei-sidecar-last-export.json").read_text()) == {"lastExportedHeight": 2000}


@pytest.mark.parametrize(
    ("fault", "part", "which", "entries_of_pages"),
    [("stall", "compare.ndjson.gz", 2, 2), ("stall-answer", "compare.ndjson.gz", 2, 2),
     ("stall", "manifest/", 3, 2), ("stall-answer", "manifest/", 3, 3)],
    ids=["before-the-page", "after-the-page", "before-its-entry", "after-its-entry"],
)  # fmt: skip
async def test_killed_between_page_entry_and_progress(
    s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, part: str, which: int,
    entries_of_pages: int,
) -> None:  # fmt: skip
    """The second page: stored or not, entered or not; the progress file does not know of it."""
    shadow, canonical = Node(latest=200), Node(latest=300, identity="other")
    left = [which]

    def the_second_page(method: str, path: str) -> Fault | None:
        if method != "PUT" or part not in path:
            return None
        left[0] -= 1
        return fault if left[0] == 0 else None

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    async with (
        serving(shadow, canonical),
        FaultProxy(s3.env["AWS_ENDPOINT_URL_S3"], the_second_page).running() as proxy,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        async with sidecar(tmp_path / "home") as (url, process):
            task_id = await submit(url, _params(shadow, canonical, s3.name, endHeight=200))
            await asyncio.wait_for(proxy.stalled.wait(), 60)
            process.kill()
            await process.wait()
        proxy.release.set()
        async with sidecar(tmp_path / "home") as (url, _):
            task = await until(url, task_id, _over)
    assert (task["status"], task["result"]["counts"], task["result"]["pages"]) == ("completed", {"clean": 200}, 2)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.env["AWS_ENDPOINT_URL_S3"])
    store = open_store(f"s3://{s3.name}/run")
    entries = [entry async for entry, _ in read_chain(store, task_id)]
    assert (entries[0].kind, entries[-1].kind) == ("run", "end")
    pages = [one for one in entries if one.kind == "page"]
    assert len(pages) == entries_of_pages
    last = {one.key: one for one in pages}
    assert list(last) == ["1-100.compare.ndjson.gz", "101-200.compare.ndjson.gz"]
    for key, entry in last.items():
        payload = b"".join([chunk async for chunk in read_gzip(store, str(key))])
        assert hashlib.sha256(payload).hexdigest() == entry.sha256
