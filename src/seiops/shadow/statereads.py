"""Layer 2: storage, balance, code and nonce of the accounts a block touched, on two nodes (docs/contracts/shadow.md 3.4.3).

All reads of a block go out together. A read that fails leaves the layer indeterminate and takes nothing away from the
differences that the other reads found.
"""

from __future__ import annotations

import re
from binascii import Error as HexError
from binascii import unhexlify
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from seiops.seid.evm import Call, EvmError
from seiops.shadow.addresses import checksummed
from seiops.shadow.touched import Touched

_QUANTITY = re.compile(rb"0|[1-9a-fA-F][0-9a-fA-F]*")
_METHODS = {
    "storage": "eth_getStorageAt",
    "balance": "eth_getBalance",
    "code": "eth_getCode",
    "nonce": "eth_getTransactionCount",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One comparison: `slot` is set for storage only."""

    kind: str
    address: bytes
    slot: bytes | None = None

    @property
    def place(self) -> str:
        address = checksummed(self.address)
        return f"{address}/0x{self.slot.hex()}" if self.slot is not None else address

    def call(self, block: str) -> Call:
        """`block` is the height as a minimal hex quantity."""
        address = "0x" + self.address.hex()
        if self.slot is not None:
            return Call(_METHODS[self.kind], [address, "0x" + self.slot.hex(), block])
        return Call(_METHODS[self.kind], [address, block])


def keys_of(touched: Touched) -> list[Key]:
    """Accounts ascending; of each its slots ascending, then balance, code and nonce."""
    keys: list[Key] = []
    for address, account in touched.ordered():
        keys += [Key("storage", address, slot) for slot in sorted(account.slots)]
        keys.append(Key("balance", address))
        if account.code:
            keys.append(Key("code", address))
        keys.append(Key("nonce", address))
    return keys


class _ValueError(ValueError):
    pass


def _digits(raw: bytes) -> bytes:
    """The hex digits of a raw JSON text `"0x..."`."""
    if raw[:3] in (b'"0x', b'"0X') and raw[-1:] == b'"':
        return raw[3:-1]
    try:
        text = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise _ValueError(str(error)) from None
    if not isinstance(text, str):
        raise _ValueError("json: cannot unmarshal non-string into a value of this kind")
    raise _ValueError(f"json: cannot unmarshal hex string without 0x prefix: {text[:80]!r}")


def _hex_bytes(raw: bytes) -> bytes:
    try:
        return unhexlify(_digits(raw))
    except HexError:
        raise _ValueError(f"json: cannot unmarshal {raw[:80]!r} into hex of whole bytes") from None


def _quantity(bits: int) -> Callable[[bytes], int]:
    def parse(raw: bytes) -> int:
        digits = _digits(raw)
        if _QUANTITY.fullmatch(digits) is None:
            raise _ValueError(f"json: cannot unmarshal {raw[:80]!r} into a hex quantity")
        value = int(digits, 16)
        if value.bit_length() > bits:
            raise _ValueError(f"json: cannot unmarshal {raw[:80]!r} into {bits} bits")
        return value

    return parse


_PARSERS: dict[str, Callable[[bytes], Any]] = {
    "storage": _hex_bytes,
    "balance": _quantity(256),
    "code": _hex_bytes,
    "nonce": _quantity(64),
}


def _shown(value: Any) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)


def _differ(key: Key, left: Any, right: Any) -> bool:
    if key.kind == "storage":
        return bool(left.rjust(32, b"\0") != right.rjust(32, b"\0"))
    return bool(left != right)


@dataclass(slots=True)
class StateComparison:
    """Layer 2 of one block. `problems` are in the order a reader would meet them; `failed_reads` counts reads."""

    accounts: int = 0
    keys: int = 0
    divergences: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    failed_reads: int = 0
    reason: str = ""

    def record(self) -> dict[str, Any]:
        """The `layer2` member (docs/contracts/shadow.md 5.3), additive members last."""
        found: dict[str, Any] = {"accountsChecked": self.accounts, "keysChecked": self.keys}
        if self.divergences:
            found["divergences"] = self.divergences
        if self.problems:
            found |= {"indeterminate": True, "error": self.problems[0]}
            if len(self.problems) > 1:
                found["errors"] = self.problems[1:]
        if self.failed_reads:
            found["failedReads"] = self.failed_reads
        return found

    @property
    def fired(self) -> bool:
        return bool(self.divergences or self.problems)


_SHOWN_PROBLEMS = 20


def compare_state(
    keys: Sequence[Key],
    shadow: Sequence[bytes | EvmError],
    canonical: Sequence[bytes | EvmError],
    found: StateComparison,
) -> None:
    """Adds to `found` what the reads of both sides say; the three sequences run in parallel."""
    failed_accounts: set[bytes] = set()
    for key, left, right in zip(keys, shadow, canonical, strict=True):
        parse = _PARSERS[key.kind]
        try:
            # the usual case: both nodes gave the same text, and it only has to be a value at all
            if not isinstance(left, EvmError) and left == right:
                parse(left)
                found.keys += 1
                continue
        except ValueError:
            pass
        values = _both_values(key, left, right, found)
        if values is None:
            failed_accounts.add(key.address)
            continue
        found.keys += 1
        if _differ(key, *values):
            found.divergences.append(_divergence(key, *values))
    found.accounts += len({key.address for key in keys} - failed_accounts)


def _both_values(
    key: Key, left: bytes | EvmError, right: bytes | EvmError, found: StateComparison
) -> tuple[Any, Any] | None:
    values = []
    for side, raw in (("shadow", left), ("canonical", right)):
        try:
            if isinstance(raw, EvmError):
                raise raw
            values.append(_PARSERS[key.kind](raw))
        except (EvmError, ValueError) as error:
            found.failed_reads += 1
            if len(found.problems) < _SHOWN_PROBLEMS:
                found.problems.append(f"{side} {key.kind} {key.place}: {error}")
            found.reason = found.reason or "rpc"
    return (values[0], values[1]) if len(values) == 2 else None


def _divergence(key: Key, left: Any, right: Any) -> dict[str, Any]:
    entry = {"kind": key.kind, "addr": checksummed(key.address)}
    if key.slot is not None:
        entry["slot"] = "0x" + key.slot.hex()
    return entry | {"shadow": _shown(left), "canonical": _shown(right)}
