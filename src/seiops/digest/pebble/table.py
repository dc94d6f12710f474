"""One table file: footer, properties, index, and its points in order (docs/contracts/digest.md 5.6 to 5.9)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.files import MappedFile, system_text
from seiops.digest.pebble.batch import RANGEDEL, SET
from seiops.digest.pebble.block import (
    CRC32C,
    NO_CHECKSUM,
    XXHASH64,
    BlockReader,
    Handle,
    internal_rows,
    read_handle,
    rows,
)
from seiops.digest.pebble.bloom import may_contain
from seiops.digest.wire import WireError, uvarint

PEBBLE_MAGIC = bytes.fromhex("f09faab3f09faab3")
ROCKSDB_MAGIC = bytes.fromhex("f7cff485b741e288")
LEVELDB_MAGIC = bytes.fromhex("57fb808b247547db")
OLDEST_PEBBLE_TABLE, NEWEST_PEBBLE_TABLE = 1, 4
FIRST_WITH_VALUE_PREFIX = 3
OBSOLETE_FLAG = 0x40

PROPERTIES = b"rocksdb.properties"
RANGE_DELETIONS = b"rocksdb.range_del2"
VALUE_INDEX = b"pebble.value_index"
BLOOM_FILTER = b"fullfilter.rocksdb.BuiltinBloomFilter"
INDEX_TYPE = b"rocksdb.block.based.table.index.type"
_TWO_LEVEL = 2

_LE32 = Struct("<I")


class Point(NamedTuple):
    """One stored version of a key. Ordering by (key, -sequence) is the order of the merged database."""

    key: bytes
    negated_sequence: int
    kind: int
    value: bytes


class RangeDeletion(NamedTuple):
    """Hides keys in [start, end) written before `sequence`."""

    start: bytes
    end: bytes
    sequence: int


class Footer(NamedTuple):
    family: str
    version: int
    checksum_type: int
    metaindex: Handle
    index_block: Handle


def read_footer(file: MappedFile) -> Footer:
    """Locate the index from the end of the file. Raises UnsupportedFormatError for layouts not read here."""
    magic = file.slice(max(file.size - 8, 0), file.size)
    if magic == LEVELDB_MAGIC:
        return _footer(file, 48, "leveldb")
    if magic == ROCKSDB_MAGIC:
        return _footer(file, 53, "rocksdb")
    if magic != PEBBLE_MAGIC:
        raise DigestError(f"{file.path}: no table footer (magic {magic.hex()}); the table is damaged")
    footer = _footer(file, 53, "pebble")
    if not OLDEST_PEBBLE_TABLE <= footer.version <= NEWEST_PEBBLE_TABLE:
        raise UnsupportedFormatError(
            f"{file.path}: table format v{footer.version}; v{OLDEST_PEBBLE_TABLE} to v{NEWEST_PEBBLE_TABLE} are supported"
        )
    return footer


def _footer(file: MappedFile, length: int, family: str) -> Footer:
    if file.size < length:
        raise DigestError(f"{file.path}: shorter than a table footer")
    data = file.slice(file.size - length, file.size)
    checksum_type, version, position = CRC32C, 0, 0
    if family != "leveldb":
        checksum_type, position = data[0], 1
        version = _LE32.unpack_from(data, 41)[0] if family == "pebble" else 0
    if checksum_type not in (NO_CHECKSUM, CRC32C, XXHASH64):
        raise UnsupportedFormatError(f"{file.path}: checksum type {checksum_type} is not supported")
    try:
        metaindex, position = read_handle(data, position)
        index, _ = read_handle(data, position)
    except WireError as error:
        raise DigestError(f"{file.path}: footer: {error}; the table is damaged") from error
    return Footer(family, version, checksum_type, metaindex, index)


class Table:
    """An open table. Opening reads footer, metaindex, properties and range deletions, points only when iterated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = MappedFile(str(path))
        except OSError as error:
            raise DigestError(system_text("open", str(path), error)) from error
        self.footer = read_footer(self._file)
        self._blocks = BlockReader(self._file, self.footer.checksum_type)
        try:
            self.metaindex = dict(rows(self._blocks.read(self.footer.metaindex)))
            self.properties = self._read_properties()
            self.range_deletions = list(self._read_range_deletions())
            self._values = self._open_values()
        except WireError as error:
            raise DigestError(f"{path}: {error}; the table is damaged") from error

    @property
    def two_level(self) -> bool:
        value = self.properties.get(INDEX_TYPE, bytes(4))
        return len(value) == 4 and _LE32.unpack(value)[0] == _TWO_LEVEL

    @property
    def value_prefixes(self) -> bool:
        return self.footer.family == "pebble" and self.footer.version >= FIRST_WITH_VALUE_PREFIX

    def points(self, lower: bytes = b"", upper: bytes | None = None) -> Iterator[Point]:
        """Points with lower <= key < upper in table order, obsolete flags cleared, values resolved."""
        prefixed = self.value_prefixes
        try:
            for handle in self._data_blocks(lower, upper):
                for key, trailer, value in internal_rows(self._blocks.read(handle)):
                    if key < lower:
                        continue
                    if upper is not None and key >= upper:
                        return
                    kind = trailer & 0xBF
                    if prefixed and kind == SET:
                        value = self._resolve(value)
                    yield Point(key, -(trailer >> 8), kind, value)
        except WireError as error:
            raise DigestError(f"{self.path}: {error}; the table is damaged") from error

    def may_contain(self, key: bytes) -> bool:
        """False only if the table's filter rules the key out."""
        if BLOOM_FILTER not in self.metaindex:
            return True
        return may_contain(self._blocks.read(read_handle(self.metaindex[BLOOM_FILTER])[0]), key)

    def _data_blocks(self, lower: bytes, upper: bytes | None) -> Iterator[Handle]:
        for handle in self._index_blocks(lower, upper):
            yield from self._pointed(handle, lower, upper)

    def _index_blocks(self, lower: bytes, upper: bytes | None) -> Iterator[Handle]:
        if self.two_level:
            yield from self._pointed(self.footer.index_block, lower, upper)
        else:
            yield self.footer.index_block

    def _pointed(self, index: Handle, lower: bytes, upper: bytes | None) -> Iterator[Handle]:
        """Handles of an index block that can hold keys of the range; a separator is no smaller than its block's keys."""
        for separator, _, value in internal_rows(self._blocks.read(index)):
            if separator < lower:
                continue
            yield read_handle(value)[0]
            if upper is not None and separator >= upper:
                return

    def _read_properties(self) -> dict[bytes, bytes]:
        if PROPERTIES not in self.metaindex:
            return {}
        handle, _ = read_handle(self.metaindex[PROPERTIES])
        return dict(rows(self._blocks.read(handle)))

    def _read_range_deletions(self) -> Iterator[RangeDeletion]:
        if RANGE_DELETIONS not in self.metaindex:
            return
        handle, _ = read_handle(self.metaindex[RANGE_DELETIONS])
        for start, trailer, end in internal_rows(self._blocks.read(handle)):
            if trailer & 0xBF == RANGEDEL:
                yield RangeDeletion(start, end, trailer >> 8)

    def _open_values(self) -> ValueBlocks | None:
        if VALUE_INDEX not in self.metaindex:
            return None
        return ValueBlocks(self._blocks, self.metaindex[VALUE_INDEX])

    def _resolve(self, stored: bytes) -> bytes:
        """Value of a SET entry behind its prefix byte (docs/contracts/digest.md 5.8)."""
        if not stored:
            raise WireError("a set entry lacks its value prefix")
        place = stored[0] >> 6
        if place == 0:
            return stored[1:]
        if place != 2:
            raise UnsupportedFormatError(f"{self.path}: a value lies in a blob file, which is not supported")
        if self._values is None:
            raise WireError("a value lies in a value block, but the table has no value index")
        return self._values.value(stored)

    def close(self) -> None:
        self._file.close()


