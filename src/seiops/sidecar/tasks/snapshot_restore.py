"""Restores a state snapshot from the bucket, so that the node boots from it (docs/contracts/sidecar.md 5.20.1).

The archive is fetched in parallel ranges and unpacked as it arrives: no copy of it ever lies on disk. Everything lands
in a fresh staging folder, is verified, and takes its place only then; a crash at any point leaves a clean start.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seiops.objectstore import ObjectInfo, Store, StoreError
from seiops.seid.archive import ArchiveError, Unpacked, unpack
from seiops.seid.files import sync_directory, touch_marker, write_atomic
from seiops.seid.gzipstream import Inflate
from seiops.seid.snapshot_metadata import NAME as METADATA
from seiops.seid.snapshot_metadata import MetadataError, keep_only
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.buckets import store_failure
from seiops.sidecar.tasks.snapshot_bucket import (
    CHECKSUM_SUFFIX,
    SIZE_SUFFIX,
    archive_height,
    open_snapshots,
    prefix,
    snapshot_folder,
)
from seiops.sidecar.tasks.transfer_progress import Transfer

TASK = "snapshot-restore"
MARKER = ".sei-sidecar-snapshot-done"
HEIGHT_FILE = ".sei-sidecar-snapshot-height"

PART_BYTES = 8 << 20
PARTS_AT_ONCE = 5
PART_ATTEMPTS = 4
PART_TIMEOUT_S = 120.0
SPACE_RESERVE_BYTES = 64 << 20
"""Never filled: a full volume takes the node's own files with it."""
_STAGING = "restore-"
_ABSENT_CODES = frozenset(("NoSuchKey", "NotFound", "AccessDenied", "Forbidden"))
"""A companion object is not there; without the right to list, S3 answers 403 for a key that does not exist."""
_FINAL_CODES = _ABSENT_CODES | {"NoSuchBucket", "PreconditionFailed", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
"""Asking for the same range again cannot help."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The archive to restore. `sha256` and `unpacked` are what was published beside it, blank and 0 when nothing was."""

    key: str
    height: int
    size: int
    sha256: str = ""
    unpacked: int = 0


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    target = Decoder(params).integer("targetHeight")
    if ctx.marker(MARKER).exists():
        return None
    if target < 0:
        raise TaskError(f"{TASK}: targetHeight must be >= 0, got {target}", retryable=False)
    store = open_snapshots(ctx.settings, role="S3 transfer client")
    chosen = await _choose(ctx, store, target)
    attrs = {"targetHeight": target, "snapshotHeight": chosen.height, "key": chosen.key}
    ctx.log.info("resolved snapshot", extra={"attrs": attrs})
    staging = await ctx.blocking(_fresh_staging, ctx.home)
    try:
        await ctx.blocking(_require_space, staging, chosen)
        unpacked = await _fetch(ctx, store, chosen, staging)
        note = await ctx.blocking(_filter_metadata, staging, chosen.height)
        await ctx.blocking(_publish, staging, snapshot_folder(ctx.home))
    finally:
        await ctx.blocking(shutil.rmtree, staging, ignore_errors=True)
    await ctx.blocking(write_atomic, ctx.marker(HEIGHT_FILE), str(chosen.height).encode())
    await ctx.blocking(touch_marker, ctx.marker(MARKER))
    ctx.log.info("restore complete", extra={"attrs": {"height": chosen.height, "bytes": unpacked.size}})
    return _result(chosen, unpacked, note)


def _result(chosen: Chosen, unpacked: Unpacked, note: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "height": chosen.height,
        "key": chosen.key,
        "archiveBytes": chosen.size,
        "restoredBytes": unpacked.size,
        "files": unpacked.files,
        "checksum": "verified" if chosen.sha256 else "none",
    }
    if note:
        result["warning"] = note
    if unpacked.skipped:
        result["skippedEntries"] = len(unpacked.skipped)
    return result


async def _choose(ctx: TaskContext, store: Store, target: int) -> Chosen:
    """The highest archive, or the highest at or below the target."""
    folder = prefix(ctx.settings.chain_id)
    best: ObjectInfo | None = None
    try:
        async for found in store.list(folder):
            height = archive_height("/" + found.key)
            if (
                height > 0
                and (not target or height <= target)
                and (not best or height > archive_height("/" + best.key))
            ):
                best = found
    except StoreError as error:
        raise store_failure(TASK, error) from error
    if best is None:
        where = store.url(folder)
        wanted = f"no snapshot found at or below height {target} in" if target else "no snapshots found in"
        raise TaskError(f"{wanted} {where}")
    return Chosen(
        best.key,
        archive_height("/" + best.key),
        best.size,
        sha256=await _beside(store, best.key + CHECKSUM_SUFFIX),
        unpacked=_count(await _beside(store, best.key + SIZE_SUFFIX)),
    )


async def _beside(store: Store, key: str) -> str:
    """A small companion object's first word; blank where there is none, or none we may read."""
    try:
        words = (await store.get(key)).decode("ascii", "replace").split()
    except StoreError as error:
        if error.code in _ABSENT_CODES:
            return ""
        raise store_failure(TASK, error) from error
    return words[0].lower() if words else ""


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else 0


def _fresh_staging(home: Path) -> Path:
    """An empty folder on the volume of the snapshots. Leftovers of a crashed run go first."""
    scratch = home / "tmp"
    try:
        scratch.mkdir(mode=0o755, parents=True, exist_ok=True)
        (home / "data").mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise TaskError(f"creating temp dir: {error}") from error
    parent = scratch if scratch.stat().st_dev == (home / "data").stat().st_dev else home / "data"
    for folder in (scratch, home / "data"):
        for leftover in folder.glob(f"{_STAGING}*"):
            shutil.rmtree(leftover, ignore_errors=True)
    staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=parent))
    # inside, so that the content's own folder has the mode of a folder seid made
    (staging / "content").mkdir(mode=0o755)
    return staging


