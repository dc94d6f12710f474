"""Gzip, read and written a piece at a time, with the header every object of seiops carries.

isal does the work several times faster than zlib; header and trailer are written here, because its own header differs
from the one the recorded objects have (docs/contracts/sidecar.md 6.3).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from isal import isal_zlib
from isal.igzip_lib import IsalError

from seiops.seid.archive import ArchiveError

HEADER = bytes.fromhex("1f8b08000000000000ff")
_TRAILER = struct.Struct("<II")
_LEVEL = 2
_MAGIC = b"\x1f\x8b"


class Deflate:
    """Payload in, gzip out."""

    def __init__(self) -> None:
        self._deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, -15)
        self._crc = 0
        self._size = 0
        self._started = False

    def feed(self, payload: bytes) -> bytes:
        self._crc = isal_zlib.crc32(payload, self._crc)
        self._size += len(payload)
        return self._head() + self._deflate.compress(payload)

    def finish(self) -> bytes:
        return self._head() + self._deflate.flush() + _TRAILER.pack(self._crc, self._size & 0xFFFFFFFF)

    def _head(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return HEADER


class Inflate:
    """A `Source` over compressed pieces: `pull` returns the next piece, none at the end.

    Several gzip members in a row count as one, zeros behind the last are padding. A stream that ends early is an error,
    never a short read.
    """

    def __init__(self, pull: Callable[[], bytes]) -> None:
        self._pull = pull
        self._pending = b""
        self._members = 0
        self._member: isal_zlib.Decompress | None = None

    def read(self, size: int) -> bytes:
        while self._member is not None or self._next_member():
            payload = self._decompressed(size)
            if payload:
                return payload
        return b""

    def _next_member(self) -> bool:
        """Stands at the start of a member, or says that there is none."""
        while len(self._pending) < len(_MAGIC) and (piece := self._pull()):
            self._pending += piece
        if not self._pending.startswith(_MAGIC):
            if self._members and not self._pending.strip(b"\0"):
                self._pending = b""
                return bool(piece := self._pull()) and self._after_padding(piece)
            raise ArchiveError(f"creating gzip reader: {'gzip: invalid header' if self._pending else 'EOF'}")
        self._members += 1
        self._member = isal_zlib.decompressobj(wbits=31)
        return True

    def _after_padding(self, piece: bytes) -> bool:
        self._pending = piece.lstrip(b"\0")
        return self._next_member()

    def _decompressed(self, size: int) -> bytes:
        """Some payload of the member; none when it ended or only gave its last bytes to the decompressor."""
        member = self._member
        assert member is not None
        try:
            payload = bytes(member.decompress(self._pending, size))
        except IsalError as error:  # type: ignore[misc]  # the stub declares the class as a value
            raise ArchiveError(f"gzip: {error}") from None
        self._pending = member.unconsumed_tail
        if member.eof:
            self._pending = member.unused_data
            self._member = None
        elif not payload and not self._pending:
            self._pending = self._pull()
            if not self._pending:
                raise ArchiveError("reading tar header: unexpected EOF")
        return payload
