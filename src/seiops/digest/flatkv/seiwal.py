"""The state write-ahead log of current FlatKV stores (docs/contracts/digest.md 4.5).

Files are listed once; damage is reported where upstream reports it: gaps and foreign files when the range is taken,
damaged records only in files that replay needs.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from struct import Struct

from seiops.digest.errors import DigestError
from seiops.digest.files import system_text
from seiops.digest.wire import WireError, uvarint

MAGIC = b"SEIWL"
VERSION = 1
HEADER_LENGTH = 6
SEALED = re.compile(r"(\d+)-(\d+)-(\d+)\.wal")
UNSEALED = re.compile(r"(\d+)\.wal\.u")
_BE32 = Struct(">I")


class DamagedRecordError(DigestError):
    """A record of a sealed file that does not frame or does not match its checksum."""


@dataclass(frozen=True, slots=True)
class WalFile:
    sequence: int
    first: int
    last: int
    path: Path
    sealed: bool


@dataclass(frozen=True, slots=True)
class Records:
    """Intact records of a file as (index, payload), and what stopped the reading, with its offset."""

    records: list[tuple[int, bytes]]
    damage: str | None


def read_records(data: bytes) -> Records:
    """Parse everything behind the header up to the first bad record."""
    found: list[tuple[int, bytes]] = []
    position, end = HEADER_LENGTH, len(data)
    while position < end:
        start = position
        try:
            index, position = uvarint(data, position, end)
        except WireError:
            return Records(found, f"torn record index prefix at offset {start}")
        try:
            length, position = uvarint(data, position, end)
        except WireError:
            return Records(found, f"torn record length prefix at offset {start}")
        payload_end = position + length
        if payload_end + 4 > end:
            return Records(found, f"truncated record payload or checksum at offset {start}")
        if zlib.crc32(data[start:payload_end]) != _BE32.unpack_from(data, payload_end)[0]:
            return Records(found, f"record checksum mismatch at offset {start}")
        found.append((index, data[position:payload_end]))
        position = payload_end + 4
    return Records(found, None)


def check_header(data: bytes, path: Path) -> None:
    """Refuse a file of six bytes or more that does not begin as a state log does."""
    if len(data) < HEADER_LENGTH:
        return
    if data[:5] != MAGIC:
        raise DigestError(f"WAL file {path} has an invalid magic prefix")
    if data[5] != VERSION:
        raise DigestError(f"WAL file {path} has unsupported format version {data[5]}")


class StateWal:
    """The state log of one store: which blocks it holds, and their payloads in order."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = self._list()

    def _list(self) -> list[WalFile]:
        sealed: dict[int, WalFile] = {}
        unsealed: list[WalFile] = []
        for path in sorted(self.directory.iterdir()):
            if match := SEALED.fullmatch(path.name):
                file = WalFile(int(match[1]), int(match[2]), int(match[3]), path, True)
                known = sealed.get(file.sequence)
                if known is None or file.last < known.last:
                    sealed[file.sequence] = file
            elif match := UNSEALED.fullmatch(path.name):
                unsealed.extend(self._recover(path, int(match[1])))
        files = sorted((*sealed.values(), *unsealed), key=lambda file: file.sequence)
        for before, after in pairwise(files):
            if after.sequence != before.sequence + 1:
                raise DigestError(
                    "WAL is corrupt: sealed file sequences are not contiguous "
                    f"(gap between {before.sequence} and {after.sequence})"
                )
        return files

    def _recover(self, path: Path, sequence: int) -> Iterator[WalFile]:
        """The unsealed file as if it had just been sealed; nothing when it holds no record."""
        try:
            data = _read(path)
            check_header(data, path)
        except DigestError as error:
            raise DigestError(
                "failed to recover WAL directory: failed to recover orphaned WAL files: "
                f"failed to seal orphan {path.name}: failed to read orphaned WAL file {path}: {error}"
            ) from error
        records = read_records(data).records
        if records:
            yield WalFile(sequence, records[0][0], records[-1][0], path, False)

    @property
    def range(self) -> tuple[int, int] | None:
        """First and last block stored, or None when the log is empty."""
        return (self.files[0].first, self.files[-1].last) if self.files else None

    def blocks(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """(block, payload) for first <= block <= last. Files wholly outside are never opened."""
        for file in self.files:
            if file.last < first:
                continue
            if file.first > last:
                return
            for index, payload in self._read(file):
                if first <= index <= last:
                    yield index, payload

    def _read(self, file: WalFile) -> list[tuple[int, bytes]]:
        where = f"failed to read WAL file (sequence {file.sequence}) during iteration: "
        try:
            data = _read(file.path)
            check_header(data, file.path)
        except DigestError as error:
            raise DigestError(f"{where}{error}") from error
        content = read_records(data)
        if not file.sealed:
            return content.records
        if content.damage is not None:
            raise DamagedRecordError(f"{where}sealed WAL file {file.path} is corrupt: {content.damage}")
        promise = (
            f"WAL file (sequence {file.sequence}) is corrupt: name promises indices [{file.first}, {file.last}] but "
        )
        if not content.records:
            raise DigestError(promise + "no intact records were read")
        held = content.records[0][0], content.records[-1][0]
        if held != (file.first, file.last):
            raise DigestError(promise + f"content holds [{held[0]}, {held[1]}]")
        return content.records


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DigestError(system_text("open", str(path), error)) from error
