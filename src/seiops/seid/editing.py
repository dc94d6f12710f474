"""Changes to TOML and JSON files that leave everything else as the operator wrote it.

Comments, order and keys the schema does not know survive (unlike upstream, which rewrites the file). Every edited text
is parsed again and compared with the plain merge; should the format-preserving editor disagree, the plain form is
written, so an edit can cost a comment but never a value. The merge rule is docs/contracts/seid-config.md 15.1.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import re
import tomllib
from collections.abc import Callable
from typing import Any

import tomlkit
from tomlkit.items import Item, Table
from tomlkit.toml_document import TOMLDocument

from seiops.seid.rendering import Tables, toml_value

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_INT64 = 1 << 63

Editor = Callable[[TOMLDocument], None]


class EditError(ValueError):
    """A patch that has no TOML form; the text is the wire's."""


def merge(original: Any, patch: Any) -> Any:
    """The patch laid over the original; null deletes, arrays and scalars replace, the inputs stay as they are.

    Unlike RFC 7386, nulls inside a table that is new in the original are kept.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(original) if isinstance(original, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif key in merged:
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def patch_toml(text: str, patch: dict[str, Any]) -> str:
    """The TOML text with a patch merged in. Raises tomllib.TOMLDecodeError (bad text) and EditError (bad patch)."""
    wanted = _writable(merge(tomllib.loads(text), patch))

    def edit(document: TOMLDocument) -> None:
        _merge_into(document, patch)

    return _edited(text, wanted, edit)


def write_tables(text: str, tables: Tables, managed: Tables) -> str:
    """The TOML text with every managed key set to its value, or removed when `tables` leaves it out.

    `managed` names all keys the schema owns (its values do not matter). A key or table spelled in another letter case is
    replaced by its own spelling. Raises tomllib.TOMLDecodeError.
    """
    wanted = tomllib.loads(text)
    _write_plain(wanted, tables, managed)

    def edit(document: TOMLDocument) -> None:
        _write_plain(document, tables, managed)

    return _edited(text, wanted, edit)


def _edited(text: str, wanted: dict[str, Any], edit: Editor) -> str:
    """The text the editor makes of it when that means exactly `wanted`, else the plain form of `wanted`."""
    # tomlkit raises many types for the corners it does not master (dotted and out-of-order tables)
    with contextlib.suppress(Exception):
        document = tomlkit.parse(text)
        edit(document)
        edited = tomlkit.dumps(document)
        if _same(tomllib.loads(edited), wanted):
            return edited
    return plain_toml(wanted)


def _write_plain(document: Any, tables: Tables, managed: Tables) -> None:
    for table, keys in managed.items():
        holder = document
        if table is not None:
            variants = [name for name in document if name != table and name.lower() == table.lower()]
            for name in variants:
                _forget(document, name, keys)
            if not isinstance(document.get(table), dict):
                if not tables[table]:
                    continue
                document[table] = tomlkit.table() if isinstance(document, TOMLDocument) else {}
            holder = document[table]
        for key in keys:
            _forget_variants(holder, key)
            if key in tables[table]:
                _put(holder, key, tables[table][key])
            elif key in holder and _plain_value(holder[key]) not in ("", False):
                # a blank that is left out when written from nothing means the same where it stands
                del holder[key]


def _forget(document: Any, name: str, keys: dict[str, Any]) -> None:
    """Takes the managed keys out of a table spelled in another case; an empty remainder goes, too."""
    holder = document[name]
    if isinstance(holder, dict):
        for key in keys:
            _forget_variants(holder, key)
            if key in holder:
                del holder[key]
        if holder:
            return
    del document[name]


def _forget_variants(holder: Any, key: str) -> None:
    for name in [name for name in holder if name != key and name.lower() == key.lower()]:
        del holder[name]


def _put(holder: Any, key: str, value: Any) -> None:
    """Sets a value unless it stands there already, so that untouched lines keep their very text."""
    if key in holder:
        if not _same(_plain_value(holder[key]), value):
            holder[key] = value
        return
    if not isinstance(holder, (TOMLDocument, Table)):
        holder[key] = value
        return
    item = tomlkit.item(value)
    item.trivia.indent = _indent(holder)
    holder.add(key, item)


def _indent(holder: TOMLDocument | Table) -> str:
    body = holder.value.body if isinstance(holder, Table) else holder.body
    return next((item.trivia.indent for key, item in reversed(body) if key is not None), "")


def _merge_into(holder: Any, patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            if key in holder:
                del holder[key]
        elif isinstance(value, dict):
            if not isinstance(holder.get(key), dict):
                # a scalar in the way disappears and so does the place it had
                if key in holder:
                    del holder[key]
                holder[key] = _new_table(value)
            else:
                _merge_into(holder[key], value)
        else:
            _put(holder, key, _writable(value))


def _new_table(value: dict[str, Any]) -> Table:
    table = tomlkit.table()
    for key, item in _writable(value).items():
        table[key] = _new_table(item) if isinstance(item, dict) else item
    return table


def _plain_value(value: Any) -> Any:
    return value.unwrap() if isinstance(value, Item) else value


def _writable(value: Any) -> Any:
    """The value as TOML can hold it: nulls in tables vanish, integers beyond 64 bits become floats."""
    match value:
        case dict():
            return {key: _writable(item) for key, item in value.items() if item is not None}
        case list():
            if any(item is None for item in value):
                raise EditError("encoding TOML: toml: encoding a nil interface is not supported")
            return [_writable(item) for item in value]
        case bool():
            return value
        case int() if not -_INT64 <= value < _INT64:
            return float(value)
    return value


def _same(left: Any, right: Any) -> bool:
    """Equal values of equal types; two not-a-numbers are the same."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and bool(left == right)


def plain_toml(document: dict[str, Any]) -> str:
    """A TOML text of equal meaning: scalars and arrays before sub-tables, no comments."""
    lines: list[str] = []
    _plain_table(lines, (), document)
    return "\n".join(lines).lstrip("\n") + "\n"


def _plain_table(lines: list[str], path: tuple[str, ...], table: dict[str, Any]) -> None:
    if path:
        lines += ["", f"[{'.'.join(map(_key, path))}]"]
    lines += [f"{_key(key)} = {_inline(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            _plain_table(lines, (*path, key), value)


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)


def _inline(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_key(key)} = {_inline(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(_inline(item) for item in value) + "]"
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
    return toml_value(value)
