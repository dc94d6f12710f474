"""Which accounts and slots a block touched, out of its traces (docs/contracts/shadow.md 3.4.2).

A trace names what was modified on the node that traced. Anything that makes the list short - a failed transaction, a
null, a transaction missing from the trace - is a problem of the layer, never silence.
"""

from __future__ import annotations

import re
from binascii import Error as HexError
from binascii import unhexlify
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

_HEX = re.compile(r"0[xX]([0-9a-fA-F]*)")


class TraceError(ValueError):
    """A trace that cannot be used at all; says why."""


@dataclass(slots=True)
class Account:
    """What of one account is compared besides balance and nonce."""

    slots: set[bytes] = field(default_factory=set)
    code: bool = False


@dataclass(slots=True)
class Touched:
    """The union over transactions, sides and traces; keys are 20 address bytes, slots 32 bytes."""

    accounts: dict[bytes, Account] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)
    elements: int = 0

    def ordered(self) -> list[tuple[bytes, Account]]:
        """Ascending by address: the same block always makes the same record."""
        return sorted(self.accounts.items(), key=lambda item: item[0])

    def merge(self, other: Touched) -> None:
        for address, account in other.accounts.items():
            own = self.accounts.setdefault(address, Account())
            own.slots |= account.slots
            own.code = own.code or account.code
        self.problems += [problem for problem in other.problems if problem not in self.problems]

    def miss(self, expected: Iterable[str], count: int | None) -> None:
        """Notes what the trace lacks: transactions that took effect, or elements against the node's own count."""
        if count is not None and count != self.elements:
            self.problems.append(f"incomplete trace: {self.elements} of {count} transactions")
            return
        missing = [one for one in expected if one not in self.hashes]
        if missing:
            self.problems.append(f"incomplete trace: transaction {missing[0]} and {len(missing) - 1} more are missing")


def parse_trace(raw: bytes) -> Touched:
    """Raises TraceError for a trace that is malformed as a whole; what is wrong with one transaction is a problem."""
    return _parsed(raw, ("pre", "post"))


def parse_read_set(raw: bytes) -> Touched:
    """The same of a trace that is no diff: each transaction's result is the accounts it read or wrote. Raises TraceError."""
    return _parsed(raw, ())


def _parsed(raw: bytes, sides: Sequence[str]) -> Touched:
    try:
        elements = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise TraceError(str(error)) from None
    if elements is None:
        raise TraceError("the node answered null")
    if not isinstance(elements, list):
        raise TraceError(f"expected a list of transactions, got {type(elements).__name__}")
    found = Touched(elements=len(elements))
    for index, element in enumerate(elements):
        _element(found, index, element, sides)
    return found


def _element(found: Touched, index: int, element: Any, sides: Sequence[str]) -> None:
    if not isinstance(element, dict):
        found.problems.append(f"transaction {index}: the trace is null")
        return
    name = element.get("txHash")
    if isinstance(name, str):
        found.hashes.add(name.lower())
    label = name if isinstance(name, str) else str(index)
    result = element.get("result")
    if element.get("error") is not None:
        found.problems.append(f"transaction {label}: {element['error']}")
    elif result is None:
        found.problems.append(f"transaction {label}: the trace is null")
    elif not isinstance(result, dict):
        raise TraceError(f"transaction {label}: expected an object, got {type(result).__name__}")
    if isinstance(result, dict):
        for state in [result.get(side) for side in sides] or [result]:
            _state(found, state, label)


def _state(found: Touched, state: Any, label: str) -> None:
    if state is None:
        return
    if not isinstance(state, dict):
        raise TraceError(f"transaction {label}: expected accounts, got {type(state).__name__}")
    for address, content in state.items():
        account = found.accounts.setdefault(_fixed(address, 20, "common.Address"), Account())
        if content is None:
            continue
        if not isinstance(content, dict):
            raise TraceError(f"account {address}: expected an object, got {type(content).__name__}")
        slots = content.get("storage") or {}
        if not isinstance(slots, dict):
            raise TraceError(f"account {address}: storage is no object")
        for slot, word in slots.items():
            account.slots.add(_fixed(slot, 32, "common.Hash"))
            _fixed(word, 32, "common.Hash")
        if _code(content.get("code"), address):
            account.code = True


def _code(code: Any, address: str) -> bool:
    if code is None:
        return False
    try:
        if not isinstance(code, str) or code[:2] not in ("0x", "0X"):
            raise HexError
        return bool(unhexlify(code[2:]))
    except (HexError, ValueError):
        raise TraceError(f"account {address}: json: cannot unmarshal code: not hex of whole bytes") from None


def _fixed(text: Any, size: int, what: str) -> bytes:
    try:
        if not isinstance(text, str) or text[:2] not in ("0x", "0X"):
            raise HexError
        found = unhexlify(text[2:])
    except (HexError, ValueError):
        raise TraceError(f"json: cannot unmarshal {str(text)[:80]!r} into {what}: not hex of whole bytes") from None
    if len(found) != size:
        raise TraceError(f"hex string has length {2 * len(found)}, want {2 * size} for {what}")
    return found


def parse_count(raw: bytes) -> int:
    """`eth_getBlockTransactionCountByNumber`. Raises TraceError for null (a block the node does not know)."""
    value = orjson.loads(raw)
    if not isinstance(value, str) or _HEX.fullmatch(value) is None:
        raise TraceError(f"the node's count of the block's transactions is {value!r}")
    return int(value, 16)


def watched(addresses: Sequence[str]) -> Touched:
    """Accounts compared at every block whatever it touched. Raises TraceError naming the one that is no address."""
    found = Touched()
    for address in addresses:
        found.accounts[_fixed(address, 20, "an address")] = Account(code=True)
    return found
