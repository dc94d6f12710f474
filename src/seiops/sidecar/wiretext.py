"""Texts inside messages that operators grep and callers parse: quoted values and durations (docs/contracts/sidecar.md 0)."""

from __future__ import annotations

import re

_SHORT = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,
    "\u03bcs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)


def quoted(value: str) -> str:
    """`value` in double quotes, with quotes, backslashes and what cannot be printed escaped."""
    out: list[str] = []
    for character in value:
        if character in _SHORT:
            out.append(_SHORT[character])
        elif character.isprintable():
            out.append(character)
        elif ord(character) < 0x80:
            out.append(f"\\x{ord(character):02x}")
        elif ord(character) <= 0xFFFF:
            out.append(f"\\u{ord(character):04x}")
        else:
            out.append(f"\\U{ord(character):08x}")
    return '"' + "".join(out) + '"'


def parse_duration(text: str) -> int:
    """Nanoseconds of `1h30m`, `500ms`, `-2.5s` or `0`. Raises ValueError with the text operators know."""
    rest = text
    sign = 1
    if rest[:1] in ("-", "+"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f"time: invalid duration {quoted(text)}")
    total = 0
    while rest:
        match = _PART.match(rest)
        if match is None:
            raise ValueError(f"time: invalid duration {quoted(text)}")
        unit = match[2]
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted(text)}")
        if unit not in _UNITS_NS:
            raise ValueError(f"time: unknown unit {quoted(unit)} in duration {quoted(text)}")
        whole, _, fraction = match[1].partition(".")
        total += int(whole or 0) * _UNITS_NS[unit]
        if fraction:
            total += int(fraction) * _UNITS_NS[unit] // 10 ** len(fraction)
        if total > 2**63 - 1:
            raise ValueError(f"time: invalid duration {quoted(text)}")
        rest = rest[match.end() :]
    return sign * total


def duration_text(nanoseconds: int) -> str:
    """`1m30s`, `5m0s`, `168h0m0s`, `500ms`, `0s`: minor units are kept once a larger one is present."""
    if nanoseconds == 0:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    value = abs(nanoseconds)
    if value < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("\u00b5s", 1_000), ("ns", 1)):
            if value >= size:
                return f"{sign}{_decimal(value, size)}{unit}"
    minutes, seconds = divmod(value, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(seconds, 1_000_000_000)}s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    if not rest:
        return str(whole)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}d}".rstrip("0")
