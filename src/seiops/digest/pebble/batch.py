"""Write-ahead log batches: the newest rows of a database, not yet in any table (docs/contracts/digest.md 5.4, 5.5)."""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct

from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.files import system_text
from seiops.digest.pebble.directory import LogFile
from seiops.digest.pebble.records import Ending, RecordReader
from seiops.digest.wire import WireError, uvarint

DEL, SET, MERGE, LOGDATA, SINGLEDEL, RANGEDEL = 0, 1, 2, 3, 7, 15
SETWITHDEL, RANGEKEYDEL, RANGEKEYSET, DELSIZED = 18, 19, 21, 23
DELETIONS = frozenset((DEL, SINGLEDEL, DELSIZED))
_RANGE_KEYS = range(RANGEKEYDEL, RANGEKEYSET + 1)
_WITH_VALUE = frozenset((SET, MERGE, RANGEDEL, SETWITHDEL, DELSIZED, *_RANGE_KEYS))
_KEY_ONLY = frozenset((DEL, SINGLEDEL))
_HEADER = Struct("<QI")


@dataclass(slots=True)
class LogContent:
    """Newest entry per key of all replayed logs, (sequence number, kind, value), and their range deletions."""

    points: dict[bytes, tuple[int, int, bytes]] = field(default_factory=dict)
    range_deletions: list[tuple[bytes, bytes, int]] = field(default_factory=list)


def read_logs(logs: list[LogFile]) -> LogContent:
    """Replay log files given in ascending order. Only the last may end torn."""
    content = LogContent()
    newest, number = -1, -1
    for log in logs:
        try:
            data = log.path.read_bytes()
        except OSError as error:
            raise DigestError(system_text("open", str(log.path), error)) from error
        if log.number != number:
            newest, number = -1, log.number
        reader = RecordReader(data, log.number)
        for record in reader:
            newest = _add_batch(content, record, log, newest)
        if reader.ending is Ending.TORN and log.number != logs[-1].number:
            raise DigestError(f"{log.path}: corrupt: the log ends inside a record although a later log exists")
    return content


def _add_batch(content: LogContent, record: bytes, log: LogFile, newest: int) -> int:
    """Apply one batch; the first sequence number of the newest batch seen."""
    if len(record) < _HEADER.size:
        raise DigestError(f"{log.path}: corrupt: a batch of {len(record)} bytes")
    first, count = _HEADER.unpack_from(record)
    if count == 0 or first <= newest:
        return newest
    try:
        apply_entries(content, record, int(first), log)
    except WireError as error:
        raise DigestError(f"{log.path}: corrupt batch at sequence number {first}: {error}") from error
    return int(first)


def apply_entries(content: LogContent, record: bytes, sequence: int, log: LogFile) -> None:
    """Add the entries of a batch whose first one has this sequence number. Raises WireError."""
    position, end, points = _HEADER.size, len(record), content.points
    while position < end:
        kind = record[position]
        if kind not in _WITH_VALUE and kind not in _KEY_ONLY and kind != LOGDATA:
            raise UnsupportedFormatError(f"{log.path}: batch entry of kind {kind} is not supported")
        key, position = _slice(record, position + 1, end)
        if kind == LOGDATA:
            continue
        value = b""
        if kind in _WITH_VALUE:
            value, position = _slice(record, position, end)
        if kind == RANGEDEL:
            content.range_deletions.append((key, value, sequence))
        elif kind not in _RANGE_KEYS:
            known = points.get(key)
            if known is None or known[0] <= sequence:
                points[key] = (sequence, kind, value)
        sequence += 1


def _slice(record: bytes, position: int, end: int) -> tuple[bytes, int]:
    length, position = uvarint(record, position, end)
    if position + length > end:
        raise WireError("entry cut off")
    return record[position : position + length], position + length
