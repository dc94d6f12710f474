"""Files that appear whole or not at all.

Every file seiops leaves in a node's home is written beside its target, flushed, given its mode and renamed; the folder
is flushed too, so that a name that was seen survives a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
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


class Incoming:
    """A file that is being received piece by piece and takes its name only when it is committed.

    Use as a context manager: leaving it without `commit` removes what was received. `sha256` is of the bytes so far.
    """

    def __init__(self, path: Path, *, mode: int = 0o644) -> None:
        """Creates the temporary file beside `path`. Raises OSError."""
        self.path = path
        self.received = 0
        self._mode = mode
        self._digest = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=path.parent)
        self._temporary = Path(name)
        self._file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.received += len(chunk)

    def commit(self) -> None:
        """Flushes, sets the mode and renames. Raises OSError."""
        self._file.flush()
        os.fchmod(self._file.fileno(), self._mode)
        os.fsync(self._file.fileno())
        self._temporary.replace(self.path)
        sync_directory(self.path.parent)


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
