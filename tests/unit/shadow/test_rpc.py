"""Acceptance, RPC: every way a node can dress an answer or an error (docs/contracts/shadow.md 10.3)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seiops.seid.bulk import BulkReader, HeightNotReadyError, HeightPrunedError, Want
from seiops.seid.comet import CometError
from seiops.seid.evm import Call, EvmClient, EvmError
from seiops.shadow.verdicts import Compared, Unread
from support.shadow_nodes import EvmFault, Node, block, compare_one, flat_error, results, serving


async def _read(node: Node, want: Want) -> bytes | CometError:
    async with serving(node) as session:
        return (await BulkReader(node.comet_url, session).read([want]))[0]


@pytest.mark.parametrize("batches", [True, False])
async def test_flat(batches: bool) -> None:
    found = await _read(Node(batches=batches), Want("block", 5))
    assert isinstance(found, bytes)
    assert json.loads(found) == block(5)


async def test_enveloped() -> None:
    found = await _read(Node(batches=False, enveloped=True), Want("block_results", 5))
    assert isinstance(found, bytes)
    assert json.loads(found) == results(5)


async def test_flat_with_a_result_member() -> None:
    node = Node(batches=False)
    node.plant("block", 5, block(5) | {"result": {"trap": True}})
    found = await _read(node, Want("block", 5))
    assert isinstance(found, bytes)
    assert json.loads(found)["block"]["header"]["height"] == "5"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((502, "bad gateway"), "HTTP 502: bad gateway"),
        ("boom", "decoding JSON response from /block?height=5: "),
        ("[1]", "decoding JSON response from /block?height=5: "),
        (
            {"jsonrpc": "2.0", "id": -1, "error": {"code": -32603, "message": "Internal error", "data": "why"}},
            "JSON-RPC error from /block?height=5: Internal error (code -32603, data: why)",
        ),
        ({"jsonrpc": "2.0", "id": -1}, "empty result in JSON-RPC response from /block?height=5"),
        ({"jsonrpc": "2.0", "id": -1, "result": None}, "empty result in JSON-RPC response from /block?height=5"),
        (flat_error("why"), "JSON-RPC error from /block?height=5: Internal error (code -32603, data: why)"),
    ],
    ids=["http-502", "malformed", "no-object", "rpc-error", "empty-envelope", "result-null", "flat-error"],
)
async def test_errors_in_every_dress(answer: Any, text: str) -> None:
    node = Node(batches=False)
    node.plant("block", 5, answer)
    found = await _read(node, Want("block", 5))
    assert isinstance(found, CometError)
    assert str(found).startswith(text)


async def test_future_and_pruned_heights_are_told_apart() -> None:
    node = Node(latest=20)
    node.plant("block", 2, flat_error("height is not available (requested height: 2, base height: 10)"))
    assert isinstance(await _read(node, Want("block", 21)), HeightNotReadyError)
    assert isinstance(await _read(node, Want("block", 2)), HeightPrunedError)


@pytest.mark.parametrize("sides", [("shadow",), ("canonical",), ("shadow", "canonical")])
async def test_flat_error_with_200_is_no_result_on_one_side_and_on_both(sides: tuple[str, ...]) -> None:
    nodes = {"shadow": Node(), "canonical": Node()}
    for side in sides:
        nodes[side].plant("block", 5, flat_error("height is not available (requested height: 5, base height: 100)"))
    outcome = await compare_one(**nodes)
    assert isinstance(outcome, Unread)
    assert outcome.error.startswith(f"querying {sides[0]} block at height 5: JSON-RPC error")


@pytest.mark.parametrize(
    "answer",
    [{"block_id": {}, "block": None}, block(6), {"block_id": {}}],
    ids=["block-null", "wrong-height", "no-block"],
)
async def test_block_of_the_wrong_shape_is_no_result(answer: Any) -> None:
    shadow = Node()
    shadow.plant("block", 5, answer)
    outcome = await compare_one(shadow, Node())
    assert isinstance(outcome, Unread)
    assert "querying shadow block at height 5: decoding /block response: " in outcome.error


async def test_hashes_missing_on_both_sides_do_not_compare_equal() -> None:
    bare = block(5)
    bare["block"]["header"]["app_hash"] = ""
    nodes = Node(), Node()
    for node in nodes:
        node.plant("block", 5, bare)
    outcome = await compare_one(*nodes)
    assert isinstance(outcome, Unread)
    assert "app_hash is empty on both nodes" in outcome.error


@pytest.mark.parametrize("answer", [results(6), {"foo": 1}], ids=["wrong-height", "no-results"])
async def test_results_of_the_wrong_shape_are_indeterminate(answer: Any) -> None:
    shadow = Node()
    shadow.plant("block_results", 5, answer)
    outcome = await compare_one(shadow, Node(), migration=True)
    assert isinstance(outcome, Compared)
    assert outcome.verdict == "indeterminate"
    assert outcome.record()["layer1"]["error"].startswith("querying shadow block_results at height 5: decoding")


async def test_transient_failure_is_read_again() -> None:
    shadow = Node(batches=False)
    shadow.plant("block_results", 5, (500, "boom"), (500, "boom"), results(5))
    outcome = await compare_one(shadow, Node(), migration=True)
    assert outcome.verdict == "clean"


async def test_lasting_failure_ends_indeterminate_after_three_attempts() -> None:
    shadow = Node(batches=False)
    shadow.plant("block_results", 5, (500, "boom"))
    outcome = await compare_one(shadow, Node(), migration=True)
    assert outcome.verdict == "indeterminate"
    assert shadow.requests.count("/block_results?height=5") == 3


async def test_large_batches_shrink_and_ten_is_the_most() -> None:
    node = Node(latest=100)
    async with serving(node) as session:
        reader = BulkReader(node.comet_url, session)
        found = await reader.read([Want("block", height) for height in range(1, 36)])
    assert [json.loads(one)["block"]["header"]["height"] for one in found if isinstance(one, bytes)] == [
        str(height) for height in range(1, 36)
    ]
    assert node.requests == ["/"] * 4


class _Limited(Node):
    """A node that takes three calls a batch."""

    async def evm(self, request: Any) -> Any:
        asked = await request.json()
        if isinstance(asked, list) and len(asked) > 3:
            from aiohttp import web

            return web.json_response(
                {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "batch too large"}}
            )
        return await super().evm(request)


@pytest.mark.parametrize("node", [Node(), Node(evm_batches=False), _Limited()], ids=["batches", "single", "limited"])
async def test_evm_batches_survive_every_limit(node: Node) -> None:
    node.plant_state("eth_getCode", 7, EvmFault("pruned"))
    calls = [Call("eth_getBalance", [f"0x{n:040x}", "0x7"]) for n in range(20)] + [Call("eth_getCode", ["0x1", "0x7"])]
    async with serving(node) as session:
        found = await EvmClient(node.evm_url, session).batch(calls)
    assert found[:-1] == [b'"0x5"'] * 20
    assert isinstance(found[-1], EvmError)
    assert str(found[-1]) == "pruned"


def test_url_without_transport_is_refused_in_known_words() -> None:
    with pytest.raises(ValueError, match='no known transport for URL scheme "foo"'):
        EvmClient("foo://x", None)  # type: ignore[arg-type]
