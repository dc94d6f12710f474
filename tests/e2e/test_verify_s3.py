"""A run published by the real task into a real S3 server, then tampered with in every way: each is seen and named."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seidev.s3 import Bucket
from seiops.cli.main import app
from seiops.evidence.verify import verify as verify_store
from seiops.objectstore import StoreError, open_store
from seiops.shadow.pages import now
from support.fault_proxy import FaultProxy, always
from support.shadow_nodes import Node, receipt, results, serving
from support.sidecar_process import ended, sidecar, submit, until
from support.silent import Silent

PREFIX = "pair-7"
BLOCKS = 250


@pytest.fixture
def bucket(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return s3


async def publish(bucket: Bucket, home: Path, canonical: Node | None = None, **changes: Any) -> dict[str, Any]:
    """The task as it ended."""
    shadow, other = Node(latest=BLOCKS), canonical or Node(latest=BLOCKS, identity="other")
    async with serving(shadow, other), sidecar(home) as (url, _):
        params = {
            "bucket": bucket.name, "region": "us-east-1", "prefix": PREFIX, "rpcEndpoint": shadow.comet_url,
            "canonicalRpc": other.comet_url, "migrationMode": True, "continueOnDivergence": True,
            "startHeight": 1, "endHeight": BLOCKS, "preflight": "off",
        }  # fmt: skip
        return await until(url, await submit(url, params | changes), ended)


@pytest.fixture
async def run(bucket: Bucket, tmp_path: Path) -> AsyncIterator[str]:
    """The manifest of a finished, clean run of three pages."""
    task = await publish(bucket, tmp_path / "home")
    assert task["status"] == "completed", task.get("error")
    yield task["result"]["manifest"]


def verify(url: str, *options: str) -> tuple[int, dict[str, Any]]:
    outcome = CliRunner().invoke(app, ["verify", url, "--output", "json", *options])
    assert outcome.exit_code in (0, 2), outcome.output
    return outcome.exit_code, json.loads(outcome.stdout)


def names(found: dict[str, Any]) -> set[str]:
    return {finding["name"] for finding in found["named"]}


def page(start: int, end: int) -> str:
    return f"{PREFIX}/{start}-{end}.compare.ndjson.gz"


def entry(run: str, number: int) -> str:
    return f"{PREFIX}/manifest/{run}/{number:08d}.json"


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Another payload, gzipped again: the object stays whole."""
    path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


def first_block_diverges(payload: bytes) -> bytes:
    assert b'"match":true' in payload
    return payload.replace(b'"match":true', b'"match":false', 1)


def test_a_clean_run_is_fine(bucket: Bucket, run: str) -> None:
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert (status, found["findings"], found["objects"]) == (0, [], 3)
    (one,) = found["runs"]
    assert (one["run"], one["verdict"], one["counts"]) == (run, "clean", {"clean": BLOCKS})
    assert (one["startHeight"], one["endHeight"], one["reason"]) == (1, BLOCKS, "end-height")
    assert one["manifest"]["entries"] == 5
    opening = json.loads((bucket.directory / entry(run, 1)).read_bytes())
    assert {"chain", "seiops"} <= opening["info"].keys()
    assert found["storedBytes"] == sum((bucket.directory / page(*span)).stat().st_size for span in PAGES)


PAGES = ((1, 100), (101, 200), (201, 250))


def changed(directory: Path, run: str) -> str:
    rewrite(directory / page(101, 200), lambda payload: payload.replace(b'"totalTxs":2', b'"totalTxs":3', 1))
    return "seal-differs"


def verdict_flipped(directory: Path, run: str) -> str:
    rewrite(directory / page(101, 200), first_block_diverges)
    return "verdict-contradicts"


def cut(directory: Path, run: str) -> str:
    path = directory / page(101, 200)
    path.write_bytes(path.read_bytes()[:-9])
    return "object-damaged"


def dropped(directory: Path, run: str) -> str:
    (directory / page(101, 200)).unlink()
    return "object-missing"


def entry_dropped(directory: Path, run: str) -> str:
    (directory / entry(run, 3)).unlink()
    return "entry-missing"


def entry_edited(directory: Path, run: str) -> str:
    path = directory / entry(run, 3)
    path.write_bytes(path.read_bytes().replace(b'"clean":100', b'"clean":99,"gap":1'))
    return "chain-broken"


