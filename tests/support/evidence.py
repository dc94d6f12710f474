"""Published runs made by hand: pages, manifests and reports in a real store, as large and as odd as a test wants them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from seiops.objectstore import Store, publish_gzip
from seiops.shadow import rawjson
from seiops.shadow.manifest import ChainHead, What, Writer

AT = "2026-03-28T01:00:00Z"
CONTRACT = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
OTHER = "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"
SLOT = "0x" + "00" * 31 + "07"
SAME_HEADERS = {"appHashMatch": True, "lastResultsHashMatch": True, "gasUsedMatch": True}


def clean(height: int, **changes: Any) -> dict[str, Any]:
    """A block both nodes agree on at every layer, in migration mode."""
    found: dict[str, Any] = {
        "height": height, "timestamp": AT, "match": True, "migrationMode": True, "layer0": dict(SAME_HEADERS),
        "layer1": {"totalTxs": 2, "txCountMatch": True},
        "layer2": {"accountsChecked": 2, "keysChecked": 9},
        "verdict": "clean",
    }  # fmt: skip
    return found | changes


def receipts_differ(height: int, *fields: tuple[str, Any, Any], tx: int = 1, consensus: bool = True) -> dict[str, Any]:
    entries = [{"field": name, "shadow": ours, "canonical": theirs} for name, ours, theirs in fields]
    layer1 = {
        "totalTxs": 2,
        "txCountMatch": True,
        "divergences": [{"txIndex": tx, "fields": entries}],
        "consensusMatch": consensus,
    }
    found = clean(height, match=False, divergenceLayer=1, layer1=layer1, verdict="diverged")
    return found | ({} if consensus else {"reason": "descriptive-fields"})


def state_differs(height: int, *keys: tuple[str, str, str, str, str]) -> dict[str, Any]:
    """`keys`: kind, address, slot, shadow, canonical."""
    entries = [
        {"kind": kind, "addr": address, **({"slot": slot} if slot else {}), "shadow": ours, "canonical": theirs}
        for kind, address, slot, ours, theirs in keys
    ]
    layer2 = {"accountsChecked": 2, "keysChecked": 9, "divergences": entries}
    return clean(height, match=False, divergenceLayer=2, layer2=layer2, verdict="diverged")


def undecided(height: int, reason: str, error: str) -> dict[str, Any]:
    layer2 = {"accountsChecked": 0, "keysChecked": 0, "indeterminate": True, "error": error}
    return clean(height, match=False, divergenceLayer=2, layer2=layer2, verdict="indeterminate", reason=reason)


def gap(height: int, error: str = "querying shadow block at height: no answer") -> dict[str, Any]:
    layer0 = dict.fromkeys(SAME_HEADERS, False)
    return {"height": height, "timestamp": AT, "match": False, "migrationMode": True, "divergenceLayer": 0, "layer0": layer0,
            "verdict": "gap", "reason": "unreadable", "error": error}  # fmt: skip


def upstreams(line: dict[str, Any]) -> dict[str, Any]:
    """The same line as the Go sidecar writes it: without what only ours has."""
    found = {
        name: value for name, value in line.items() if name not in ("verdict", "reason", "layerH", "previous", "error")
    }
    if isinstance(layer1 := found.get("layer1"), dict):
        found["layer1"] = {name: value for name, value in layer1.items() if name != "consensusMatch"}
    return found


async def _payload(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def put_page(store: Store, prefix: str, lines: list[dict[str, Any]], writer: Writer | None = None) -> str:
    """One page under the name its heights give it; with a writer it is entered in the manifest."""
    start, end = lines[0]["height"], lines[-1]["height"]
    key = f"{prefix}{start}-{end}.compare.ndjson.gz"
    published = await publish_gzip(store, key, _payload(b"".join(map(rawjson.line, lines))))
    if writer is not None:
        counts: dict[str, int] = {}
        for line in lines:
            counts[line["verdict"]] = counts.get(line["verdict"], 0) + 1
        await writer.append(What("page", AT, (start, end), counts, published))
    return key


async def put_json(store: Store, key: str, document: Any) -> None:
    await publish_gzip(store, key, _payload(json.dumps(document, indent=2).encode() + b"\n"))


async def put_run(
    store: Store,
    heights: Iterable[int],
    line: Callable[[int], dict[str, Any]],
    *,
    prefix: str = "",
    run: str = "run-1",
    sealed: bool = True,
    ended: str = "end-height",
    params: dict[str, Any] | None = None,
    preflight: list[dict[str, Any]] | None = None,
) -> None:
    """A whole run in pages of 100. `ended` empty leaves the manifest open; `params` as the manifest shows them."""
    writer = Writer(store, ChainHead(run), prefix) if sealed else None
    given = {"canonical_rpc": "http://canonical:26657", "migration": True, "survey": True} | (params or {})
    if writer is not None:
        node = {"network": "test-1", "version": "6.5.0"}
        nodes = {"shadow": {"id": "aa"} | node, "canonical": {"id": "bb"} | node}
        await writer.append(
            What("run", AT, info={"params": given, "preflight": preflight or [], "nodes": nodes, "task": run})
        )
    page: list[dict[str, Any]] = []
    for height in heights:
        if page and (len(page) == 100 or page[-1]["height"] + 1 != height):
            await put_page(store, prefix, page, writer)
            page = []
        page.append(line(height) if sealed else upstreams(line(height)))
    if page:
        await put_page(store, prefix, page, writer)
    if writer is not None and ended:
        await writer.append(What("end", AT, info={"reason": ended}))
