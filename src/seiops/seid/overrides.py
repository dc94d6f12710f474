"""Text to typed value, the way override values of an intent are read (docs/contracts/seid-config.md 4).

The numeric grammars stop at the first character that does not fit and ignore the rest (`9545xyz` is 9545). Manifests in
use rely on it, so it stays.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from seiops.seid.durations import DurationError, parse_duration
from seiops.seid.quoting import quoted
from seiops.seid.schema import Field, Schema, Value

_BLANKS = re.compile(r"(?:[ \t\v\f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]|\r(?!\n))*")
_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")
# What was taken for the beginning of a word stays part of the number, which is then none.
_FLOAT = re.compile(
    r"nan|(?:na?)?[+-]?(?:inf|(?:in?)?(?:0x[0-9a-f_]*(?:\.[0-9a-f_]*)?(?:p[+-]?[0-9_]*)?"
    r"|[0-9_]*(?:\.[0-9_]*)?(?:[ep][+-]?[0-9_]*)?))",
    re.IGNORECASE | re.ASCII,
)
_STRAY_UNDERSCORE = re.compile(r"(?<![0-9a-fA-FxX])_|_(?![0-9a-fA-F])")


class OverrideError(ValueError):
    """An override that cannot be applied; the text is the wire's."""


class _ReasonError(ValueError):
    """Why a value does not fit its field."""


def apply_overrides(schema: Schema, values: dict[str, Value], overrides: Mapping[str, str]) -> None:
    """Sets every override on `values`, in the order of the keys. Raises OverrideError on the first bad one."""
    for key in sorted(overrides):
        field = schema.fields.get(key)
        if field is None:
            raise OverrideError(f"unknown override key {quoted(key)}")
        text = overrides[key]
        try:
            values[key] = parse_override(field, text)
        except _ReasonError as reason:
            raise OverrideError(f"applying override {quoted(key)}={quoted(text)}: {reason}") from None


def parse_override(field: Field, text: str) -> Value:
    match field.kind:
        case "string":
            return text
        case "bool":
            return _bool(field, text)
        case "int":
            return _integer(text, signed=True, bits=field.bits)
        case "uint":
            return _integer(text, signed=False, bits=field.bits)
        case "float":
            return _float(text)
        case "duration":
            try:
                return parse_duration(text)
            except DurationError as error:
                raise _ReasonError(f"invalid duration {quoted(text)}: {error}") from None
        case "list[string]":
            return _texts(text)
        case "list[list[string]]":
            raise _ReasonError("unsupported slice element kind: slice")


def _bool(field: Field, text: str) -> bool:
    if field.nullable and field.key == "consensus.unsafe_bypass_commit_timeout_override":
        raise _ReasonError("unsupported field type: *bool")
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise _ReasonError(f"invalid bool value: {quoted(text)}")


def _number_text(text: str) -> str:
    """What follows the leading blanks; nothing there is the end of input, a line break an error of its own."""
    blanks = _BLANKS.match(text)
    rest = text[blanks.end() :] if blanks else text
    if not rest:
        raise _ReasonError("EOF")
    if rest.startswith(("\n", "\r\n")):
        raise _ReasonError("unexpected newline")
    return rest


def _integer(text: str, *, signed: bool, bits: int) -> int:
    rest = _number_text(text)
    found = re.match(r"[+-]?\d+" if signed else r"\d+", rest, re.ASCII)
    if found is None:
        raise _ReasonError("EOF" if signed and rest in ("+", "-") else "expected integer")
    value = int(found.group())
    name = "int" if signed else "uint"
    low, high = integer_range(signed=signed, bits=64)
    if not low <= value <= high:
        parser = "ParseInt" if signed else "ParseUint"
        raise _ReasonError(f"strconv.{parser}: parsing {quoted(found.group())}: value out of range")
    low, high = integer_range(signed=signed, bits=bits)
    if not low <= value <= high:
        raise _ReasonError(f"value {value} overflows {name}{bits}")
    return value


def integer_range(*, signed: bool, bits: int) -> tuple[int, int]:
    """The inclusive bounds of a stored integer."""
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)


def _float(text: str) -> float:
    rest = _number_text(text)
    found = _FLOAT.match(rest)
    token = found.group() if found else ""
    mantissa, mark, exponent = token.partition("p")
    try:
        if mark and "x" not in mantissa.lower():
            # a decimal mantissa with a power-of-two exponent, which only this grammar knows
            value = math.ldexp(_float_value(mantissa), _exponent(exponent, token))
        else:
            value = _float_value(token)
    except _ReasonError:
        raise
    except OverflowError:
        value = math.inf
    except ValueError:
        raise _ReasonError(f"strconv.ParseFloat: parsing {quoted(token)}: invalid syntax") from None
    if math.isinf(value) and "inf" not in token.lower() and not (mark and "x" not in mantissa.lower()):
        raise _ReasonError(f"strconv.ParseFloat: parsing {quoted(token)}: value out of range")
    return value


def _exponent(digits: str, token: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+", digits, re.ASCII):
        raise _ReasonError(f"strconv.Atoi: parsing {quoted(token)}: invalid syntax")
    return int(digits)


def _float_value(token: str) -> float:
    if _STRAY_UNDERSCORE.search(token):
        raise ValueError("an underscore that separates nothing")
    plain = token.replace("_", "")
    lower = plain.lower()
    if "0x" in lower:
        if "p" not in lower:
            raise ValueError("a hexadecimal float needs an exponent")
        return float.fromhex(plain)
    return float(plain)


def _texts(text: str) -> list[str]:
    if not text:
        return []
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise _ReasonError(f"empty entry in string slice value {quoted(text)}")
    return parts
