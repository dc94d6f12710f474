"""The results root: what a node's own receipts of a block hash to, as the header of the next block shows it.

It gives Layer 0 a meaning where both headers come from one source: a node whose receipts do not hash to what the chain
agreed on executed something else, whatever header it serves (docs/contracts/shadow.md 9.1).
"""

from __future__ import annotations

import hashlib
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Sequence

import msgspec

from seiops.shadow.receipts import Results, ShapeError

_LEAF, _INNER = b"\x00", b"\x01"
_WORD = 1 << 64


class _Result(msgspec.Struct):
    code: int | None = None
    data: str | None = None
    gas_wanted: str | None = None
    gas_used: str | None = None


_decoder = msgspec.json.Decoder(list[_Result | None] | None)


def results_root(results: Results) -> str:
    """Upper-case hexadecimal, as in headers. Raises ShapeError for receipts the chain could not have hashed."""
    try:
        receipts = _decoder.decode(results.raw) or []
        leaves = [_leaf(receipt or _Result()) for receipt in receipts]
    except (msgspec.MsgspecError, Base64Error, ValueError) as error:
        raise ShapeError(f"decoding /block_results response: {error}") from None
    return _root([hashlib.sha256(_LEAF + leaf).digest() for leaf in leaves]).hex().upper()


def _leaf(receipt: _Result) -> bytes:
    """`code`, `data`, `gas_wanted` and `gas_used` as protobuf fields 1, 2, 5 and 6; a zero value is left out."""
    data = b64decode(receipt.data, validate=True) if receipt.data else b""
    return b"".join((
        _number(0x08, receipt.code or 0),
        b"\x12" + _varint(len(data)) + data if data else b"",
        _number(0x28, int(receipt.gas_wanted or 0)),
        _number(0x30, int(receipt.gas_used or 0)),
    ))  # fmt: skip


def _number(tag: int, value: int) -> bytes:
    return bytes((tag,)) + _varint(value % _WORD) if value else b""


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _root(hashes: Sequence[bytes]) -> bytes:
    """The tree of RFC 6962: split at the largest power of two below the count."""
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(_INNER + _root(hashes[:split]) + _root(hashes[split:])).digest()
