"""The MANIFEST: version edits that add up to the set of live tables (docs/contracts/digest.md 5.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.files import system_text
from seiops.digest.pebble.directory import BYTEWISE, SUPPORTED_COMPARERS
from seiops.digest.pebble.records import RecordReader
from seiops.digest.wire import WireError, uvarint

LEVELS = 7
_MAX_TRAILER = ((1 << 56) - 1) << 8


@dataclass(frozen=True, slots=True)
class TableMeta:
    """A live table. Bounds are internal keys; `backing` is the file's number when the table is virtual."""

    level: int
    number: int
    size: int
    smallest: bytes
    largest: bytes
    smallest_seq: int = 0
    largest_seq: int = 0
    backing: int | None = None

    @property
    def file_number(self) -> int:
        return self.number if self.backing is None else self.backing

    @property
    def lower(self) -> bytes:
        return self.smallest[:-8]

    @property
    def upper(self) -> bytes:
        return self.largest[:-8]

    @property
    def upper_exclusive(self) -> bool:
        """The largest key is the end of a range tombstone, not a key of the table."""
        return int.from_bytes(self.largest[-8:], "little") >= _MAX_TRAILER

    def admits(self, user_key: bytes) -> bool:
        if user_key < self.lower or user_key > self.upper:
            return False
        return not (self.upper_exclusive and user_key == self.upper)


@dataclass(slots=True)
class Version:
    """State after all edits."""

    tables: dict[tuple[int, int], TableMeta] = field(default_factory=dict)
    backings: dict[int, int] = field(default_factory=dict)
    min_unflushed_log: int = 0
    next_file: int = 0
    comparer: str = ""


class _Edit:
    """Cursor over one version edit."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def done(self) -> bool:
        return self._position >= len(self._data)

    def number(self) -> int:
        value, self._position = uvarint(self._data, self._position, len(self._data))
        return value

    def byte(self) -> int:
        self._position += 1
        if self._position > len(self._data):
            raise WireError("cut off")
        return self._data[self._position - 1]

    def text(self) -> bytes:
        length = self.number()
        end = self._position + length
        if end > len(self._data):
            raise WireError("cut off")
        value, self._position = self._data[self._position : end], end
        return value

    def key(self) -> bytes:
        value = self.text()
        if len(value) < 8:
            raise WireError("internal key shorter than its trailer")
        return value


def read_manifest(path: Path, database: Path, comparers: frozenset[str] = SUPPORTED_COMPARERS) -> Version:
    """Replay a MANIFEST. Raises DigestError with Pebble's texts, UnsupportedFormatError for edits not known here."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DigestError(
            f'pebble: could not open manifest file "{path.name}" for DB "{database}": '
            + system_text("open", str(path), error)
        ) from error
    version = Version()
    for record in RecordReader(data, None):
        try:
            _apply(version, _Edit(record), path)
        except WireError as error:
            raise DigestError(f'pebble: malformed manifest file "{path.name}" for DB "{database}": {error}') from error
    if version.min_unflushed_log == 0 and version.next_file < 2:
        raise DigestError(f'pebble: malformed manifest file "{path.name}" for DB "{database}"')
    if version.comparer and version.comparer not in comparers:
        raise UnsupportedFormatError(f"{path}: comparer {version.comparer}, only {BYTEWISE} is supported")
    return version


def _apply(version: Version, edit: _Edit, path: Path) -> None:
    deleted: list[tuple[int, int]] = []
    added: list[TableMeta] = []
    while not edit.done:
        tag = edit.number()
        if tag == 1:
            version.comparer = edit.text().decode("utf-8", "replace")
        elif tag == 2:
            version.min_unflushed_log = edit.number() or version.min_unflushed_log
        elif tag == 3:
            version.next_file = edit.number()
        elif tag in (4, 9):
            edit.number()
        elif tag == 5:
            edit.number()
            edit.text()
        elif tag == 6:
            deleted.append((edit.number(), edit.number()))
        elif tag in (7, 100, 102, 103, 104):
            added.append(_new_table(tag, edit, path))
        elif tag == 105:
            number = edit.number()
            version.backings[number] = edit.number()
        elif tag == 106:
            version.backings.pop(edit.number(), None)
        else:
            raise UnsupportedFormatError(f"{path}: version edit with tag {tag} is not supported")
    for place in deleted:
        version.tables.pop(place, None)
    for table in added:
        version.tables[table.level, table.number] = table


def _new_table(tag: int, edit: _Edit, path: Path) -> TableMeta:
    level, number = edit.number(), edit.number()
    if tag == 102:
        edit.number()
    size = edit.number()
    if level >= LEVELS:
        raise WireError(f"level {level}")
    smallest, largest = _bounds(tag, edit)
    smallest_seq = largest_seq = 0
    if tag != 7:
        smallest_seq, largest_seq = edit.number(), edit.number()
    backing = _custom_fields(edit, path) if tag in (103, 104) else None
    return TableMeta(level, number, size, smallest, largest, smallest_seq, largest_seq, backing)


def _bounds(tag: int, edit: _Edit) -> tuple[bytes, bytes]:
    """Overall bounds of a table; point and range-key bounds of a new table 5 are united."""
    if tag != 104:
        return edit.key(), edit.key()
    marker = edit.byte()
    bounds = [(edit.key(), edit.key())] if marker & 1 else []
    bounds.append((edit.key(), edit.key()))
    smallest = min((pair[0] for pair in bounds), key=lambda key: (key[:-8], key[-8:]))
    largest = max((pair[1] for pair in bounds), key=lambda key: (key[:-8], key[-8:]))
    return smallest, largest


def _custom_fields(edit: _Edit, path: Path) -> int | None:
    backing = None
    while (tag := edit.number()) != 1:
        if tag == 66:
            backing = edit.number()
        elif tag in (67, 68):
            if edit.text():
                raise UnsupportedFormatError(f"{path}: a table with a synthetic prefix or suffix is not supported")
        elif tag & 64:
            raise UnsupportedFormatError(f"{path}: table field {tag} is not supported")
        else:
            edit.text()
    return backing