def _require_space(staging: Path, chosen: Chosen) -> None:
    needed = chosen.unpacked or chosen.size * 6 // 5
    free = shutil.disk_usage(staging).free
    if free < needed + SPACE_RESERVE_BYTES:
        raise TaskError(
            f"{TASK}: not enough space at {staging.parent}: {chosen.key} needs {needed} bytes, {free} are free",
            retryable=True,
            hint="enlarge the volume or remove what it holds",
        )


async def _fetch(ctx: TaskContext, store: Store, chosen: Chosen, staging: Path) -> Unpacked:
    attrs = {"bucket": ctx.settings.snapshot_bucket, "key": chosen.key, "bytes": chosen.size}
    ctx.log.info("downloading snapshot", extra={"attrs": attrs})
    parts = _Parts(ctx, store, chosen)
    try:
        unpacked = await ctx.blocking(_unpack, ctx, parts, staging)
    except ArchiveError as error:
        raise TaskError(f"extracting snapshot: {error}", retryable=False) from None
    except OSError as error:
        raise TaskError(f"extracting snapshot: {error}") from error
    finally:
        await parts.close()
    if chosen.sha256 and parts.sha256 != chosen.sha256:
        raise TaskError.structured(
            TASK,
            "verify-checksum",
            f"{store.url(chosen.key)} has SHA-256 {parts.sha256}, published was {chosen.sha256}",
            retryable=True,
            hint="the archive was damaged or replaced; it was not restored",
        )
    return unpacked


