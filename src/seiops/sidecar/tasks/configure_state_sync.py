"""Pins the trust point a node state-syncs from (docs/contracts/sidecar.md 5.12).

Candidates come from the request or from the node's peers. All are asked at once, each with a deadline; those that
answer for this chain become the light client's witnesses, the first of them names the trust height and hash. seid exits
when one witness of its list is dead or of another chain, so the list holds only witnesses that answered.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seiops.seid.comet import CometClient, CometError, parse_height
from seiops.seid.config import patch_file
from seiops.seid.editing import EditError
from seiops.seid.files import touch_marker
from seiops.seid.reading import ReadError, parse_file
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.snapshot_bucket import local_heights, snapshot_folder

TASK = "configure-state-sync"
MARKER = ".sei-sidecar-statesync-done"
PROBE_TIMEOUT_S = 10.0
TRUST_DISTANCE = 2000
"""Blocks the trust height stays behind the head, so that the point is final and every witness has it."""
MAX_PEER_WITNESSES = 2
_HASH_BYTES = 64


@dataclass(frozen=True, slots=True)
class Witness:
    """A candidate and how it answered; `status` is None unless it is usable."""

    endpoint: str
    detail: str
    status: dict[str, Any] | None = None

    @property
    def node_id(self) -> str:
        node = (self.status or {}).get("node_info")
        found = node.get("id") if isinstance(node, dict) else None
        return found if isinstance(found, str) and found else self.endpoint

    def wire(self) -> dict[str, Any]:
        return {"endpoint": self.endpoint, "usable": self.status is not None, "detail": self.detail}


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    decoder = Decoder(params)
    local, period = decoder.flag("useLocalSnapshot"), decoder.text("trustPeriod")
    backfill, servers = decoder.integer("backfillBlocks"), decoder.texts("rpcServers")
    distinct = decoder.flag("requireDistinctWitnesses", ctx.settings.require_distinct_witnesses)
    if ctx.marker(MARKER).exists():
        return None
    config = ctx.config_dir / "config.toml"
    witnesses = await _ask(ctx, servers or _peer_candidates(config))
    usable = _usable(witnesses, distinct)
    height = _local_height(ctx.home) if local else _trust_height(usable[0])
    trust_hash = await _trust_hash(ctx, usable[0], height)
    endpoints = [witness.endpoint for witness in usable]
    filled = len(endpoints) == 1
    if filled:
        # the light client insists on two entries
        endpoints *= 2
    patch: dict[str, Any] = {
        "enable": True,
        "trust-height": height,
        "trust-hash": trust_hash,
        "rpc-servers": ",".join(endpoints),
        "use-local-snapshot": local,
    }
    if period:
        patch["trust-period"] = period
    if backfill > 0:
        patch["backfill-blocks"] = backfill
    result = {
        "trustHeight": height,
        "trustHash": trust_hash,
        "rpcServers": endpoints,
        "filledFromOneWitness": filled,
        "witnesses": [witness.wire() for witness in witnesses],
    }
    ctx.log.info("writing config", extra={"attrs": {key: value for key, value in patch.items() if key != "enable"}})
    await ctx.blocking(_write, config, patch)
    await ctx.blocking(touch_marker, ctx.marker(MARKER))
    return result


def _peer_candidates(config: Path) -> list[str]:
    """The RPC endpoints of the first peers in config.toml."""
    document: dict[str, Any] = {}
    if config.exists():
        try:
            document = parse_file(config)
        except ReadError as error:
            raise TaskError(f"{TASK}: reading config.toml: {error}", retryable=False) from None
    p2p = document.get("p2p")
    listed = p2p.get("persistent-peers") if isinstance(p2p, dict) else None
    peers = [peer.strip() for peer in listed.split(",") if peer.strip()] if isinstance(listed, str) else []
    if not peers:
        raise TaskError(f"{TASK}: no peers in config.toml")
    hosts = [host for host in map(_host, peers) if host][:MAX_PEER_WITNESSES]
    if not hosts:
        raise TaskError(f"{TASK}: could not extract RPC hosts from peers")
    return [f"{host}:26657" for host in hosts]


def _host(peer: str) -> str:
    """The host of `id@host:port`; blank without an `@`. Brackets of an IPv6 address stay."""
    address = peer.partition("@")[2]
    host, colon, _ = address.rpartition(":")
    return address if not colon or address.endswith("]") else host


def base_url(endpoint: str) -> str:
    """TLS exactly when the port is 443."""
    return f"{'https' if endpoint.rpartition(':')[2] == '443' and ':' in endpoint else 'http'}://{endpoint}"


async def _ask(ctx: TaskContext, endpoints: list[str]) -> list[Witness]:
    """Every candidate's answer, in the order of the candidates."""
    asked = {endpoint: asyncio.ensure_future(_probe(ctx, endpoint)) for endpoint in dict.fromkeys(endpoints)}
    try:
        await asyncio.gather(*asked.values())
    finally:
        for task in asked.values():
            task.cancel()
    witnesses = [asked[endpoint].result() for endpoint in endpoints]
    for witness in witnesses:
        attrs = {"endpoint": witness.endpoint, "detail": witness.detail}
        if witness.status is None:
            ctx.log.warning("witness not usable", extra={"attrs": attrs})
        else:
            ctx.log.info("witness answered", extra={"attrs": attrs})
    return witnesses


