"""Which bucket a key belongs to, and what it is called in FlatKV.

Both stores classify by the same rule over the key bytes alone, so the rule stands here once
(docs/contracts/digest.md 1.3, 1.6, 2.2, 2.3).
"""

from __future__ import annotations

from enum import StrEnum

EVM_PREFIX = b"evm/"
META_PREFIX = b"_meta/"

NONCE_PREFIX = 0x0A
CODEHASH_PREFIX = 0x08
CODE_PREFIX = 0x07
STORAGE_PREFIX = 0x03
ADDRESS_LENGTH = 20
SLOT_LENGTH = 32

_ADDRESS_KEY = 1 + ADDRESS_LENGTH
_STORAGE_KEY = 1 + ADDRESS_LENGTH + SLOT_LENGTH

VERSION_MARKER = b"migration/migration-version"
BOUNDARY_MARKER = b"migration/migration-boundary"
MARKERS = (VERSION_MARKER, BOUNDARY_MARKER)


class Bucket(StrEnum):
    """The four accumulators, in the order in which the final digest hashes them."""

    ACCOUNT = "account"
    CODE = "code"
    STORAGE = "storage"
    MISC = "misc"


BUCKETS = tuple(Bucket)


class RawKind(StrEnum):
    """Shape of a key inside the `evm` module (docs/contracts/digest.md 2.2)."""

    EMPTY = "empty"
    NONCE = "nonce"
    CODEHASH = "codehash"
    CODE = "code"
    STORAGE = "storage"
    MISC = "misc"


_BY_PREFIX = {NONCE_PREFIX: RawKind.NONCE, CODEHASH_PREFIX: RawKind.CODEHASH, CODE_PREFIX: RawKind.CODE}

_BUCKET_OF_KIND = {
    RawKind.EMPTY: Bucket.MISC,
    RawKind.NONCE: Bucket.ACCOUNT,
    RawKind.CODEHASH: Bucket.ACCOUNT,
    RawKind.CODE: Bucket.CODE,
    RawKind.STORAGE: Bucket.STORAGE,
    RawKind.MISC: Bucket.MISC,
}


def raw_kind(key: bytes) -> RawKind:
    """Shape of a raw key; lengths must match exactly, everything else is misc."""
    length = len(key)
    if length == _ADDRESS_KEY:
        return _BY_PREFIX.get(key[0], RawKind.MISC)
    if length == _STORAGE_KEY and key[0] == STORAGE_PREFIX:
        return RawKind.STORAGE
    return RawKind.EMPTY if length == 0 else RawKind.MISC


def account_key(address: bytes) -> bytes:
    """Physical key of the merged account row of a 20-byte address."""
    return EVM_PREFIX + b"\x0a" + address


def physical_key(raw: bytes) -> bytes:
    """FlatKV key of a raw key of the `evm` module (docs/contracts/digest.md 2.3)."""
    if raw_kind(raw) is RawKind.CODEHASH:
        return account_key(raw[1:])
    return EVM_PREFIX + raw


def physical_bucket(key: bytes) -> Bucket | None:
    """Bucket of a FlatKV row, or None when the row takes no part (docs/contracts/digest.md 1.6)."""
    if key.startswith(EVM_PREFIX):
        return _BUCKET_OF_KIND[raw_kind(key[4:])]
    return Bucket.MISC if key in MARKERS else None


def module_of(key: bytes) -> bytes:
    """Bytes before the first `/` of a physical key; the whole key if there is none."""
    return key.partition(b"/")[0]
