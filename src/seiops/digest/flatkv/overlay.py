"""What the replayed blocks changed: the last write per key, laid over the snapshot's rows (docs/contracts/digest.md 4.7).

Accounts are kept as two separate field writes, because a block may touch only one of nonce and codehash; the rest of the
row comes from the snapshot at scan time. So replay needs no lookup in the databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge

from seiops.digest.errors import DigestError
from seiops.digest.flatkv.blocks import ChangeSets
from seiops.digest.flatkv.values import encode_value, payload_of
from seiops.digest.keys import EVM_PREFIX, Bucket, RawKind, account_key, raw_kind
from seiops.digest.model import ZERO_WORD, account_payload

StoredRow = tuple[bytes, bytes]


@dataclass(slots=True)
class AccountWrite:
    """Last written fields of one account; None for a field no replayed block touched."""

    nonce: int | None = None
    codehash: bytes | None = None
    height: int = 0


@dataclass(slots=True)
class _Block:
    """Last write per key within one block."""

    nonces: dict[bytes, bytes | None] = field(default_factory=dict)
    codehashes: dict[bytes, bytes | None] = field(default_factory=dict)
    codes: dict[bytes, bytes | None] = field(default_factory=dict)
    storage: dict[bytes, bytes | None] = field(default_factory=dict)
    misc: dict[bytes, bytes | None] = field(default_factory=dict)


@dataclass(slots=True)
class Overlay:
    """Writes of all replayed blocks. Values are (payload or None for a removal, height)."""

    accounts: dict[bytes, AccountWrite] = field(default_factory=dict)
    codes: dict[bytes, tuple[bytes | None, int]] = field(default_factory=dict)
    storage: dict[bytes, tuple[bytes | None, int]] = field(default_factory=dict)
    misc: dict[bytes, tuple[bytes | None, int]] = field(default_factory=dict)

    def apply(self, height: int, changes: ChangeSets) -> None:
        """Add one block. Raises DigestError for keys and values no block may hold."""
        block = _collect(changes)
        self._apply_accounts(height, block)
        for key, value in block.storage.items():
            if value is not None and len(value) != 32:
                raise DigestError(
                    "failed to process storage changes: failed to parse storage value: "
                    f"invalid storage value length: got {len(value)}, expected 32"
                )
            self.storage[key] = (None if value == ZERO_WORD else value, height)
        for key, value in block.codes.items():
            self.codes[key] = (value or None, height)
        for key, value in block.misc.items():
            self.misc[key] = (value, height)

    def _apply_accounts(self, height: int, block: _Block) -> None:
        for address, value in block.nonces.items():
            _require("nonce", value, 8)
            write = self.accounts.setdefault(address, AccountWrite())
            write.nonce, write.height = int.from_bytes(value or b"", "big"), height
        for address, value in block.codehashes.items():
            _require("codehash", value, 32)
            write = self.accounts.setdefault(address, AccountWrite())
            write.codehash, write.height = value or ZERO_WORD, height

    def over(self, database: str, rows: Iterable[StoredRow]) -> Iterator[StoredRow]:
        """Rows of one database with this overlay applied, in key order."""
        if database == "account":
            return self._over_accounts(rows)
        writes, bucket = {
            "code": (self.codes, Bucket.CODE),
            "storage": (self.storage, Bucket.STORAGE),
        }.get(database, (self.misc, Bucket.MISC))
        if not writes:
            return iter(rows)
        kept = (row for row in rows if row[0] not in writes)
        written = (
            (key, encode_value(bucket, payload, height))
            for key, (payload, height) in sorted(writes.items())
            if payload is not None
        )
        return merge(kept, written)

    def _over_accounts(self, rows: Iterable[StoredRow]) -> Iterator[StoredRow]:
        if not self.accounts:
            yield from rows
            return
        written = [(account_key(address), write) for address, write in self.accounts.items()]
        written.sort(key=lambda pair: pair[0])
        position = 0
        for key, stored in rows:
            while position < len(written) and written[position][0] < key:
                yield from _account_row(*written[position], None)
                position += 1
            if position < len(written) and written[position][0] == key:
                yield from _account_row(*written[position], stored)
                position += 1
            else:
                yield key, stored
        for key, write in written[position:]:
            yield from _account_row(key, write, None)


def _account_row(key: bytes, write: AccountWrite, stored: bytes | None) -> Iterator[StoredRow]:
    """The row after the write, nothing when all its fields are zero."""
    old = bytes(72)
    if stored is not None:
        try:
            old = payload_of(Bucket.ACCOUNT, stored)
        except DigestError as error:
            raise DigestError(f"deserialize account {key.hex().upper()}: {error}") from error
    nonce = int.from_bytes(old[32:40], "big") if write.nonce is None else write.nonce
    codehash = old[40:] if write.codehash is None else write.codehash
    payload = account_payload(old[:32], nonce, codehash)
    if any(payload):
        yield key, encode_value(Bucket.ACCOUNT, payload, write.height)


def _require(what: str, value: bytes | None, length: int) -> None:
    if value is not None and len(value) != length:
        raise DigestError(
            f"failed to gather account updates: invalid {what} value: "
            f"invalid {what} value length: got {len(value)}, expected {length}"
        )


def _collect(changes: ChangeSets) -> _Block:
    block = _Block()
    targets = {
        RawKind.STORAGE: block.storage,
        RawKind.CODE: block.codes,
        RawKind.MISC: block.misc,
    }
    for module, pairs in changes:
        if not pairs:
            continue
        if not module:
            raise DigestError("flatkv: empty module name in changeset")
        if module != "evm":
            prefix = module.encode() + b"/"
            for key, value in pairs:
                block.misc[prefix + key] = value
            continue
        for key, value in pairs:
            kind = raw_kind(key)
            if kind is RawKind.NONCE:
                block.nonces[key[1:]] = value
            elif kind is RawKind.CODEHASH:
                block.codehashes[key[1:]] = value
            elif kind is RawKind.EMPTY:
                raise DigestError("flatkv: empty key in changeset")
            else:
                targets[kind][EVM_PREFIX + key] = value
    return block
