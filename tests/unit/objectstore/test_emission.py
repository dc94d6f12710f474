"""Sealed emission against memory and local files: whole or absent, and a seal a reader can recompute."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seiops.objectstore import Store, StoreError, open_store, publish_gzip, read_gzip
from seiops.objectstore.emission import GZIP_HEADER
from seiops.objectstore.store import PART_SIZE

MIB = 1024 * 1024


async def payload(*chunks: bytes, fail: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if fail is not None:
        raise fail


async def collect(store: Store, key: str) -> bytes:
    return b"".join([chunk async for chunk in read_gzip(store, key)])


async def keys(store: Store) -> list[str]:
    return [item.key async for item in store.list()]


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "file":
        return open_store(f"file://{tmp_path}/records")
    return open_store(f"memory://{tmp_path.name}/run")


@pytest.mark.parametrize("chunks", [(), (b"",), (b"one", b"two"), (os.urandom(3 * MIB),) * 6])
async def test_a_reader_recomputes_the_seal(store: Store, chunks: tuple[bytes, ...]) -> None:
    published = await publish_gzip(store, "a/record.json.gz", payload(*chunks))
    whole = b"".join(chunks)
    stored = await store.get("a/record.json.gz")
    assert published.sha256 == hashlib.sha256(whole).hexdigest()
    assert (published.uncompressed_bytes, published.compressed_bytes) == (len(whole), len(stored))
    assert stored.startswith(GZIP_HEADER)
    assert gzip.decompress(stored) == whole
    assert await collect(store, "a/record.json.gz") == whole


@pytest.mark.parametrize("size", [10, 3 * PART_SIZE])
async def test_a_producer_that_fails_publishes_nothing_and_keeps_its_error(store: Store, size: int) -> None:
    boom = LookupError("block 7: no such block")
    with pytest.raises(LookupError) as caught:
        await publish_gzip(store, "r.gz", payload(os.urandom(size), fail=boom))
    assert caught.value is boom
    assert await keys(store) == []


async def test_a_producer_that_fails_leaves_the_previous_object(store: Store) -> None:
    await publish_gzip(store, "r.gz", payload(b"first"))
    with pytest.raises(LookupError):
        await publish_gzip(store, "r.gz", payload(os.urandom(3 * PART_SIZE), fail=LookupError()))
    assert await collect(store, "r.gz") == b"first"


async def test_cancelling_an_upload_publishes_nothing(store: Store) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield os.urandom(2 * PART_SIZE)
        reached.set()
        await asyncio.sleep(0)
        while True:
            yield os.urandom(MIB)

    task = asyncio.create_task(publish_gzip(store, "r.gz", endless()))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await keys(store) == []


async def test_create_refuses_a_taken_key(store: Store) -> None:
    await store.create("manifest/1", b"a")
    with pytest.raises(StoreError) as caught:
        await store.create("manifest/1", b"b")
    assert caught.value.code == "PreconditionFailed"
    assert await store.get("manifest/1") == b"a"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda raw: raw[:-1], "cut"),
        (lambda raw: raw[:-8] + bytes(8), "not a valid gzip"),
        (lambda raw: raw + b"x", "after the end"),
        (lambda raw: b"plain text", "not a valid gzip"),
        (lambda raw: b"", "cut"),
    ],
)
async def test_a_damaged_object_is_named(store: Store, damage, says: str) -> None:  # type: ignore[no-untyped-def]
    await publish_gzip(store, "r.gz", payload(b"payload" * 1000))
    await store.put("r.gz", damage(await store.get("r.gz")))
    with pytest.raises(StoreError, match=says) as caught:
        await collect(store, "r.gz")
    assert caught.value.code == "BadGzip"


async def test_list_takes_a_partial_last_segment(store: Store) -> None:
    for key in ("page/1-10.gz", "page/11-20.gz", "pages/x", "other"):
        await store.put(key, b"")
    assert sorted([item.key async for item in store.list("page/1")]) == ["page/1-10.gz", "page/11-20.gz"]
    assert sorted([item.key async for item in store.list("page")]) == ["page/1-10.gz", "page/11-20.gz", "pages/x"]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://host/x", "unknown scheme 'ftp'"),
        ("s3:///prefix", "names no bucket"),
        ("file://relative/dir", "absolute path"),
    ],
)
def test_a_bad_url_says_what_is_wrong(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        open_store(url)


async def test_without_a_bucket_objects_are_local_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await publish_gzip(open_store("records/run-1"), "r.gz", payload(b"one"))
    assert gzip.decompress((tmp_path / "records/run-1/r.gz").read_bytes()) == b"one"
    assert await keys(open_store(str(tmp_path / "records"))) == ["run-1/r.gz"]


async def test_an_object_beyond_ten_thousand_parts_gets_larger_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    async def upload(*_: object, chunk_size: int, **__: object) -> None:
        sizes.append(chunk_size)

    monkeypatch.setattr("seiops.objectstore.store.obstore.put_async", upload)
    store = open_store("memory://parts")
    for at_most in (0, 10_000 * PART_SIZE, 20_000 * PART_SIZE):
        await store.put_stream("archive", payload(), at_most=at_most)
    assert sizes == [PART_SIZE, PART_SIZE, 2 * PART_SIZE]
