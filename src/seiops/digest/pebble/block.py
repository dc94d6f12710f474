"""Blocks of a table: checksum, decompression, and the prefix-compressed rows inside (docs/contracts/digest.md 5.6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

import cramjam

from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.files import MappedFile
from seiops.digest.pebble.checksum import masked_crc32c, xxhash64
from seiops.digest.wire import WireError, uvarint

TRAILER_LENGTH = 5
NO_COMPRESSION, SNAPPY, ZSTD = 0, 1, 7
NO_CHECKSUM, CRC32C, XXHASH64 = 0, 1, 3
LARGEST_BLOCK = 1 << 30
"""No block unpacks to more: a length above it is damage, not data, and is refused before anything is allocated."""
_LE32 = Struct("<I")
_LE64 = Struct("<Q")


class Handle(NamedTuple):
    """Where a block is; `length` does not count the 5-byte trailer."""

    offset: int
    length: int


def read_handle(data: bytes, position: int = 0) -> tuple[Handle, int]:
    offset, position = uvarint(data, position, len(data))
    length, position = uvarint(data, position, len(data))
    return Handle(offset, length), position


@dataclass(frozen=True, slots=True)
class BlockReader:
    """Reads checked, decompressed blocks of one table file."""

    file: MappedFile
    checksum_type: int

    def read(self, handle: Handle) -> bytes:
        end = handle.offset + handle.length + TRAILER_LENGTH
        if end > self.file.size:
            raise DigestError(f"{self.file.path}: block at {handle.offset} lies outside the file; the table is damaged")
        stored = self.file.slice(handle.offset, end)
        body, kind = stored[: handle.length + 1], stored[handle.length]
        if (
            self.checksum_type != NO_CHECKSUM
            and self._checksum(body) != _LE32.unpack_from(stored, handle.length + 1)[0]
        ):
            raise DigestError(
                f"{self.file.path}: checksum mismatch in the block at {handle.offset}; the table is damaged"
            )
        try:
            return _decompress(kind, stored[: handle.length])
        except (cramjam.DecompressionError, WireError, ValueError) as error:
            raise DigestError(f"{self.file.path}: block at {handle.offset} does not unpack: {error}") from error
        except UnsupportedFormatError as error:
            raise UnsupportedFormatError(f"{self.file.path}: block at {handle.offset}: {error}") from error

    def _checksum(self, body: bytes) -> int:
        if self.checksum_type == CRC32C:
            return masked_crc32c(body)
        return xxhash64(body) & 0xFFFFFFFF


def _decompress(kind: int, data: bytes) -> bytes:
    if kind == NO_COMPRESSION:
        return data
    if kind == SNAPPY:
        _require_size(cramjam.snappy.decompress_raw_len(data))
        return bytes(cramjam.snappy.decompress_raw(data))
    if kind != ZSTD:
        raise UnsupportedFormatError(f"compression type {kind} is not supported (none, snappy and zstd are)")
    length, position = uvarint(data, 0, len(data))
    _require_size(length)
    out = bytearray(length)
    if length:
        written = cramjam.zstd.decompress_into(data[position:], out)
        if written != length:
            raise WireError(f"{written} bytes instead of {length}")
    return bytes(out)


def _require_size(length: int) -> None:
    if length > LARGEST_BLOCK:
        raise WireError(f"claims to unpack to {length} bytes")


def rows(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of every entry of a row block, front to back. Raises WireError."""
    if len(data) < 4:
        raise WireError("row block shorter than its tail")
    end = len(data) - 4 - 4 * (_LE32.unpack_from(data, len(data) - 4)[0] & 0x7FFFFFFF)
    if end < 0:
        raise WireError("row block shorter than its restart points")
    key, position = b"", 0
    while position < end:
        shared = data[position]
        if shared < 0x80:
            position += 1
        else:
            shared, position = uvarint(data, position, end)
        unshared, position = uvarint(data, position, end)
        value_length, position = uvarint(data, position, end)
        value_start = position + unshared
        value_end = value_start + value_length
        if shared > len(key) or value_end > end:
            raise WireError("row block entry lies outside the block")
        key = key[:shared] + data[position:value_start] if shared else data[position:value_start]
        yield key, data[value_start:value_end]
        position = value_end


def internal_rows(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """(user key, trailer, value) of a row block of internal keys, the obsolete flag of the kind left in place."""
    unpack = _LE64.unpack_from
    for key, value in rows(data):
        user_length = len(key) - 8
        if user_length < 0:
            raise WireError("internal key shorter than its trailer")
        yield key[:user_length], unpack(key, user_length)[0], value
