"""The memiavl changelog: segments of length-prefixed entries, read without repairing them (docs/contracts/digest.md 3.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from seiops.digest.changes import ChangelogEntry, decode_entry
from seiops.digest.errors import DigestError
from seiops.digest.files import MappedFile, system_text
from seiops.digest.wire import Data, WireError, uvarint

CORRUPT = "log corrupt"
_INDEX_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment file and the index of its first entry."""

    index: int
    path: Path


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One decoded entry; `data` holds the bytes its spans point into."""

    index: int
    entry: ChangelogEntry
    data: Data


class LogCorruptError(DigestError):
    """A segment that is not the last one ends inside an entry, or an entry does not parse."""


def list_segments(directory: Path) -> list[Segment]:
    """Live segments in order, resolving what an interrupted truncation left behind as the upstream opener would.

    Raises DigestError when the leftovers contradict each other or the log consists of one empty later segment.
    """
    try:
        names = sorted(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DigestError("failed to open changelog WAL: " + system_text("open", str(directory), error)) from error
    segments: list[Segment] = []
    start = end = -1
    for name in names:
        index = _segment_index(name)
        if index is None:
            continue
        if name.endswith(".START"):
            start = len(segments)
        elif name.endswith(".END") and end < 0:
            end = len(segments)
        segments.append(Segment(index, directory / name))
    if start >= 0 and end >= 0:
        raise DigestError(f"failed to open changelog WAL: {CORRUPT}")
    if start >= 0:
        segments = segments[start:]
    elif end >= 0:
        segments = segments[: end + 1]
        if len(segments) > 1 and segments[-2].index == segments[-1].index:
            del segments[-2]
    if len(segments) == 1 and segments[0].index > 1 and segments[0].path.stat().st_size == 0:
        raise DigestError("failed to open changelog WAL: empty log")
    return segments


def _segment_index(name: str) -> int | None:
    digits = name[:_INDEX_DIGITS]
    if len(digits) < _INDEX_DIGITS or not (digits.isascii() and digits.isdigit()) or int(digits) == 0:
        return None
    tail = name[_INDEX_DIGITS:]
    return int(digits) if tail in ("", ".START", ".END") else None


class Changelog:
    """Entries of a changelog directory, addressed by index."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments = list_segments(directory)

    def first_entry(self) -> LogEntry | None:
        """The first entry of the log, or None when the log is empty. The whole first segment is checked."""
        found: LogEntry | None = None
        for position, segment in enumerate(self.segments):
            for entry in self._read(segment, position == len(self.segments) - 1):
                found = found or entry
            if found is not None:
                break
        return found

    def entries_from(self, index: int) -> Iterator[LogEntry]:
        """Entries from `index` to the end of the log. Raises DigestError at a hole between two segments."""
        expected: int | None = None
        for position, segment in enumerate(self.segments):
            last = position == len(self.segments) - 1
            if not last and self.segments[position + 1].index <= index:
                continue
            if expected is not None and segment.index != expected:
                raise DigestError(
                    f"read log failed, changelog has no entries {expected} to {segment.index - 1}: "
                    f"{segment.path} starts at {segment.index}"
                )
            expected = segment.index
            for entry in self._read(segment, last):
                expected = entry.index + 1
                if entry.index >= index:
                    yield entry

    def _read(self, segment: Segment, last: bool) -> Iterator[LogEntry]:
        try:
            file = MappedFile(str(segment.path))
        except OSError as error:
            raise DigestError("read log failed, " + system_text("open", str(segment.path), error)) from error
        try:
            for offset, (start, end) in enumerate(frames(file.data, file.size, last)):
                try:
                    entry = decode_entry(file.data, start, end)
                except WireError as error:
                    raise LogCorruptError(
                        f"read log failed, {segment.path}: entry {segment.index + offset}: {error}"
                    ) from error
                yield LogEntry(segment.index + offset, entry, file.data)
        finally:
            file.close()


def frames(data: Data, size: int, last: bool) -> Iterator[tuple[int, int]]:
    """Start and end of each entry of a segment. A cut entry ends the last segment and is an error in any other."""
    position = 0
    while position < size:
        try:
            length, start = uvarint(data, position, size)
        except WireError as error:
            if last:
                return
            raise LogCorruptError(f"read log failed, {CORRUPT}") from error
        position = start + length
        if position > size:
            if last:
                return
            raise LogCorruptError(f"read log failed, {CORRUPT}")
        yield start, position
