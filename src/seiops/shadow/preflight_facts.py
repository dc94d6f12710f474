"""What the preflight reads of both nodes before it judges: statuses, versions, metrics, a sample of results."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from seiops.seid.bulk import Want
from seiops.seid.comet import CometError
from seiops.shadow.sides import Side
from seiops.shadow.traps import Scene

_SAMPLE = 50
"""Blocks whose receipts are looked at for shapes and settings."""
_METRIC = re.compile(r"^(sei_chain_[a-zA-Z0-9_]+)(?:\{([^}]*)\})? ([0-9.eE+-]+)", re.MULTILINE)
_STATUS_TIMEOUT_S = 3.0


async def gather_facts(scene: Scene) -> None:
    """Statuses, version, metrics and a sample of results of both nodes, read at once."""
    sides = (scene.comparator.shadow, scene.comparator.canonical)
    request = scene.plan.request
    urls = {"shadow": request.shadow_metrics, "canonical": request.canonical_metrics}
    await asyncio.gather(
        *(_status(scene, side) for side in sides),
        *(_abci(scene, side) for side in sides),
        *(_sample(scene, side) for side in sides),
        *(_metrics(scene, name, url) for name, url in urls.items()),
    )


async def _status(scene: Scene, side: Side) -> None:
    key = f"{side.name} status"
    try:
        scene.facts[key] = await side.comet.client.result("/status", timeout_s=_STATUS_TIMEOUT_S)
    except CometError as error:
        scene.missing[key] = f"{side.name} /status: {error}"


async def _abci(scene: Scene, side: Side) -> None:
    key = f"{side.name} abci"
    try:
        found = await side.comet.client.result("/abci_info", timeout_s=_STATUS_TIMEOUT_S)
        response = found.get("response")
        scene.facts[key] = response if isinstance(response, dict) else {}
    except CometError as error:
        scene.missing[key] = f"{side.name} /abci_info: {error}"


async def _sample(scene: Scene, side: Side) -> None:
    key = f"{side.name} sample"
    end = scene.plan.request.end_height or scene.plan.start + _SAMPLE - 1
    heights = range(scene.plan.start, min(scene.plan.start + _SAMPLE - 1, end) + 1)
    bodies = await side.comet.read([Want("block_results", height) for height in heights])
    found: dict[int, list[dict[str, Any]]] = {}
    for height, body in zip(heights, bodies, strict=True):
        if isinstance(body, bytes):
            results = orjson.loads(body).get("txs_results") or []
            found[height] = [receipt for receipt in results if isinstance(receipt, dict)]
    if found:
        scene.facts[key] = found
    else:
        scene.missing[key] = f"{side.name}: no block results at {scene.plan.start}"


async def _metrics(scene: Scene, name: str, url: str) -> None:
    key = f"{name} metrics"
    if not url:
        scene.missing[key] = f"{name}Metrics is not given"
        return
    try:
        timeout = aiohttp.ClientTimeout(total=10)
        async with scene.http.get(url, timeout=timeout) as answer:
            if answer.status != 200:
                scene.missing[key] = f"{url}: HTTP {answer.status}"
                return
            text = await answer.text()
    except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as error:
        scene.missing[key] = f"{url}: {error or type(error).__name__}"
        return
    scene.facts[key] = [(match[1], match[2] or "", float(match[3])) for match in _METRIC.finditer(text)]


def heights(status: dict[str, Any]) -> tuple[int, int, int]:
    """Latest, earliest, and the highest a peer is known to have; zero where not told."""
    sync = status.get("sync_info") or {}
    names = ("latest_block_height", "earliest_block_height", "max_peer_block_height")
    latest, earliest, peers = (int(text) if (text := str(sync.get(name) or "0")).isdigit() else 0 for name in names)
    return latest, earliest, peers


def family(metrics: Sequence[tuple[str, str, float]], prefix: str) -> bool:
    return any(name.startswith(prefix) for name, _, _ in metrics)


def engines(metrics: Sequence[tuple[str, str, float]]) -> set[str]:
    return {name for name in ("memiavl", "flatkv") if family(metrics, f"sei_chain_{name}_")}


def value(metrics: Sequence[tuple[str, str, float]], name: str) -> float:
    return sum(value for found, _, value in metrics if found == name)


def identities(scene: Scene) -> dict[str, dict[str, Any]]:
    """Who each side is, as the manifest keeps it; a side that did not answer is left out."""
    found = {}
    for side in ("shadow", "canonical"):
        if (status := scene.facts.get(f"{side} status")) is not None:
            node = status.get("node_info") or {}
            latest, earliest, _ = heights(status)
            found[side] = {
                "id": node.get("id"), "moniker": node.get("moniker"), "network": node.get("network"),
                "version": versions(scene, side), "latestHeight": latest, "earliestHeight": earliest,
            }  # fmt: skip
    return found


def versions(scene: Scene, side: str) -> str:
    status = scene.facts.get(f"{side} status") or {}
    info = scene.facts.get(f"{side} abci") or {}
    parts = [
        (status.get("node_info") or {}).get("version"),
        (status.get("application_info") or {}).get("version"),
        info.get("version"),
    ]
    return "/".join(str(part) for part in parts if part)
