"""JSON exactly as callers of the sidecar have always had it read and written.

Callers were written against a decoder that stops after the first value, takes the later of two equal keys, matches
member names in any letter case, replaces broken UTF-8, and nests 10,000 levels deep; and against an encoder that sorts
the keys of maps, prints whole doubles without a fraction and escapes `<`, `>` and `&` (docs/contracts/sidecar.md 2.4,
2.5). orjson does the common case; this module adds the rest, without recursion, so depth costs heap and not stack.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Collection
from typing import Any

import orjson

MAX_DEPTH = 10_000

_SPACE = re.compile(rb"[ \t\r\n]*")
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_STRING = re.compile(rb'"[^"\\\x00-\x1f]*(?:\\["\\/bfnrtu][^"\\\x00-\x1f]*)*"')
_BRACKET_OR_TEXT = re.compile(rb'[\[\]{}]|"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SHORT_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LITERALS: tuple[tuple[bytes, Any], ...] = ((b"true", True), (b"false", False), (b"null", None))
_MARKUP = {
    b"<": b"\\u003c",
    b">": b"\\u003e",
    b"&": b"\\u0026",
    b"\xe2\x80\xa8": b"\\u2028",
    b"\xe2\x80\xa9": b"\\u2029",
}
# Doubles are spelled differently here, and orjson writes null for what has no JSON form at all.
_MAYBE_FLOAT = re.compile(rb"[0-9][.eE]|[0-9]{19}|null")


class JsonError(ValueError):
    """The bytes are not the JSON that was asked for; the text says where."""


def _one_mark_a_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("seiops-wirejson", _one_mark_a_byte)


def decode_document(data: bytes) -> Any:
    """The value of a whole document. Raises JsonError, also when anything but white space follows the value."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        value, end = _decode(data)
    if _skip(data, end) != len(data):
        raise JsonError(f"unexpected content at byte {end}") from None
    return value


def decode_members(data: bytes, wanted: Collection[str]) -> list[tuple[str, Any]]:
    """The members of the object that `data` begins with, in order and with repetitions; what follows is ignored.

    Only the `wanted` (names in any letter case, as `fold` gives them) are returned, the others only have to be JSON:
    a number no double can hold is an error in the former. A null instead of an object has no members. Raises JsonError.
    """
    position = _skip(data, 0)
    if data.startswith(b"null", position):
        return []
    if data[position : position + 1] != b"{":
        raise JsonError(f"expected an object at byte {position}")
    position = _skip(data, position + 1)
    if data[position : position + 1] == b"}":
        return []
    found: list[tuple[str, Any]] = []
    while True:
        key, position = _key(data, position)
        name = fold(key)
        value, position = _plain(data, position) or _decode(data, position, depth=1, whole_range=name not in wanted)
        if name in wanted:
            found.append((name, value))
        position = _skip(data, position)
        separator = data[position : position + 1]
        if separator == b"}":
            return found
        if separator != b",":
            raise JsonError(f"expected a comma or a closing bracket at byte {position}")
        position = _skip(data, position + 1)


def fold(name: str) -> str:
    """A member's name as it is compared: letter case does not count, nor do the old forms of s and k."""
    return name.lower().replace("\u017f", "s")


def member(value: Any, name: str) -> Any:
    """The member `name` of an object, matched in any letter case, the later one winning; None when absent.

    Raises JsonError when `value` is neither an object nor null.
    """
    if value is None:
        return None
    if not isinstance(value, dict):
        raise JsonError(f"expected an object around {name!r}")
    folded = fold(name)
    found: Any = None
    for key, item in value.items():
        if (key == name or fold(key) == folded) and item is not None:
            found = item
    return found


def encode(value: Any, *, sort_keys: bool = False) -> str:
    """Compact JSON text. Raises TypeError or ValueError for what JSON cannot hold (NaN, infinities, other types)."""
    fast = None
    try:
        fast = orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else 0)
    except (TypeError, orjson.JSONEncodeError):
        fast = None
    if fast is None or _MAYBE_FLOAT.search(fast):
        return _encode(value, sort_keys)
    return escape_markup(fast).decode()


def escape_markup(encoded: bytes) -> bytes:
    """Replaces the five characters that are only ever found inside strings by their escapes."""
    for raw, escaped in _MARKUP.items():
        if raw in encoded:
            encoded = encoded.replace(raw, escaped)
    return encoded


# --- decoding -------------------------------------------------------------------------------------------------------


def _skip(data: bytes, position: int) -> int:
    match = _SPACE.match(data, position)
    assert match is not None
    return match.end()


def _decode(data: bytes, start: int = 0, *, depth: int = 0, whole_range: bool = False) -> tuple[Any, int]:
    """One value from `start`, `depth` containers down, and the position after it, with a stack of open containers.

    `whole_range` lets numbers pass that no double can hold.
    """
    open_containers: list[list[Any] | dict[str, Any]] = []
    keys: list[str] = []
    position = _skip(data, start)
    while True:
        value, position, opened = _value_or_opening(data, position, open_containers, depth)
        if isinstance(value, float) and not whole_range and math.isinf(value):
            raise JsonError(f"the number before byte {position} is out of range")
        if opened:
            if isinstance(value, dict):
                key, position = _key(data, position)
                keys.append(key)
            continue
        while True:
            if not open_containers:
                return value, position
            container = open_containers[-1]
            if isinstance(container, list):
                container.append(value)
            else:
                container[keys.pop()] = value
            position = _skip(data, position)
            separator = data[position : position + 1]
            if separator == b",":
                position = _skip(data, position + 1)
                if isinstance(container, dict):
                    key, position = _key(data, position)
                    keys.append(key)
                break
            if separator != (b"]" if isinstance(container, list) else b"}"):
                raise JsonError(f"expected a comma or a closing bracket at byte {position}")
            position += 1
            value = open_containers.pop()


