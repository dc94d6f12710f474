"""The node's two config files as one thing: read, validate, write in full, write what changed.

Sits between the sidecar's tasks and the modules that know one aspect each (`schema`, `reading`, `intent`, `validation`,
`rendering`, `editing`). Folder and file modes are docs/contracts/seid-config.md 7.1.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seiops.seid import editing
from seiops.seid.files import write_all_atomic, write_atomic
from seiops.seid.reading import ReadError, read_config
from seiops.seid.rendering import Tables, render, to_tables
from seiops.seid.schema import FILES, Schema, Value
from seiops.seid.validation import Finding, validate

_TEMP_PREFIX = ".sei-config-"


@dataclass(frozen=True, slots=True)
class ConfigFiles:
    """The config folder of one node, seen through a schema."""

    schema: Schema
    folder: Path

    def read(self) -> dict[str, Value]:
        """Typed values. Raises ReadError."""
        return read_config(self.schema, self.folder)

    def validate(self) -> tuple[dict[str, Value], list[Finding]]:
        """The values on disk and what is wrong with them. Raises ReadError."""
        values = self.read()
        return values, validate(self.schema, values)

    def write_full(self, values: dict[str, Value]) -> None:
        """Both files from nothing; whatever they held is gone. Raises OSError."""
        self._replace(render(self.schema, values))

    def write_changes(self, values: dict[str, Value]) -> None:
        """The schema's keys set in the files on disk; comments, order and foreign keys stay. Raises OSError, ReadError."""
        tables = to_tables(self.schema, values)
        managed = self._managed()
        self._replace(
            {name: editing.write_tables(self._text(name), tables[name], managed[name]).encode() for name in FILES}
        )

    def _managed(self) -> dict[str, Tables]:
        return {name: {table: dict.fromkeys(keys) for table, keys in self.schema.layout[name]} for name in FILES}

    def _text(self, name: str) -> str:
        path = self.folder / name
        try:
            return path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ReadError(f"reading {path}: {error}") from error

    def _replace(self, contents: dict[str, bytes]) -> None:
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_all_atomic({self.folder / name: data for name, data in contents.items()}, prefix=_TEMP_PREFIX)


def patch_file(path: Path, patch: dict[str, Any]) -> None:
    """Merges a patch into one TOML file; a missing file is an empty document.

    Raises ReadError `reading <base name>: <cause>`, editing.EditError and OSError.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise ReadError(f"reading {path.name}: {error}") from error
    try:
        patched = editing.patch_toml(text, patch)
    except tomllib.TOMLDecodeError as error:
        raise ReadError(f"reading {path.name}: toml: {error}") from None
    write_atomic(path, patched.encode())
