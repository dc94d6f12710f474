"""Acceptance, keys: what a trace says was touched, and what it must not hide (docs/contracts/shadow.md 3.4.2, 10.3)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seiops.shadow.addresses import checksummed, keccak256
from seiops.shadow.statereads import keys_of
from seiops.shadow.touched import TraceError, parse_trace, watched
from support.shadow_nodes import Node, compare_one, receipt, results

A, B = "0x" + "11" * 20, "0x" + "0A" * 20
S1, S2 = "0x" + "00" * 31 + "01", "0x" + "00" * 31 + "02"


def _parsed(*elements: Any) -> Any:
    return parse_trace(json.dumps(list(elements)).encode())


def test_union_of_pre_and_post_sorted() -> None:
    found = _parsed(
        {
            "txHash": "0x1",
            "result": {"pre": {A: {"storage": {S2: S1}}}, "post": {A: {"storage": {S1: S1}}, B: {"nonce": 3}}},
        }
    )
    keys = [(key.kind, key.address.hex()[:2], key.slot and key.slot[-1]) for key in keys_of(found)]
    assert keys == [
        ("balance", "0a", None), ("nonce", "0a", None),
        ("storage", "11", 1), ("storage", "11", 2), ("balance", "11", None), ("nonce", "11", None),
    ]  # fmt: skip


@pytest.mark.parametrize(("code", "checked"), [("0x", False), ("0x6001", True), (None, False)])
def test_code_flag(code: str | None, checked: bool) -> None:
    found = _parsed({"txHash": "0x1", "result": {"pre": {A: {"code": code}}, "post": {}}})
    assert ("code" in [key.kind for key in keys_of(found)]) is checked


@pytest.mark.parametrize(
    "element",
    [{"txHash": "0x1", "error": "execution timeout"}, {"txHash": "0x1", "result": None}, None],
    ids=["transaction-error", "null-trace", "null-element"],
)
def test_transaction_without_a_trace_is_a_problem(element: Any) -> None:
    found = _parsed(element, {"txHash": "0x2", "result": {"pre": {A: {}}, "post": {}}})
    assert len(found.problems) == 1
    assert len(found.accounts) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b"{}",
        b'[{"result":{"pre":{"0x12":{}}}}]',
        b'[{"result":{"pre":{"0x%s":{"code":"0x1"}}}}]' % (b"11" * 20),
    ],
)
def test_malformed_trace_fails_as_a_whole(raw: bytes) -> None:
    with pytest.raises(TraceError):
        parse_trace(raw)


async def test_short_trace_is_indeterminate() -> None:
    canonical = Node()
    canonical.plant_state("eth_getBlockTransactionCountByNumber", 5, "0x2")
    found = await compare_one(Node(), canonical, migration=True, state=True)
    assert (found.verdict, found.reason) == ("indeterminate", "incomplete-trace")
    assert "incomplete trace: 1 of 2 transactions" in found.record()["layer2"]["error"]


async def test_count_of_an_unknown_block_is_indeterminate() -> None:
    canonical = Node()
    canonical.plant_state("eth_getBlockTransactionCountByNumber", 5, None)
    assert (await compare_one(Node(), canonical, migration=True, state=True)).reason == "incomplete-trace"


async def test_receipt_missing_from_the_trace_is_indeterminate() -> None:
    nodes = Node(), Node()
    for node in nodes:
        info = {"txHash": "0x" + "cd" * 32}
        node.plant("block_results", 5, results(5, [receipt(5, 0, evm_tx_info=info), receipt(5, 1)]))
    found = await compare_one(*nodes, migration=True, state=True)
    assert (found.verdict, found.reason) == ("indeterminate", "incomplete-trace")


def test_watched_accounts_are_checked() -> None:
    assert [key.kind for key in keys_of(watched([A]))] == ["balance", "code", "nonce"]
    with pytest.raises(TraceError):
        watched(["0x12"])


@pytest.mark.parametrize(
    "address",
    [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ],
)
def test_addresses_are_checksummed(address: str) -> None:
    assert checksummed(bytes.fromhex(address[2:])) == address


def test_keccak_is_not_sha3() -> None:
    assert keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"x" * 136).hex() != keccak256(b"x" * 135).hex()
