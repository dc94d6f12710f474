"""Watched accounts from an object of the bucket (docs/contracts/shadow.md 9.4)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from seiops.shadow.watchlist import MAX_ACCOUNTS, MAX_BYTES, WatchListError, parse
from seiops.sidecar.task import TaskError
from seiops.sidecar.tasks import result_export
from support.shadow_nodes import Node, pages_in, serving, with_state
from support.task_context import context_for

FIRST, SECOND = "0x" + "11" * 20, "0x" + "Ab" * 20


@pytest.mark.parametrize(
    "body",
    [
        f'["{FIRST}", "{SECOND}"]',
        f"{FIRST}\n{SECOND}\n",
        f"# hot contracts\n\n  {FIRST}  # the first\r\n{SECOND}",
    ],
    ids=["array", "lines", "comments"],
)
def test_array_and_lines_hold_the_same(body: str) -> None:
    assert parse(body.encode(), "k") == (FIRST, SECOND)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (f"{FIRST}\n\n0x12\n", "hot: line 3: hex string has length 2, want 40 for an address"),
        (f'["{FIRST}", 5]', r"hot: \[1\]: an address is a text"),
        (f'["{FIRST}"', "hot: .*"),
        ("sei1qqqq", "hot: line 1: .*'sei1qqqq'.* an address"),
        ("# nothing\n", "hot: holds no address"),
        ("[]", "hot: holds no address"),
        (f"{FIRST}\n" * (MAX_ACCOUNTS + 1), "hot: 10001 addresses; the most is 10000"),
    ],
    ids=["short", "number", "cut", "bech32", "comments-only", "empty", "too-many"],
)
def test_what_is_no_list_is_named(body: str, text: str) -> None:
    with pytest.raises(WatchListError, match=f"^{text}"):
        parse(body.encode(), "hot")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(WatchListError, match=r"^hot: not text"):
        parse(b"\x1f\x8b\x08", "hot")


async def _run(tmp_path: Path, watch: Any, body: bytes | None, **params: Any) -> dict[str, Any] | None:
    place = tmp_path / "bucket" / "watch" / "hot.txt"
    place.parent.mkdir(parents=True)
    if body is not None:
        place.write_bytes(body)
    shadow, canonical = Node(latest=10), Node(latest=700, identity="other")
    for node in (shadow, canonical):
        node.plant_state("debug_traceBlockByNumber", 3, [])
        node.plant_state("eth_getBlockTransactionCountByNumber", 3, "0x0")
    async with serving(shadow, canonical) as session:
        urls = with_state(shadow, canonical)
        given = {
            "bucket": f"file://{tmp_path}/bucket", "region": "r", "prefix": "run", "rpcEndpoint": shadow.comet_url,
            "canonicalRpc": canonical.comet_url, "preflight": "off", "startHeight": 3, "endHeight": 3,
            "migrationMode": True, "shadowEvmRpc": urls["shadow_evm_rpc"], "canonicalEvmRpc": urls["canonical_evm_rpc"],
            "watchAccounts": watch,
        }  # fmt: skip
        return await result_export.run(context_for(tmp_path / "home", session), given | params)


async def test_accounts_of_the_object_are_compared_and_the_manifest_seals_the_list(tmp_path: Path) -> None:
    body = f"{FIRST}\n{SECOND}\n".encode()
    await _run(tmp_path, "watch/hot.txt", body)
    (line,) = pages_in(tmp_path)["3-3.compare.ndjson.gz"]
    assert (line["verdict"], line["layer2"]["accountsChecked"], line["layer2"]["keysChecked"]) == ("clean", 2, 6)
    opening = json.loads(sorted((tmp_path / "bucket").rglob("manifest/*/*.json"))[0].read_bytes())
    sealed = {"key": "watch/hot.txt", "accounts": 2, "sha256": hashlib.sha256(body).hexdigest()}
    assert opening["info"]["watchAccounts"] == sealed
    assert opening["info"]["params"]["watch_accounts_key"] == "watch/hot.txt"
    assert "watch_accounts" not in opening["info"]["params"]


async def test_list_in_the_params_still_works(tmp_path: Path) -> None:
    await _run(tmp_path, [FIRST], None)
    (line,) = pages_in(tmp_path)["3-3.compare.ndjson.gz"]
    assert line["layer2"]["accountsChecked"] == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (None, "reading watchAccounts: result-export: S3: .*watch/hot.txt"),
        (b"nothing", "result-export: watchAccounts: watch/hot.txt: line 1: "),
        (
            b" " * (MAX_BYTES + 1),
            "result-export: watchAccounts: watch/hot.txt: 1048577 bytes; a list .* at most 1048576",
        ),
    ],
    ids=["missing", "no-address", "too-large"],
)
async def test_list_that_cannot_be_used_stops_the_task_before_it_publishes(
    body: bytes | None, text: str, tmp_path: Path
) -> None:
    with pytest.raises(TaskError, match=text):
        await _run(tmp_path, "watch/hot.txt", body)
    assert not list((tmp_path / "bucket").rglob("*.gz"))


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"shadowEvmRpc": "", "canonicalEvmRpc": ""}, "watchAccounts needs shadowEvmRpc and canonicalEvmRpc"),
        ({"canonicalRpc": "", "shadowEvmRpc": "", "canonicalEvmRpc": "", "migrationMode": False},
         "comparison-mode fields require CanonicalRPC: watchAccounts"),
        ({"watchAccounts": 5}, "parsing params: watchAccounts"),
    ],
)  # fmt: skip
async def test_key_alone_is_refused_as_a_list_would_be(params: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=text):
        await _run(tmp_path, "watch/hot.txt", b"", **params)
