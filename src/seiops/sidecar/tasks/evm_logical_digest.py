"""Proves at one height that FlatKV and memiavl hold the same EVM state, and publishes a record for each normalization.

Beside the records go the shard trees of both stores, by which differing keys are found later; seidb makes none. Everything runs
before anything is published: a verdict is whole or absent. Both engines run as confined children
(docs/contracts/shadow.md 6). What is opened must be at exactly the height asked for, on both sides.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from prometheus_client import Counter

from seiops.digest.localize import SideTree, encode_tree
from seiops.digest.model import Normalization
from seiops.digest.record import Provenance, build_record, record_key, tree_key
from seiops.digest.side import SideDigest, disagreement
from seiops.objectstore import Published, Store, StoreError, publish_gzip
from seiops.objectstore.records import document, line
from seiops.seid.quoting import quoted
from seiops.shadow.manifest import What, Writer, chain_of
from seiops.shadow.pages import now
from seiops.sidecar.metrics import REGISTRY
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.buckets import open_bucket, store_failure
from seiops.sidecar.tasks.digest_runs import TASK, DigestJob, NativeRun, SeidbRun

SEIDB, NATIVE, BOTH = "seidb", "native", "both"
ENGINES = (SEIDB, NATIVE, BOTH)
OPEN_MODES = ("", "snapshot", "replay")

ENDPOINT_DIGESTS = Counter(
    "seictl_endpoint_digests_total",
    "Endpoint digest records published, by normalization and verdict.",
    ["normalization", "match"],
    registry=REGISTRY,
)


@dataclass(frozen=True, slots=True)
class _Request:
    """Decoded parameters; `engine` is empty when the caller left the choice to us."""

    job: DigestJob
    bucket: str
    region: str
    prefix: str
    engine: str
    seidb_path: str
    fail_on_mismatch: bool
    shard_trees: bool


@dataclass(frozen=True, slots=True)
class _Results:
    """One FlatKV side, one memiavl side a normalization, what computed them, and the shard tree of each store if it made one."""

    flatkv: SideDigest
    memiavl: Mapping[str, SideDigest]
    provenance: Provenance
    trees: Sequence[SideTree] = ()


async def run(ctx: TaskContext, params: Params) -> dict[str, Any]:
    request = _decode(params)
    store = _open(request)
    engine = _choose(ctx, request)
    results = await _digest(ctx, request, engine)
    result = await _publish(ctx, request, store, results)
    if request.fail_on_mismatch and not result["match"]:
        raise TaskError(f"{TASK}: the digests differ at height {request.job.height}", retryable=False, result=result)
    return result


def _decode(params: Params) -> _Request:
    decoder = Decoder(params)
    bucket, region = _required(decoder, "bucket"), _required(decoder, "region")
    height = decoder.integer("height")
    if height <= 0:
        raise TaskError(f"{TASK}: 'height' must be a positive block height, got {height}", retryable=False)
    flatkv_dir, memiavl_dir = _required(decoder, "flatkvDir"), _required(decoder, "memiavlDir")
    normalizations = tuple(dict.fromkeys(decoder.texts("normalizations"))) or tuple(Normalization)
    for name in normalizations:
        if name not in list(Normalization):
            raise TaskError(f"{TASK}: unknown normalization {quoted(name)} (want semantic|translator)", retryable=False)
    open_mode = _choice(decoder, "memiavlOpenMode", OPEN_MODES)
    job = DigestJob(
        flatkv_dir, memiavl_dir, height, tuple(map(str, normalizations)), open_mode, _memory(decoder), _threads(decoder)
    )
    return _Request(
        job,
        bucket,
        region,
        _prefix(decoder.text("prefix")),
        _choice(decoder, "engine", ("", *ENGINES)),
        decoder.text("seidbPath"),
        decoder.flag("failOnMismatch"),
        decoder.flag("shardTrees", True),
    )


def _required(decoder: Decoder, name: str) -> str:
    value = decoder.text(name)
    if not value:
        raise TaskError(f"{TASK}: missing required param '{name}'", retryable=False)
    return value


def _choice(decoder: Decoder, name: str, allowed: tuple[str, ...]) -> str:
    value = decoder.text(name)
    if value not in allowed:
        wanted = "|".join(choice for choice in allowed if choice)
        raise TaskError(f"{TASK}: unknown {name} {quoted(value)} (want {wanted})", retryable=False)
    return value


def _memory(decoder: Decoder) -> int:
    """Bound on a child's private memory in bytes; 0 leaves it to the default, half of what there is."""
    mebibytes = decoder.integer("memoryLimitMiB")
    if mebibytes < 0:
        raise TaskError(f"{TASK}: 'memoryLimitMiB' must not be negative, got {mebibytes}", retryable=False)
    return mebibytes * 1024 * 1024


