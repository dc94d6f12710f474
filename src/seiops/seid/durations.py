"""Durations as text: the grammar and the normal form of docs/contracts/seid-config.md 1.2.

A duration is a signed 64-bit number of nanoseconds.
"""

from __future__ import annotations

import re

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
_LIMIT = 1 << 63
_NUMBER = re.compile(r"(\d*)(?:(\.)(\d*))?", re.ASCII)
_UNIT = re.compile(r"[^.0-9]*")

SECOND = _UNITS["s"]


class DurationError(ValueError):
    """The text is no duration; the message begins with `time: `."""


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises DurationError."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest:
        raise _invalid(text)
    total = 0
    while rest:
        amount, rest = _pair(rest, text)
        total += amount
        if total > _LIMIT:
            raise _invalid(text)
    if text[0] == "-":
        return -total
    if total >= _LIMIT:
        raise _invalid(text)
    return total


def _pair(rest: str, text: str) -> tuple[int, str]:
    """One number with its unit, in nanoseconds, and what follows."""
    number = _NUMBER.match(rest)
    assert number is not None  # every part is optional
    whole, fraction = number.group(1), number.group(3) or ""
    if not whole and not fraction:
        raise _invalid(text)
    if int(whole or "0") > _LIMIT:
        raise _invalid(text)
    after = rest[number.end() :]
    found = _UNIT.match(after)
    name = found.group() if found else ""
    if not name:
        raise DurationError(f"time: missing unit in duration {_time_quoted(text)}")
    unit = _UNITS.get(name)
    if unit is None:
        raise DurationError(f"time: unknown unit {_time_quoted(name)} in duration {_time_quoted(text)}")
    amount = int(whole or "0") * unit
    if amount > _LIMIT:
        raise _invalid(text)
    if fraction:
        # the fraction is scaled in floating point upstream; the digits beyond 18 carry nothing
        digits = fraction[:18]
        amount += int(float(int(digits)) * (float(unit) / 10.0 ** len(digits)))
    return amount, after[len(name) :]


def _invalid(text: str) -> DurationError:
    return DurationError(f"time: invalid duration {_time_quoted(text)}")


def _time_quoted(text: str) -> str:
    out: list[str] = []
    for char in text:
        if ord(char) >= 0x80 or char < " ":
            out.extend(f"\\x{byte:02x}" for byte in char.encode())
        else:
            out.append("\\" + char if char in '"\\' else char)
    return '"' + "".join(out) + '"'


def format_duration(nanoseconds: int) -> str:
    """The normal form: `0s`, `1.5ms`, `1h0m0.5s`."""
    if nanoseconds == 0:
        return "0s"
    sign, left = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if left < SECOND:
        for name in ("ms", "µs", "ns"):
            if left >= _UNITS[name]:
                return sign + _decimal(left, _UNITS[name]) + name
    minutes, rest = divmod(left, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    text = _decimal(rest, SECOND) + "s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    if hours:
        text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1).rstrip('0')}"
