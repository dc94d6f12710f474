"""`metadata.db`, the list of state snapshots a node believes it has (docs/contracts/sidecar.md 5.20.1, D-66).

seid offers itself the highest height listed there, whether its folder exists or not; an archive that brings the whole
list makes a restored node wait for chunks nobody has, and exit, for ever. So a list that travels holds one height only.
"""

from __future__ import annotations

import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

import plyvel  # type: ignore[import-untyped]

NAME = "metadata.db"
_KEY = struct.Struct(">cQI")
_PREFIX = b"\x01"
_CURRENT = re.compile(rb"MANIFEST-[0-9]+\n")


class MetadataError(Exception):
    """A list that cannot be read, or that does not hold the height; the text says which heights it holds."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What happened to the list; `note` is empty when it now holds the wanted height alone."""

    kept: int
    dropped: tuple[int, ...]
    note: str = ""


def is_database(folder: Path) -> bool:
    """A folder with a CURRENT file that names a manifest which is there."""
    try:
        current = (folder / "CURRENT").read_bytes()
    except OSError:
        return False
    return bool(_CURRENT.fullmatch(current)) and (folder / current.decode().strip()).is_file()


def keep_only(source: Path, height: int, target: Path) -> Filtered:
    """Writes a list with the one height at `target`, which may be `source` itself. Works on a copy of the database.

    What is no database passes through unchanged, with a note. Raises MetadataError.
    """
    if not is_database(source):
        if target != source:
            _copy(source, target)
        return Filtered(0, (), f"{NAME} is no LevelDB and was passed on as it is")
    work = target.with_name(f".{NAME}.work")
    fresh = target.with_name(f".{NAME}.fresh")
    for path in (work, fresh):
        shutil.rmtree(path, ignore_errors=True)
    try:
        shutil.copytree(source, work, symlinks=True)
        rows, heights = _rows(work, height)
        if not rows:
            listed = ", ".join(map(str, heights)) or "none"
            raise MetadataError(f"{NAME} does not list height {height}; it lists: {listed}")
        _write(fresh, rows)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
    finally:
        for path in (work, fresh):
            shutil.rmtree(path, ignore_errors=True)
    return Filtered(len(rows), tuple(other for other in heights if other != height))


def heights_listed(folder: Path) -> list[int]:
    """All heights of a list, ascending; reads a copy-on-write-free database in place, so only of one nobody has open."""
    return _rows(folder, 0)[1]


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def _rows(folder: Path, height: int) -> tuple[list[tuple[bytes, bytes]], list[int]]:
    """The entries of a height (one a format), and every height listed."""
    heights: set[int] = set()
    rows: list[tuple[bytes, bytes]] = []
    try:
        database = plyvel.DB(str(folder), create_if_missing=False, paranoid_checks=True)
        try:
            for key, value in database.iterator(prefix=_PREFIX):
                if len(key) != _KEY.size:
                    continue
                listed = _KEY.unpack(key)[1]
                heights.add(listed)
                if listed == height:
                    rows.append((key, value))
        finally:
            database.close()
    except (plyvel.Error, OSError) as error:
        raise MetadataError(f"{NAME} cannot be read: {error}") from None
    return rows, sorted(heights)


def _write(folder: Path, rows: list[tuple[bytes, bytes]]) -> None:
    database = plyvel.DB(str(folder), create_if_missing=True, error_if_exists=True)
    try:
        with database.write_batch(sync=True) as batch:
            for key, value in rows:
                batch.put(key, value)
        database.compact_range()
    finally:
        database.close()
