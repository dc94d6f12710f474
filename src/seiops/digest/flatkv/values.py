"""Stored values of FlatKV rows and the logical payload inside (docs/contracts/digest.md 1.7, 4.3)."""

from __future__ import annotations

from seiops.digest.errors import DigestError
from seiops.digest.keys import Bucket
from seiops.digest.model import ZERO_WORD, Row

HEADER_LENGTH = 9
_COMPACT_ACCOUNT = 49
_FULL_ACCOUNT = 81
_STORAGE = 41


def payload_of(bucket: Bucket, stored: bytes) -> bytes:
    """Logical payload of a stored value. Raises DigestError with the bare text of docs/contracts/digest.md 1.7."""
    length = len(stored)
    if length == 0:
        raise DigestError("data is empty")
    if stored[0] != 0:
        raise DigestError(f"unsupported serialization version: {stored[0]}")
    if bucket is Bucket.STORAGE:
        if length != _STORAGE:
            raise DigestError(f"data length at version 0 should be {_STORAGE}, got {length}")
    elif bucket is Bucket.ACCOUNT:
        if length == _COMPACT_ACCOUNT:
            return stored[HEADER_LENGTH:] + ZERO_WORD
        if length != _FULL_ACCOUNT:
            raise DigestError(f"data length at version 0 should be {_COMPACT_ACCOUNT} or {_FULL_ACCOUNT}, got {length}")
    elif length < HEADER_LENGTH:
        raise DigestError(f"data length at version 0 should be at least {HEADER_LENGTH}, got {length}")
    return stored[HEADER_LENGTH:]


def decode_row(bucket: Bucket, key: bytes, stored: bytes) -> Row:
    """The logical row of a stored one; errors name bucket and key."""
    try:
        payload = payload_of(bucket, stored)
    except DigestError as error:
        raise DigestError(f"deserialize {bucket} {key.hex().upper()}: {error}") from error
    return Row(bucket, key, payload, stored, int.from_bytes(stored[1:9], "big", signed=True))


def encode_value(bucket: Bucket, payload: bytes, height: int) -> bytes:
    """Stored form of a payload, as a writer at `height` would leave it: accounts without codehash take the compact form."""
    header = b"\x00" + height.to_bytes(8, "big", signed=True)
    if bucket is Bucket.ACCOUNT and payload[40:] == ZERO_WORD:
        return header + payload[:40]
    return header + payload
