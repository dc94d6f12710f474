"""Pages through a real S3 server that misbehaves: whose fault it was is told apart, and the bucket holds whole objects only."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from pathlib import Path

import pytest

from seidev.s3 import Bucket
from seiops.objectstore import Store, StoreError, open_store
from seiops.seid.bulk import BulkReader
from seiops.shadow.export import Exporter, PageError, ProducerError
from seiops.shadow.manifest import read_chain
from seiops.shadow.sides import Patience
from support.fault_proxy import Chooser, FaultProxy, always, once
from support.shadow_nodes import Node, noisy_node, serving, shelf_in

BLOCKS = 60
PART = "partNumber="


def _large_node(*, failing_at: int = 0) -> Node:
    """A page of it is several parts."""
    return noisy_node(BLOCKS, 400_000, failing_at=failing_at)


async def _keys(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bucket holds, asked without the proxy."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.env["AWS_ENDPOINT_URL_S3"])
    return sorted([info.key async for info in open_store(f"s3://{s3.name}").list()])


async def _export(node: Node, store: Store, home: Path) -> int:
    async with serving(node) as session:
        shelf = shelf_in(home, store)
        exporter = Exporter(BulkReader(node.comet_url, session), shelf, lambda *_: None, Patience((0.0,)))
        return await exporter.run(1, BLOCKS, whole_pages=False)


@pytest.mark.parametrize(
    "choose",
    [
        once("reset", "PUT", PART),
        once("slow-down", "PUT", PART),
        once("truncate", "PUT", PART),
        once("slow-down", "POST", "uploads"),
    ],
    ids=["reset", "slow-down", "truncated-answer", "slow-down-at-the-start"],
)
async def test_one_fault_is_survived_and_the_object_is_whole(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, choose: Chooser, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = choose
    assert await _export(_large_node(), open_store(f"s3://{s3.name}"), tmp_path) == 1
    assert sum(proxy.broken.values()) == 1
    assert await _keys(s3, monkeypatch) == ["run/1-60.ndjson.gz", "run/manifest/run-1/00000001.json"]
    store = open_store(f"s3://{s3.name}/run")
    ((entry, _),) = [found async for found in read_chain(store, "run-1")]
    payload = gzip.decompress(await store.get("1-60.ndjson.gz"))
    assert hashlib.sha256(payload).hexdigest() == entry.sha256
    assert payload.count(b"\n") == BLOCKS


@pytest.mark.parametrize(
    ("choose", "code"),
    [(always("slow-down", "PUT", PART), "SlowDown"), (always("reset", "PUT", PART), "Network"),
     (always("slow-down", "POST", "uploadId"), "SlowDown")],
    ids=["slow-down", "reset", "slow-down-at-the-end"],
)  # fmt: skip
async def test_lasting_fault_of_the_store_is_the_stores_and_leaves_nothing(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, choose: Chooser, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = choose
    with pytest.raises(PageError) as caught:
        await _export(_large_node(), open_store(f"s3://{s3.name}"), tmp_path)
    assert isinstance(caught.value.cause, StoreError)
    assert (caught.value.cause.code, caught.value.cause.retryable) == (code, True)
    assert await _keys(s3, monkeypatch) == []


async def test_fault_of_the_node_mid_stream_is_the_nodes(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PageError) as caught:
        await _export(_large_node(failing_at=55), open_store(f"s3://{s3.name}"), tmp_path)
    assert isinstance(caught.value.cause, ProducerError)
    assert caught.value.cause.height == 55
    assert any(PART in one for one in proxy.seen), "the fault has to come in mid-stream"
    assert await _keys(s3, monkeypatch) == []


async def test_both_at_once_is_told_by_whoever_failed_first(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = always("slow-down", "POST", "uploads")
    with pytest.raises(PageError) as caught:
        await _export(_large_node(failing_at=55), open_store(f"s3://{s3.name}"), tmp_path)
    assert isinstance(caught.value.cause, (StoreError, ProducerError))
    assert await _keys(s3, monkeypatch) == []


async def test_stalled_store_can_be_cancelled_and_leaves_nothing(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = always("stall", "PUT", PART)
    running = asyncio.ensure_future(_export(_large_node(), open_store(f"s3://{s3.name}"), tmp_path))
    await asyncio.wait_for(proxy.stalled.wait(), 60)
    running.cancel()
    proxy.release.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)
    assert await _keys(s3, monkeypatch) == []