def entry_replaced_by_noise(directory: Path, run: str) -> str:
    (directory / entry(run, 3)).write_bytes(b"{}")
    return "entry-unreadable"


def end_dropped(directory: Path, run: str) -> str:
    (directory / entry(run, 5)).unlink()
    return "run-open"


def end_edited(directory: Path, run: str) -> str:
    path = directory / entry(run, 5)
    path.write_bytes(path.read_bytes().replace(f'"clean":{BLOCKS}'.encode(), f'"clean":{BLOCKS + 7}'.encode()))
    return "counts-differ"


def page_duplicated(directory: Path, run: str) -> str:
    (directory / page(301, 400)).write_bytes((directory / page(101, 200)).read_bytes())
    return "foreign-object"


def page_with_a_hole(directory: Path, run: str) -> str:
    rewrite(directory / page(101, 200), lambda payload: b"".join(payload.splitlines(keepends=True)[:50]))
    return "heights-differ"


def last_page_and_its_entries_gone(directory: Path, run: str) -> str:
    """The chain still holds; only what the run was to do, and its missing end, tell."""
    for number in (4, 5):
        (directory / entry(run, number)).unlink()
    (directory / page(201, 250)).unlink()
    return "run-open"


def everything_behind_the_first_page_renamed(directory: Path, run: str) -> str:
    (directory / page(101, 200)).rename(directory / page(102, 201))
    return "object-missing"


@pytest.mark.parametrize(
    "tamper",
    [
        changed, verdict_flipped, cut, dropped, entry_dropped, entry_edited, entry_replaced_by_noise, end_dropped, end_edited,
        page_duplicated, page_with_a_hole, last_page_and_its_entries_gone, everything_behind_the_first_page_renamed,
    ],
)  # fmt: skip
def test_every_change_is_seen_and_named(bucket: Bucket, run: str, tamper: Callable[[Path, str], str]) -> None:
    expected = tamper(bucket.directory, run)
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert status == 2
    assert expected in names(found), found["findings"]


def test_a_key_published_again_counts_once_and_the_last_entry_decides(bucket: Bucket, run: str, tmp_path: Path) -> None:
    """The same prefix used again (a new home knows nothing of the first run): the first run's pages are gone."""
    last = json.loads(bucket.read(entry(run, 5)))["at"]
    while now() == last:  # entries tell the time in seconds
        time.sleep(0.02)
    task = asyncio.run(publish(bucket, tmp_path / "another"))
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert (status, found["findings"]) == (0, [])
    by_run = {one["run"]: one for one in found["runs"]}
    assert by_run[task["result"]["manifest"]]["objects"] == 3
    assert by_run[run]["objects"] == 0
    assert any(f"run {run}: 3 of its objects were published again" in text for text in found["statements"])
    kept = tmp_path / "task.json"
    kept.write_text(json.dumps(task))
    assert verify(f"{bucket.url}/{PREFIX}", "--result", str(kept))[0] == 0
    task["result"]["published"][1]["sha256"] = "0" * 64
    kept.write_text(json.dumps(task))
    status, found = verify(f"{bucket.url}/{PREFIX}", "--result", str(kept))
    assert (status, found["named"][0]["name"], found["named"][0]["where"]) == (
        2,
        "seal-differs",
        "101-200.compare.ndjson.gz",
    )


def test_a_divergence_is_a_finding_with_its_report_checked(bucket: Bucket, tmp_path: Path) -> None:
    other = Node(latest=BLOCKS, identity="other")
    other.plant("block_results", 42, results(42, [receipt(42, 0, code=5), receipt(42, 1)]))
    task = asyncio.run(publish(bucket, tmp_path / "home", other, continueOnDivergence=False))
    assert task["result"]["verdict"] == "diverged"
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert (status, names(found)) == (2, {"not-clean"})
    assert "1 of 42 blocks are diverged, the first block that is no match is 42" in found["findings"][0]
    assert verify(f"{bucket.url}/{PREFIX}", "--accept", "diverged")[0] == 0
    report = bucket.directory / PREFIX / "divergence-42.report.json.gz"
    kept = report.read_bytes()
    rewrite(report, lambda payload: payload.replace(b'"divergenceLayer": 1', b'"divergenceLayer": 2'))
    assert {"report-contradicts", "seal-differs"} <= names(verify(f"{bucket.url}/{PREFIX}")[1])
    report.unlink()
    assert "object-missing" in names(verify(f"{bucket.url}/{PREFIX}")[1])
    report.write_bytes(kept)
    manifest = bucket.directory / PREFIX / "manifest" / task["result"]["manifest"]
    assert sorted(path.name for path in manifest.iterdir())[1] == "00000002.json"