async def _probe(ctx: TaskContext, endpoint: str) -> Witness:
    if not endpoint or any(char.isspace() for char in endpoint):
        return Witness(endpoint, "not a host:port")
    client = CometClient(base_url(endpoint), ctx.http, timeout_s=PROBE_TIMEOUT_S)
    try:
        status = await client.get("/status")
    except CometError as error:
        return Witness(endpoint, str(error))
    if not isinstance(status, dict):
        return Witness(endpoint, "the status is no object")
    network = _member(status, "node_info", "network")
    if isinstance(network, str) and network and network != ctx.settings.chain_id:
        return Witness(endpoint, f"answers for network {network}, not {ctx.settings.chain_id}")
    return Witness(endpoint, "answered", status)


def _member(document: dict[str, Any], outer: str, inner: str) -> Any:
    found = document.get(outer)
    return found.get(inner) if isinstance(found, dict) else None


def _usable(witnesses: list[Witness], distinct: bool) -> list[Witness]:
    usable = [witness for witness in witnesses if witness.status is not None]
    answers = "; ".join(f"{witness.endpoint}: {witness.detail}" for witness in witnesses)
    if not usable:
        asked = " ".join(witness.endpoint for witness in witnesses)
        raise TaskError(f"{TASK}: no reachable RPC witness among [{asked}]", retryable=True, cause=answers)
    if distinct and len({witness.node_id for witness in usable}) < 2:
        raise TaskError(
            f"{TASK}: two distinct RPC witnesses are required, only {usable[0].endpoint} answered",
            retryable=True,
            cause=answers,
        )
    return usable


def _trust_height(witness: Witness) -> int:
    prefix = f"{TASK}: querying latest height: "
    sync = (witness.status or {}).get("sync_info")
    height = sync.get("latest_block_height") if isinstance(sync, dict) else None
    if not isinstance(sync, dict | None) or not isinstance(height, str | None):
        reason = "parsing status response: sync_info.latest_block_height is no string"
        raise TaskError(prefix + reason, retryable=True)
    height = height or ""
    try:
        return max(1, parse_height(height, "height") - TRUST_DISTANCE)
    except CometError as error:
        raise TaskError(f"{prefix}{error}", retryable=True) from None


def _local_height(home: Path) -> int:
    """The newest snapshot on disk: the largest folder name that is a number."""
    folder = snapshot_folder(home)
    prefix = f"{TASK}: discovering local snapshot height: "
    if not folder.exists():
        reason = f"reading snapshots directory: open {folder}: no such file or directory"
        raise TaskError(prefix + reason)
    try:
        heights = local_heights(folder)
    except OSError as error:
        raise TaskError(f"{prefix}reading snapshots directory: {error}") from error
    if not heights:
        raise TaskError(f"{prefix}no snapshot found in {folder}")
    return heights[-1]


async def _trust_hash(ctx: TaskContext, witness: Witness, height: int) -> str:
    client = CometClient(base_url(witness.endpoint), ctx.http, timeout_s=PROBE_TIMEOUT_S)
    prefix = f"{TASK}: querying block hash at height {height}: "
    try:
        block = await client.get(f"/block?height={height}")
    except CometError as error:
        raise TaskError(prefix + str(error), retryable=True) from None
    block_id = block.get("block_id") if isinstance(block, dict) else None
    found = block_id.get("hash") if isinstance(block_id, dict) else None
    if found in (None, "") and isinstance(block_id, dict | None):
        raise TaskError(f"{prefix}empty block hash at height {height}", retryable=True)
    if not isinstance(found, str):
        raise TaskError(f"{prefix}parsing block response: hash is no string", retryable=True)
    if (length := len(found.encode())) != _HASH_BYTES:
        reason = f"unexpected block hash length at height {height}: got {length}, want {_HASH_BYTES}"
        raise TaskError(prefix + reason, retryable=True)
    return found


def _write(config: Path, patch: dict[str, Any]) -> None:
    try:
        config.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        patch_file(config, {"statesync": patch})
    except (OSError, ReadError, EditError) as error:
        raise TaskError(f"{TASK}: writing config.toml: {error}") from error
