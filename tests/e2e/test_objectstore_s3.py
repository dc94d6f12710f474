"""Sealed emission against a real S3 server: checksums stored, whole or absent, codes classified."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from seidev.s3 import Bucket
from seiops.objectstore import StoreError, open_store, publish_gzip, read_gzip
from seiops.objectstore.store import PART_SIZE, Store


@pytest.fixture
def store(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{s3.name}/run-1")


async def chunks(count: int, fail: Exception | None = None) -> AsyncIterator[bytes]:
    for number in range(count):
        yield hashlib.sha256(str(number).encode()).digest() * 4096 + os.urandom(PART_SIZE // 4)
    if fail is not None:
        raise fail


@pytest.mark.parametrize("count", [1, 24])
async def test_published_objects_are_whole_and_recomputable(store: Store, count: int) -> None:
    published = await publish_gzip(store, "page/1-2.ndjson.gz", chunks(count))
    digest = hashlib.sha256()
    size = 0
    async for part in read_gzip(store, "page/1-2.ndjson.gz"):
        digest.update(part)
        size += len(part)
    assert (digest.hexdigest(), size) == (published.sha256, published.uncompressed_bytes)
    info = await store.head("page/1-2.ndjson.gz")
    assert info.size == published.compressed_bytes
    assert [item.key async for item in store.list("page/")] == ["page/1-2.ndjson.gz"]


async def test_a_failed_producer_leaves_no_object(store: Store) -> None:
    with pytest.raises(LookupError):
        await publish_gzip(store, "r.gz", chunks(24, fail=LookupError("rpc")))
    assert [item.key async for item in store.list()] == []


async def test_create_never_replaces(store: Store) -> None:
    await store.create("manifest/00000001.json", b"one")
    with pytest.raises(StoreError) as caught:
        await store.create("manifest/00000001.json", b"two")
    assert caught.value.code == "PreconditionFailed"
    assert await store.get("manifest/00000001.json") == b"one"


async def test_missing_things_are_told_apart(store: Store) -> None:
    with pytest.raises(StoreError) as caught:
        await store.get("nothing")
    assert caught.value.code == "NoSuchKey"
    with pytest.raises(StoreError) as caught:
        await open_store("s3://no-such-bucket-here").get("nothing")
    assert caught.value.code == "NoSuchBucket"


async def test_a_wrong_secret_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", base64.b64encode(b"wrong").decode())
    with pytest.raises(StoreError, match="S3 error SignatureDoesNotMatch"):
        await open_store(f"s3://{store.bucket}").get("nothing")


async def test_ranges_and_streams(store: Store) -> None:
    data = os.urandom(3 * 1024 * 1024)
    await store.put("blob", data, content_type="application/octet-stream")
    assert await store.get_range("blob", 100, 200) == data[100:200]
    assert b"".join([part async for part in store.stream("blob", chunk_size=65536)]) == data
    await store.delete("blob")
    await store.delete("blob")
    with pytest.raises(StoreError, match="not found"):
        await store.head("blob")
