"""How the wire quotes a value inside a message, so that texts callers match on stay byte for byte.

The rules are those of the `%q` of docs/contracts/seid-config.md and of its JSON, in which `<`, `>` and `&` are escaped.
"""

from __future__ import annotations

import json
from typing import Any

_SHORT = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


def quoted(text: str) -> str:
    """`text` in double quotes; quotes, backslashes and everything unprintable escaped."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def compact_json(value: Any) -> str:
    """JSON without blanks in which `<`, `>`, `&` and the two Unicode line separators appear as `\\u003c` and so on."""
    return _html_safe(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def indented_json(value: Any) -> str:
    """Two blanks a level, keys sorted, a final line feed, the same escapes (docs/contracts/seid-config.md 15.4)."""
    return _html_safe(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)) + "\n"


def _html_safe(text: str) -> str:
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
