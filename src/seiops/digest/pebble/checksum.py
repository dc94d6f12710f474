"""The two checksums of Pebble files (docs/contracts/digest.md 5.2, 5.6)."""

from __future__ import annotations

from struct import Struct

import google_crc32c

_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), rotated and offset the way LevelDB's descendants store it."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


_PRIME1 = 0x9E3779B185EBCA87
_PRIME2 = 0xC2B2AE3D27D4EB4F
_PRIME3 = 0x165667B19E3779F9
_PRIME4 = 0x85EBCA77C2B2AE63
_PRIME5 = 0x27D4EB2F165667C5
_M64 = (1 << 64) - 1
_LANES = Struct("<QQQQ")
_LE64 = Struct("<Q")
_LE32 = Struct("<I")


def xxhash64(data: bytes) -> int:
    """xxHash64 with seed 0. FlatKV's tables carry CRC-32C, so speed does not matter here."""
    length, position = len(data), 0
    if length >= 32:
        lanes = [(_PRIME1 + _PRIME2) & _M64, _PRIME2, 0, (-_PRIME1) & _M64]
        while position + 32 <= length:
            lanes = [_round(lane, word) for lane, word in zip(lanes, _LANES.unpack_from(data, position), strict=True)]
            position += 32
        value = sum(_rotate(lane, by) for lane, by in zip(lanes, (1, 7, 12, 18), strict=True)) & _M64
        for lane in lanes:
            value = ((value ^ _round(0, lane)) * _PRIME1 + _PRIME4) & _M64
    else:
        value = _PRIME5
    value = (value + length) & _M64
    while position + 8 <= length:
        word = _LE64.unpack_from(data, position)[0]
        value = (_rotate(value ^ _round(0, word), 27) * _PRIME1 + _PRIME4) & _M64
        position += 8
    if position + 4 <= length:
        word = _LE32.unpack_from(data, position)[0]
        value = (_rotate(value ^ (word * _PRIME1 & _M64), 23) * _PRIME2 + _PRIME3) & _M64
        position += 4
    for byte in data[position:]:
        value = _rotate(value ^ (byte * _PRIME5 & _M64), 11) * _PRIME1 & _M64
    value = (value ^ (value >> 33)) * _PRIME2 & _M64
    value = (value ^ (value >> 29)) * _PRIME3 & _M64
    return value ^ (value >> 32)


def _rotate(value: int, by: int) -> int:
    return ((value << by) | (value >> (64 - by))) & _M64


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _PRIME2) & _M64, 31) * _PRIME1 & _M64