def test_a_sealed_run_satisfies_who_requires_seals(bucket: Bucket, run: str) -> None:
    status, found = verify(f"{bucket.url}/{PREFIX}", "--require-seals")
    assert (status, found["findings"]) == (0, [])


def test_without_a_manifest_everything_else_is_checked_and_said(bucket: Bucket, run: str) -> None:
    """What the Go program leaves behind: pages only."""
    for number in range(1, 6):
        (bucket.directory / entry(run, number)).unlink()
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert (status, found["findings"]) == (0, [])
    assert "without seals" in found["statements"][0]
    status, found = verify(f"{bucket.url}/{PREFIX}", "--require-seals")
    assert (status, names(found)) == (2, {"unsealed"})
    (bucket.directory / page(101, 200)).unlink()
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert (status, names(found)) == (2, {"height-gap"})
    assert found["named"][0]["where"] == "heights 101 to 200"
    source = (bucket.directory / page(1, 100)).read_bytes()
    lines = gzip.decompress(source).splitlines(keepends=True)
    (bucket.directory / page(51, 100)).write_bytes(gzip.compress(b"".join(lines[50:])))
    assert "height-overlap" in names(verify(f"{bucket.url}/{PREFIX}")[1])


def test_an_export_is_checked_block_by_block(bucket: Bucket, tmp_path: Path) -> None:
    task = asyncio.run(
        publish(bucket, tmp_path / "home", canonicalRpc="", migrationMode=False, continueOnDivergence=False)
    )
    assert task["result"]["mode"] == "export"
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert (status, found["runs"][0]["verdict"]) == (0, "exported")
    for path in (bucket.directory / PREFIX / "manifest").rglob("*.json"):
        path.unlink()
    archived_error = (
        b'{"block_results":{"code":-32603,"message":"Internal error","data":"x"},"exported_at":"t","height":7}'
    )
    pages = bucket.directory / PREFIX / f"1-{BLOCKS}.ndjson.gz"
    rewrite(pages, lambda payload: b"\n".join([*payload.splitlines()[:6], archived_error, *payload.splitlines()[7:]]))
    status, found = verify(f"{bucket.url}/{PREFIX}")
    assert (status, names(found)) == (2, {"content-invalid"})
    assert "height 7: the node's answer has no height: it is an error" in found["findings"][0]


def test_an_answer_of_another_height_is_no_export_of_this_one(bucket: Bucket, tmp_path: Path) -> None:
    asyncio.run(publish(bucket, tmp_path / "home", canonicalRpc="", migrationMode=False, continueOnDivergence=False))
    pages = bucket.directory / PREFIX / f"1-{BLOCKS}.ndjson.gz"
    rewrite(pages, lambda payload: payload.replace(b'"block_results":{"height":"9"', b'"block_results":{"height":"8"'))
    found = verify(f"{bucket.url}/{PREFIX}")[1]
    assert names(found) >= {"heights-differ", "seal-differs"}
    assert any("height 9: the node's answer is of height 8" in finding for finding in found["findings"])


def test_a_store_that_does_not_answer_is_no_finding(bucket: Bucket, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the run could be read: nothing is said of the other half, and nothing is called missing."""

    async def asked() -> StoreError:
        async with FaultProxy(bucket.env["AWS_ENDPOINT_URL_S3"]).running() as proxy:
            proxy.choose = always("slow-down", "GET", "101-200")
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
            with pytest.raises(StoreError) as refused:
                await verify_store(open_store(f"{bucket.url}/{PREFIX}"), "x", Silent())
            return refused.value

    error = asyncio.run(asked())
    assert (error.code, error.retryable) == ("SlowDown", True)
    assert "101-200" in error.message


def test_nothing_there_and_no_bucket_are_no_findings(bucket: Bucket) -> None:
    for url, text in (
        (f"{bucket.url}/none", "no pages, records or manifests below"),
        ("s3://no-such-bucket-here/x", "does not exist"),
    ):
        outcome = CliRunner().invoke(app, ["verify", url])
        assert outcome.exit_code == 1
        assert text in outcome.output
