"""Finding a FlatKV snapshot and telling the generations of the format apart (docs/contracts/digest.md 4.1, 4.6, 4.8)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.files import join_path, system_text

_SNAPSHOT = re.compile(r"snapshot-(.{20})", re.DOTALL)
_INT64 = re.compile(r"[+-]?\d+", re.ASCII)
METADATA_DATABASE = "metadata"
KEY_DATABASES = ("account", "code", "storage")
MISC_NAMES = ("misc", "legacy")
CHURNING = "clone aborted after 3 retries, source kept churning: "


@dataclass(frozen=True, slots=True)
class SnapshotLayout:
    """One snapshot directory: its version and where its databases are.

    `databases` are the four that hold rows, in the order account, code, storage, misc, under the directory names of their
    generation; `metadata` is the fifth one of generations E2 to E4. A database that is not there counts as empty.
    """

    version: int
    path: str
    databases: tuple[str, ...]
    metadata: str | None
    per_module_hashes: bool
    present: bool

    def database_path(self, name: str) -> Path:
        return Path(self.path) / name


def select_snapshot(root: str, height: int) -> tuple[int, str]:
    """Version and directory name of the snapshot to start from (height 0: what `current` names)."""
    if height == 0:
        return _current(root)
    candidates = [found for found in _snapshots(root) if found[0] <= height]
    if not candidates:
        raise DigestError(f"no snapshot found for target version {height}")
    return max(candidates)


def _snapshots(root: str) -> list[tuple[int, str]]:
    try:
        entries = list(Path(root or ".").iterdir())
    except OSError as error:
        raise DigestError(system_text("open", root, error)) from error
    found = []
    for entry in entries:
        version = snapshot_version(entry.name)
        if version is not None and not entry.is_symlink() and entry.is_dir():
            found.append((version, entry.name))
    return found


def snapshot_version(name: str) -> int | None:
    """Number in a `snapshot-` name of 29 bytes, or None."""
    match = _SNAPSHOT.fullmatch(name)
    if match is None or not _INT64.fullmatch(match[1]):
        return None
    version = int(match[1])
    return version if -(2**63) <= version < 2**63 else None


def _current(root: str) -> tuple[int, str]:
    link = join_path(root, "current")
    try:
        target = str(Path(link).readlink())
    except OSError as error:
        prefix = CHURNING if isinstance(error, FileNotFoundError) else ""
        raise DigestError(f"{prefix}read current symlink: {system_text('readlink', link, error)}") from error
    if not _SNAPSHOT.fullmatch(target):
        raise DigestError(f"current symlink points to invalid snapshot: {target}")
    version = snapshot_version(target)
    if version is None:
        raise DigestError(
            f'parse snapshot version from "{target}": strconv.ParseInt: parsing "{target[9:]}": invalid syntax'
        )
    return version, target


def describe_snapshot(root: str, version: int, name: str) -> SnapshotLayout:
    """Look into a snapshot directory. Raises DigestError when it is gone or belongs to another kind of store."""
    path = join_path(root, name)
    try:
        names = {entry.name for entry in Path(path).iterdir() if entry.is_dir()}
        foreign = (Path(path) / "__metadata").exists()
    except OSError as error:
        raise DigestError(f"{CHURNING}clone snapshot {name}: {system_text('stat', path, error)}") from error
    known = names.intersection((*KEY_DATABASES, *MISC_NAMES))
    if foreign and not known:
        raise not_a_store(path)
    if names.issuperset(MISC_NAMES):
        raise UnsupportedFormatError(f"{path}: holds both misc and legacy; a FlatKV snapshot has one of them")
    misc = "legacy" if "legacy" in names else "misc"
    return SnapshotLayout(
        version=version,
        path=path,
        databases=(*KEY_DATABASES, misc),
        metadata=METADATA_DATABASE if METADATA_DATABASE in names else None,
        per_module_hashes=misc == "misc",
        present=bool(known),
    )


def not_a_store(path: str) -> DigestError:
    return DigestError(
        f"{path}: not a FlatKV snapshot: none of the databases {', '.join(KEY_DATABASES)} and misc is there"
    )