class _Parts:
    """The archive's bytes in order, fetched a few ranges ahead, handed to the thread that unpacks.

    A range that fails for a reason that may pass is asked again, so a broken connection costs one part.
    """

    def __init__(self, ctx: TaskContext, store: Store, chosen: Chosen) -> None:
        self._ctx = ctx
        self._store = store
        self._chosen = chosen
        self._loop = asyncio.get_running_loop()
        self._ahead: deque[asyncio.Task[bytes]] = deque()
        self._next = 0
        self._digest = hashlib.sha256()
        self._transfer = Transfer("restore", chosen.size)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def pull(self) -> bytes:
        """The next part, none at the end. Called from the unpacking thread. Raises TaskError."""
        waiting = asyncio.run_coroutine_threadsafe(self._take(), self._loop)
        while True:
            if self._ctx.cancelled.is_set():
                waiting.cancel()
                raise TaskError(f"{TASK}: cancelled", retryable=True)
            try:
                part = waiting.result(timeout=0.25)
                break
            except TimeoutError:
                if waiting.done():
                    raise
        self._digest.update(part)
        self._transfer.add(len(part))
        self._ctx.progress(self._transfer.wire())
        return part

    async def _take(self) -> bytes:
        while len(self._ahead) < PARTS_AT_ONCE and self._next < self._chosen.size:
            start, self._next = self._next, min(self._next + PART_BYTES, self._chosen.size)
            self._ahead.append(asyncio.ensure_future(self._part(start, self._next)))
        return await self._ahead.popleft() if self._ahead else b""

    async def _part(self, start: int, end: int) -> bytes:
        for attempt in range(1, PART_ATTEMPTS + 1):
            try:
                async with asyncio.timeout(PART_TIMEOUT_S):
                    part = await self._store.get_range(self._chosen.key, start, end)
                if len(part) != end - start:
                    raise TaskError(f"{TASK}: {self._chosen.key} changed while it was read", retryable=True)
                return part
            except StoreError as error:
                if attempt == PART_ATTEMPTS or error.code in _FINAL_CODES:
                    raise store_failure(TASK, error) from error
                reason = error.message
            except TimeoutError:
                reason = f"no answer within {PART_TIMEOUT_S:g} s"
                if attempt == PART_ATTEMPTS:
                    raise TaskError(f"{TASK}: reading {self._chosen.key}: {reason}", retryable=True) from None
            attrs = {"start": start, "attempt": attempt, "err": reason}
            self._ctx.log.warning("reading a part again", extra={"attrs": attrs})
            await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def close(self) -> None:
        """Ends the reads that are under way."""
        for task in self._ahead:
            task.cancel()
        await asyncio.gather(*self._ahead, return_exceptions=True)


def _unpack(ctx: TaskContext, parts: _Parts, staging: Path) -> Unpacked:
    since_check = 0

    def watch(amount: int) -> None:
        nonlocal since_check
        since_check += amount
        if since_check >= SPACE_RESERVE_BYTES // 4:
            since_check = 0
            if shutil.disk_usage(staging).free < SPACE_RESERVE_BYTES:
                raise ArchiveError(f"the volume of {staging.parent} is nearly full; nothing was restored")
        if ctx.cancelled.is_set():
            raise TaskError(f"{TASK}: cancelled", retryable=True)

    ctx.log.info("extracting archive", extra={"attrs": {"dest": str(snapshot_folder(ctx.home))}})
    unpacked = unpack(Inflate(parts.pull), staging / "content", watch)
    # every file on disk before any of them takes its place
    os.sync()
    return unpacked


def _filter_metadata(staging: Path, height: int) -> str:
    """Leaves the restored height alone in the archive's list of snapshots; why not, where it could not be done."""
    listed = staging / "content" / METADATA
    if not listed.exists():
        return f"the archive holds no {METADATA}"
    try:
        return keep_only(listed, height, listed).note
    except MetadataError as error:
        raise TaskError(f"{TASK}: {error}", retryable=False) from None


def _publish(staging: Path, folder: Path) -> None:
    """Moves the content in place; the list of snapshots comes last, so it never names what is not there yet."""
    content = staging / "content"
    replaced = staging / "replaced"
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        replaced.mkdir()
        for entry in sorted(content.iterdir(), key=lambda entry: (entry.name == METADATA, entry.name)):
            place = folder / entry.name
            if place.exists() or place.is_symlink():
                place.rename(replaced / entry.name)
            entry.rename(place)
    except OSError as error:
        raise TaskError(f"extracting snapshot: {error}") from error
    sync_directory(folder)