class ValueBlocks:
    """Values stored apart from their keys: older versions kept for an open snapshot."""

    def __init__(self, blocks: BlockReader, entry: bytes) -> None:
        self._blocks = blocks
        handle, position = read_handle(entry)
        widths = entry[position : position + 3]
        if len(widths) < 3:
            raise WireError("value index without its field widths")
        self._handles = list(_value_handles(blocks.read(handle), tuple(widths)))
        self._cached: tuple[int, bytes] = (-1, b"")

    def value(self, stored: bytes) -> bytes:
        length, position = uvarint(stored, 1, len(stored))
        number, position = uvarint(stored, position, len(stored))
        offset, _ = uvarint(stored, position, len(stored))
        if number >= len(self._handles):
            raise WireError(f"value block {number} of {len(self._handles)}")
        if self._cached[0] != number:
            self._cached = (number, self._blocks.read(self._handles[number]))
        block = self._cached[1]
        if offset + length > len(block):
            raise WireError(f"a value lies outside value block {number}")
        return block[offset : offset + length]


def _value_handles(data: bytes, widths: tuple[int, ...]) -> Iterator[Handle]:
    number_width, offset_width, length_width = widths
    row = number_width + offset_width + length_width
    if row == 0 or len(data) % row:
        raise WireError("value index of odd length")
    for start in range(0, len(data), row):
        offset_at = start + number_width
        length_at = offset_at + offset_width
        yield Handle(
            int.from_bytes(data[offset_at:length_at], "little"), int.from_bytes(data[length_at : start + row], "little")
        )
