"""Gives a new node its keys, a first config.toml and an empty genesis, once (docs/contracts/sidecar.md 5.15).

Existing keys are never replaced. config.toml is, so this task runs before the configuration tasks.
"""

from __future__ import annotations

from typing import Any

from seiops.seid.files import touch_marker
from seiops.seid.identity import (
    IdentityError,
    ensure_genesis,
    ensure_node_key,
    ensure_validator_key,
    write_first_config,
)
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError

TASK = "generate-identity"
MARKER = ".sei-sidecar-identity-done"


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    decoder = Decoder(params)
    chain_id, moniker = decoder.text("chainId"), decoder.text("moniker")
    if ctx.marker(MARKER).exists():
        return None
    for name, value in (("chainId", chain_id), ("moniker", moniker)):
        if not value:
            raise TaskError(f"{TASK}: missing required param '{name}'", retryable=False)
    ctx.log.info("generating identity", extra={"attrs": {"chainId": chain_id, "moniker": moniker}})
    node_id = await ctx.blocking(_generate, ctx, chain_id, moniker)
    ctx.log.info("identity generated", extra={"attrs": {"nodeId": node_id, "moniker": moniker}})
    await ctx.blocking(touch_marker, ctx.marker(MARKER))
    return None


def _generate(ctx: TaskContext, chain_id: str, moniker: str) -> str:
    try:
        for folder in (ctx.home, ctx.config_dir, ctx.home / "data"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        node_id = ensure_node_key(ctx.home)
        ensure_validator_key(ctx.home)
    except (IdentityError, OSError) as error:
        raise TaskError(f"{TASK}: initializing validator files: {error}") from error
    try:
        write_first_config(ctx.home, moniker)
    except OSError as error:
        raise TaskError(f"{TASK}: writing config.toml: {error}") from error
    try:
        ensure_genesis(ctx.home, chain_id)
    except OSError as error:
        raise TaskError(f"{TASK}: writing genesis: {error}") from error
    return node_id
