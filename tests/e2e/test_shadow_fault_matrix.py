"""Every kind of fault of the store, at every step of an upload, alone and against a fault of the node at the same moment.

The tests of single faults stand in `test_shadow_s3_faults.py`; here the whole matrix is walked through. Whatever happens, the
bucket holds whole objects only, and the error is either the store's with its hint or the node's as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from seidev.s3 import Bucket
from seiops.objectstore import Store, StoreError, open_store, read_gzip
from seiops.objectstore import store as store_module
from seiops.seid.bulk import BulkReader
from seiops.shadow.export import Exporter, PageError, ProducerError
from seiops.shadow.loop import Course, FlushError
from seiops.shadow.manifest import read_chain
from seiops.shadow.sides import Patience
from support.fault_proxy import Fault, FaultProxy, always, once
from support.shadow_nodes import (
    Heard,
    Node,
    comparator_for,
    loop_for,
    noisy_node,
    request_for,
    serving,
    shelf_in,
)  # fmt: skip

BLOCKS = 30
STEPS = {"start": ("POST", "uploads"), "part": ("PUT", "partNumber="), "end": ("POST", "uploadId")}
KINDS: tuple[Fault, ...] = ("reset", "slow-down", "stall", "stall-answer", "truncate")


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadlines are minutes in earnest."""
    monkeypatch.setattr(store_module, "REQUEST_TIMEOUT_S", 2.0)
    monkeypatch.setattr(store_module, "RETRY_TIMEOUT_S", 5.0)


def _node(*, failing_at: int = 0) -> Node:
    """A page of it is two parts."""
    return noisy_node(BLOCKS, 500_000, failing_at=failing_at)


async def _export(node: Node, store: Store, home: Path) -> int:
    async with serving(node) as session:
        exporter = Exporter(
            BulkReader(node.comet_url, session), shelf_in(home, store), lambda *_: None, Patience((0.0,))
        )
        return await exporter.run(1, BLOCKS, whole_pages=False)


async def _whole_objects(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bucket holds, asked without the proxy; every object can be read to its end and every seal holds."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.env["AWS_ENDPOINT_URL_S3"])
    store = open_store(f"s3://{s3.name}")
    keys = sorted([info.key async for info in store.list()])
    sealed = {
        f"run/{entry.key}": entry.sha256 async for entry, _ in read_chain(open_store(f"s3://{s3.name}/run"), "run-1")
    }
    for key in keys:
        if key.endswith(".gz"):
            payload = b"".join([chunk async for chunk in read_gzip(store, key)])
            assert sealed.get(key, hashlib.sha256(payload).hexdigest()) == hashlib.sha256(payload).hexdigest()
    return keys


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", KINDS)
async def test_one_fault_at_any_step_is_survived(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, kind: Fault, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = once(kind, *STEPS[step])
    try:
        pages = await _export(_node(), open_store(f"s3://{s3.name}"), tmp_path)
    except PageError as error:
        # an answer cut in its middle is not asked for again, and an upload that was ended is not known any more
        assert (kind, step) in {("stall-answer", "end"), ("truncate", "end"), ("truncate", "start")}, error
        assert isinstance(error.cause, StoreError)
        await _whole_objects(s3, monkeypatch)
        return
    assert pages == 1
    assert proxy.broken == {kind: 1}
    assert await _whole_objects(s3, monkeypatch) == ["run/1-30.ndjson.gz", "run/manifest/run-1/00000001.json"]


@pytest.mark.parametrize(
    ("kind", "step"),
    # the answer to a part has no body that could be cut
    [(kind, step) for kind in KINDS for step in STEPS if (kind, step) != ("truncate", "part")],
)
async def test_lasting_fault_at_any_step_is_the_stores(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, kind: Fault, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = always(kind, *STEPS[step])
    with pytest.raises(PageError) as caught:
        async with asyncio.timeout(90):
            await _export(_node(), open_store(f"s3://{s3.name}"), tmp_path)
    assert isinstance(caught.value.cause, StoreError)
    if kind != "truncate" and (kind, step) != ("stall-answer", "end"):
        assert caught.value.cause.retryable, caught.value.cause
        assert caught.value.cause.code == ("SlowDown" if kind == "slow-down" else "Network")
    keys = await _whole_objects(s3, monkeypatch)
    assert [key for key in keys if "manifest" in key] == []


@pytest.mark.parametrize("failing_at", [5, 25], ids=["node-first", "node-mid-stream"])
@pytest.mark.parametrize("kind", KINDS)
async def test_node_and_store_at_once(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, kind: Fault, failing_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever fails first is named, neither hangs, and nothing is published."""
    proxy.choose = lambda method, path: kind if method in ("PUT", "POST") else None
    with pytest.raises(PageError) as caught:
        async with asyncio.timeout(90):
            await _export(_node(failing_at=failing_at), open_store(f"s3://{s3.name}"), tmp_path)
    cause = caught.value.cause
    assert isinstance(cause, ProducerError | StoreError)
    if isinstance(cause, ProducerError):
        assert (cause.height, str(cause).startswith("querying block_results at height")) == (failing_at, True)
    if failing_at == 5:
        assert isinstance(cause, ProducerError), "the node failed before anything was sent"
    assert await _whole_objects(s3, monkeypatch) == []


@pytest.mark.parametrize("side", ["shadow", "canonical"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "truncate"])
async def test_comparison_page_that_cannot_be_stored(
    s3: Bucket, proxy: FaultProxy, tmp_path: Path, kind: Fault, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of the store ends a comparison as the store's, also while a node is failing."""
    proxy.choose = always(kind, "PUT", "compare.ndjson.gz")
    nodes = {"shadow": Node(latest=120), "canonical": Node(latest=120)}
    nodes[side].plant("block", 110, (500, "boom"))
    async with serving(*nodes.values()) as session:
        comparator = comparator_for(request_for(nodes["shadow"], nodes["canonical"], migration=True), session)
        shelf = shelf_in(tmp_path, open_store(f"s3://{s3.name}"))
        loop = loop_for(comparator, shelf, nodes["shadow"], Heard(), Course(1, survey=True, poll_s=0.01))
        with pytest.raises(FlushError) as caught:
            async with asyncio.timeout(90):
                await loop.run()
    if kind != "stall-answer":
        assert caught.value.cause.code == ("SlowDown" if kind == "slow-down" else "Network")
        assert caught.value.cause.retryable
    assert shelf.progress.last is None
    keys = await _whole_objects(s3, monkeypatch)
    assert [key for key in keys if "manifest" in key] == []
