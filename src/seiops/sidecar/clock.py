"""Points in time on the wire: RFC 3339 in UTC with up to nine fractional digits (docs/contracts/sidecar.md 3.11).

Inside the sidecar a time is an integer number of nanoseconds since the epoch. Comparing the texts instead is how a
hold at :29.5 was once taken to be older than a mark-ready at :29.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,}))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock:
    """Gives submission times: wall clock, but never the same twice and never backwards within a process."""

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> int:
        self._last = max(time.time_ns(), self._last + 1)
        return self._last


def to_text(nanoseconds: int) -> str:
    """`2026-03-26T20:24:29.5Z`: trailing zeros of the fraction removed, no fraction when it is zero."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    stamp = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return f"{stamp}Z"
    return f"{stamp}.{fraction:09d}".rstrip("0") + "Z"


def looks_like_time(text: object) -> bool:
    """Whether a stored value has the form of a time; cheap enough for every row of a listing."""
    return isinstance(text, str) and _STAMP.fullmatch(text) is not None


def from_text(text: str) -> int:
    """Nanoseconds since the epoch. Raises ValueError that shows the text."""
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time")
    year, month, day, hour, minute, second = (int(match[index]) for index in range(1, 7))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"{text!r} is not an RFC 3339 time: {error}") from None
    if match[8]:
        offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
        moment = moment - offset if match[8] == "+" else moment + offset
    whole = moment - _EPOCH
    fraction = (match[7] or "")[:9].ljust(9, "0")
    return (whole.days * 86_400 + whole.seconds) * 1_000_000_000 + int(fraction)
