"""One small face over S3, GCS, Azure, local files and memory, chosen by a URL.

Every call is asynchronous and either succeeds or raises `StoreError`; a write is whole or absent. The rest of seiops
knows no other way to reach an object, so retries, checksums and error texts are decided here once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import AzureStore, GCSStore, LocalStore, MemoryStore, ObjectStore, S3Store

from seiops.objectstore.errors import Location, StoreError, classify

PART_SIZE = 8 * 1024 * 1024
"""Bytes of one part of a multipart upload (docs/contracts/sidecar.md 6.2)."""
REQUEST_TIMEOUT_S = 600.0
"""One request, a whole part included: a store that has gone silent is a network error after that."""
RETRY_TIMEOUT_S = 180.0
PARALLEL_PARTS = 5
_MAX_PARTS = 10_000
_CANCEL_GRACE_S = 15.0
_ATTEMPTS = 3
_MEMORY: dict[str, MemoryStore] = {}


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object as a listing or HEAD shows it; `size` in bytes."""

    key: str
    size: int
    etag: str | None
    last_modified: datetime


class Store:
    """A bucket, or a prefix inside one. Keys are relative to that prefix."""

    def __init__(self, backend: ObjectStore, scheme: str, bucket: str, prefix: str, region: str) -> None:
        """Use `open_store`; this only keeps the parts together."""
        self._backend = backend
        self.scheme = scheme
        self.bucket = bucket
        self.prefix = prefix
        self.region = region

    def location(self, key: str) -> Location:
        """Return the full place of `key`, as error messages name it."""
        return Location(self.scheme, self.bucket, self.region, self.prefix + key)

    def url(self, key: str = "") -> str:
        """Return the URL of `key` (of the store itself without one)."""
        return str(self.location(key))

    async def get(self, key: str) -> bytes:
        """Return a whole small object."""
        try:
            answer = await obstore.get_async(self._backend, self.prefix + key)
            return bytes(await answer.buffer_async())
        except Exception as error:
            raise classify(error, self.location(key)) from error

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """Return bytes [start, end) of an object."""
        try:
            return bytes(await obstore.get_range_async(self._backend, self.prefix + key, start=start, end=end))
        except Exception as error:
            raise classify(error, self.location(key)) from error

    async def stream(self, key: str, *, chunk_size: int = 1024 * 1024) -> AsyncIterator[bytes]:
        """Yield an object in chunks of about `chunk_size` bytes; memory does not grow with its size."""
        try:
            answer = await obstore.get_async(self._backend, self.prefix + key)
            chunks = aiter(answer.stream(chunk_size))
        except Exception as error:
            raise classify(error, self.location(key)) from error
        while True:
            # Only the read itself is classified: what the consumer raises at the yield is the consumer's.
            try:
                chunk = bytes(await anext(chunks))
            except StopAsyncIteration:
                return
            except Exception as error:
                raise classify(error, self.location(key)) from error
            yield chunk

    async def head(self, key: str) -> ObjectInfo:
        """Return size, ETag and time of an object."""
        try:
            return self._info(await obstore.head_async(self._backend, self.prefix + key))
        except Exception as error:
            raise classify(error, self.location(key)) from error

    async def list(self, prefix: str = "") -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in the store's order."""
        full = self.prefix + prefix
        # object stores list by path segments; a partial last segment is filtered here
        segment = full[: full.rfind("/") + 1]
        try:
            async for batch in obstore.list(self._backend, prefix=segment or None):
                for meta in batch:
                    if meta["path"].startswith(full):
                        yield self._info(meta)
        except StoreError:
            raise
        except Exception as error:
            raise classify(error, self.location(prefix)) from error

    async def put(self, key: str, data: bytes, *, content_type: str = "") -> None:
        """Write a small object in one request, replacing what is there."""
        try:
            await obstore.put_async(
                self._backend, self.prefix + key, data, use_multipart=False, attributes=self._attributes(content_type)
            )
        except Exception as error:
            raise classify(error, self.location(key)) from error

    async def create(self, key: str, data: bytes, *, content_type: str = "") -> None:
        """Write an object only if its key is free; a taken key raises `StoreError` with code `PreconditionFailed`."""
        try:
            await obstore.put_async(
                self._backend,
                self.prefix + key,
                data,
                mode="create",
                attributes=self._attributes(content_type),
            )
        except Exception as error:
            raise classify(error, self.location(key)) from error

    async def put_stream(
        self, key: str, chunks: AsyncIterable[bytes], *, content_type: str = "", at_most: int = 0
    ) -> None:
        """Write an object from a stream: whole, or not at all.

        `at_most` is an upper bound of its bytes where the caller knows one: an upload has 10,000 parts at most, so an
        object beyond 78 GiB needs larger ones.

        The upload holds at most `PARALLEL_PARTS` + 1 parts in memory and makes the producer wait. An error raised by `chunks` aborts the
        upload and is raised as it is; a refusal of the store is raised as `StoreError`. Cancelling aborts the upload, too.
        """
        part_size = max(PART_SIZE, -(-at_most // _MAX_PARTS))
        feed = _Feed(chunks, part_size * _MAX_PARTS)
        upload = asyncio.ensure_future(self._upload(key, feed, content_type, part_size))
        try:
            await asyncio.shield(upload)
        except asyncio.CancelledError:
            # the store must hear of it: an upload that is merely dropped stays behind as billed, invisible parts
            feed.cancel()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(upload), _CANCEL_GRACE_S)
            raise
        except Exception as error:
            if feed.failure is not None:
                raise feed.failure from None
            raise classify(error, self.location(key)) from error

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            await obstore.delete_async(self._backend, self.prefix + key)
        except FileNotFoundError:
            return
        except Exception as error:
            raise classify(error, self.location(key)) from error

    async def _upload(self, key: str, feed: _Feed, content_type: str, part_size: int) -> None:
        await obstore.put_async(
            self._backend,
            self.prefix + key,
            feed,
            use_multipart=True,
            chunk_size=part_size,
            max_concurrency=PARALLEL_PARTS,
            attributes=self._attributes(content_type),
        )

    def _attributes(self, content_type: str) -> Any:
        # local files have nowhere to keep a content type and refuse it
        if not content_type or self.scheme == "file":
            return None
        return {"Content-Type": content_type}

    def _info(self, meta: Any) -> ObjectInfo:
        return ObjectInfo(meta["path"][len(self.prefix) :], meta["size"], meta["e_tag"], meta["last_modified"])


class _Feed:
    """The producer's chunks as the upload pulls them; remembers the producer's own failure."""

    def __init__(self, chunks: AsyncIterable[bytes], limit: int) -> None:
        self._chunks = aiter(chunks)
        self._limit = limit
        self._cancelled = False
        self._taken = 0
        self.failure: Exception | None = None

    def cancel(self) -> None:
        self._cancelled = True

    def __aiter__(self) -> _Feed:
        return self

    async def __anext__(self) -> bytes:
        if self._cancelled:
            raise InterruptedError("upload cancelled")
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self.failure = error
            raise
        self._taken += len(chunk)
        if self._taken > self._limit:
            self.failure = ValueError(f"object exceeds {self._limit} bytes, the {_MAX_PARTS} parts of its upload")
            raise self.failure
        return chunk


def open_store(url: str, *, region: str | None = None) -> Store:
    """Open the store a URL names: `s3://bucket/prefix`, `gs://`, `az://`, `file:///dir`, `memory://name`, or a local directory.

    Credentials and endpoints come from the environment of the cloud's own tools (`AWS_ENDPOINT_URL_S3`, `AWS_REGION`, web identity,
    pod identity ...); `region` overrides the environment's. Raises ValueError that names what is wrong with the URL.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    retry: Any = {
        "max_retries": _ATTEMPTS - 1,
        "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_S),
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=20), "base": 2},
    }
    client: Any = {"timeout": timedelta(seconds=REQUEST_TIMEOUT_S), "connect_timeout": timedelta(seconds=10)}
    prefix = path.lstrip("/")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    match parts.scheme:
        case "s3" | "s3a":
            bucket = _bucket(url, parts.netloc)
            region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
            config: Any = {"region": region, "checksum_algorithm": "sha256"}
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            if endpoint:
                config["endpoint"] = endpoint
                client["allow_http"] = endpoint.startswith("http://")
            backend: ObjectStore = S3Store(bucket, config=config, client_options=client, retry_config=retry)
            return Store(backend, "s3", bucket, prefix, region)
        case "gs" | "gcs":
            bucket = _bucket(url, parts.netloc)
            return Store(
                GCSStore(bucket, client_options=client, retry_config=retry), "gs", bucket, prefix, region or ""
            )
        case "az" | "azure" | "abfs" | "abfss":
            bucket = _bucket(url, parts.netloc)
            return Store(
                AzureStore(bucket, client_options=client, retry_config=retry), "az", bucket, prefix, region or ""
            )
        case "":
            # no bucket given: local files
            return _local(Path(url))
        case "file":
            if parts.netloc not in ("", "localhost") or not path.startswith("/"):
                raise ValueError(f"{url!r}: a file URL needs an absolute path: file:///dir")
            return _local(Path(path))
        case "memory":
            name = parts.netloc or "default"
            return Store(_MEMORY.setdefault(name, MemoryStore()), "memory", name, prefix, "")
        case scheme:
            raise ValueError(f"{url!r}: unknown scheme {scheme!r}: use s3, gs, az, file or memory")


def _local(root: Path) -> Store:
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    return Store(LocalStore(root), "file", str(root), "", "")


def _bucket(url: str, netloc: str) -> str:
    if not netloc:
        raise ValueError(f"{url!r} names no bucket")
    return netloc
