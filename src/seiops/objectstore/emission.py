"""Sealed emission: a payload published gzipped, whole or not at all, with a digest a reader can recompute.

Two seals guard a record (docs/contracts/sidecar.md 6.3). The wire seal is the checksum the store verifies on upload. The
logical seal is the SHA-256 of the *uncompressed* payload: it goes into the task result and the manifest, never into the
object, because an object cannot contain its own hash.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass

from isal import isal_zlib
from isal.igzip_lib import IsalError

from seiops.objectstore.errors import StoreError
from seiops.objectstore.store import PART_SIZE, Store

CONTENT_TYPE = "application/gzip"
GZIP_HEADER = bytes.fromhex("1f8b08000000000000ff")
"""No name, no time, unknown system: the same payload always makes the same header."""
_TRAILER = struct.Struct("<II")
_BATCH = 256 * 1024
_FEED = 1024 * 1024
"""Payload hashed and deflated at a time: large enough that changing threads costs nothing."""
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Published:
    """What was published: `sha256` is the logical seal, lower-case hex over the uncompressed payload; sizes in bytes."""

    key: str
    sha256: str
    uncompressed_bytes: int
    compressed_bytes: int


class _Gzip:
    """Payload in, gzip out, with the seal of what went in."""

    def __init__(self) -> None:
        self._deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
        self._crc = 0
        self.seal = hashlib.sha256()
        self.size = 0
        self.written = 0

    def feed(self, chunks: Sequence[bytes]) -> bytes:
        payload = b"".join(chunks)
        self._crc = isal_zlib.crc32(payload, self._crc)
        self.seal.update(payload)
        head = GZIP_HEADER if self.size == 0 else b""
        self.size += len(payload)
        return self._count(head + self._deflate.compress(payload))

    def finish(self) -> bytes:
        head = GZIP_HEADER if self.size == 0 else b""
        return self._count(head + self._deflate.flush() + _TRAILER.pack(self._crc, self.size & 0xFFFFFFFF))

    def _count(self, data: bytes) -> bytes:
        self.written += len(data)
        return data


async def _compressed(chunks: AsyncIterable[bytes], gzip: _Gzip) -> AsyncIterator[bytes]:
    waiting: list[bytes] = []
    size = 0
    async for chunk in chunks:
        waiting.append(chunk)
        size += len(chunk)
        if size >= _FEED:
            # hashing and deflating release the interpreter lock; the loop stays free for the network
            yield await asyncio.to_thread(gzip.feed, waiting)
            waiting, size = [], 0
    if size:
        yield await asyncio.to_thread(gzip.feed, waiting)
    yield gzip.finish()


async def publish_gzip(store: Store, key: str, chunks: AsyncIterable[bytes]) -> Published:
    """Publish `chunks` as one gzip object at `key` and return its seal.

    A payload that compresses to less than one part goes up in a single request, a larger one as a multipart upload. An exception
    raised by `chunks` is raised unchanged and no object appears; a failure of the store is raised as `StoreError`.
    """
    gzip = _Gzip()
    compressed = _compressed(chunks, gzip)
    head = bytearray()
    async for block in compressed:
        head += block
        if len(head) >= PART_SIZE:
            await store.put_stream(key, _chain(bytes(head), compressed), content_type=CONTENT_TYPE)
            break
    else:
        await store.put(key, bytes(head), content_type=CONTENT_TYPE)
    return Published(key, gzip.seal.hexdigest(), gzip.size, gzip.written)


async def _chain(head: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for block in rest:
        yield block


def read_gzip(store: Store, key: str) -> AsyncIterator[bytes]:
    """Yield the uncompressed payload of a published object; memory does not grow with it.

    Raises StoreError with code `BadGzip` when the object is cut, corrupt, or carries anything behind its end.
    """
    return gunzip(store.stream(key), store.url(key))


async def gunzip(stored: AsyncIterable[bytes], where: str) -> AsyncIterator[bytes]:
    """Yield the payload of one gzip stream in pieces of bounded size. `where` names it in errors, as `read_gzip` raises them."""
    inflate = isal_zlib.decompressobj(wbits=31)
    async for chunk in stored:
        if inflate.eof:
            raise StoreError("BadGzip", f"{where}: bytes after the end of the gzip stream")
        data = chunk
        while True:
            try:
                payload = inflate.decompress(data, _BATCH)
            except IsalError as error:  # type: ignore[misc]  # the stub declares the class as a value
                raise StoreError("BadGzip", f"{where} is not a valid gzip object: {error}") from error
            if payload:
                yield payload
            data = inflate.unconsumed_tail
            if inflate.eof or not data:
                break
        if inflate.unused_data:
            raise StoreError("BadGzip", f"{where}: bytes after the end of the gzip stream")
    if not inflate.eof:
        raise StoreError("BadGzip", f"{where}: the gzip stream is cut")
