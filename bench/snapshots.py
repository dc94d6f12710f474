"""Snapshot upload and restore against the local S3 server, as ratios to what the disk does by itself.

`PYTHONPATH=tools .venv/bin/python bench/snapshots.py [--mib 512] [--random 0.5]`

Three yardsticks on the same disk: writing as many bytes and flushing them, reading them back, and gzip alone (one thread,
the same level). Peak memory is the growth over the state before the transfer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp

from seidev.s3 import S3Server
from seiops.seid.gzipstream import Deflate
from seiops.sidecar.settings import load
from seiops.sidecar.task import TaskContext, TxMarker
from seiops.sidecar.tasks import snapshot_restore, snapshot_upload_once

CHUNK = 10 << 20
"""seid cuts snapshots into chunks of about this size."""


class Nothing:
    async def purge(self, task_type: str) -> int:
        return 0

    async def load(self, task_id: str) -> TxMarker | None:
        return None

    async def save(self, marker: TxMarker) -> None:
        return None


def fill(folder: Path, mib: int, random: float) -> None:
    """A snapshot of which that share is incompressible."""
    folder.mkdir(parents=True)
    block = os.urandom(int(65536 * random)) + bytes(65536 - int(65536 * random))
    for number in range(max(1, (mib << 20) // CHUNK)):
        with (folder / str(number)).open("wb") as file:
            for _ in range(CHUNK // len(block)):
                file.write(os.urandom(int(65536 * random)) + block[int(65536 * random) :])


def written(source: Path, scratch: Path) -> float:
    """Seconds to copy the snapshot's bytes and flush them."""
    started = time.perf_counter()
    with (scratch / "copy").open("wb", buffering=0) as file:
        for path in sorted(source.iterdir()):
            file.write(path.read_bytes())
        os.fsync(file.fileno())
    return time.perf_counter() - started


def read(source: Path) -> float:
    started = time.perf_counter()
    for path in sorted(source.iterdir()):
        path.read_bytes()
    return time.perf_counter() - started


def deflated(source: Path) -> float:
    started = time.perf_counter()
    deflate = Deflate()
    for path in sorted(source.iterdir()):
        deflate.feed(path.read_bytes())
    deflate.finish()
    return time.perf_counter() - started


def resident(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) << 10


def reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


async def transfer(ctx: Callable[[], TaskContext], home: Path) -> dict[str, float]:
    snapshots = home / "data" / "snapshots"
    before = reset_peak()
    started = time.perf_counter()
    uploaded = await snapshot_upload_once.run(ctx(), {})
    upload = time.perf_counter() - started
    upload_peak = resident("VmHWM") - before
    assert uploaded is not None and uploaded["outcome"] == "uploaded", uploaded
    shutil.rmtree(snapshots)
    before = reset_peak()
    started = time.perf_counter()
    await snapshot_restore.run(ctx(), {})
    restore = time.perf_counter() - started
    return {
        "upload_s": upload,
        "upload_peak_mib": upload_peak / 2**20,
        "restore_s": restore,
        "restore_peak_mib": (resident("VmHWM") - before) / 2**20,
    }


async def run(mib: int, random: float) -> dict[str, float]:
    with S3Server() as server, tempfile.TemporaryDirectory(prefix="seiops-bench-") as scratch:
        bucket = server.make_bucket("bench")
        os.environ.update(bucket.env)
        home = Path(scratch) / "home"
        source = home / "data" / "snapshots" / "1000"
        fill(source, mib, random)
        (home / "data" / "snapshots" / "2000").mkdir()
        (home / "config").mkdir()
        size = sum(path.stat().st_size for path in source.iterdir())
        disk_write, disk_read, gzip = written(source, Path(scratch)), read(source), deflated(source)
        (Path(scratch) / "copy").unlink()
        names = {f"SEI_{kind}_BUCKET": "bench" for kind in ("GENESIS", "SNAPSHOT")}
        regions = {f"SEI_{kind}_REGION": bucket.env["AWS_REGION"] for kind in ("GENESIS", "SNAPSHOT")}
        settings = load({"SEI_CHAIN_ID": "bench-1", **names, **regions}, home=str(home), port=None)
        async with aiohttp.ClientSession() as session:

            def ctx() -> TaskContext:
                log, nothing = logging.getLogger("bench"), Nothing()
                return TaskContext("b", "b", 1, home, settings, lambda: session, log, nothing, nothing, lambda _: None)

            found = await transfer(ctx, home)
    rate = size / 2**20
    return {
        "mib": round(rate),
        "upload_mib_s": rate / found["upload_s"],
        "restore_mib_s": rate / found["restore_s"],
        "upload_to_disk_read": found["upload_s"] / disk_read,
        "upload_to_gzip_alone": found["upload_s"] / gzip,
        "restore_to_disk_write": found["restore_s"] / disk_write,
        "upload_peak_mib": found["upload_peak_mib"],
        "restore_peak_mib": found["restore_peak_mib"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--random", type=float, default=0.5, help="share of the content that does not compress")
    options = parser.parse_args()
    found = asyncio.run(run(options.mib, options.random))
    print(json.dumps({name: round(value, 2) for name, value in found.items()}, indent=2))


if __name__ == "__main__":
    main()
