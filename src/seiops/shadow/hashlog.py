"""seid's hash log: one line a block with the hashes of its changeset, results and header (docs/contracts/shadow.md 9.1.90).

`changeset` covers every state write of the block in all modules and does not depend on the engine, so two nodes can be
compared block by block without asking either of them anything. Columns come in any order and differ between engines.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

BLOCK = "block_number"
SHARED_COLUMNS = ("changeset", "resultHash", "blockHash")
"""Equal on honest nodes whatever their engine; `appHash` and the rest belong to the engine."""
_SEALED = re.compile(r"(?P<number>\d+)-(?P<first>\d+)-(?P<last>\d+)-.*\.hlog")
_OPEN = re.compile(r"(?P<number>\d+)-.*\.hlog\.u")


_RENAMES = 3


class HashLogError(Exception):
    """A hash log that cannot be used; names the file and line."""


class _RenamedError(HashLogError):
    """A file that was listed is gone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One block: `values` by column name, empty texts left out."""

    height: int
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    number: int
    last: int | None
    """The last height by its name; None for the file that is still being written and for plain files."""

    @property
    def open(self) -> bool:
        return self.path.name.endswith(".u")


def files_of(source: Path) -> list[_File]:
    """The files of a hash log in order: those of a directory, or the one file that was named. Raises HashLogError."""
    if source.is_file():
        return [_File(source, 0, None)]
    if not source.is_dir():
        raise HashLogError(f"{source}: no such hash log; seid writes it to <home>/data/hash.log")
    found = []
    for path in source.iterdir():
        if match := _SEALED.fullmatch(path.name):
            found.append(_File(path, int(match["number"]), int(match["last"])))
        elif match := _OPEN.fullmatch(path.name):
            found.append(_File(path, int(match["number"]), None))
    if not found:
        raise HashLogError(f"{source}: holds no .hlog files")
    return sorted(found, key=lambda file: (file.number, file.open))


def rows(source: Path, start: int = 0) -> Iterator[Row]:
    """Rows from height `start` on, ascending. A torn last line of the file still being written is left out.

    seid renames that file when it is full: a name that is gone is looked for under its new one.
    """
    last, renamed = start - 1, 0
    while True:
        try:
            for row in _rows_behind(source, last):
                last, renamed = row.height, 0
                yield row
            return
        except _RenamedError as error:
            renamed += 1
            if renamed > _RENAMES:
                raise HashLogError(str(error)) from error


def _rows_behind(source: Path, last: int) -> Iterator[Row]:
    for file in files_of(source):
        if file.last is not None and file.last <= last:
            continue
        with _text(file.path) as text:
            for row in _rows(file, text):
                # a restart may repeat the last blocks in the next file
                if row.height > last:
                    last = row.height
                    yield row


def _text(path: Path) -> TextIO:
    try:
        if path.suffix == ".gz":
            return io.TextIOWrapper(gzip.open(path), encoding="ascii", newline="")
        return path.open(encoding="ascii", newline="")
    except FileNotFoundError as error:
        raise _RenamedError(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise HashLogError(f"{path}: {error.strerror or error}") from error


def _rows(file: _File, text: TextIO) -> Iterator[Row]:
    header: list[str] | None = None
    number = 0
    try:
        # a file being written ends anywhere; whole lines end in a line feed
        whole = (line for line in text if line.endswith("\n"))
        for number, cells in enumerate(csv.reader(whole), 1):
            # where the columns change, as at the start of a migration, a new header line stands between the rows
            if header is None or BLOCK in cells:
                header = cells
                if BLOCK not in header:
                    raise HashLogError(f"{file.path}: the first line names no column {BLOCK}")
                continue
            if len(cells) != len(header):
                raise HashLogError(f"{file.path}, line {number}: {len(cells)} cells under {len(header)} columns")
            yield _row(dict(zip(header, cells, strict=True)), file.path, number)
    except (UnicodeDecodeError, csv.Error, EOFError, OSError, zlib.error) as error:
        raise HashLogError(f"{file.path}, after line {number}: {error}") from error


def _row(cells: dict[str, str], path: Path, number: int) -> Row:
    height = cells.pop(BLOCK)
    if not (height.isascii() and height.isdigit()):
        raise HashLogError(f"{path}, line {number}: {BLOCK} is {height!r}")
    return Row(int(height), {name: value for name, value in cells.items() if value})


@dataclass(slots=True)
class Difference:
    """What two hash logs disagree about. Heights are ascending; lists are cut at `limit`, counts are whole."""

    limit: int = 10_000
    compared: int = 0
    first: int | None = None
    last: int | None = None
    columns: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    only_left: list[int] = field(default_factory=list)
    only_right: list[int] = field(default_factory=list)
    missing: int = 0

    @property
    def found(self) -> bool:
        """Whether a column that has to agree differs somewhere."""
        return any(self.counts.values())

    def differs(self, column: str, height: int) -> None:
        self.counts[column] = self.counts.get(column, 0) + 1
        if len(places := self.columns.setdefault(column, [])) < self.limit:
            places.append(height)


def differing(left: Row, right: Row, columns: Sequence[str] = SHARED_COLUMNS) -> list[str]:
    """Columns that both rows hold and that differ."""
    return [
        name
        for name in columns
        if name in left.values and name in right.values and left.values[name].lower() != right.values[name].lower()
    ]


def diff(left: Path, right: Path, *, low: int = 0, high: int | None = None, limit: int = 10_000) -> Difference:
    """Compares two hash logs over the heights both may hold; memory does not grow with them. Raises HashLogError.

    Heights of one side only are listed where they lie inside the range of both.
    """
    found = Difference(limit=limit, columns={name: [] for name in SHARED_COLUMNS})
    ours, theirs = rows(left, low), rows(right, low)
    one, other = next(ours, None), next(theirs, None)
    if one is not None and other is not None:
        begin = max(one.height, other.height)
        one, other = _until(ours, one, begin), _until(theirs, other, begin)
    while one is not None and other is not None:
        if high is not None and min(one.height, other.height) > high:
            break
        if one.height == other.height:
            _compare_row(found, one, other)
            one, other = next(ours, None), next(theirs, None)
        elif one.height < other.height:
            _miss(found, found.only_left, one.height)
            one = next(ours, None)
        else:
            _miss(found, found.only_right, other.height)
            other = next(theirs, None)
    return found


def _until(source: Iterator[Row], row: Row | None, height: int) -> Row | None:
    while row is not None and row.height < height:
        row = next(source, None)
    return row


def _compare_row(found: Difference, one: Row, other: Row) -> None:
    found.compared += 1
    found.first = one.height if found.first is None else found.first
    found.last = one.height
    for column in differing(one, other):
        found.differs(column, one.height)


def _miss(found: Difference, places: list[int], height: int) -> None:
    found.missing += 1
    if len(places) < found.limit:
        places.append(height)


def slice_lines(source: Path, low: int, high: int) -> Iterator[bytes]:
    """The rows of a range as CSV with one header line, columns in a fixed order, for publication. Raises HashLogError."""
    wanted = (row for row in rows(source, low) if row.height <= high)
    first = next(wanted, None)
    if first is None or first.height != low:
        raise HashLogError(f"{source}: holds no row for block {low}")
    names = [*SHARED_COLUMNS, "appHash"]
    rest = sorted(set(first.values) - set(names))
    columns = [*names, *rest]
    yield (",".join([BLOCK, *columns]) + "\n").encode()
    expected = low
    for row in _chain(first, wanted):
        if row.height != expected:
            raise HashLogError(f"{source}: holds no row for block {expected}")
        yield (",".join([str(row.height), *(row.values.get(name, "") for name in columns)]) + "\n").encode()
        expected += 1
        if row.height == high:
            return
    raise HashLogError(f"{source}: ends at block {expected - 1}, before {high}")


def _chain(first: Row, rest: Iterable[Row]) -> Iterator[Row]:
    yield first
    yield from rest


class LogReader:
    """Rows by ascending height out of a log that may still grow; only a window of rows is held."""

    def __init__(self, source: Path, *, ahead: int = 2000) -> None:
        self._source = source
        self._ahead = ahead
        self._rows: dict[int, Row] = {}
        self._iterator: Iterator[Row] | None = None
        self._top = 0

    def row(self, height: int) -> Row | None:
        """None where the log has no such row yet. Raises HashLogError."""
        if height in self._rows:
            return self._rows[height]
        if height > self._top or self._iterator is None:
            self._read_on(height)
        return self._rows.get(height)

    def _read_on(self, height: int) -> None:
        self._rows = {known: row for known, row in self._rows.items() if known > height - self._ahead}
        if self._iterator is None:
            self._iterator = rows(self._source, height)
        for row in self._iterator:
            self._rows[row.height] = row
            self._top = row.height
            if row.height >= height + self._ahead:
                return
        # the end for now: the next question starts a new reading from where it is asked
        self._iterator = None
