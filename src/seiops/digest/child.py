"""Our own engine as a child process of the sidecar: one store in, one JSON object a line out.

Run as `python -m seiops.digest.child REQUEST` where REQUEST is the JSON form of `ChildRequest`. Lines on stdout are
`{"progress": {...}}` as the scan goes, then the shard tree in `{"shards": {...}}` lines, and at the end
`{"engine": ..., "sides": {...}}` or `{"error": "..."}`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seiops.digest.engine import Engine, OpenOptions, ScanHooks, ShardTree
from seiops.digest.engines import engine_named, has_native
from seiops.digest.errors import DigestError, ReferenceOnlyError
from seiops.digest.keys import BUCKETS, Bucket
from seiops.digest.launch import confine
from seiops.digest.localize import decode_shard
from seiops.digest.memiavl.snapshot import EVM_TREE, snapshot_name
from seiops.digest.model import Backend, Normalization, OpenMode, Progress, Verification
from seiops.digest.side import SideDigest, from_totals

PROGRESS_SECONDS = 1.0
SHARDS_A_LINE = 256
"""Some 20 KB of text, below what a reader of lines may have as its limit."""
NATIVE_SIDE = "native"
"""Name of the single side of a FlatKV run; memiavl sides are named by their normalization."""


@dataclass(frozen=True, slots=True)
class ChildRequest:
    """What to digest. `open_mode` is snapshot, replay, or auto: the snapshot of the height if there is one."""

    backend: str
    root: str
    height: int
    open_mode: str = "auto"
    normalizations: tuple[str, ...] = field(default=(Normalization.SEMANTIC.value,))
    verification: str = Verification.CHEAP.value
    threads: int = 1
    memory_bytes: int = 0
    spill_dir: str = ""

    def encode(self) -> str:
        return json.dumps(asdict(self))


def main(argv: Sequence[str]) -> int:
    request = ChildRequest(**json.loads(argv[0]))
    confine(request.memory_bytes)
    try:
        engine, sides, tree = _run_somehow(request)
    except DigestError as error:
        _say({"error": str(error)})
        return 1
    except MemoryError:
        _say({"error": f"out of memory: the bound is {request.memory_bytes // (1 << 20)} MiB"})
        return 1
    for line in tree_lines(tree):
        _say({"shards": line})
    _say(
        {
            "engine": engine.name,
            "engine_version": engine.version,
            "sides": {name: side.wire() for name, side in sides.items()},
        }
    )
    return 0


def tree_lines(tree: ShardTree) -> Iterator[dict[str, Any]]:
    """A shard tree in pieces: a bucket's name and [index, count, digest] of some of its shards."""
    for bucket in BUCKETS:
        shards = [[shard.index, tally.count, tally.hex] for shard, tally in tree.items() if shard.bucket is bucket]
        for start in range(0, len(shards), SHARDS_A_LINE):
            yield {"bucket": bucket, "tallies": shards[start : start + SHARDS_A_LINE]}


def add_tree_line(tree: ShardTree, line: Mapping[str, Any]) -> None:
    """Take one piece back. Raises DigestError when it does not read."""
    try:
        bucket = Bucket(line["bucket"])
        tree.update(decode_shard(bucket, entry) for entry in line["tallies"])
    except (KeyError, TypeError, ValueError) as error:
        raise DigestError(f"shard tree does not read: {error!r}") from error


def _run_somehow(request: ChildRequest) -> tuple[Engine, dict[str, SideDigest], ShardTree]:
    """Run on the native engine; where there is none, or it declines the store, on the reference engine, which then is named."""
    if has_native():
        native = engine_named("native")
        try:
            return native, *_run(request, native)
        except ReferenceOnlyError:
            pass
    reference = engine_named("reference")
    return reference, *_run(request, reference)


def _run(request: ChildRequest, engine: Engine) -> tuple[dict[str, SideDigest], ShardTree]:
    """The sides and the shard tree of one pass; normalizations that accept a store agree on every row of it."""
    spill_dir = Path(request.spill_dir) if request.spill_dir else None
    options = OpenOptions(Verification(request.verification), request.threads, spill_dir)
    started = time.monotonic()
    trees: list[ShardTree] = []
    hooks = ScanHooks(on_progress=_Reporter(), on_tree=trees.append)
    if request.backend == Backend.FLATKV:
        with closing(engine.open_flatkv(request.root, request.height, options)) as flatkv:
            totals = flatkv.digest(hooks)
            return {NATIVE_SIDE: from_totals(totals, flatkv.version, time.monotonic() - started)}, trees[0]
    normalizations = [Normalization(name) for name in request.normalizations]
    with closing(engine.open_memiavl(request.root, request.height, _mode(request), options)) as memiavl:
        every = memiavl.digest(normalizations, hooks)
        seconds = time.monotonic() - started
        sides = {
            normalization.value: from_totals(totals, memiavl.version, seconds)
            for normalization, totals in zip(normalizations, every, strict=True)
        }
        return sides, trees[0]


def _mode(request: ChildRequest) -> OpenMode:
    if request.open_mode != "auto":
        return OpenMode(request.open_mode)
    metadata = Path(request.root) / snapshot_name(request.height) / EVM_TREE / "metadata"
    return OpenMode.SNAPSHOT if metadata.is_file() else OpenMode.REPLAY


class _Reporter:
    """Passes progress on, at most once a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def __call__(self, point: Progress) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + PROGRESS_SECONDS
        _say(
            {
                "progress": {
                    "source": point.source,
                    "rows": point.rows,
                    "bytes": point.bytes_read,
                    "bytes_total": point.bytes_total,
                }
            }
        )


def _say(members: dict[str, Any]) -> None:
    print(json.dumps(members), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
