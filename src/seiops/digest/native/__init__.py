"""The native engine: policy here, rows in the Rust kernel.

Which snapshot, which log files and which bookkeeping rows matter is decided by the same code that serves the reference
engine; every file with rows in it is parsed a second time, independently, by the kernel (`seiops._native`). Scans run on
threads of their own without the interpreter lock; progress is polled.
"""

from __future__ import annotations

from seiops import _native
from seiops.digest.engine import CompositeStore, FlatkvStore, MemiavlStore, OpenOptions
from seiops.digest.errors import DigestError
from seiops.digest.files import clean_path
from seiops.digest.model import OpenMode
from seiops.digest.native.composite import NativeComposite
from seiops.digest.native.flatkv import NativeFlatkv, open_flatkv
from seiops.digest.native.memiavl import NativeMemiavl, open_replayed, open_snapshot


class NativeEngine:
    """Engine over the Rust kernel."""

    name = "native"

    def __init__(self) -> None:
        self.version = _native.__version__

    def open_flatkv(self, root: str, height: int, options: OpenOptions) -> FlatkvStore:
        try:
            return open_flatkv(clean_path(root), height, options)
        except DigestError as error:
            raise type(error)(f"open flatkv read-only: {error}") from error

    def open_memiavl(self, root: str, height: int, mode: OpenMode, options: OpenOptions) -> MemiavlStore:
        if mode is OpenMode.SNAPSHOT:
            return open_snapshot(root, height, options)
        try:
            return open_replayed(clean_path(root), height, options)
        except DigestError as error:
            raise type(error)(f"open memiavl read-only replay: {error}") from error

    def composite(self, flatkv: FlatkvStore, memiavl: MemiavlStore) -> CompositeStore:
        if not isinstance(flatkv, NativeFlatkv) or not isinstance(memiavl, NativeMemiavl):
            raise TypeError("both stores have to be opened by the native engine")
        return NativeComposite(flatkv, memiavl)
