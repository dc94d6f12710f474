"""Takes the peers of a genesis ceremony from the bucket into config.toml, without the node itself (sidecar.md 5.14)."""

from __future__ import annotations

from typing import Any

from seiops.objectstore import StoreError
from seiops.seid.config import patch_file
from seiops.seid.editing import EditError
from seiops.seid.reading import ReadError
from seiops.sidecar import wirejson
from seiops.sidecar.node_id import NOT_A_KEY, NOT_FOUND, NodeIdError, read_node_id
from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks.buckets import open_bucket, store_failure

TASK = "set-genesis-peers"


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    settings = ctx.settings
    store = open_bucket(settings.genesis_bucket, settings.genesis_region, role=f"{TASK}: S3 client")
    try:
        body = await store.get(f"{settings.chain_id}/peers.json")
    except StoreError as error:
        raise store_failure(TASK, error) from error
    peers = _peers(body)
    own = await ctx.blocking(_own_id, ctx)
    others = [peer for peer in peers if not peer.startswith(f"{own}@")]
    attrs = {"total": len(peers), "self": own, "peers": len(others)}
    ctx.log.info("applying genesis peers", extra={"attrs": attrs})
    try:
        patch = {"p2p": {"persistent-peers": ",".join(others)}}
        await ctx.blocking(patch_file, ctx.config_dir / "config.toml", patch)
    except ReadError as error:
        # callers know this text without the task's name
        raise TaskError(str(error), retryable=False) from None
    except (EditError, OSError) as error:
        raise TaskError(f"{TASK}: writing config.toml: {error}") from error
    return None


def _peers(body: bytes) -> list[str]:
    try:
        listed = wirejson.decode_document(body)
    except wirejson.JsonError as error:
        raise TaskError(f"{TASK}: parsing peers.json: {error}", retryable=False) from None
    if listed is None:
        return []
    if not isinstance(listed, list) or not all(isinstance(peer, str | None) for peer in listed):
        raise TaskError(f"{TASK}: parsing peers.json: expected an array of strings", retryable=False)
    return [peer or "" for peer in listed]


def _own_id(ctx: TaskContext) -> str:
    try:
        return read_node_id(ctx.home)
    except NodeIdError as error:
        reason = str(error)
    if reason == NOT_FOUND:
        path = ctx.config_dir / "node_key.json"
        reason = f"reading node_key.json: open {path}: no such file or directory"
    elif reason != NOT_A_KEY:
        reason = "parsing node_key.json: it is not JSON with a priv_key"
    raise TaskError(f"{TASK}: {reason}", retryable=False)
