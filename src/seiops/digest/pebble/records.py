"""Record framing shared by MANIFEST and write-ahead log: chunks in 32 KiB blocks (docs/contracts/digest.md 5.2)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from struct import Struct

from seiops.digest.pebble.checksum import masked_crc32c

BLOCK = 32 * 1024
_HEADER = Struct("<IHB")
_LE32 = Struct("<I")
_LEGACY_HEADER, _RECYCLABLE_HEADER, _SYNC_HEADER = 7, 11, 19


class Ending(Enum):
    """How a file of records ended: at a record boundary, or in something that is not a record."""

    CLEAN = "clean"
    TORN = "torn"


def _format_of(kind: int) -> tuple[int, int] | None:
    """(header length, position: 0 full, 1 first, 2 middle, 3 last) of a chunk type."""
    if 1 <= kind <= 4:
        return _LEGACY_HEADER, kind - 1
    if 5 <= kind <= 8:
        return _RECYCLABLE_HEADER, kind - 5
    if 9 <= kind <= 12:
        return _SYNC_HEADER, kind - 9
    return None


class RecordReader:
    """Iterates the records of one file. `ending` is set once the iteration is over.

    `log_number` is the file's own number for logs, None for a MANIFEST, whose chunks carry none.
    """

    def __init__(self, data: bytes, log_number: int | None) -> None:
        self._data = data
        self._log_number = log_number
        self._open = False
        self.ending = Ending.CLEAN

    def __iter__(self) -> Iterator[bytes]:
        parts: list[bytes] | None = None
        for position, payload in self._chunks():
            if position == 0:
                yield payload
                parts = None
            elif position == 1:
                parts = [payload]
            elif parts is not None:
                parts.append(payload)
                if position == 3:
                    yield b"".join(parts)
                    parts = None
            self._open = parts is not None
        if parts is not None:
            self.ending = Ending.TORN

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        data, size, position = self._data, len(self._data), 0
        while True:
            block_end = min(position - position % BLOCK + BLOCK, size)
            left = block_end - position
            if left < _LEGACY_HEADER:
                if block_end < size:
                    position = block_end
                    continue
                self.ending = Ending.CLEAN if left == 0 else Ending.TORN
                return
            crc, length, kind = _HEADER.unpack_from(data, position)
            if crc == 0 and length == 0 and kind == 0:
                if left < _RECYCLABLE_HEADER or (left < _SYNC_HEADER and not any(data[position:block_end])):
                    if block_end >= size:
                        return
                    position = block_end
                    continue
                self.ending = Ending.TORN
                return
            chunk = self._chunk(position, block_end, crc, length, kind)
            if chunk is None:
                return
            yield chunk
            header, _ = _format_of(kind) or (0, 0)
            position += header + length

    def _chunk(self, position: int, block_end: int, crc: int, length: int, kind: int) -> tuple[int, bytes] | None:
        """The chunk at `position`, or None with `ending` set."""
        shape = _format_of(kind)
        self.ending = Ending.TORN
        if shape is None or position + shape[0] + length > block_end:
            return None
        header, place = shape
        if (header == _LEGACY_HEADER) != (self._log_number is None):
            return None
        if self._log_number is not None and self._is_trailer(position, crc, length):
            self.ending = Ending.CLEAN
            return None
        if masked_crc32c(self._data[position + 6 : position + header + length]) != crc:
            return None
        if self._log_number is not None and self._chunk_log(position) != self._log_number & 0xFFFFFFFF:
            return None
        self.ending = Ending.CLEAN
        return place, self._data[position + header : position + header + length]

    def _chunk_log(self, position: int) -> int:
        number: int = _LE32.unpack_from(self._data, position + 7)[0]
        return number

    def _is_trailer(self, position: int, crc: int, length: int) -> bool:
        """The mark a log is closed with: an empty chunk of the next log number, without checksum."""
        assert self._log_number is not None
        next_log = (self._log_number + 1) & 0xFFFFFFFF
        return crc == 0 and length == 0 and not self._open and self._chunk_log(position) == next_log
