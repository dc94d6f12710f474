"""Varints and the few protobuf messages the stores' logs are made of.

A generic protobuf library would bring generated code for six tiny messages; reading fields off the wire is shorter than
declaring them (docs/contracts/digest.md 0, 3.3, 3.6).
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

Data = bytes | mmap


class WireError(ValueError):
    """The bytes end early or are not what the wire format allows."""


def uvarint(data: Data, position: int, end: int) -> tuple[int, int]:
    """LEB128 value at `position` and the position behind it; reads nothing at or behind `end`."""
    value = shift = 0
    while True:
        if position >= end:
            raise WireError("varint cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise WireError("varint larger than 64 bits")
            return value, position
        shift += 7
        if shift >= 70:
            raise WireError("varint longer than 10 bytes")


def encode_uvarint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_varint(value: int) -> bytes:
    """Zig-zag form of a signed 64-bit number."""
    return encode_uvarint((value << 1) ^ (value >> 63))


def signed(value: int) -> int:
    """A protobuf int64 from its unsigned wire value."""
    return value - (1 << 64) if value >> 63 else value


VARINT = 0
BYTES = 2


def fields(data: Data, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Fields of the message in data[start:end] as (number, kind, a, b).

    VARINT: a is the value. BYTES: the content is data[a:b]. Fixed-width fields are passed over, groups are refused.
    """
    position = start
    while position < end:
        tag, position = uvarint(data, position, end)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise WireError("field number 0")
        if kind == VARINT:
            value, position = uvarint(data, position, end)
            yield number, VARINT, value, 0
            continue
        if kind == BYTES:
            length, position = uvarint(data, position, end)
        elif kind == 1:
            length = 8
        elif kind == 5:
            length = 4
        else:
            raise WireError(f"wire type {kind}")
        if position + length > end:
            raise WireError("unexpected EOF")
        if kind == BYTES:
            yield number, BYTES, position, position + length
        position += length
