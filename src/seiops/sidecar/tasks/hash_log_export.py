"""Publishes a sealed slice of this node's hash log, so that another node can be compared with it (rulings: hash log).

The object is `<prefix>hashlog-<first>-<last>.csv.gz`, complete for its range or not there at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seiops.objectstore import StoreError, publish_gzip
from seiops.shadow.hashlog import HashLogError, slice_lines
from seiops.shadow.manifest import What, Writer, chain_of
from seiops.shadow.pages import normal_prefix, now
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.buckets import open_bucket, store_failure

TASK = "hash-log-export"
_BATCH = 2000


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    """Raises TaskError; the result names the object and its seal."""
    read = Decoder(params)
    bucket, region = read.text("bucket"), read.text("region")
    low, high = read.integer("startHeight"), read.integer("endHeight")
    for name, value in (("bucket", bucket), ("region", region), ("startHeight", low), ("endHeight", high)):
        if not value:
            raise TaskError(f"{TASK}: missing required param '{name}'", retryable=False)
    if not 0 < low <= high:
        raise TaskError(f"{TASK}: startHeight {low} and endHeight {high} are no range of heights", retryable=False)
    prefix = normal_prefix(read.text("prefix"))
    folder = Path(read.text("hashLogDir") or ctx.home / "data" / "hash.log")
    store = open_bucket(bucket, region, role="S3 uploader")
    key = f"{prefix}hashlog-{low}-{high}.csv.gz"
    try:
        published = await publish_gzip(store, key, _lines(ctx, folder, low, high))
        writer = Writer(store, chain_of(ctx.task_id, ctx.run), prefix)
        await writer.append(What("run", now(), (low, high), info=_opening(ctx, low, high)))
        await writer.append(What("hashlog", now(), (low, high), published=published))
        await writer.append(What("end", now(), (low, high), info={"reason": "published"}))
    except HashLogError as error:
        raise TaskError(f"{TASK}: {error}", retryable=True, task=TASK) from error
    except StoreError as error:
        raise store_failure(TASK, error) from error
    return {
        "key": key,
        "sha256": published.sha256,
        "bytes": published.uncompressed_bytes,
        "startHeight": low,
        "endHeight": high,
        "manifest": writer.head.run,
    }


def _opening(ctx: TaskContext, low: int, high: int) -> dict[str, Any]:
    """What the manifest tells of a run before its object."""
    params = {"start_height": low, "end_height": high}
    origin = {"chain": ctx.settings.chain_id, "seiops": version("seiops")}
    return {"params": params, "startHeight": low, "task": ctx.task_id} | origin


async def _lines(ctx: TaskContext, folder: Path, low: int, high: int) -> AsyncIterator[bytes]:
    source = slice_lines(folder, low, high)
    done = 0
    while batch := await asyncio.to_thread(_take, source):
        done += len(batch)
        ctx.progress({"phase": "exporting", "done": done, "total": high - low + 2, "unit": "rows"})
        yield b"".join(batch)


def _take(source: Iterator[bytes]) -> list[bytes]:
    batch = []
    for line in source:
        batch.append(line)
        if len(batch) == _BATCH:
            break
    return batch
