"""JSON that passes through untouched: a node's own text inside our records, without decoding and encoding it again.

Members keep their order, numbers their spelling; only blanks outside strings go, and the characters that readers of
upstream's records expect escaped are escaped (docs/contracts/shadow.md 5.2).
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_BLANKS = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BRACKETS = b"{}[]"
_PUNCTUATION = _BRACKETS + b",:"
_COLON, _COMMA = b":,"
_ENDS_A_VALUE = b'"}]0123456789el '
_FEW_SPACES = 256
"""With more of them, looking at each costs as much as taking the text apart."""
_encode = msgspec.json.Encoder().encode


class BadJsonError(ValueError):
    """The text is not one JSON value; says why."""


def compact(raw: bytes) -> bytes:
    """One JSON value without blanks, escaped for a record. Raises BadJsonError."""
    try:
        text = msgspec.json.format(raw, indent=-1)
    except msgspec.MsgspecError as error:
        text = _compact_slowly(raw, error)
    return escaped(text)


def compact_parsed(raw: bytes) -> bytes:
    """The same for a text that a JSON parser has read already: usually it holds no blanks and passes as it is."""
    return escaped(raw) if not _may_hold_blanks(raw) else compact(raw)


def _may_hold_blanks(raw: bytes) -> bool:
    """Whether a blank may stand outside strings; there, one end of every run of blanks touches punctuation or an end.

    Line feeds, tabs and returns cannot stand inside strings unescaped. A space behind a colon is inside a string unless
    a string or a blank ends before the colon; behind a comma, unless a value does.
    """
    if b"\n" in raw or b"\t" in raw or b"\r" in raw or raw[:1] == b" " or raw[-1:] == b" ":
        return True
    at, seen = raw.find(b" "), 0
    while at >= 0:
        seen += 1
        before, after = raw[at - 1], raw[at + 1]
        if after in _PUNCTUATION or before in _BRACKETS or seen > _FEW_SPACES:
            return True
        if (before == _COLON and raw[at - 2] in b'" ') or (before == _COMMA and raw[at - 2] in _ENDS_A_VALUE):
            return True
        at = raw.find(b" ", at + 1)
    return False


def _compact_slowly(raw: bytes, refusal: Exception) -> bytes:
    """Half surrogate pairs are refused by the fast formatter but legal JSON."""
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        raise BadJsonError(str(refusal)) from None
    return _BLANKS.sub(rb"\1", raw)


def escaped(text: bytes) -> bytes:
    """`<`, `>`, `&` and the two line separators escaped; these occur in JSON only inside strings."""
    if b"<" in text:
        text = text.replace(b"<", b"\\u003c")
    if b">" in text:
        text = text.replace(b">", b"\\u003e")
    if b"&" in text:
        text = text.replace(b"&", b"\\u0026")
    if b"\xe2" in text:
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text


def line(value: Any) -> bytes:
    """One compact NDJSON line, line feed included; `msgspec.Raw` members are spliced in as they are."""
    try:
        text = _encode(value)
    except UnicodeEncodeError:
        text = _encode(_without_surrogates(value))
    return escaped(text) + b"\n"


def document(value: Any) -> bytes:
    """The same value indented by two spaces, line feed included."""
    return msgspec.json.format(line(value)[:-1], indent=2) + b"\n"


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value


class _Dress(msgspec.Struct):
    jsonrpc: msgspec.Raw = msgspec.Raw()


_dress = msgspec.json.Decoder(_Dress)


def is_enveloped(raw: bytes) -> bool:
    """Whether a body is a JSON-RPC 2.0 envelope (docs/contracts/shadow.md 2.2)."""
    try:
        return bytes(_dress.decode(raw).jsonrpc) == b'"2.0"'
    except msgspec.MsgspecError:
        return False
