"""The digest itself: entry hashes, XOR accumulators, the final hash, and what a scan hands back.

Nothing here reads a file. Every engine, the parser of seidb's report and the verifier of published records share these
definitions (docs/contracts/digest.md 1.1 to 1.5).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from struct import Struct
from typing import NamedTuple

from seiops.digest.keys import BUCKETS, MARKERS, Bucket

_BE32 = Struct(">I")
ACCOUNT_PAYLOAD_LENGTH = 72
ZERO_WORD = bytes(32)


class Backend(StrEnum):
    FLATKV = "flatkv"
    MEMIAVL = "memiavl"
    COMPOSITE = "composite"


class OpenMode(StrEnum):
    """How a memiavl height is reached: a snapshot of exactly that height, or a snapshot plus its changelog."""

    SNAPSHOT = "snapshot"
    REPLAY = "replay"


class Normalization(StrEnum):
    """Which of the two decoders turns memiavl leaves into logical rows (docs/contracts/digest.md 1.8)."""

    SEMANTIC = "semantic"
    TRANSLATOR = "translator"


class Verification(StrEnum):
    """Depth of the integrity checks: those that cost nothing, or every hash the store holds."""

    CHEAP = "cheap"
    FULL = "full"


def entry_hash(key: bytes, value: bytes) -> bytes:
    """32-byte hash of one logical row (docs/contracts/digest.md 1.1)."""
    return hashlib.sha256(_BE32.pack(len(key)) + key + _BE32.pack(len(value)) + value).digest()


def account_payload(balance: bytes, nonce: int, codehash: bytes) -> bytes:
    """72-byte logical payload of an account row; balance and codehash are 32 bytes each."""
    return balance + nonce.to_bytes(8, "big") + codehash


@dataclass(slots=True)
class Tally:
    """One XOR accumulator and its row count (docs/contracts/digest.md 1.2)."""

    accumulator: int = 0
    count: int = 0

    def add(self, row_hash: bytes) -> None:
        self.accumulator ^= int.from_bytes(row_hash, "big")
        self.count += 1

    def without(self, row_hash: bytes) -> Tally:
        """The tally as if one row of this hash had not been added."""
        return Tally(self.accumulator ^ int.from_bytes(row_hash, "big"), self.count - 1)

    @property
    def digest(self) -> bytes:
        return self.accumulator.to_bytes(32, "big")

    @property
    def hex(self) -> str:
        """Uppercase, as every report prints it."""
        return self.digest.hex().upper()


def final_digest(digests: Mapping[Bucket, bytes]) -> bytes:
    """SHA-256 over the four bucket digests in their fixed order (docs/contracts/digest.md 1.4)."""
    return hashlib.sha256(b"".join(digests[bucket] for bucket in BUCKETS)).digest()


@dataclass(slots=True)
class Totals:
    """Outcome of one digest scan, before the marker adjustment.

    `markers` holds the entry hash of each migration marker row that was counted under misc; `input_rows` counts what was
    read (physical rows or leaves), `consumed_rows` what a composite scan took from memiavl.
    """

    tallies: dict[Bucket, Tally] = field(default_factory=lambda: {bucket: Tally() for bucket in BUCKETS})
    markers: dict[bytes, bytes] = field(default_factory=dict)
    input_rows: int = 0
    memiavl_rows: int = 0
    consumed_rows: int = 0

    def adjusted(self) -> dict[Bucket, Tally]:
        """The four tallies with marker rows taken out of misc (docs/contracts/digest.md 1.5)."""
        tallies = dict(self.tallies)
        for row_hash in self.markers.values():
            tallies[Bucket.MISC] = tallies[Bucket.MISC].without(row_hash)
        return tallies

    @property
    def omitted_markers(self) -> list[bytes]:
        return [marker for marker in MARKERS if marker in self.markers]

    @property
    def final(self) -> bytes:
        return final_digest({bucket: tally.digest for bucket, tally in self.adjusted().items()})

    @property
    def final_hex(self) -> str:
        return self.final.hex().upper()

    @property
    def count(self) -> int:
        return sum(tally.count for tally in self.adjusted().values())


class Row(NamedTuple):
    """One logical row.

    `stored` is the value as its store holds it (empty where rows were merged), `height` the block of the last write where
    the store knows it: FlatKV from the row's header, memiavl from the leaf (docs/contracts/digest.md 1.11, 3.8, 4.3).
    """

    bucket: Bucket
    key: bytes
    payload: bytes
    stored: bytes = b""
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A point in a running scan.

    `source` is the store being read (a composite scan reads FlatKV first), `rows` what was read of it, `buffered` the
    accounts waiting to be merged, `consumed` the memiavl rows a composite scan took.
    """

    source: Backend
    rows: int
    counts: Mapping[Bucket, int]
    buffered: int = 0
    consumed: int = 0
    bytes_read: int | None = None
    bytes_total: int | None = None
