"""Writes Pebble databases in every shape a FlatKV reader may meet, and some that FlatKV never makes: table formats v1 to v4,
all compressions, two-level indexes, value blocks, range deletions, virtual tables, several levels, logs (docs/contracts/digest.md 5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby, pairwise
from pathlib import Path

import cramjam
import google_crc32c
import zstandard

from seiops.digest.pebble.checksum import xxhash64
from support.digest_writer import framed, uvarint

SENTINEL = (1 << 56) - 1
PEBBLE_MAGIC = b"\xf0\x9f\xaa\xb3\xf0\x9f\xaa\xb3"


class Kind(IntEnum):
    DEL = 0
    SET = 1
    LOGDATA = 3
    SINGLEDEL = 7
    RANGEDEL = 15
    SEPARATOR = 17
    SETWITHDEL = 18
    DELSIZED = 23


class Compression(IntEnum):
    NONE = 0
    SNAPPY = 1
    ZSTD = 7


class Checksum(IntEnum):
    NONE = 0
    CRC32C = 1
    XXHASH64 = 3


@dataclass(frozen=True)
class Op:
    """One write. A range deletion covers [key, value)."""

    sequence: int
    kind: Kind
    key: bytes
    value: bytes = b""


@dataclass(frozen=True)
class TableShape:
    version: int = 4
    compression: Compression = Compression.ZSTD
    checksum: Checksum = Checksum.CRC32C
    block_size: int = 200
    two_level: bool = False
    value_blocks: bool = False
    restart_interval: int = 4


def visible(ops: Sequence[Op]) -> dict[bytes, bytes]:
    """The rows a reader must see, by the plainest possible rule."""
    rows: dict[bytes, bytes] = {}
    for op in sorted(ops, key=lambda op: op.sequence):
        if op.kind is Kind.RANGEDEL:
            for key in [key for key in rows if op.key <= key < op.value]:
                del rows[key]
        elif op.kind in (Kind.SET, Kind.SETWITHDEL):
            rows[op.key] = op.value
        else:
            rows.pop(op.key, None)
    return rows


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# --- records -----------------------------------------------------------------------------------------------------------


def record_file(records: Sequence[bytes], log_number: int | None = None) -> bytes:
    """Records framed as in a MANIFEST, or, given a number, as in a write-ahead log."""
    base, tail = (1, b"") if log_number is None else (5, struct.pack("<I", log_number & 0xFFFFFFFF))
    header = 7 + len(tail)
    out = bytearray()
    for record in records:
        rest, first = record, True
        while first or rest:
            room = 32768 - len(out) % 32768
            if room < header:
                out += bytes(room)
                continue
            piece, rest = rest[: room - header], rest[room - header :]
            position = {(True, False): 0, (True, True): 1, (False, True): 2, (False, False): 3}[first, bool(rest)]
            body = bytes([base + position]) + tail + piece
            out += struct.pack("<IH", masked(body), len(piece)) + body
            first = False
    return bytes(out)


def batch(ops: Sequence[Op]) -> bytes:
    """One write-ahead log record; the ops carry consecutive sequence numbers."""
    body = b""
    for op in ops:
        body += bytes([op.kind]) + framed(op.key)
        if op.kind in (Kind.SET, Kind.SETWITHDEL, Kind.DELSIZED, Kind.RANGEDEL):
            body += framed(op.value)
    return struct.pack("<QI", ops[0].sequence if ops else 0, len(ops)) + body


# --- tables ------------------------------------------------------------------------------------------------------------


def row_block(entries: Sequence[tuple[bytes, bytes]], interval: int) -> bytes:
    out, restarts, previous = bytearray(), [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(previous)) and key[shared] == previous[shared]:
                shared += 1
        out += uvarint(shared) + uvarint(len(key) - shared) + uvarint(len(value)) + key[shared:] + value
        previous = key
    restarts = restarts or [0]
    return bytes(out) + b"".join(struct.pack("<I", at) for at in restarts) + struct.pack("<I", len(restarts))


def internal(key: bytes, sequence: int, kind: int) -> bytes:
    return key + struct.pack("<Q", sequence << 8 | kind)


@dataclass
class Table:
    data: bytes
    smallest: bytes
    largest: bytes
    sequences: tuple[int, int]


@dataclass
class _TableBuilder:
    shape: TableShape
    out: bytearray = field(default_factory=bytearray)

    def block(self, data: bytes, compression: Compression = Compression.NONE) -> tuple[int, int]:
        if compression is Compression.SNAPPY:
            data = bytes(cramjam.snappy.compress_raw(data))
        elif compression is Compression.ZSTD:
            data = uvarint(len(data)) + zstandard.ZstdCompressor(level=3).compress(data)
        body = data + bytes([compression])
        checksum = {
            Checksum.NONE: 0,
            Checksum.CRC32C: masked(body),
            Checksum.XXHASH64: xxhash64(body) & 0xFFFFFFFF,
        }[self.shape.checksum]
        offset = len(self.out)
        self.out += body + struct.pack("<I", checksum)
        return offset, len(data)


def _handle(handle: tuple[int, int]) -> bytes:
    return uvarint(handle[0]) + uvarint(handle[1])


def write_table(ops: Sequence[Op], shape: TableShape) -> Table:
    """A table of `ops` (any order). Bounds are internal keys."""
    builder = _TableBuilder(shape)
    points = sorted((op for op in ops if op.kind is not Kind.RANGEDEL), key=lambda op: (op.key, -op.sequence))
    deletions = sorted((op for op in ops if op.kind is Kind.RANGEDEL), key=lambda op: (op.key, -op.sequence))
    entries, value_rows = _encode_points(points, shape, builder)
    index = _write_data(entries, builder)
    two_level = shape.two_level and len(index) > 1
    if two_level:
        half = len(index) // 2
        parts = [index[:half], index[half:]]
        index = [(part[-1][0], _handle(builder.block(row_block(part, 1), shape.compression))) for part in parts]
    index_handle = builder.block(row_block(index, 1), shape.compression)
    meta = [(b"rocksdb.properties", _handle(builder.block(_properties(two_level), Compression.NONE)))]
    if value_rows:
        rows = b"".join(struct.pack("<BIH", number, at, length) for number, (at, length) in enumerate(value_rows))
        meta.append((b"pebble.value_index", _handle(builder.block(rows)) + bytes([1, 4, 2])))
    if deletions:
        block = row_block([(internal(op.key, op.sequence, Kind.RANGEDEL), op.value) for op in deletions], 1)
        meta.append((b"rocksdb.range_del2", _handle(builder.block(block))))
    metaindex = builder.block(row_block(sorted(meta), 1))
    footer = bytes([shape.checksum]) + _handle(metaindex) + _handle(index_handle)
    builder.out += footer.ljust(41, b"\0") + struct.pack("<I", shape.version) + PEBBLE_MAGIC
    bounds = [(op.key, -op.sequence, internal(op.key, op.sequence, op.kind)) for op in (*points, *deletions)]
    bounds += [(op.value, -SENTINEL, internal(op.value, SENTINEL, Kind.RANGEDEL)) for op in deletions]
    sequences = [op.sequence for op in ops]
    return Table(bytes(builder.out), min(bounds)[2], max(bounds)[2], (min(sequences), max(sequences)))


def _encode_points(
    points: Sequence[Op], shape: TableShape, builder: _TableBuilder
) -> tuple[list[tuple[bytes, bytes]], list[tuple[int, int]]]:
    entries, value_rows = [], []
    previous = None
    for op in points:
        shadowed, previous = op.key == previous, op.key
        kind, value = int(op.kind), op.value
        if shape.version >= 4 and shadowed:
            kind |= 0x40
        if shape.version >= 3 and op.kind is Kind.SET:
            if shape.value_blocks and shadowed and value:
                value_rows.append(builder.block(b"pad" + value, shape.compression))
                value = b"\x80" + uvarint(len(value)) + uvarint(len(value_rows) - 1) + uvarint(3)
            else:
                value = (b"\x20" if shadowed else b"\x00") + value
        entries.append((internal(op.key, op.sequence, kind), value))
    return entries, value_rows


def _write_data(entries: list[tuple[bytes, bytes]], builder: _TableBuilder) -> list[tuple[bytes, bytes]]:
    shape, index = builder.shape, []
    pending: list[tuple[bytes, bytes]] = []
    size = 0
    for number, entry in enumerate(entries):
        pending.append(entry)
        size += len(entry[0]) + len(entry[1])
        if size >= shape.block_size or number == len(entries) - 1:
            handle = builder.block(row_block(pending, shape.restart_interval), shape.compression)
            index.append((pending[-1][0], _handle(handle)))
            pending, size = [], 0
    return index


def _properties(two_level: bool) -> bytes:
    index_type = struct.pack("<I", 2 if two_level else 0)
    return row_block([(b"rocksdb.block.based.table.index.type", index_type), (b"rocksdb.comparator", b"x")], 16)


# --- databases ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DatabaseShape:
    """How ops are spread: `levels` oldest first, each with its share of the ops in order; what is left goes to logs.

    `tables` splits a level below 0 into so many disjoint tables; `virtual` wraps tables into larger files.
    """

    levels: tuple[tuple[int, int], ...] = ()
    tables: int = 1
    shapes: tuple[TableShape, ...] = (TableShape(),)
    virtual: bool = False
    logs: int = 1
    batch: int = 3


def write_database(directory: Path, ops: Sequence[Op], shape: DatabaseShape) -> None:
    """A complete database directory of `ops`, which ascend by sequence number."""
    directory.mkdir(parents=True)
    edit = b"\x01" + framed(b"leveldb.BytewiseComparator")
    edits = [edit]
    number = 10
    shapes = iter(_cycled(shape.shapes))
    position = 0
    for level, share in shape.levels:
        mine, position = ops[position : position + share], position + share
        for part in _partition(mine, 1 if level == 0 else shape.tables):
            number += 1
            edits.append(_add_table(directory, level, number, part, next(shapes), shape.virtual))
    logs = ops[position:]
    edits.append(b"\x02" + uvarint(number + 1) + b"\x03" + uvarint(number + 50) + b"\x04" + uvarint(1 << 20))
    for part in _split(logs, shape.logs):
        number += 1
        records = [batch(part[at : at + shape.batch]) for at in range(0, len(part), shape.batch)]
        (directory / f"{number:06d}.log").write_bytes(record_file([*records, batch([])], number))
    # a log below the oldest unflushed one is a left-over
    left_over = batch([Op(1 << 40, Kind.SET, b"evm/left-over", b"\0" * 9)])
    (directory / "000003.log").write_bytes(record_file([left_over], 3))
    (directory / "MANIFEST-000001").write_bytes(record_file(edits))
    (directory / "marker.manifest.000001.MANIFEST-000001").write_bytes(b"")
    (directory / "marker.manifest.000000.MANIFEST-000000").write_bytes(b"")
    (directory / "marker.format-version.000001.016").write_bytes(b"")
    (directory / "OPTIONS-000002").write_text("[Options]\n  comparer=leveldb.BytewiseComparator\n")


def _cycled(shapes: Sequence[TableShape]) -> Iterator[TableShape]:
    while True:
        yield from shapes


def _split(ops: Sequence[Op], parts: int) -> list[list[Op]]:
    size = max(1, -(-len(ops) // max(parts, 1)))
    return [list(ops[at : at + size]) for at in range(0, len(ops), size)] or [[]]


def _partition(ops: Sequence[Op], tables: int) -> list[list[Op]]:
    """Parts with disjoint key ranges; range deletions are cut at the borders."""
    keys = sorted({op.key for op in ops if op.kind is not Kind.RANGEDEL})
    parts = [list(group) for _, group in groupby(keys, key=lambda key: keys.index(key) * tables // max(len(keys), 1))]
    borders = [b"", *(part[0] for part in parts[1:]), b"\xff" * 70]
    found = []
    for low, high in pairwise(borders):
        part = [op for op in ops if op.kind is not Kind.RANGEDEL and low <= op.key < high]
        for op in ops:
            if op.kind is Kind.RANGEDEL and max(op.key, low) < min(op.value, high):
                part.append(Op(op.sequence, op.kind, max(op.key, low), min(op.value, high)))
        if part:
            found.append(part)
    return found


def _add_table(directory: Path, level: int, number: int, ops: list[Op], shape: TableShape, virtual: bool) -> bytes:
    table = write_table(ops, shape)
    custom, edit = uvarint(6) + framed(uvarint(1234)), b""
    file_number, size = number, len(table.data)
    if virtual:
        file_number = number + 500
        smallest, largest = table.smallest[:-8], table.largest[:-8]
        strangers = [Op(5, Kind.SET, smallest[:-1], b"below"), Op(5, Kind.SET, largest + b"\xff\xff", b"above")]
        around = write_table([*ops, *(op for op in strangers if not smallest <= op.key <= largest)], shape)
        edit = uvarint(105) + uvarint(file_number) + uvarint(len(around.data))
        custom += uvarint(66) + uvarint(file_number)
        table = Table(around.data, table.smallest, table.largest, table.sequences)
        size = max(1, size // 2)
    (directory / f"{file_number:06d}.sst").write_bytes(table.data)
    low, high = table.sequences
    fields = uvarint(level) + uvarint(number) + uvarint(size) + framed(table.smallest) + framed(table.largest)
    # equal non-zero bounds would mean an ingested table
    bounds = uvarint(low - 1 if low == high and low else low) + uvarint(high)
    return edit + uvarint(103) + fields + bounds + custom + b"\x01"
