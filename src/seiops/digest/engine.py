"""What every digest engine offers, so that the command line and the task never ask which one runs.

An engine opens stores read-only and scans them. Opening is a step of its own because the report prints the opened version
before the first row is read, and because its errors come first. Two engines exist: `seiops.digest.reference` (pure Python,
the executable specification) and `seiops.digest.native` (Rust kernel). They must agree on every total, every shard and
every row; only the order of rows and the moments of progress callbacks are an engine's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from seiops.digest.boundary import MigrationState
from seiops.digest.keys import Bucket
from seiops.digest.model import Normalization, OpenMode, Progress, Row, Tally, Totals, Verification

SHARD_BITS = 10
"""A shard is the top 10 bits of the CRC-32 (IEEE) of the physical key: even for any key population, cheap, and 1,024
shards a bucket keep a side's tree in the kilobytes (docs/contracts/digest.md 9.1)."""


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How to open and scan: integrity depth, worker threads (1 = none), where a long log's writes may spill.

    The native engine keeps 8 million writes of a log in memory; what is more goes into files without a name in `spill_dir`
    (None: TMPDIR, else /var/tmp), 32 bytes a write. The reference engine holds them all.
    """

    verification: Verification = Verification.CHEAP
    threads: int = 1
    spill_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class ScanHooks:
    """Callbacks of a digest scan. `find` is a 32-byte entry hash; each row with that hash goes to `on_found`.

    With `on_tree` the same pass makes the shard tree; a scan looks for a hash or makes a tree, not both.
    """

    find: bytes | None = None
    on_found: Callable[[Row], None] | None = None
    on_progress: Callable[[Progress], None] | None = None
    on_tree: Callable[[ShardTree], None] | None = None


@dataclass(frozen=True, slots=True)
class InspectQuery:
    """One inspect run (docs/contracts/digest.md 1.11).

    A row matches when its physical key is at least `key_offset` long and continues there with `key_prefix`. `details`
    asks memiavl for leaf versions, which storage listings of FlatKV carry anyway.
    """

    bucket: Bucket
    key_offset: int = 0
    key_prefix: bytes = b""
    shard_next_bytes: int = 0

    def matches(self, key: bytes) -> bool:
        return len(key) >= self.key_offset and key.startswith(self.key_prefix, self.key_offset)

    def shard_of(self, key: bytes) -> bytes:
        return key[self.key_offset : self.key_offset + len(self.key_prefix) + self.shard_next_bytes]


@dataclass(slots=True)
class Inspection:
    """Outcome of an inspect run that groups: what was read, what matched, one tally a shard."""

    input_rows: int = 0
    matched: int = 0
    shards: dict[bytes, Tally] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shard:
    """Address of a part of the logical keyspace small enough to exchange: bucket and CRC prefix."""

    bucket: Bucket
    index: int


ShardTree = dict[Shard, Tally]
"""Tally of every non-empty shard; marker rows take no part, so two backends of one state give equal trees."""


class FlatkvStore(Protocol):
    """A FlatKV store opened at one height."""

    version: int

    def migration_state(self) -> MigrationState: ...

    def digest(self, hooks: ScanHooks) -> Totals: ...

    def inspect(self, query: InspectQuery, on_row: Callable[[Row], None] | None) -> Inspection:
        """Group matching rows by shard, or, given `on_row`, hand each over in key order instead."""

    def shard_tree(self) -> ShardTree: ...

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]: ...

    def close(self) -> None: ...


class MemiavlStore(Protocol):
    """The `evm` tree of a memiavl store at one height.

    `tree_dir` is the directory the leaves come from, spelled as seidb prints it (root joined with `current` or the
    snapshot's name, and `evm`).
    """

    version: int
    mode: OpenMode
    tree_dir: str

    def digest(self, normalizations: Sequence[Normalization], hooks: ScanHooks) -> list[Totals]:
        """One Totals a normalization, in the order given."""

    def inspect(
        self, query: InspectQuery, normalization: Normalization, on_row: Callable[[Row], None] | None
    ) -> Inspection: ...

    def storage_details(self, query: InspectQuery, on_row: Callable[[Row], None]) -> Inspection:
        """Storage leaves with their versions, as seidb's `--list --details` walks them (docs/contracts/digest.md 1.11)."""

    def shard_tree(self, normalization: Normalization) -> ShardTree: ...

    def rows(self, shards: Sequence[Shard], normalization: Normalization) -> Iterator[Row]: ...

    def close(self) -> None: ...


class CompositeStore(Protocol):
    """Union of a FlatKV and a memiavl store under the migration boundary (docs/contracts/digest.md 1.10)."""

    flatkv: FlatkvStore
    memiavl: MemiavlStore

    def digest(self, hooks: ScanHooks) -> Totals: ...

    def shard_tree(self) -> ShardTree: ...

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]: ...


class Engine(Protocol):
    """Opens stores. `name` and `version` go into every record an engine's digest ends up in."""

    name: str
    version: str

    def open_flatkv(self, root: str, height: int, options: OpenOptions) -> FlatkvStore:
        """Open at `height` (0 = latest reachable). Raises DigestError; never writes below `root`."""

    def open_memiavl(self, root: str, height: int, mode: OpenMode, options: OpenOptions) -> MemiavlStore:
        """Open the `evm` tree at `height` (0 = `current`). Raises DigestError; never writes below `root`."""

    def composite(self, flatkv: FlatkvStore, memiavl: MemiavlStore) -> CompositeStore:
        """Join two stores this engine opened; closing them stays with the caller."""
