"""Puts the chain's genesis in place, once (docs/contracts/sidecar.md 5.13).

The bytes of a chain known by its digest come with the build; any other chain's come from the genesis bucket. The file
appears whole and verified or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seiops.objectstore import Store, StoreError
from seiops.seid.chains import GenesisError, KnownChain, known_chain
from seiops.seid.files import Incoming, touch_marker, write_atomic
from seiops.seid.quoting import quoted
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.buckets import open_bucket, store_failure

TASK = "configure-genesis"
MARKER = ".sei-sidecar-genesis-done"


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    expected = Decoder(params).text("expectedGenesisHash")
    marker = ctx.marker(MARKER)
    if marker.exists():
        return None
    chain = known_chain(ctx.settings.chain_id)
    if chain is None or not await _write_supplied(ctx, chain):
        await _download(ctx, chain, expected)
    await ctx.blocking(touch_marker, marker)
    return None


async def _write_supplied(ctx: TaskContext, chain: KnownChain) -> bool:
    """Writes the genesis that came with the build; False when it did not."""
    try:
        data = await ctx.blocking(chain.genesis)
    except (GenesisError, OSError) as error:
        raise TaskError(f"{TASK}: {error}", retryable=False) from None
    if data is None:
        return False
    ctx.log.info("writing embedded genesis", extra={"attrs": {"chainId": chain.chain_id}})
    path = _target(ctx)
    try:
        await ctx.blocking(write_atomic, path, data)
    except OSError as error:
        raise TaskError(f"writing {path}: {error}") from error
    return True


def _target(ctx: TaskContext) -> Path:
    try:
        ctx.config_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise TaskError(f"creating config directory: {error}") from error
    return ctx.config_dir / "genesis.json"


async def _download(ctx: TaskContext, chain: KnownChain | None, expected: str) -> None:
    settings = ctx.settings
    if not settings.genesis_bucket or not settings.genesis_region:
        raise TaskError(
            f"{TASK}: chain {quoted(settings.chain_id)} is not embedded and "
            "SEI_GENESIS_BUCKET/SEI_GENESIS_REGION are not set",
            retryable=False,
        )
    store = open_bucket(settings.genesis_bucket, settings.genesis_region, role="S3 client")
    key = f"{settings.chain_id}/genesis.json"
    attrs = {"bucket": settings.genesis_bucket, "key": key}
    ctx.log.info("downloading genesis.json from S3", extra={"attrs": attrs})
    # a chain known by its digest is held to it whatever the caller expects
    wanted = chain.sha256 if chain is not None else expected
    path = _target(ctx)
    try:
        with Incoming(path) as incoming:
            await _receive(ctx, store, key, incoming)
            if wanted and incoming.sha256 != wanted.lower():
                raise _mismatch(store, key, incoming.sha256, wanted)
            await ctx.blocking(incoming.commit)
    except OSError as error:
        raise TaskError(f"writing {path}: {error}") from error
    ctx.log.info("genesis download complete (S3)", extra={"attrs": {"sha256": incoming.sha256}})


async def _receive(ctx: TaskContext, store: Store, key: str, incoming: Incoming) -> None:
    try:
        async for chunk in store.stream(key):
            await ctx.blocking(incoming.write, chunk)
            ctx.progress({"phase": "download", "done": incoming.received, "unit": "bytes"})
    except StoreError as error:
        if incoming.received:
            raise TaskError(f"writing {incoming.path}: {error.message}", retryable=True) from error
        raise store_failure(TASK, error) from error


def _mismatch(store: Store, key: str, digest: str, wanted: str) -> TaskError:
    return TaskError.structured(
        TASK,
        "verify-hash",
        f"downloaded genesis.json from {store.url(key)} has SHA-256 {digest}, expected {wanted}",
        retryable=False,
        hint="the genesis trust root does not match the expected hash; the S3 object may have been replaced "
        "— refusing to use it",
    )
