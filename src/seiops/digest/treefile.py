"""Shard trees as files: where a name leads, on disk or in an object store, and what is in it.

A tree that `seiops digest tree` wrote and one that the sidecar's task published beside its record are the same text; the latter
is gzipped (docs/contracts/digest.md 9.2).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

from seiops.digest.errors import DigestError
from seiops.objectstore import StoreError, open_store, read_gzip

LARGEST_BYTES = 4 * 1024 * 1024
"""Ten times what 4,096 shards need."""


def is_url(name: str) -> bool:
    return "://" in name


def read_document(name: str) -> dict[str, Any] | None:
    """The JSON object in a file or at a URL; None when a file on disk holds something else.

    Raises DigestError naming what could not be read, OSError for files.
    """
    if is_url(name):
        return _document(asyncio.run(_fetched(name)), name)
    path = Path(name)
    data = path.read_bytes() if path.stat().st_size <= LARGEST_BYTES else b""
    try:
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        return _document(data, name)
    except (DigestError, EOFError, gzip.BadGzipFile, zlib.error):
        return None


def _document(data: bytes, name: str) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except ValueError as error:
        raise DigestError(f"{name}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DigestError(f"{name}: not a JSON object")
    return content


async def _fetched(url: str) -> bytes:
    parent, _, key = url.rpartition("/")
    payload = bytearray()
    try:
        store = open_store(parent)
        chunks = read_gzip(store, key) if key.endswith(".gz") else store.stream(key)
        async for chunk in chunks:
            payload += chunk
            if len(payload) > LARGEST_BYTES:
                raise DigestError(f"{url}: larger than {LARGEST_BYTES} bytes, which no shard tree is")
    except StoreError as error:
        raise DigestError(f"{url}: {error.message}") from error
    return bytes(payload)
