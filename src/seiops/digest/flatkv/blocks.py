"""Blocks of either generation of the FlatKV log behind one face (docs/contracts/digest.md 4.5, 4.8)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from seiops.digest.changes import decode_named, pairs
from seiops.digest.errors import DigestError
from seiops.digest.flatkv.seiwal import SEALED, UNSEALED, StateWal, WalFile
from seiops.digest.memiavl.changelog import Changelog, list_segments
from seiops.digest.wire import WireError, uvarint

ChangeSets = list[tuple[str, list[tuple[bytes, bytes | None]]]]
"""Named change sets of one block, decoded: (module, [(key, value or None for a deletion)])."""

PAYLOAD_VERSION = 1


class BlockLog(Protocol):
    """The log of one store."""

    @property
    def range(self) -> tuple[int, int] | None: ...

    def changes(self, first: int, last: int) -> Iterator[tuple[int, ChangeSets]]: ...


def open_block_log(directory: Path) -> BlockLog:
    """The log below a FlatKV root; a missing directory is an empty log."""
    if directory.exists() and not directory.is_dir():
        raise DigestError(f"changelog path is not a directory: {directory}")
    names = [entry.name for entry in directory.iterdir()] if directory.exists() else []
    if not any(SEALED.fullmatch(name) or UNSEALED.fullmatch(name) for name in names) and list_segments(directory):
        return SegmentLog(directory)
    try:
        return StateLog(StateWal(directory) if names else None)
    except DigestError as error:
        raise DigestError(f"read cloned changelog range: failed to read state WAL range: {error}") from error


class StateLog:
    """The current log."""

    def __init__(self, wal: StateWal | None) -> None:
        self._wal = wal

    @property
    def files(self) -> list[WalFile]:
        return self._wal.files if self._wal is not None else []

    @property
    def range(self) -> tuple[int, int] | None:
        return self._wal.range if self._wal is not None else None

    def changes(self, first: int, last: int) -> Iterator[tuple[int, ChangeSets]]:
        if self._wal is None:
            return
        for index, payload in self._wal.blocks(first, last):
            try:
                yield index, decode_payload(payload)
            except DigestError as error:
                raise DigestError(f"failed to deserialize record at index {index}: {error}") from error


def decode_payload(payload: bytes) -> ChangeSets:
    """Change sets of one state log record. Raises DigestError with upstream's texts."""
    if not payload:
        raise DigestError("empty changeset payload: missing version byte")
    if payload[0] != PAYLOAD_VERSION:
        raise DigestError(f"unsupported changeset format version {payload[0]}")
    sets: ChangeSets = []
    position, end = 1, len(payload)
    while position < end:
        try:
            length, start = uvarint(payload, position, end)
        except WireError as error:
            raise DigestError("corrupt changeset length prefix") from error
        if start + length > end:
            raise DigestError(f"changeset payload truncated: need {length} bytes, have {end - start}")
        position = start + length
        try:
            name, span = decode_named(payload, start, position)
            sets.append((name, list(pairs(payload, span))))
        except WireError as error:
            raise DigestError(f"changeset does not parse: {error}") from error
    return sets


class SegmentLog:
    """The log of generations E2 and E3: memiavl's container, an entry's own version counting."""

    def __init__(self, directory: Path) -> None:
        self._log = Changelog(directory)
        self._directory = directory
        self._range = self._measure()

    def _measure(self) -> tuple[int, int] | None:
        first = last = None
        for entry in self._log.entries_from(0):
            first = entry.entry.version if first is None else first
            last = entry.entry.version
        return (first, last) if first is not None and last is not None else None

    @property
    def range(self) -> tuple[int, int] | None:
        return self._range

    def changes(self, first: int, last: int) -> Iterator[tuple[int, ChangeSets]]:
        for logged in self._log.entries_from(0):
            version = logged.entry.version
            if version > last:
                return
            if version >= first:
                try:
                    yield version, [(name, list(pairs(logged.data, span))) for name, span in logged.entry.changesets]
                except WireError as error:
                    raise DigestError(f"{self._directory}: entry of version {version}: {error}") from error