def _plain(data: bytes, position: int) -> tuple[Any, int] | None:
    """A container that the fast reader takes, and the position after it; None where it is left to the other one."""
    if data[position : position + 1] not in (b"[", b"{"):
        return None
    depth = 0
    for found in _BRACKET_OR_TEXT.finditer(data, position):
        mark = data[found.start()]
        if mark in b"[{":
            depth += 1
        elif mark in b"]}":
            depth -= 1
        if depth == 0:
            piece = data[position : found.end()]
            break
    else:
        return None
    if b"-0" in piece:
        return None
    try:
        return orjson.loads(piece), found.end()
    except orjson.JSONDecodeError:
        return None


def _value_or_opening(
    data: bytes, position: int, open_containers: list[list[Any] | dict[str, Any]], depth: int
) -> tuple[Any, int, bool]:
    """A finished value (also an empty container), or a container that was opened and pushed."""
    start = data[position : position + 1]
    if start in (b"[", b"{"):
        if depth + len(open_containers) >= MAX_DEPTH:
            raise JsonError("nested too deeply")
        container: list[Any] | dict[str, Any] = [] if start == b"[" else {}
        position = _skip(data, position + 1)
        if data[position : position + 1] == (b"]" if start == b"[" else b"}"):
            return container, position + 1, False
        open_containers.append(container)
        return container, position, True
    if start == b'"':
        text, position = _text(data, position)
        return text, position, False
    for literal, value in _LITERALS:
        if data.startswith(literal, position):
            return value, position + len(literal), False
    match = _NUMBER.match(data, position)
    if match is None:
        raise JsonError(f"unexpected byte at {position}")
    return _number(match), match.end(), False


def _key(data: bytes, position: int) -> tuple[str, int]:
    key, position = _text(data, position)
    position = _skip(data, position)
    if data[position : position + 1] != b":":
        raise JsonError(f"expected a colon at byte {position}")
    return key, _skip(data, position + 1)


def _text(data: bytes, position: int) -> tuple[str, int]:
    match = _STRING.match(data, position)
    if match is None:
        raise JsonError(f"expected a string at byte {position}")
    text = data[position + 1 : match.end() - 1].decode("utf-8", "seiops-wirejson")
    if "\\" in text:
        text = _unescape(text)
    return text, match.end()


def _unescape(text: str) -> str:
    if re.search(r"(?<!\\)(?:\\\\)*\\u(?![0-9a-fA-F]{4})", text):
        raise JsonError("broken \\u escape")
    units = _ESCAPE.sub(
        lambda found: chr(int(found[1][1:], 16)) if found[1][0] == "u" else _SHORT_ESCAPES[found[1]], text
    )
    if not any("\ud800" <= unit <= "\udfff" for unit in units):
        return units
    return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _number(match: re.Match[bytes]) -> int | float:
    literal = match.group()
    if match.group(1) is None and match.group(2) is None and literal != b"-0" and len(literal) <= 20:
        whole = int(literal)
        if -(2**63) <= whole < 2**64:
            return whole
    return float(literal)


# --- encoding -------------------------------------------------------------------------------------------------------


def _encode(value: Any, sort_keys: bool) -> str:
    out: list[str] = []
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, _Raw):
            out.append(item.text)
        elif isinstance(item, dict):
            members = sorted(item.items()) if sort_keys else list(item.items())
            parts: list[Any] = [_Raw("{")]
            for index, (key, member_value) in enumerate(members):
                if not isinstance(key, str):
                    raise TypeError(f"JSON object key {key!r} is not a string")
                parts.append(_Raw(("," if index else "") + _encode_text(key) + ":"))
                parts.append(member_value)
            parts.append(_Raw("}"))
            pending.extend(reversed(parts))
        elif isinstance(item, (list, tuple)):
            parts = [_Raw("[")]
            for index, element in enumerate(item):
                if index:
                    parts.append(_Raw(","))
                parts.append(element)
            parts.append(_Raw("]"))
            pending.extend(reversed(parts))
        else:
            out.append(_encode_scalar(item))
    return "".join(out)


class _Raw:
    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _encode_text(text: str) -> str:
    return escape_markup(orjson.dumps(text)).decode()


def _encode_scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _encode_text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format_double(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def format_double(value: float) -> str:
    """The shortest decimal of a double: plain between 1e-6 and 1e21, with an exponent outside (`1e+21`, `1e-7`)."""
    if math.isnan(value) or math.isinf(value):
        raise ValueError(f"{value} has no JSON form")
    if value == 0:
        return "-0" if math.copysign(1.0, value) < 0 else "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent_text = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    if fraction == "0":
        fraction = ""
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent_text or 0)
    if whole == "0":
        point -= len(whole + fraction) - len(digits)
    digits = digits.rstrip("0")
    scientific = point - 1
    if not 1e-6 <= abs(value) < 1e21:
        tail = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{tail}e{'+' if scientific >= 0 else '-'}{abs(scientific)}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    return f"{sign}{digits[:point]}.{digits[point:]}"
