"""Typed face of the Rust kernel (native/). Every call that reads a store raises ValueError with a sentence that names the file
or the row, and InterruptedError when its `Progress` was cancelled."""

from collections.abc import Callable
from typing import NotRequired, TypedDict

__version__: str

TallyTuple = tuple[bytes, int]
"""XOR accumulator (32 bytes) and row count."""
RowTuple = tuple[int, bytes, bytes, bytes, int | None]
"""Bucket number, physical key, logical payload, stored value, height of the last write."""
OnRows = Callable[[list[RowTuple]], None]
Query = tuple[int, int, bytes, int]
"""Bucket number, key offset, key prefix, further bytes that make a shard."""
ShardNumber = tuple[int, int]
"""Bucket number, index in the bucket's 1,024 shards."""

class ScanTotals(TypedDict):
    buckets: list[TallyTuple]
    input_rows: int
    version_marker: bytes | None
    boundary_marker: bytes | None
    found: list[RowTuple]

    shards: NotRequired[dict[ShardNumber, TallyTuple]]
    """Non-empty shards, of a survey."""

class FlatkvTotals(ScanTotals):
    statistics: list[dict[bytes, tuple[int, int]]]

class CompositeTotals(ScanTotals):
    memiavl_rows: int
    consumed_rows: int

def entry_hash(key: bytes, value: bytes) -> bytes:
    """Return the 32-byte hash of one row (docs/contracts/digest.md 1.1)."""

def accumulate(rows: list[tuple[bytes, bytes]]) -> TallyTuple:
    """Return the XOR of the entry hashes of `rows` (32 bytes) and their number."""

class Progress:
    """Counters of a running scan, readable from another thread."""

    def __init__(self) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def cancel(self) -> None: ...

class MemiavlState:
    """One tree of a memiavl store at one height: a snapshot's leaves under the writes of the changelog."""

    version: int
    overlay_rows: int
    spilled: bool
    leaves: int
    @staticmethod
    def open(
        snapshot: str,
        trees: list[str],
        tree: str,
        version: int,
        segments: list[tuple[str, int]],
        spill_dir: str,
        first: int | None = None,
        upto: int | None = None,
        threads: int = 1,
        held: int = ...,
    ) -> MemiavlState:
        """Open `tree` of a snapshot directory that holds `trees` at `version`, overlaid with log segments (path, first
        index) from version `first` (None: the next one) up to `upto`. More than `held` writes spill into unlinked files in `spill_dir`."""
    def digest(
        self, progress: Progress, wording_name: str = "semantic", threads: int = 1, find: bytes | None = None
    ) -> ScanTotals: ...
    def inspect(
        self, progress: Progress, wording_name: str, threads: int, query: Query
    ) -> tuple[int, int, dict[bytes, TallyTuple]]: ...
    def inspect_rows(self, progress: Progress, wording_name: str, query: Query, on_rows: OnRows) -> int: ...
    def storage_details(self, progress: Progress, offset: int, prefix: bytes, on_rows: OnRows) -> int: ...
    def survey(self, progress: Progress, wording_name: str = "semantic", threads: int = 1) -> ScanTotals:
        """What `digest` says together with the shard tree, in one pass."""
    def rows(self, progress: Progress, wording_name: str, shards: list[ShardNumber], on_rows: OnRows) -> int: ...
    def count(self, progress: Progress) -> int:
        """Number of leaves, those of the log included."""
    def verify(self, progress: Progress, threads: int = 1) -> bytes | None:
        """Recompute every hash of the snapshot's tree; returns its root, None when the tree was born in the log."""

class Database:
    """A read-only Pebble database."""

    @staticmethod
    def open(path: str) -> Database: ...
    def get(self, key: bytes) -> bytes | None: ...
    def rows(self, low: bytes, high: bytes | None = None) -> list[tuple[bytes, bytes]]: ...
    @property
    def table_bytes(self) -> int: ...

class FlatkvState:
    """Four databases (account, code, storage, misc) under the blocks of the state log."""

    version: int
    overlay_rows: int
    table_bytes: int
    @staticmethod
    def open(
        databases: list[Database],
        files: list[tuple[str, bool, int, int, int]],
        log_format: str,
        after: int,
        upto: int,
        spill_dir: str,
        threads: int = 1,
        held: int = ...,
    ) -> FlatkvState:
        """Apply blocks after+1 ..= upto of log files (path, sealed, sequence, first block, last block). More than `held` writes
        spill into unlinked files in `spill_dir`."""
    def marker(self, key: bytes) -> bytes | None: ...
    def digest(self, progress: Progress, threads: int = 1, find: bytes | None = None) -> FlatkvTotals: ...
    def inspect(self, progress: Progress, threads: int, query: Query) -> tuple[int, int, dict[bytes, TallyTuple]]: ...
    def inspect_rows(self, progress: Progress, query: Query, on_rows: OnRows) -> int: ...
    def survey(self, progress: Progress, threads: int = 1) -> FlatkvTotals: ...
    def rows(self, progress: Progress, shards: list[ShardNumber], on_rows: OnRows) -> int: ...
    def lattice_hashes(self, progress: Progress, threads: int = 1) -> list[dict[bytes, bytes]]:
        """LtHash of each module in each of the snapshot's four databases."""

class CompositeState:
    """Both stores of a node in mid-migration; `unmigrated_from` is the first raw key memiavl still owns, None if none."""

    def __init__(self, flatkv: FlatkvState, memiavl: MemiavlState, unmigrated_from: bytes | None) -> None: ...
    def digest(self, progress: Progress, threads: int = 1, find: bytes | None = None) -> CompositeTotals: ...
    def survey(self, progress: Progress, threads: int = 1) -> CompositeTotals: ...
    def rows(self, progress: Progress, shards: list[ShardNumber], on_rows: OnRows) -> int: ...
