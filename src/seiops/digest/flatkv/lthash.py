"""LtHash: the homomorphic sum FlatKV keeps over all rows (docs/contracts/digest.md 4.9).

1,024 limbs of 16 bits added modulo 65,536. Even and odd limbs are summed in two big integers with 32-bit lanes, so that
a carry never leaves its lane; 65,535 rows fit before the lanes are folded.
"""

from __future__ import annotations

from struct import Struct

from blake3 import blake3

LIMBS = 1024
LENGTH = 2 * LIMBS
IDENTITY = bytes(LENGTH)

_LE32 = Struct("<I")
_EVEN = int.from_bytes(b"\xff\xff\x00\x00" * (LIMBS // 2), "little")
_LANE_CAPACITY = 65535


def row_hash(key: bytes, value: bytes) -> bytes:
    """2,048-byte hash of one row; `key` is the physical key, `value` the complete stored value."""
    message = _LE32.pack(len(key)) + key + _LE32.pack(len(value)) + value
    return blake3(message).digest(LENGTH)


def checksum(value: bytes) -> bytes:
    """The 32-byte short form of a sum."""
    return blake3(value).digest()


class LtHash:
    """A running sum of row hashes."""

    def __init__(self, value: bytes = IDENTITY) -> None:
        self._even = self._odd = 0
        self._pending = 0
        self.add_hash(value)

    def add(self, key: bytes, value: bytes) -> None:
        self.add_hash(row_hash(key, value))

    def add_hash(self, value: bytes) -> None:
        """Add a 2,048-byte sum or row hash."""
        number = int.from_bytes(value, "little")
        self._even += number & _EVEN
        self._odd += (number >> 16) & _EVEN
        self._pending += 1
        if self._pending == _LANE_CAPACITY:
            self._fold()

    def _fold(self) -> None:
        self._even &= _EVEN
        self._odd &= _EVEN
        self._pending = 1

    def digest(self) -> bytes:
        return ((self._even & _EVEN) | ((self._odd & _EVEN) << 16)).to_bytes(LENGTH, "little")
