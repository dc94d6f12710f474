"""Snapshot archives: tar streams unpacked where nothing can leave the folder, and packed without holding them.

Unpacking goes into a fresh folder only, so what stands there was put there by the archive itself; that makes refusing
escapes complete: no entry is written through a link, and no link may lead out (docs/contracts/sidecar.md 5.20).
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seiops.seid.quoting import quoted

BLOCK = 512
CHUNK = 1 << 20
_MAX_HEADER_PAYLOAD = 1 << 20
_INVALID = "reading tar header: archive/tar: invalid tar header"
_CUT = "unexpected EOF"


class ArchiveError(Exception):
    """An archive that is broken, or that tries what it must not; the text names the entry."""


class Source(Protocol):
    """Decompressed bytes; `read` returns at most `size` bytes, none at the end, and raises ArchiveError."""

    def read(self, size: int) -> bytes: ...


Watch = Callable[[int], None]
"""Called with the number of bytes just written or packed; raises to stop the work."""


@dataclass(slots=True)
class _Overrides:
    """What extension headers say of the entry that follows them."""

    name: str | None = None
    link: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Totals of an unpacked archive; sizes in bytes of regular files."""

    files: int
    size: int
    skipped: tuple[str, ...]


def unpack(source: Source, folder: Path, watch: Watch) -> Unpacked:
    """Writes the archive's content into an empty folder and reads the source to its end.

    Raises ArchiveError, OSError and whatever `watch` raises; the folder is then to be thrown away.
    """
    work = _Unpacking(source, folder, watch)
    for info in _headers(source):
        work.take(info)
    while source.read(CHUNK):
        # what follows the archive's end still carries the checksum of the compressed stream
        pass
    work.check_links()
    return Unpacked(work.files, work.size, tuple(work.skipped))


def _headers(source: Source) -> Iterator[tarfile.TarInfo]:
    pending = _Overrides()
    while True:
        block = _exactly(source, BLOCK, "reading tar header: ", may_end=b"")
        if not block or block.count(0) == BLOCK:
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            raise ArchiveError(_INVALID) from None
        if info.size < 0:
            raise ArchiveError(_INVALID)
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"x", b"X", b"g"):
            _extension(source, info, pending)
            continue
        info.name = info.name if pending.name is None else pending.name
        info.linkname = info.linkname if pending.link is None else pending.link
        info.size = info.size if pending.size is None else pending.size
        pending = _Overrides()
        yield info


def _exactly(source: Source, size: int, where: str, *, may_end: bytes | None = None) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = source.read(size - len(data))
        if not piece:
            if not data and may_end is not None:
                return may_end
            raise ArchiveError(where + _CUT)
        data += piece
    return bytes(data)


def _extension(source: Source, info: tarfile.TarInfo, pending: _Overrides) -> None:
    if info.size > _MAX_HEADER_PAYLOAD:
        raise ArchiveError(_INVALID)
    payload = _exactly(source, _padded(info.size), "reading tar header: ")[: info.size]
    match info.type:
        case tarfile.GNUTYPE_LONGNAME:
            pending.name = _text(payload.rstrip(b"\0"))
        case tarfile.GNUTYPE_LONGLINK:
            pending.link = _text(payload.rstrip(b"\0"))
        case b"x" | b"X":
            _pax(payload, pending)


