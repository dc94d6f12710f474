"""Records as text: the exact JSON that readers of published objects already parse.

Upstream's encoder escapes more than JSON demands and its indented form is part of the contract, so both spellings are
made here (docs/contracts/shadow.md 5.2).
"""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029", "\x7f": "\x7f"}
_NEEDS_ESCAPE = re.compile("[<>&\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def _escaped(text: str) -> bytes:
    # these characters occur in JSON only inside strings, so escaping the finished text is escaping the strings
    text = _NEEDS_ESCAPE.sub(lambda found: _ESCAPES[found.group()], text)
    return _SURROGATE.sub("\\\\ufffd", text).encode()


def line(value: Any) -> bytes:
    """Return one compact NDJSON line, ending in a line feed."""
    return _escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)) + b"\n"


def document(value: Any) -> bytes:
    """Return one JSON document indented by two spaces, ending in a line feed."""
    return _escaped(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)) + b"\n"
