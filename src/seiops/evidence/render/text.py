"""Text from outside as it may be shown: without control characters, which could steer a terminal or break a page."""

from __future__ import annotations

_CONTROL = {code: "�" for code in (*range(32), *range(127, 160)) if code not in (9, 10)}


def printable(value: object) -> str:
    return str(value).translate(_CONTROL)
