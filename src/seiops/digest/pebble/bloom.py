"""Bloom filters of tables: whether a point lookup can skip one (docs/contracts/digest.md 5.7)."""

from __future__ import annotations

from struct import Struct

_LE32 = Struct("<I")
_SEED, _STEP, _MASK = 0xBC9F1D34, 0xC6A4A793, 0xFFFFFFFF
_LINE_BITS = 512


def bloom_hash(key: bytes) -> int:
    """32-bit hash of a user key."""
    value = (_SEED ^ (len(key) * _STEP)) & _MASK
    whole = len(key) - len(key) % 4
    for position in range(0, whole, 4):
        value = (value + _LE32.unpack_from(key, position)[0]) * _STEP & _MASK
        value ^= value >> 16
    rest = key[whole:]
    if rest:
        for place in reversed(range(len(rest))):
            signed = rest[place] - 256 if rest[place] >= 128 else rest[place]
            value = (value + (signed << (8 * place))) & _MASK
        value = value * _STEP & _MASK
        value ^= value >> 24
    return value


def may_contain(block: bytes, key: bytes) -> bool:
    """False only if the filter proves that its table does not hold the key."""
    if len(block) < 5:
        return True
    probes = block[-5]
    lines = _LE32.unpack_from(block, len(block) - 4)[0]
    if lines == 0 or len(block) - 5 != lines * _LINE_BITS // 8:
        return True
    value = bloom_hash(key)
    delta = (value >> 17 | value << 15) & _MASK
    line = value % lines * _LINE_BITS
    for _ in range(probes):
        bit = line + value % _LINE_BITS
        if not block[bit // 8] & (1 << (bit % 8)):
            return False
        value = (value + delta) & _MASK
    return True
