"""The cut part of long recordings, put back by the rule of the canned chain (golden/sidecar/README.md).

Long lists of RPC answers were recorded without their middle. Blocks and results of the canned chain follow from their
height, so they can be given again; planted answers cannot, and the lines of those heights are not compared.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any

from replay.sidecar_stage import NotPosableError

_HEIGHT = re.compile(r"^/(block|block_results)\?height=(\d+)$")
_LONG_EVERY = 50


@dataclass
class Canned:
    """`entries`: the recorded answers with the cut ones added. `lost`: heights at which something planted may be missing."""

    entries: list[dict[str, Any]]
    lost: set[int] = field(default_factory=set)


def complete(recorded: dict[str, Any]) -> Canned:
    """Raises NotPosableError where the cut hides more than blocks."""
    entries = recorded["rpc_requests"]
    cut = {entry["endpoint"] for entry in entries if "skipped" in entry}
    found = Canned([entry for entry in entries if "skipped" not in entry])
    if not cut:
        return found
    for endpoint in cut:
        found.lost |= _lost(endpoint, entries)
    heads = [_head(entry) for entry in entries if entry.get("target") == "/status"]
    asked = [height for entry in found.entries if (height := _height(entry))]
    if heads and asked and max(asked) > max(heads):
        raise NotPosableError("the record cut the growth of the chain out of the answers to /status")
    comet = {endpoint for endpoint in cut if endpoint.endswith(":26657")}
    txs = _transactions(found.entries)
    known = {(entry["endpoint"], entry["target"]) for entry in found.entries if "target" in entry}
    for endpoint in sorted(comet):
        for height in sorted(found.lost):
            for target, body in _canned_answers(height, txs(height)).items():
                if (endpoint, target) not in known:
                    answer = {"status": 200, "body": body}
                    found.entries.append({"endpoint": endpoint, "method": "GET", "target": target, "answer": answer})
    return found


def _lost(endpoint: str, entries: list[dict[str, Any]]) -> set[int]:
    mine = [entry for entry in entries if entry["endpoint"] == endpoint]
    place = next(index for index, entry in enumerate(mine) if "skipped" in entry)
    before = [height for entry in mine[:place] if (height := _height(entry))]
    after = [height for entry in mine[place + 1 :] if (height := _height(entry))]
    return set(range(max(before), min(after) + 1)) if before and after else set()


def _height(entry: dict[str, Any]) -> int | None:
    if match := _HEIGHT.match(entry.get("target", "")):
        return int(match[2])
    try:
        params = json.loads(entry["body"])["params"]
    except (KeyError, ValueError):
        return None
    numbers = [int(item, 16) for item in params if isinstance(item, str) and len(item) < 20]
    return numbers[-1] if numbers else None


def _head(entry: dict[str, Any]) -> int:
    try:
        return int(json.loads(entry["answer"]["body"])["sync_info"]["latest_block_height"])
    except (KeyError, ValueError, TypeError):
        return 0


def _transactions(entries: list[dict[str, Any]]) -> Any:
    """How many transactions a block of this case holds, read off the recorded results."""
    counts: dict[int, int] = {}
    for entry in entries:
        match = _HEIGHT.match(entry.get("target", ""))
        if match and match[1] == "block" and isinstance(entry["answer"], dict):
            try:
                counts[int(match[2])] = len(json.loads(entry["answer"]["body"])["block"]["data"]["txs"] or [])
            except (KeyError, TypeError, ValueError):
                continue
        elif match and isinstance(entry["answer"], dict) and int(match[2]) not in counts:
            try:
                counts[int(match[2])] = len(json.loads(entry["answer"]["body"])["txs_results"] or [])
            except (KeyError, TypeError, ValueError):
                continue
    most = max(set(counts.values()), key=list(counts.values()).count, default=2)
    rare = most == 0 and any(counts.values())
    return lambda height: 1 if rare and height % _LONG_EVERY == 0 else most


def _canned_answers(height: int, txs: int) -> dict[str, str]:
    header = {
        "height": str(height),
        "app_hash": f"AA{height:062X}",
        "last_results_hash": f"BB{height:062X}",
        "chain_id": "golden-1",
    }
    block = {
        "block_id": {"hash": f"{height * 7:064X}"},
        "block": {"header": header, "data": {"txs": ["AA=="] * txs}},
    }
    receipts = [_receipt(height, index) for index in range(txs)]
    results = {"height": str(height), "txs_results": receipts or None, "total_gas_used": "0"}
    encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
    return {f"/block?height={height}": encode(block), f"/block_results?height={height}": encode(results)}


def _receipt(height: int, index: int) -> dict[str, Any]:
    def b64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    attribute = {"key": b64("action"), "value": b64(f"send<{height}{index}>&"), "index": True}
    return {
        "code": 0,
        "data": b64(f"d{height}{index}"),
        "log": "[]",
        "info": "",
        "gas_wanted": "100000",
        "gas_used": str(50000 + 10 * height + index),
        "events": [{"type": "message", "attributes": [attribute]}],
        "codespace": "",
    }