def _pax(payload: bytes, pending: _Overrides) -> None:
    """Records of the form `<length> <key>=<value>\\n`; only path, linkpath and size concern us."""
    while payload:
        try:
            length = int(payload.partition(b" ")[0])
            record, payload = payload[:length], payload[length:]
            key, _, value = record.partition(b" ")[2].partition(b"=")
            if length <= 0 or not record.endswith(b"\n"):
                raise ValueError(record)
            match key:
                case b"path":
                    pending.name = _text(value[:-1])
                case b"linkpath":
                    pending.link = _text(value[:-1])
                case b"size":
                    pending.size = int(value[:-1])
        except ValueError:
            raise ArchiveError(_INVALID) from None
    if pending.size is not None and pending.size < 0:
        raise ArchiveError(_INVALID)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class _Unpacking:
    """The state of one unpacking: where it goes, and which of its names are links."""

    def __init__(self, source: Source, folder: Path, watch: Watch) -> None:
        self._source = source
        self._folder = folder
        self._watch = watch
        self._links: dict[str, str] = {}
        self.files = 0
        self.size = 0
        self.skipped: list[str] = []

    def take(self, info: tarfile.TarInfo) -> None:
        relative = self._inside(info.name)
        if info.isdir():
            self._directory(relative, info.mode)
        elif info.issym():
            self._link(info.name, relative, info.linkname)
        elif info.islnk():
            raise ArchiveError(f"hard link {quoted(info.name)} to {quoted(info.linkname)} is not accepted")
        elif info.type == tarfile.GNUTYPE_SPARSE:
            raise ArchiveError(f"tar entry {quoted(info.name)} is sparse, which is not supported")
        elif info.isreg():
            self._file(relative, info)
            return
        else:
            self.skipped.append(info.name)
        self._skip(info.size)

    def _inside(self, name: str) -> str:
        """The entry's path below the folder, cleaned. An absolute name counts from the folder."""
        relative = posixpath.normpath(name.lstrip("/") or ".")
        hidden = relative != "." and relative.startswith(".")
        if hidden or "\0" in name:
            raise ArchiveError(f"tar entry {quoted(name)} escapes destination directory")
        parts = relative.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in self._links:
                raise ArchiveError(f"tar entry {quoted(name)} passes through a symbolic link of the archive")
        return relative

    def _directory(self, relative: str, mode: int) -> None:
        path = self._folder / relative
        if relative in self._links or (path.exists() and not path.is_dir()):
            path.unlink()
            self._links.pop(relative, None)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.mkdir(mode=(mode & 0o777) | 0o700, exist_ok=True)

    def _link(self, name: str, relative: str, target: str) -> None:
        lands = posixpath.normpath(posixpath.join(posixpath.dirname(relative), target))
        if target.startswith("/") or lands == ".." or lands.startswith("../") or "\0" in target:
            raise ArchiveError(f"symlink {quoted(name)} points outside destination directory")
        path = self._folder / relative
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._clear(path)
        path.symlink_to(target)
        self._links[relative] = name

    def _file(self, relative: str, info: tarfile.TarInfo) -> None:
        path = self._folder / relative
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._clear(path)
        self._links.pop(relative, None)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, (info.mode & 0o777) | 0o600), "wb", buffering=0) as file:
            left = info.size
            while left:
                piece = self._source.read(min(left, CHUNK))
                if not piece:
                    raise ArchiveError(f"writing {relative}: {_CUT}")
                file.write(piece)
                left -= len(piece)
                self.size += len(piece)
                self._watch(len(piece))
        self.files += 1
        _exactly(self._source, _padded(info.size) - info.size, "reading tar header: ")

    def _clear(self, path: Path) -> None:
        """A later entry of the same name replaces the earlier one."""
        if path.is_symlink() or path.is_file():
            path.unlink()

    def _skip(self, size: int) -> None:
        left = _padded(size)
        while left:
            left -= len(_exactly(self._source, min(left, CHUNK), "reading tar header: "))

    def check_links(self) -> None:
        """A link that is harmless by its text may still lead out through another link."""
        root = os.path.realpath(self._folder)
        for relative, name in self._links.items():
            lands = os.path.realpath(self._folder / relative)
            if lands != root and not lands.startswith(root + os.sep):
                raise ArchiveError(f"symlink {quoted(name)} points outside destination directory")


@dataclass(frozen=True, slots=True)
class Packed:
    """An entry to pack: its name in the archive and where it stands."""

    name: str
    path: Path


def walk(name: str, path: Path) -> Iterator[Packed]:
    """A file, or a folder with everything below it, parents first and names sorted."""
    yield Packed(name, path)
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir(), key=lambda child: child.name):
            yield from walk(f"{name}/{child.name}", child)


def content_size(entries: list[Packed]) -> int:
    """Bytes of the regular files."""
    return sum(entry.path.lstat().st_size for entry in entries if stat.S_ISREG(entry.path.lstat().st_mode))


def pack(entries: list[Packed], watch: Watch) -> Iterator[bytes]:
    """The tar stream of the entries, a piece at a time. Links are stored as links.

    A file that grows while it is packed is cut at the size it had; one that shrinks is an ArchiveError, because its entry
    has promised more bytes. Raises OSError, too.
    """
    for entry in entries:
        found = entry.path.lstat()
        info = _info(entry, found)
        if info is None:
            continue
        yield info.tobuf(tarfile.GNU_FORMAT if len(entry.name) > 100 else tarfile.USTAR_FORMAT)
        if info.isreg():
            yield from _content(entry, info.size, watch)
    yield bytes(2 * BLOCK)


def _info(entry: Packed, found: os.stat_result) -> tarfile.TarInfo | None:
    info = tarfile.TarInfo(entry.name)
    info.mode = stat.S_IMODE(found.st_mode)
    info.mtime = int(found.st_mtime)
    info.uid, info.gid = found.st_uid, found.st_gid
    info.uname, info.gname = _owner(found.st_uid), _group(found.st_gid)
    if stat.S_ISDIR(found.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        info.type = tarfile.SYMTYPE
        info.linkname = str(entry.path.readlink())
    elif stat.S_ISREG(found.st_mode):
        info.size = found.st_size
    else:
        return None
    return info


def _owner(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _content(entry: Packed, size: int, watch: Watch) -> Iterator[bytes]:
    left = size
    with entry.path.open("rb", buffering=0) as file:
        while left:
            piece = file.read(min(left, CHUNK))
            if not piece:
                raise ArchiveError(f"{entry.path} shrank while it was being archived")
            left -= len(piece)
            watch(len(piece))
            yield piece
    if padding := _padded(size) - size:
        yield bytes(padding)
