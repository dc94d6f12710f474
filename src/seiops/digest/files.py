"""Reading files of a store without ever writing to it, and saying what went wrong as seidb says it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from seiops.digest.errors import DigestError


def clean_path(path: str) -> str:
    """Lexically cleaned path, as the source line of a report shows it (docs/contracts/digest.md 1.14)."""
    cleaned = os.path.normpath(path)
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def join_path(root: str, *parts: str) -> str:
    return clean_path("/".join((root or ".", *parts)))


def system_text(operation: str, path: str, error: OSError) -> str:
    """`open PATH: no such file or directory`: the form in which store errors reach users."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{operation} {path}: {reason[:1].lower()}{reason[1:]}"


def read_small(path: str, limit: int = 64 * 1024 * 1024) -> bytes:
    """Whole content of a bookkeeping file. Raises OSError, or DigestError when it is larger than `limit` bytes."""
    with Path(path).open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise DigestError(f"{path}: larger than the {limit} bytes such a file can have")
    return content


class MappedFile:
    """A file mapped read-only; `data` is empty for an empty file. The mapping outlives the file's name."""

    def __init__(self, path: str) -> None:
        self.path = path
        with Path(path).open("rb") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if self.size else None

    @property
    def data(self) -> bytes | mmap.mmap:
        return self._map if self._map is not None else b""

    def slice(self, start: int, end: int) -> bytes:
        return self._map[start:end] if self._map is not None else b""

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None
