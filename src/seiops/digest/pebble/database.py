"""The newest visible rows of a database: tables and logs merged, deletions applied (docs/contracts/digest.md 5.5).

Reading is ordered and lazy: one cursor per table that can hold keys of the range, one for the replayed logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import merge
from pathlib import Path

from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.pebble.batch import DELETIONS, MERGE, LogContent, read_logs
from seiops.digest.pebble.directory import SUPPORTED_COMPARERS, DatabaseFiles, survey
from seiops.digest.pebble.manifest import TableMeta, Version, read_manifest
from seiops.digest.pebble.table import Point, RangeDeletion, Table


class Database:
    """A database opened read-only. Opening checks the live set against the files; rows are read on demand."""

    def __init__(self, path: Path, comparers: frozenset[str] = SUPPORTED_COMPARERS) -> None:
        self.path = path
        self.files = survey(path, comparers)
        self.version = _load(self.files, comparers)
        self._tables: dict[int, Table] = {}
        for meta in self.version.tables.values():
            self._check_table(meta)
        logs = [log for log in self.files.logs if log.number >= self.version.min_unflushed_log]
        self._logs = read_logs(logs) if self.files.manifest is not None else LogContent()
        self._log_points = [
            Point(key, -sequence, kind, value) for key, (sequence, kind, value) in sorted(self._logs.points.items())
        ]

    @property
    def bytes_total(self) -> int:
        """Size of the live tables, for progress."""
        return sum(meta.size for meta in self.version.tables.values())

    def _check_table(self, meta: TableMeta) -> None:
        path = self.files.table_path(meta.file_number)
        number = f"{meta.file_number:06d}"
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise DigestError(
                f"L{meta.level}: {meta.number:06d}: file {number} (type sstable) unknown to the objstorage provider: "
                "file does not exist"
            ) from error
        if meta.backing is None and size != meta.size:
            raise DigestError(
                f"L{meta.level}: {meta.number:06d}: object size mismatch ({path}): {size} (disk) != {meta.size} (MANIFEST)"
            )

    def _table(self, meta: TableMeta) -> Table:
        table = self._tables.get(meta.file_number)
        if table is None:
            table = self._tables[meta.file_number] = Table(self.files.table_path(meta.file_number))
        return table

    def rows(self, lower: bytes = b"", upper: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Live (key, value) pairs with lower <= key < upper, ascending."""
        return self._merged(self._overlapping(lower, upper), lower, upper)

    def _overlapping(self, lower: bytes, upper: bytes | None) -> list[TableMeta]:
        return [meta for meta in self.version.tables.values() if _overlaps(meta, lower, upper)]

    def _merged(self, tables: list[TableMeta], lower: bytes, upper: bytes | None) -> Iterator[tuple[bytes, bytes]]:
        deletions = sorted(self._range_deletions(lower, upper))
        sources: list[Iterable[Point]] = [self._points(meta, lower, upper) for meta in tables]
        sources.append(
            point for point in self._log_points if point.key >= lower and (upper is None or point.key < upper)
        )
        hides = _Sweep(deletions)
        last: bytes | None = None
        for key, negated, kind, value in merge(*sources):
            if key == last:
                continue
            last = key
            if kind in DELETIONS or hides.hidden(key, -negated):
                continue
            if kind == MERGE:
                raise UnsupportedFormatError(f"{self.path}: key {key.hex()} is a merge operand, which is not supported")
            yield key, value

    def get(self, key: bytes) -> bytes | None:
        """Live value of one key. Tables whose filter rules the key out are not searched for it."""
        tables = [
            meta for meta in self._overlapping(key, key + b"\x00") if meta.backing or self._table(meta).may_contain(key)
        ]
        for _, value in self._merged(tables, key, key + b"\x00"):
            return value
        return None

    def _points(self, meta: TableMeta, lower: bytes, upper: bytes | None) -> Iterator[Point]:
        table = self._table(meta)
        if meta.backing is not None:
            lower = max(lower, meta.lower)
            bound = meta.upper if meta.upper_exclusive else meta.upper + b"\x00"
            upper = bound if upper is None else min(upper, bound)
        points = table.points(lower, upper)
        if meta.smallest_seq == meta.largest_seq != 0:
            # A table with one sequence number was ingested: its keys carry zero and stand at the table's number.
            return (Point(key, -meta.largest_seq, kind, value) for key, _, kind, value in points)
        return points

    def _range_deletions(self, lower: bytes, upper: bytes | None) -> Iterator[RangeDeletion]:
        for start, end, sequence in self._logs.range_deletions:
            yield RangeDeletion(start, end, sequence)
        for meta in self._overlapping(lower, upper):
            for start, end, sequence in self._table(meta).range_deletions:
                if meta.backing is not None:
                    start, end = max(start, meta.lower), min(end, meta.upper + b"\x00")
                if meta.smallest_seq == meta.largest_seq != 0:
                    sequence = meta.largest_seq
                if start < end and end > lower and (upper is None or start < upper):
                    yield RangeDeletion(start, end, sequence)

    def close(self) -> None:
        for table in self._tables.values():
            table.close()
        self._tables.clear()


def _load(files: DatabaseFiles, comparers: frozenset[str]) -> Version:
    if files.manifest is None:
        return Version()
    return read_manifest(files.path / files.manifest, files.path, comparers)


def _overlaps(meta: TableMeta, lower: bytes, upper: bytes | None) -> bool:
    return meta.upper >= lower and (upper is None or meta.lower < upper)


class _Sweep:
    """Answers, for ascending keys, whether a range deletion hides a row. `deletions` are sorted by start."""

    def __init__(self, deletions: list[RangeDeletion]) -> None:
        self._waiting = deletions
        self._next = 0
        self._active: list[RangeDeletion] = []

    def hidden(self, key: bytes, sequence: int) -> bool:
        while self._next < len(self._waiting) and self._waiting[self._next].start <= key:
            self._active.append(self._waiting[self._next])
            self._next += 1
        if not self._active:
            return False
        self._active = [deletion for deletion in self._active if deletion.end > key]
        return any(deletion.sequence > sequence for deletion in self._active)
