"""Change sets: what a block wrote, as both write-ahead logs carry it (docs/contracts/digest.md 3.6, 4.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from seiops.digest.wire import BYTES, VARINT, Data, WireError, fields, signed


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a log that hold one message, decoded only when somebody wants them."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TreeNameUpgrade:
    name: str
    rename_from: str = ""
    delete: bool = False


@dataclass(slots=True)
class ChangelogEntry:
    """One block of a memiavl changelog; `changesets` pairs a tree's name with the bytes of its change set."""

    version: int = 0
    changesets: list[tuple[str, Span]] = field(default_factory=list)
    upgrades: list[TreeNameUpgrade] = field(default_factory=list)


def decode_entry(data: Data, start: int, end: int) -> ChangelogEntry:
    """Parse a ChangelogEntry, leaving its pairs alone. Raises WireError."""
    entry = ChangelogEntry()
    for number, kind, a, b in fields(data, start, end):
        if number == 1 and kind == VARINT:
            entry.version = signed(a)
        elif number == 2 and kind == BYTES:
            entry.changesets.append(decode_named(data, a, b))
        elif number == 3 and kind == BYTES:
            entry.upgrades.append(_decode_upgrade(data, a, b))
    return entry


def decode_named(data: Data, start: int, end: int) -> tuple[str, Span]:
    """Name of a NamedChangeSet and where its pairs are."""
    name = ""
    pairs = Span(start, start)
    for number, kind, a, b in fields(data, start, end):
        if number == 1 and kind == BYTES:
            pairs = Span(a, b)
        elif number == 2 and kind == BYTES:
            name = _text(data, a, b)
    return name, pairs


def pairs(data: Data, span: Span) -> Iterator[tuple[bytes, bytes | None]]:
    """(key, value) of a change set in order; None for a deletion, empty for a set without value."""
    for number, kind, a, b in fields(data, span.start, span.end):
        if number == 1 and kind == BYTES:
            yield _decode_pair(data, a, b)


def _decode_pair(data: Data, start: int, end: int) -> tuple[bytes, bytes | None]:
    deleted = False
    key = value = b""
    for number, kind, a, b in fields(data, start, end):
        if number == 1 and kind == VARINT:
            deleted = a != 0
        elif number == 2 and kind == BYTES:
            key = data[a:b]
        elif number == 3 and kind == BYTES:
            value = data[a:b]
    return key, None if deleted else value


def _decode_upgrade(data: Data, start: int, end: int) -> TreeNameUpgrade:
    name = rename_from = ""
    delete = False
    for number, kind, a, b in fields(data, start, end):
        if number == 1 and kind == BYTES:
            name = _text(data, a, b)
        elif number == 2 and kind == BYTES:
            rename_from = _text(data, a, b)
        elif number == 3 and kind == VARINT:
            delete = a != 0
    return TreeNameUpgrade(name, rename_from, delete)


def _text(data: Data, start: int, end: int) -> str:
    try:
        return data[start:end].decode()
    except UnicodeDecodeError as error:
        raise WireError("a name is not UTF-8") from error
