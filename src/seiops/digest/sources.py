"""A store named in one word, opened for localisation: `flatkv:DIR@HEIGHT`, `memiavl:DIR@HEIGHT`, or a bare directory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from seiops.digest.engine import Engine, FlatkvStore, MemiavlStore, OpenOptions, Shard, ShardTree
from seiops.digest.errors import DigestError
from seiops.digest.memiavl.snapshot import EVM_TREE, snapshot_name
from seiops.digest.model import Backend, Normalization, OpenMode, Row

_SPEC = re.compile(r"(?:(flatkv|memiavl|composite):)?(.+?)(?:@(\d+))?", re.DOTALL)
FLATKV_SIGNS = ("account", "misc", "legacy", "storage", "code")


@dataclass(frozen=True, slots=True)
class Source:
    """Where to read from. `root` is the store's directory; a composite names both as `FLATKVDIR+MEMIAVLDIR`."""

    backend: Backend
    root: str
    height: int = 0
    normalization: Normalization = Normalization.SEMANTIC

    def __str__(self) -> str:
        return f"{self.backend}:{self.root}" + (f"@{self.height}" if self.height else "")


def parse_source(text: str, height: int = 0, normalization: Normalization = Normalization.SEMANTIC) -> Source:
    """Read a source's name; without a backend the directory itself tells which kind of store it is."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise DigestError(f"{text!r} names no store: write [flatkv:|memiavl:|composite:]DIR[@HEIGHT]")
    backend, root, at = match.groups()
    chosen = Backend(backend) if backend else detect_backend(root)
    return Source(chosen, root, int(at) if at else height, normalization)


def detect_backend(root: str) -> Backend:
    """Kind of the store in a directory, from what its snapshots hold. Raises DigestError when it is neither."""
    for snapshot in sorted(Path(root).glob("snapshot-*"), reverse=True):
        if (snapshot / "__metadata").exists() or (snapshot / EVM_TREE).is_dir():
            return Backend.MEMIAVL
        if any((snapshot / name).is_dir() for name in FLATKV_SIGNS):
            return Backend.FLATKV
    raise DigestError(f"{root}: no memiavl or FlatKV store: no snapshot-* directory of either kind is there")


class OpenedSource:
    """A source open for its shard tree and its rows. Use as a context manager."""

    def __init__(self, source: Source, engine: Engine, options: OpenOptions) -> None:
        self.source = source
        self._stack = ExitStack()
        self._tree: Callable[[], ShardTree]
        self._rows: Callable[[Sequence[Shard]], Iterator[Row]]
        self.version = 0
        with self._stack:
            self._open(engine, options)
            self._stack = self._stack.pop_all()

    def _open(self, engine: Engine, options: OpenOptions) -> None:
        source = self.source
        if source.backend is Backend.COMPOSITE:
            flatkv_dir, separator, memiavl_dir = source.root.partition("+")
            if not separator:
                raise DigestError(f"{source}: a composite store is named FLATKVDIR+MEMIAVLDIR")
            flatkv = self._flatkv(engine, flatkv_dir, options)
            memiavl = self._memiavl(engine, memiavl_dir, options)
            composite = engine.composite(flatkv, memiavl)
            self._tree, self._rows, self.version = composite.shard_tree, composite.rows, flatkv.version
        elif source.backend is Backend.FLATKV:
            flatkv = self._flatkv(engine, source.root, options)
            self._tree, self._rows, self.version = flatkv.shard_tree, flatkv.rows, flatkv.version
        else:
            memiavl = self._memiavl(engine, source.root, options)
            self._tree = lambda: memiavl.shard_tree(source.normalization)
            self._rows = lambda shards: memiavl.rows(shards, source.normalization)
            self.version = memiavl.version

    def _flatkv(self, engine: Engine, root: str, options: OpenOptions) -> FlatkvStore:
        return self._stack.enter_context(closing(engine.open_flatkv(root, self.source.height, options)))

    def _memiavl(self, engine: Engine, root: str, options: OpenOptions) -> MemiavlStore:
        height = self.source.height
        exact = Path(root) / (snapshot_name(height) if height else "current") / EVM_TREE / "metadata"
        mode = OpenMode.SNAPSHOT if exact.is_file() else OpenMode.REPLAY
        return self._stack.enter_context(closing(engine.open_memiavl(root, height, mode, options)))

    def shard_tree(self) -> ShardTree:
        return self._tree()

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]:
        return self._rows(shards)

    def __enter__(self) -> OpenedSource:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