def _threads(decoder: Decoder) -> int:
    threads = decoder.integer("threads", 1)
    if not 1 <= threads <= 64:
        raise TaskError(f"{TASK}: 'threads' must be between 1 and 64, got {threads}", retryable=False)
    return threads


def _prefix(prefix: str) -> str:
    return prefix if not prefix or prefix.endswith("/") else prefix + "/"


def _open(request: _Request) -> Store:
    try:
        return open_bucket(request.bucket, request.region, role="S3 uploader")
    except TaskError as error:
        raise TaskError(f"{TASK}: {error}", retryable=False) from error


def _choose(ctx: TaskContext, request: _Request) -> str:
    """The engine asked for; else seidb where one is at hand, else the native one where the operator allows it.

    Where neither is, seidb is tried all the same: its absence is the error callers know.
    """
    if request.engine:
        return request.engine
    if ctx.settings.digest_engine == BOTH:
        return BOTH
    if request.seidb_path or SeidbRun.find(SEIDB) is not None:
        return SEIDB
    return NATIVE if ctx.settings.digest_engine == NATIVE else SEIDB


async def _digest(ctx: TaskContext, request: _Request, engine: str) -> _Results:
    if engine == NATIVE:
        return await _run_native(ctx, request.job)
    seidb = await _run_seidb(ctx, request)
    if engine == SEIDB:
        return seidb
    native = await _run_native(ctx, request.job)
    _require_agreement(seidb, native, request.job.height)
    versions = {**seidb.provenance.versions, **native.provenance.versions}
    return _Results(seidb.flatkv, seidb.memiavl, Provenance(BOTH, versions), native.trees)


async def _run_native(ctx: TaskContext, job: DigestJob) -> _Results:
    run = NativeRun(ctx, job)
    flatkv = await run.flatkv()
    _require_height("flatkv", flatkv, job.height, "")
    memiavl = await run.memiavl()
    for name, side in memiavl.items():
        _require_height("memiavl", side, job.height, f" ({name})")
    return _Results(flatkv, memiavl, Provenance(run.engine, run.versions), run.trees)


async def _run_seidb(ctx: TaskContext, request: _Request) -> _Results:
    job = request.job
    run = SeidbRun(ctx, job, request.seidb_path or SEIDB)
    flatkv = await run.flatkv()
    _require_height("flatkv", flatkv, job.height, "")
    memiavl = {}
    for name in job.normalizations:
        side = await run.memiavl(name)
        _require_height("memiavl", side, job.height, f" ({name})")
        if side.fourth_label != flatkv.fourth_label:
            raise TaskError(
                f"{TASK}: flatkv prints bucket {flatkv.fourth_label}, memiavl ({name}) prints {side.fourth_label}: "
                "the two runs used different builds of seidb",
                retryable=False,
            )
        memiavl[name] = side
    digest = await ctx.blocking(run.program_digest)
    return _Results(flatkv, memiavl, Provenance(SEIDB, {SEIDB: f"sha256:{digest}"}))


def _require_height(side_name: str, side: SideDigest, height: int, suffix: str) -> None:
    if side.version != height:
        raise TaskError(
            f"{TASK}: {side_name} opened version {side.version} != requested height {height}{suffix}", retryable=False
        )


def _require_agreement(seidb: _Results, native: _Results, height: int) -> None:
    pairs = [("flatkv", seidb.flatkv, native.flatkv)]
    pairs += [(f"memiavl ({name})", side, native.memiavl[name]) for name, side in seidb.memiavl.items()]
    for name, one, other in pairs:
        found = disagreement(one, other)
        if found is not None:
            raise TaskError(
                f"{TASK}: seidb and the {native.provenance.engine} engine disagree on {name} at height {height}: {found}; "
                "nothing was published",
                retryable=False,
            )


