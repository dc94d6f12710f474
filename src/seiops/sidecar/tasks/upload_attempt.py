"""One attempt to publish the node's second newest state snapshot (docs/contracts/sidecar.md 5.20.2).

The newest may still be being written. The archive is packed, compressed and uploaded as one stream; beside it go its
checksum and its unpacked size, and its list of snapshots names the one height only.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from seiops.objectstore import Store, StoreError
from seiops.seid.archive import ArchiveError, Packed, content_size, pack, walk
from seiops.seid.files import write_atomic
from seiops.seid.gzipstream import Deflate
from seiops.seid.snapshot_metadata import NAME as METADATA
from seiops.seid.snapshot_metadata import MetadataError, is_database, keep_only
from seiops.sidecar import metrics
from seiops.sidecar.task import TaskContext, TaskError
from seiops.sidecar.tasks.buckets import open_bucket
from seiops.sidecar.tasks.snapshot_bucket import (
    CHECKSUM_SUFFIX,
    SIZE_SUFFIX,
    archive_key,
    local_heights,
    prefix,
    snapshot_folder,
)
from seiops.sidecar.tasks.transfer_progress import Transfer
from seiops.sidecar.upload_state import STATE_FILE, read_upload_state

CONTENT_TYPE = "application/gzip"
_BATCH = 4 << 20
_AHEAD = 4
_SCRATCH = "upload-"
_PATIENCE_S = 0.25
"""How long a thread waits before it looks whether it is still wanted."""

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def attempt(ctx: TaskContext, within_s: float | None) -> dict[str, Any]:
    """Uploads what is due within so many seconds (None: however long); the outcome object.

    One attempt at a time in this process; waiting for another one does not count. Raises TaskError.
    """
    turn = _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
    async with turn:
        outcome = await _attempt(ctx, within_s)
    chain = ctx.settings.chain_id
    metrics.UPLOAD_OUTCOMES.labels(chain, outcome["outcome"]).inc()
    metrics.UPLOAD_LAST_SUCCESS.labels(chain).set(time.time())
    return outcome


def count_failure(ctx: TaskContext) -> None:
    metrics.UPLOAD_OUTCOMES.labels(ctx.settings.chain_id, "error").inc()


async def _attempt(ctx: TaskContext, within_s: float | None) -> dict[str, Any]:
    folder = snapshot_folder(ctx.home)
    try:
        heights = await ctx.blocking(local_heights, folder)
    except OSError as error:
        raise TaskError(f"reading snapshots directory: {error}") from error
    if len(heights) < 2:
        return {"outcome": "noop", "noopReason": "fewer-than-2-snapshots"}
    height = heights[-2]
    uploaded, _ = await ctx.blocking(read_upload_state, ctx.home)
    if uploaded >= height:
        noop: dict[str, Any] = {"outcome": "noop", "noopReason": "already-uploaded"}
        return noop | {"height": height} if height else noop
    settings = ctx.settings
    store = open_bucket(settings.snapshot_bucket, settings.snapshot_region, role="S3 uploader")
    attrs = {"height": height, "bucket": settings.snapshot_bucket, "region": settings.snapshot_region}
    ctx.log.info("uploading snapshot", extra={"attrs": attrs})
    key = archive_key(settings.chain_id, height)
    try:
        async with asyncio.timeout(within_s):
            note = await _upload_archive(ctx, store, key, height)
            await _raise_latest(ctx, store, height)
    except TimeoutError:
        raise TaskError(f"uploading {key}: context deadline exceeded", retryable=True) from None
    await ctx.blocking(_record, ctx, height)
    outcome: dict[str, Any] = {"outcome": "uploaded", "height": height, "key": key}
    return outcome | {"warning": note} if note else outcome


def _record(ctx: TaskContext, height: int) -> None:
    now = int(time.time())
    state = json.dumps({"lastUploadedHeight": height, "lastUploadedAt": now}, separators=(",", ":"))
    try:
        write_atomic(ctx.home / STATE_FILE, state.encode(), prefix=f"{STATE_FILE}.tmp-")
    except OSError as error:
        raise TaskError(f"writing {STATE_FILE}: {error}") from error
    metrics.UPLOAD_LAST_UPLOADED.labels(ctx.settings.chain_id).set(now)
    metrics.UPLOAD_LAST_HEIGHT.labels(ctx.settings.chain_id).set(height)


async def _upload_archive(ctx: TaskContext, store: Store, key: str, height: int) -> str:
    """Uploads archive, checksum and size; a note where the list of snapshots could not be cut to the height."""
    scratch = await ctx.blocking(_fresh_scratch, ctx.home)
    try:
        entries, note = await ctx.blocking(_entries, snapshot_folder(ctx.home), height, scratch)
        size = await ctx.blocking(content_size, entries)
        ctx.log.info("streaming archive to S3", extra={"attrs": {"key": key, "bytes": size}})
        packing = _Packing(ctx, entries, size)
        try:
            # headers and incompressible blocks add a little to what the files hold
            await store.put_stream(key, packing.stream(), content_type=CONTENT_TYPE, at_most=size + size // 16)
        finally:
            await packing.stop()
        await store.put(key + CHECKSUM_SUFFIX, packing.sha256.encode(), content_type="text/plain")
        await store.put(key + SIZE_SUFFIX, str(packing.packed).encode(), content_type="text/plain")
    except StoreError as error:
        raise _upload_failure(key, error) from error
    except (ArchiveError, MetadataError, OSError, ValueError) as error:
        # a ValueError says that the archive outgrew what the store takes as one object
        raise TaskError(f"uploading {key}: {error}") from error
    finally:
        await ctx.blocking(shutil.rmtree, scratch, ignore_errors=True)
    return note


def _upload_failure(key: str, error: StoreError) -> TaskError:
    return TaskError(
        f"uploading {key}: {error.message}",
        retryable=error.retryable,
        hint=error.hint or None,
        cause=error.cause or None,
        operation="S3",
    )


def _fresh_scratch(home: Path) -> Path:
    """A folder for the filtered list, on the node's own volume. Leftovers of a crashed run go first."""
    parent = home / "data"
    for leftover in parent.glob(f".{_SCRATCH}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f".{_SCRATCH}", dir=parent))


def _entries(folder: Path, height: int, scratch: Path) -> tuple[list[Packed], str]:
    entries = list(walk(str(height), folder / str(height)))
    listed = folder / METADATA
    if not listed.exists():
        return entries, f"there is no {METADATA} to upload"
    note = ""
    if is_database(listed):
        # seid may be writing it: what is archived is a copy, cut to the one height
        keep_only(listed, height, scratch / METADATA)
        listed = scratch / METADATA
    else:
        note = f"{METADATA} is no LevelDB and was passed on as it is"
    return [*entries, *walk(METADATA, listed)], note


class _Packing:
    """A thread that packs and compresses, a few batches ahead of the upload that consumes them."""

    def __init__(self, ctx: TaskContext, entries: list[Packed], size: int) -> None:
        self._ctx = ctx
        self._entries = entries
        self._transfer = Transfer("upload", size)
        self._ready: queue.Queue[bytes | Exception | None] = queue.Queue(_AHEAD)
        self._digest = hashlib.sha256()
        self._stopped = threading.Event()
        self._worker = asyncio.ensure_future(asyncio.to_thread(self._pack))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def packed(self) -> int:
        """Bytes of the regular files that went in."""
        return self._transfer.done

    async def stream(self) -> AsyncIterator[bytes]:
        """The compressed archive. A failure of the packing is raised here, which makes the upload abort."""
        while (batch := await asyncio.to_thread(self._take)) is not None:
            if isinstance(batch, Exception):
                raise batch
            self._ctx.progress(self._transfer.wire())
            yield batch

    async def stop(self) -> None:
        """Ends the thread, which reads the node's files, and waits for it."""
        self._stopped.set()
        await asyncio.shield(self._worker)

    def _take(self) -> bytes | Exception | None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Empty):
                return self._ready.get(timeout=_PATIENCE_S)
        return ArchiveError("cancelled")

    def _pack(self) -> None:
        try:
            self._run()
        except Exception as error:
            self._offer(error)

    def _run(self) -> None:
        deflate = Deflate()
        batch = bytearray()
        for piece in pack(self._entries, self._watch):
            batch += deflate.feed(piece)
            if len(batch) >= _BATCH:
                self._emit(bytes(batch))
                batch.clear()
        self._emit(bytes(batch) + deflate.finish())
        self._offer(None)

    def _watch(self, amount: int) -> None:
        self._transfer.add(amount)
        if self._stopped.is_set() or self._ctx.cancelled.is_set():
            raise ArchiveError("cancelled")

    def _emit(self, batch: bytes) -> None:
        self._digest.update(batch)
        self._offer(batch)

    def _offer(self, item: bytes | Exception | None) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put(item, timeout=_PATIENCE_S)
                return


async def _raise_latest(ctx: TaskContext, store: Store, height: int) -> None:
    """Points `latest.txt` at the height, unless it points higher: another Pod may be ahead."""
    key = f"{prefix(ctx.settings.chain_id)}latest.txt"
    with contextlib.suppress(StoreError, ValueError):
        if int((await store.get(key)).decode("ascii").strip()) > height:
            ctx.log.warning("latest.txt points higher, left as it is", extra={"attrs": {"key": key, "height": height}})
            return
    try:
        await store.put(key, str(height).encode(), content_type="application/octet-stream")
    except StoreError as error:
        raise _upload_failure(key, error) from error
    ctx.log.info("updated latest.txt", extra={"attrs": {"key": key, "height": height}})
