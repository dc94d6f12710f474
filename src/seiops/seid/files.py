"""Files that appear whole or not at all.

Every file seiops leaves in a node's home is written beside its target, flushed, given its mode and renamed; the folder
is flushed too, so that a name that was seen survives a crash.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

TEMP_PREFIX = ".tmp-"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644, prefix: str = TEMP_PREFIX) -> None:
    """Replaces `path` by `data`. The temporary file is removed on every failure. Raises OSError."""
    staged = stage(path, data, mode=mode, prefix=prefix)
    try:
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_all_atomic(contents: Mapping[Path, bytes], *, mode: int = 0o644, prefix: str = TEMP_PREFIX) -> None:
    """Replaces several files of a folder: all are staged before the first is renamed. Raises OSError."""
    staged: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            staged[path] = stage(path, data, mode=mode, prefix=prefix)
        for path, temporary in staged.items():
            temporary.replace(path)
    except BaseException:
        for temporary in staged.values():
            temporary.unlink(missing_ok=True)
        raise
    for folder in {path.parent for path in contents}:
        sync_directory(folder)


def stage(path: Path, data: bytes, *, mode: int, prefix: str = TEMP_PREFIX) -> Path:
    """A flushed temporary file beside `path` that holds `data` with the wanted mode."""
    descriptor, name = tempfile.mkstemp(prefix=prefix, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_directory(folder: Path) -> None:
    """Flushes a folder's names to disk, where the filesystem can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def touch_marker(path: Path) -> None:
    """Creates a marker: an empty file whose presence is the signal (docs/contracts/sidecar.md 1.4)."""
    with path.open("wb") as file:
        os.fsync(file.fileno())
    sync_directory(path.parent)