@dataclass(slots=True)
class _Shelf:
    """Where a run's objects go: each is entered in the run's manifest once it is stored (ruling: manifest).

    `opening` is entered behind the first object: a run that publishes nothing leaves no manifest.
    """

    store: Store
    writer: Writer
    opening: What

    async def put(self, kind: str, key: str, payload: bytes, height: int) -> Published:
        try:
            published = await publish_gzip(self.store, key, _whole(payload))
            if self.writer.head.seq == 0:
                await self.writer.append(self.opening)
            await self.writer.append(What(kind, now(), (height, height), published=published))
        except StoreError as error:
            raise store_failure(TASK, error) from error
        return published

    async def close(self, what: What) -> None:
        try:
            await self.writer.append(what)
        except StoreError as error:
            raise store_failure(TASK, error) from error


async def _whole(payload: bytes) -> AsyncIterator[bytes]:
    yield payload


async def _publish(ctx: TaskContext, request: _Request, store: Store, results: _Results) -> dict[str, Any]:
    generated_at = now()
    height = request.job.height
    opening = What("run", generated_at, (height, height), info=_opening(ctx, request, results))
    shelf = _Shelf(store, Writer(store, chain_of(ctx.task_id, ctx.run), request.prefix), opening)
    trees = await _publish_trees(request, shelf, results)
    seals = {tree["side"]: tree["sha256"] for tree in trees}
    published = []
    for normalization, memiavl in results.memiavl.items():
        record = build_record(height, normalization, results.flatkv, memiavl, generated_at, results.provenance, seals)
        emitted = await shelf.put("digest", record_key(request.prefix, height, normalization), document(record), height)
        ENDPOINT_DIGESTS.labels(normalization, str(record["match"]).lower()).inc()
        _log_published(ctx, record, emitted)
        published.append(
            {
                "key": emitted.key,
                "normalization": normalization,
                "sha256": emitted.sha256,
                "match": record["match"],
                "uncompressedBytes": emitted.uncompressed_bytes,
                "compressedBytes": emitted.compressed_bytes,
            }
        )
    match = all(entry["match"] for entry in published)
    await shelf.close(What("end", now(), (height, height), info={"reason": "published", "match": match}))
    return {
        "match": match,
        "height": height,
        "records": published,
        "shardTrees": trees,
        "manifest": shelf.writer.head.run,
        "engine": results.provenance.engine,
        "engineVersions": dict(results.provenance.versions),
        "sides": {"flatkv": results.flatkv.wire(), **{f"memiavl/{n}": s.wire() for n, s in results.memiavl.items()}},
    }


def _opening(ctx: TaskContext, request: _Request, results: _Results) -> dict[str, Any]:
    """What the manifest tells of a run before its objects."""
    job = request.job
    return {
        "params": {"height": job.height, "flatkv_dir": job.flatkv_dir, "memiavl_dir": job.memiavl_dir},
        "engine": results.provenance.engine,
        "engineVersions": dict(results.provenance.versions),
        "task": ctx.task_id,
        "chain": ctx.settings.chain_id,
        "seiops": version("seiops"),
    }


async def _publish_trees(request: _Request, shelf: _Shelf, results: _Results) -> list[dict[str, Any]]:
    """The shard tree of each store that has one, before the records that name their seals."""
    published = []
    for tree in results.trees if request.shard_trees else ():
        side = tree.origin.partition(":")[0]
        height = request.job.height
        emitted = await shelf.put("tree", tree_key(request.prefix, height, side), line(encode_tree(tree)), height)
        published.append(
            {
                "key": emitted.key,
                "side": side,
                "sha256": emitted.sha256,
                "uncompressedBytes": emitted.uncompressed_bytes,
                "compressedBytes": emitted.compressed_bytes,
            }
        )
    return published


def _log_published(ctx: TaskContext, record: Mapping[str, Any], emitted: Published) -> None:
    ctx.log.info(
        "published endpoint digest",
        extra={
            "attrs": {
                "height": record["height"],
                "normalization": record["normalization"],
                "match": record["match"],
                "flatkv-digest": record["flatkv_digest"],
                "memiavl-digest": record["memiavl_digest"],
                "key": emitted.key,
                "sha256": emitted.sha256,
            }
        },
    )
