"""Bookkeeping rows of one FlatKV database, and the checks they allow (docs/contracts/digest.md 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from seiops.digest.errors import DigestError
from seiops.digest.flatkv.lthash import IDENTITY, LENGTH, LtHash, checksum
from seiops.digest.flatkv.overlay import StoredRow
from seiops.digest.keys import META_PREFIX, module_of
from seiops.digest.model import Verification
from seiops.digest.pebble.database import Database

VERSION_KEY = b"_meta/version"
HASH_KEY = b"_meta/hash"
_MODULE_PREFIX = b"_meta/x:"
_META_END = b"_meta0"


class RowSource(Protocol):
    """Whatever rows can be read from: a database of either engine."""

    def rows(self, low: bytes, high: bytes, /) -> Iterator[tuple[bytes, bytes]]: ...


@dataclass(frozen=True, slots=True)
class ModuleStats:
    """Rows of one module in one database: how many, and the sum of their key and value lengths."""

    rows: int
    bytes: int


@dataclass(slots=True)
class DatabaseMeta:
    """What a database says of itself. `version` is 0 for one never written."""

    version: int = 0
    root: bytes | None = None
    module_hashes: dict[bytes, bytes] = field(default_factory=dict)
    module_stats: dict[bytes, ModuleStats] = field(default_factory=dict)


def load_meta(name: str, database: RowSource) -> DatabaseMeta:
    """Read the bookkeeping rows. Raises DigestError when they contradict each other."""
    rows = dict(database.rows(META_PREFIX, _META_END))
    meta = DatabaseMeta()
    try:
        meta.version = _version(rows)
        meta.root = _hash(rows, HASH_KEY)
        for key in rows:
            if key.startswith(_MODULE_PREFIX) and key.endswith(b"/hash"):
                value = _hash(rows, key)
                assert value is not None
                meta.module_hashes[key[len(_MODULE_PREFIX) : -len(b"/hash")]] = value
            elif key.startswith(_MODULE_PREFIX) and key.endswith(b"/stats"):
                meta.module_stats[key[len(_MODULE_PREFIX) : -len(b"/stats")]] = _stats(key, rows[key])
    except DigestError as error:
        raise DigestError(f"failed to load {name} local meta: {error}") from error
    return meta


def _version(rows: dict[bytes, bytes]) -> int:
    value = rows.get(VERSION_KEY)
    if value is None:
        if rows:
            other = min(rows).decode("utf-8", "replace")
            raise DigestError(
                f"flatkv: _meta/version is absent but {other} is present; this DB lost its version record, "
                "and no replay can rebuild the root it should have"
            )
        return 0
    if len(value) != 8:
        raise DigestError(f"flatkv: _meta/version has {len(value)} bytes, want 8")
    version = int.from_bytes(value, "big")
    if version >> 63:
        raise DigestError(f"flatkv: _meta/version {version} does not fit a signed 64-bit number")
    return version


def _hash(rows: dict[bytes, bytes], key: bytes) -> bytes | None:
    value = rows.get(key)
    if value is not None and len(value) != LENGTH:
        raise DigestError(f"flatkv: {key.decode('utf-8', 'replace')} has {len(value)} bytes, want {LENGTH}")
    return value


def _stats(key: bytes, value: bytes) -> ModuleStats:
    if len(value) != 16:
        raise DigestError(f"flatkv: {key.decode('utf-8', 'replace')} has {len(value)} bytes, want 16")
    return ModuleStats(int.from_bytes(value[:8], "big", signed=True), int.from_bytes(value[8:], "big", signed=True))


def check_sums(name: str, meta: DatabaseMeta) -> None:
    """Rules 2 and 3 of docs/contracts/digest.md 4.4, for generations that keep hashes per module."""
    if meta.root is None:
        return
    if not meta.module_hashes:
        if meta.root != IDENTITY:
            raise DigestError(
                f"flatkv: {name} carries a non-identity per-DB LtHash root but no per-module metadata; "
                "this store predates per-module hashing and cannot be opened (migration is intentionally unsupported "
                "— recreate the store from a snapshot or genesis)"
            )
        return
    total = LtHash()
    for value in meta.module_hashes.values():
        total.add_hash(value)
    if total.digest() != meta.root:
        raise DigestError(
            f"flatkv: {name} per-module hashes do not sum to per-DB root "
            f"(root={checksum(meta.root).hex()} sum={checksum(total.digest()).hex()})"
        )


def checked_rows(name: str, database: Database, meta: DatabaseMeta, verification: Verification) -> Iterator[StoredRow]:
    """All rows of a database but its bookkeeping; at their end counts, bytes and, on FULL, hashes must fit the meta rows."""
    seen: dict[bytes, list[int]] = {}
    hashes: dict[bytes, LtHash] = {}
    for key, value in database.rows():
        if key.startswith(META_PREFIX):
            continue
        module = module_of(key)
        stats = seen.setdefault(module, [0, 0])
        stats[0] += 1
        stats[1] += len(key) + len(value)
        if verification is Verification.FULL:
            hashes.setdefault(module, LtHash()).add(key, value)
        yield key, value
    _check_stats(name, database, seen, meta)
    if verification is Verification.FULL:
        _check_hashes(name, database, hashes, meta)


def _check_stats(name: str, database: Database, seen: dict[bytes, list[int]], meta: DatabaseMeta) -> None:
    if not meta.module_stats:
        return
    for module in sorted(seen.keys() | meta.module_stats.keys()):
        want = meta.module_stats.get(module, ModuleStats(0, 0))
        rows, size = seen.get(module, (0, 0))
        if (rows, size) != (want.rows, want.bytes):
            raise DigestError(
                f"{database.path}: module {module.decode('utf-8', 'replace')} has {rows} rows with {size} bytes, "
                f"but its statistics say {want.rows} rows with {want.bytes} bytes; the {name} database is damaged"
            )


def _check_hashes(name: str, database: Database, hashes: dict[bytes, LtHash], meta: DatabaseMeta) -> None:
    if meta.module_hashes:
        for module in sorted(hashes.keys() | meta.module_hashes.keys()):
            found = hashes[module].digest() if module in hashes else IDENTITY
            if found != meta.module_hashes.get(module, IDENTITY):
                raise DigestError(
                    f"{database.path}: LtHash of module {module.decode('utf-8', 'replace')} is {checksum(found).hex()}, "
                    f"stored {checksum(meta.module_hashes.get(module, IDENTITY)).hex()}; the {name} database is damaged"
                )
        return
    total = LtHash()
    for value in hashes.values():
        total.add_hash(value.digest())
    if meta.root is not None and total.digest() != meta.root:
        raise DigestError(
            f"{database.path}: LtHash is {checksum(total.digest()).hex()}, stored {checksum(meta.root).hex()}; "
            f"the {name} database is damaged"
        )
