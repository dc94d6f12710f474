"""From memiavl leaves to the logical rows FlatKV would hold (docs/contracts/digest.md 1.8).

Two decoders on purpose: `semantic` reads leaves by the meaning of their keys, `translator` goes the importer's way, in
batches that keep the last write of a key. On valid state they agree; on damaged state their errors and the moment of
the error differ as seidb's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from seiops.digest.errors import DigestError
from seiops.digest.keys import EVM_PREFIX, Bucket, RawKind, account_key, physical_key, raw_kind
from seiops.digest.memiavl.snapshot import Leaf
from seiops.digest.model import ZERO_WORD, Row, account_payload

TRANSLATOR_BATCH = 8192
_HEADER_AT_ZERO = bytes(9)


@dataclass(slots=True)
class Account:
    """Fields of one account while its rows are still being collected."""

    balance: bytes = ZERO_WORD
    nonce: int = 0
    codehash: bytes = ZERO_WORD
    height: int = 0

    @property
    def empty(self) -> bool:
        return self.nonce == 0 and self.codehash == ZERO_WORD and self.balance == ZERO_WORD

    @property
    def payload(self) -> bytes:
        return account_payload(self.balance, self.nonce, self.codehash)


Accounts = dict[bytes, Account]


@dataclass(slots=True)
class SemanticDecoder:
    """Decodes one leaf at a time; accounts gather in `accounts` until the end.

    `caller` is the word seidb puts into its errors: `digest` or `inspect`.
    """

    caller: str = "digest"
    accounts: Accounts = field(default_factory=dict)

    def decode(self, leaf: Leaf) -> Row | None:
        """The leaf's row, or None when it only feeds an account or counts as absent."""
        key, value, version = leaf
        kind = raw_kind(key)
        if kind is RawKind.STORAGE:
            self._require(kind, key, value, 32)
            return None if value == ZERO_WORD else Row(Bucket.STORAGE, EVM_PREFIX + key, value, value, version or None)
        if kind is RawKind.NONCE:
            self._require(kind, key, value, 8)
            self._account(key, version).nonce = int.from_bytes(value, "big")
            return None
        if kind is RawKind.CODEHASH:
            self._require(kind, key, value, 32)
            self._account(key, version).codehash = value
            return None
        if kind is RawKind.CODE:
            return Row(Bucket.CODE, EVM_PREFIX + key, value, value, version or None) if value else None
        if kind is RawKind.EMPTY:
            raise DigestError(f"semantic memiavl {self.caller}: empty EVM key")
        return Row(Bucket.MISC, EVM_PREFIX + key, value, value, version or None)

    def _require(self, kind: RawKind, key: bytes, value: bytes, length: int) -> None:
        if len(value) != length:
            raise DigestError(
                f"semantic memiavl {self.caller}: {kind} {key.hex().upper()} has length {len(value)}, want {length}"
            )

    def _account(self, key: bytes, version: int) -> Account:
        account = self.accounts.setdefault(key[1:], Account())
        account.height = max(account.height, version)
        return account


def account_rows(accounts: Accounts) -> Iterator[Row]:
    """Merged account rows, leaving out those with nothing in them."""
    for address, account in accounts.items():
        if not account.empty:
            yield Row(Bucket.ACCOUNT, account_key(address), account.payload, b"", account.height or None)


def semantic_rows(leaves: Iterable[Leaf], decoder: SemanticDecoder) -> Iterator[Row]:
    for leaf in leaves:
        row = decoder.decode(leaf)
        if row is not None:
            yield row
    yield from account_rows(decoder.accounts)


def translator_rows(leaves: Iterable[Leaf], accounts: Accounts) -> Iterator[Row]:
    """Rows by the importer's mapping; `stored` is the FlatKV encoding with height 0."""
    source = iter(leaves)
    while batch := list(islice(source, TRANSLATOR_BATCH)):
        yield from _translate(batch, accounts)
    for address, account in accounts.items():
        if not account.empty:
            payload = account.payload
            stored = _HEADER_AT_ZERO + (payload if account.codehash != ZERO_WORD else payload[:40])
            yield Row(Bucket.ACCOUNT, account_key(address), payload, stored, account.height or None)


def _translate(batch: list[Leaf], accounts: Accounts) -> Iterator[Row]:
    latest: dict[RawKind, dict[bytes, Leaf]] = {kind: {} for kind in RawKind}
    for leaf in batch:
        latest[raw_kind(leaf.key)][leaf.key] = leaf
    if latest[RawKind.EMPTY]:
        raise DigestError("translate batch: flatkv: empty key in changeset")
    _require_lengths(
        latest[RawKind.STORAGE], 32, "process storage changes: failed to parse storage value: invalid storage value"
    )
    _require_lengths(latest[RawKind.NONCE], 8, "merge account changes: invalid nonce value: invalid nonce value")
    _require_lengths(
        latest[RawKind.CODEHASH], 32, "merge account changes: invalid codehash value: invalid codehash value"
    )
    for key, leaf in latest[RawKind.NONCE].items():
        _touch(accounts, key, leaf).nonce = int.from_bytes(leaf.value, "big")
    for key, leaf in latest[RawKind.CODEHASH].items():
        _touch(accounts, key, leaf).codehash = leaf.value
    yield from _plain_rows(Bucket.STORAGE, latest[RawKind.STORAGE], lambda value: value != ZERO_WORD)
    yield from _plain_rows(Bucket.CODE, latest[RawKind.CODE], lambda value: value != b"")
    yield from _plain_rows(Bucket.MISC, latest[RawKind.MISC], lambda value: True)


def _require_lengths(leaves: dict[bytes, Leaf], length: int, what: str) -> None:
    for leaf in leaves.values():
        if len(leaf.value) != length:
            raise DigestError(f"translate batch: failed to {what} length: got {len(leaf.value)}, expected {length}")


def _touch(accounts: Accounts, key: bytes, leaf: Leaf) -> Account:
    account = accounts.setdefault(key[1:], Account())
    account.height = max(account.height, leaf.version)
    return account


def _plain_rows(bucket: Bucket, leaves: dict[bytes, Leaf], keep: Callable[[bytes], bool]) -> Iterator[Row]:
    for key, leaf in leaves.items():
        if keep(leaf.value):
            yield Row(bucket, physical_key(key), leaf.value, _HEADER_AT_ZERO + leaf.value, leaf.version or None)
