"""From the two files on disk to typed values, as leniently as seid's own templates demand.

Templates quote some numbers and booleans, so text is accepted for them. A missing key means the zero of its type, never
the default; unknown keys are ignored here (docs/contracts/seid-config.md 6).
"""

from __future__ import annotations

import math
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from seiops.seid.durations import DurationError, parse_duration
from seiops.seid.overrides import integer_range
from seiops.seid.quoting import quoted
from seiops.seid.schema import CURRENT_VERSION, FILES, MODES, Field, Place, Schema, Value

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_HEXADECIMAL = re.compile(r"[+-]?0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][+-]?[0-9]+")
_OCTAL = re.compile(r"[+-]?0[0-7_]+", re.ASCII)
_WIRE_TYPES: dict[type, str] = {
    int: "int64",
    float: "float64",
    bool: "bool",
    str: "string",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}

Document = dict[str, Any]


class ReadError(Exception):
    """A config file that cannot be read, parsed or decoded; the text names the file and every bad key."""


class _MismatchError(ValueError):
    """Why a value on disk does not fit its field."""


def parse_file(path: Path) -> Document:
    """One TOML file as plain data. Raises ReadError with the cause only: callers name the file."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise ReadError(f"open {path}: no such file or directory") from None
    except OSError as error:
        raise ReadError(f"open {path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError:
        raise ReadError("toml: not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ReadError(f"toml: {error}") from None


def read_config(schema: Schema, config_dir: Path) -> dict[str, Value]:
    """The values of `config.toml` and `app.toml` in a folder. Raises ReadError `reading <path>: <cause>`."""
    documents: dict[str, Document] = {}
    values = schema.zeros()
    for name in FILES:
        path = config_dir / name
        try:
            documents[name] = parse_file(path)
            _decode_file(schema, name, documents[name], values)
        except ReadError as error:
            raise ReadError(f"reading {path}: {error}") from None
    values["mode"] = _mode(documents)
    values["version"] = version if isinstance(version := values["version"], int) and version >= 1 else CURRENT_VERSION
    return values


def lookup(document: Document, place: Place) -> Any:
    """The raw value at a place, None when absent. Names match exactly first, then in any letter case."""
    table: Any = document if place.table is None else _member(document, place.table)
    return _member(table, place.key) if isinstance(table, dict) else None


def _member(table: Document, name: str) -> Any:
    if name in table:
        return table[name]
    return next((value for key, value in table.items() if key.lower() == name.lower()), None)


def _mode(documents: dict[str, Document]) -> str:
    preferred = lookup(documents["app.toml"], Place("app.toml", "sei", "mode"))
    fallback = lookup(documents["config.toml"], Place("config.toml", None, "mode"))
    return next((mode for mode in (preferred, fallback) if mode in MODES), "full")


def _decode_file(schema: Schema, name: str, document: Document, values: dict[str, Value]) -> None:
    problems = [
        f"'{table}' expected a map or struct, got {quoted(_wire_type(found))}"
        for table, _ in schema.layout[name]
        if table is not None and (found := _member(document, table)) is not None and not isinstance(found, dict)
    ]
    for field in schema.fields.values():
        if not field.places or field.places[0].file != name:
            continue
        place = field.places[0]
        raw = lookup(document, place)
        if raw is None:
            continue
        try:
            values[field.key] = _decoded(schema, field, raw)
        except _MismatchError as reason:
            where = place.key if place.table is None else f"{place.table}.{place.key}"
            problems.append(f"'{where}' {reason}")
    if problems:
        raise ReadError("decoding failed due to the following error(s):\n\n" + "\n".join(problems))


def _decoded(schema: Schema, field: Field, raw: Any) -> Value:
    if field.key == "state_sync.rpc_servers":
        return _servers(_text(raw))
    match field.kind:
        case "string":
            return _text(raw)
        case "bool":
            return _bool(field, raw)
        case "int" | "uint":
            return _integer(schema, field, raw)
        case "float":
            return _float(raw)
        case "duration":
            return _duration(raw)
        case "list[string]":
            return [_text(item) for item in raw] if isinstance(raw, list) else [_text(raw)]
        case "list[list[string]]":
            return _label_pairs(raw)


def _servers(text: str) -> list[str] | None:
    """The one list that is a comma-joined string on disk; blank is null (docs/contracts/seid-config.md 1.1)."""
    if not text.strip():
        return None
    return [part.strip() for part in text.split(",") if part.strip()]


def _text(raw: Any) -> str:
    match raw:
        case str():
            return raw
        case bool():
            return "1" if raw else "0"
        case int():
            return str(raw)
        case float():
            return format(Decimal(repr(raw)), "f").removesuffix(".0") if math.isfinite(raw) else str(raw)
    raise _unconvertible("string", raw)


def _bool(field: Field, raw: Any) -> bool:
    match raw:
        case bool():
            return raw
        case int() | float():
            return raw != 0
        case str():
            if not raw.strip():
                raise _MismatchError(f"empty string for {'*bool' if field.nullable else 'bool'} field")
            if raw in _TRUE:
                return True
            if raw in _FALSE:
                return False
            raise _MismatchError("cannot parse value as 'bool': strconv.ParseBool: invalid syntax")
    raise _unconvertible("bool", raw)


def _integer(schema: Schema, field: Field, raw: Any) -> int:
    name = field.kind if field.bits == 64 else f"{field.kind}{field.bits}"
    low, high = integer_range(signed=field.kind == "int", bits=field.bits)
    match raw:
        case str():
            return _integer_text(field, name, raw)
        case bool():
            return int(raw)
        case float() if not math.isfinite(raw):
            raise _MismatchError(f"expected type '{name}', got {raw}")
        case int() | float():
            number = int(raw)
            if low <= number <= high:
                return number
            if schema.wraps_integers:
                wrapped = number & ((1 << field.bits) - 1)
                return wrapped - (1 << field.bits) if wrapped > high else wrapped
            raise _MismatchError(f"value {number} does not fit '{name}': allowed are {low} to {high}")
    raise _unconvertible(name, raw)


def _integer_text(field: Field, name: str, text: str) -> int:
    """Base prefixes count: `0x10` is 16 and `010` is 8."""
    if not text.strip():
        raise _MismatchError(f"empty string for {name} field")
    signed = field.kind == "int"
    failure = f"cannot parse value as '{name}': strconv.{'ParseInt' if signed else 'ParseUint'}"
    if text != text.strip() or not text.isascii() or (not signed and text[0] in "+-"):
        raise _MismatchError(f"{failure}: invalid syntax")
    try:
        number = int(text, 8) if _OCTAL.fullmatch(text) else int(text, 0)
    except ValueError:
        raise _MismatchError(f"{failure}: invalid syntax") from None
    low, high = integer_range(signed=signed, bits=field.bits)
    if not low <= number <= high:
        raise _MismatchError(f"{failure}: value out of range")
    return number


def _float(raw: Any) -> float:
    match raw:
        case str():
            return _float_text(raw)
        case bool() | int() | float():
            return float(raw)
    raise _unconvertible("float64", raw)


def _float_text(text: str) -> float:
    failure = "cannot parse value as 'float64': strconv.ParseFloat"
    if not text.strip():
        raise _MismatchError("empty string for float64 field")
    if text != text.strip() or not text.isascii() or text.lower() in ("+nan", "-nan"):
        raise _MismatchError(f"{failure}: invalid syntax")
    try:
        number = float.fromhex(text) if _HEXADECIMAL.fullmatch(text) else float(text)
    except OverflowError:
        number = math.inf
    except ValueError:
        raise _MismatchError(f"{failure}: invalid syntax") from None
    if math.isinf(number) and "inf" not in text.lower():
        raise _MismatchError(f"{failure}: value out of range")
    return number


def _duration(raw: Any) -> int:
    if not isinstance(raw, str):
        raise _MismatchError(f"expected a map or struct, got {quoted(_wire_type(raw))}")
    try:
        return parse_duration(raw)
    except DurationError as error:
        raise _MismatchError(f"invalid duration {quoted(raw)}: {error}") from None


def _label_pairs(raw: Any) -> list[list[str]]:
    if not isinstance(raw, list):
        raise _unconvertible("[][]string", raw)
    return [[_text(item) for item in row] if isinstance(row, list) else [_text(row)] for row in raw]


def _wire_type(raw: Any) -> str:
    return _WIRE_TYPES.get(type(raw), "time.Time")


def _unconvertible(wanted: str, raw: Any) -> _MismatchError:
    return _MismatchError(f"expected type '{wanted}', got unconvertible type '{_wire_type(raw)}'")
