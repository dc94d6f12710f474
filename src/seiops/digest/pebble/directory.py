"""Which files of a database directory are live (docs/contracts/digest.md 5.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.files import system_text

OLDEST_FORMAT = 13
NEWEST_FORMAT = 16

_MARKER = re.compile(r"marker\.([a-z-]+)\.(\d+)\.(.+)")
_LOG = re.compile(r"(\d{6,})(?:-(\d{3,}))?\.log")
_TABLE = re.compile(r"(\d{6,})\.sst")
_BLOB = re.compile(r"(\d{6,})\.blob")
_COMPARER = re.compile(r"^\s*comparer\s*=\s*(\S+)", re.MULTILINE)
BYTEWISE = "leveldb.BytewiseComparator"
SUPPORTED_COMPARERS = frozenset((BYTEWISE,))


@dataclass(frozen=True, slots=True)
class LogFile:
    number: int
    index: int
    path: Path


@dataclass(frozen=True, slots=True)
class DatabaseFiles:
    """Files found in one directory; `manifest` is None for a database that was never created."""

    path: Path
    manifest: str | None
    format_version: int
    logs: tuple[LogFile, ...]
    tables: frozenset[int]

    def table_path(self, number: int) -> Path:
        return self.path / f"{number:06d}.sst"


def survey(path: Path, comparers: frozenset[str] = SUPPORTED_COMPARERS) -> DatabaseFiles:
    """List a database directory; a missing one is an empty database.

    Raises DigestError when tables or logs are there but nothing says which of them are live, and
    UnsupportedFormatError for format versions and files this reader does not know.
    """
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise DigestError(system_text("open", str(path), error)) from error
    manifest = _marked(names, "manifest")
    logs = tuple(sorted(_logs(path, names), key=lambda log: (log.number, log.index)))
    tables = frozenset(int(match[1]) for match in map(_TABLE.fullmatch, names) if match)
    blobs = [name for name in names if _BLOB.fullmatch(name)]
    if blobs:
        raise UnsupportedFormatError(f"{path / blobs[0]}: blob files are not supported")
    if manifest is None and (tables or logs):
        raise DigestError(
            f"{path}: holds {len(tables)} tables and {len(logs)} logs but no marker.manifest file; "
            "the database lost its bookkeeping, restore the snapshot"
        )
    version = _format_version(path, _marked(names, "format-version"), manifest)
    _check_comparer(path, names, comparers)
    return DatabaseFiles(path, manifest, version, logs, tables)


def _marked(names: list[str], marker: str) -> str | None:
    """Value of a marker: the file with the highest iteration wins."""
    found = [match for match in map(_MARKER.fullmatch, names) if match and match[1] == marker]
    return max(found, key=lambda match: int(match[2]))[3] if found else None


def _logs(path: Path, names: list[str]) -> list[LogFile]:
    matches = (match for match in map(_LOG.fullmatch, names) if match)
    return [LogFile(int(match[1]), int(match[2] or 0), path / match[0]) for match in matches]


def _format_version(path: Path, value: str | None, manifest: str | None) -> int:
    if manifest is None:
        return NEWEST_FORMAT
    if value is None or not value.isdecimal():
        raise UnsupportedFormatError(f"{path}: no readable marker.format-version file")
    version = int(value)
    if version > NEWEST_FORMAT:
        raise UnsupportedFormatError(
            f'pebble: database "{path}" written in unknown format major version {version} '
            f"(marker.format-version; {OLDEST_FORMAT} to {NEWEST_FORMAT} are supported)"
        )
    if version < OLDEST_FORMAT:
        raise UnsupportedFormatError(
            f"{path}: format major version {version} is older than the oldest readable, {OLDEST_FORMAT}"
        )
    return version


def _check_comparer(path: Path, names: list[str], comparers: frozenset[str]) -> None:
    options = [name for name in names if re.fullmatch(r"OPTIONS-\d{6,}", name)]
    if not options:
        return
    newest = path / max(options, key=lambda name: int(name[8:]))
    try:
        text = newest.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DigestError(system_text("open", str(newest), error)) from error
    match = _COMPARER.search(text)
    if match and match[1] not in comparers:
        raise UnsupportedFormatError(f"{newest}: comparer {match[1]}, only {BYTEWISE} is supported")
