"""From typed values to the text of the two files, byte for byte as upstream writes them.

Layout, order, escapes and number forms are docs/contracts/seid-config.md 7.2; the few values that are translated on the
way are 7.3. Comments and keys the schema does not know are the business of `editing`.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from seiops.seid.durations import format_duration
from seiops.seid.schema import CONFIG_TOML, FILES, Field, Place, Schema, Value

Tables = dict[str | None, dict[str, Any]]
"""One file's content in writing order: table (None is the root) to key to plain TOML value."""

_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def to_tables(schema: Schema, values: dict[str, Value]) -> dict[str, Tables]:
    """What each file has to hold. Keys that are not written (null, or blank where blank is left out) are absent."""
    on_disk: dict[Place, Any] = dict(schema.constants)
    for field in schema.fields.values():
        value = values[field.key]
        if value is None and field.key != "state_sync.rpc_servers":
            continue
        if field.omitted_when_zero and value == field.zero:
            continue
        for place in field.places:
            on_disk[place] = _translated(field, place, value)
    return {
        name: {
            table: {key: on_disk[Place(name, table, key)] for key in keys if Place(name, table, key) in on_disk}
            for table, keys in schema.layout[name]
        }
        for name in FILES
    }


def _translated(field: Field, place: Place, value: Value) -> Any:
    if field.key == "state_sync.rpc_servers":
        return ",".join(value) if isinstance(value, list) else ""
    if field.key == "mode" and place.file == CONFIG_TOML and value == "archive":
        return "full"
    if field.kind == "duration" and isinstance(value, int):
        return format_duration(value)
    return value


def render(schema: Schema, values: dict[str, Value]) -> dict[str, bytes]:
    """The complete text of every file, from nothing."""
    return {name: _file_text(tables).encode() for name, tables in to_tables(schema, values).items()}


def _file_text(tables: Tables) -> str:
    lines: list[str] = []
    for table, keys in tables.items():
        indent = ""
        if table is not None:
            lines += ["", f"[{table}]"]
            indent = "  "
        lines += [f"{indent}{key} = {toml_value(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + "".join(_escaped(char) for char in value) + '"'
        case int():
            return str(value)
        case float():
            return _float(value)
        case list():
            return "[" + ", ".join(toml_value(item) for item in value) + "]"
    raise TypeError(f"no TOML form for {type(value).__name__}")


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    return f"\\u{ord(char):04x}" if char < " " or char == "\x7f" else char


def _float(value: float) -> str:
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else text + ".0"
