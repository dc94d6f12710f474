"""The reference engine: the specification of the digest in executable form, and the oracle of every faster engine.

Pure Python, one row at a time, in key order. It is exact and bounded by the accounts and the overlay it has to keep in
memory (a few hundred bytes each), not fast: some 300,000 rows a second. Stores of mainnet size want the native engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version as package_version

from seiops.digest.boundary import BoundaryStatus, MigrationBoundary, MigrationState
from seiops.digest.engine import (
    CompositeStore,
    FlatkvStore,
    Inspection,
    InspectQuery,
    MemiavlStore,
    OpenOptions,
    ScanHooks,
    Shard,
    ShardTree,
)
from seiops.digest.errors import DigestError
from seiops.digest.flatkv.store import FlatkvAtHeight, open_at_height
from seiops.digest.flatkv.values import decode_row, payload_of
from seiops.digest.keys import EVM_PREFIX, Bucket, RawKind, physical_bucket, raw_kind
from seiops.digest.memiavl.normalize import (
    Account,
    Accounts,
    SemanticDecoder,
    account_rows,
    semantic_rows,
    translator_rows,
)
from seiops.digest.memiavl.replay import MissingTreeError, ReplayedTree, open_replayed
from seiops.digest.memiavl.snapshot import Leaf
from seiops.digest.memiavl.source import SnapshotTree
from seiops.digest.model import Backend, Normalization, OpenMode, Progress, Row, Totals
from seiops.digest.sinks import digest_rows, inspect_rows, rows_in, shard_tree

PROGRESS_EVERY = 1 << 16


class _Meter:
    """Counts what a scan reads into its totals and reports now and then."""

    def __init__(self, source: Backend, totals: Totals, hooks: ScanHooks, accounts: Accounts) -> None:
        self._source = source
        self._totals = totals
        self._hooks = hooks
        self._accounts = accounts
        self.rows = 0

    def count(self) -> None:
        self.rows += 1
        if self._hooks.on_progress is not None and self.rows % PROGRESS_EVERY == 0:
            counts = {bucket: tally.count for bucket, tally in self._totals.tallies.items()}
            self._hooks.on_progress(
                Progress(self._source, self.rows, counts, len(self._accounts), self._totals.consumed_rows)
            )

    def leaves(self, source: Iterable[Leaf]) -> Iterator[Leaf]:
        for leaf in source:
            self.count()
            yield leaf


class ReferenceFlatkv:
    """FlatkvStore over `flatkv.store`."""

    def __init__(self, opened: FlatkvAtHeight) -> None:
        self.opened = opened
        self.version = opened.version

    def migration_state(self) -> MigrationState:
        return self.opened.migration_state()

    def digest(self, hooks: ScanHooks) -> Totals:
        totals = Totals()
        meter = _Meter(Backend.FLATKV, totals, hooks, {})
        digest_rows(self._logical(meter), totals, hooks)
        totals.input_rows = meter.rows
        return totals

    def inspect(self, query: InspectQuery, on_row: Callable[[Row], None] | None) -> Inspection:
        return inspect_rows(self._logical(None), query, on_row, Inspection())

    def shard_tree(self) -> ShardTree:
        return shard_tree(self._logical(None))

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]:
        return rows_in(self._logical(None), shards)

    def _logical(self, meter: _Meter | None) -> Iterator[Row]:
        for key, stored in self.opened.rows():
            if meter is not None:
                meter.count()
            bucket = physical_bucket(key)
            if bucket is not None:
                yield decode_row(bucket, key, stored)

    def close(self) -> None:
        self.opened.close()


class ReferenceMemiavl:
    """MemiavlStore over a snapshot's files or a replayed tree."""

    def __init__(self, tree: SnapshotTree | ReplayedTree, mode: OpenMode) -> None:
        self.tree = tree
        self.mode = mode
        self.version = tree.version
        self.tree_dir = tree.tree_dir

    def digest(self, normalizations: Sequence[Normalization], hooks: ScanHooks) -> list[Totals]:
        return [self._digest(normalization, hooks) for normalization in normalizations]

    def _digest(self, normalization: Normalization, hooks: ScanHooks) -> Totals:
        totals = Totals()
        decoder = SemanticDecoder()
        meter = _Meter(Backend.MEMIAVL, totals, hooks, decoder.accounts)
        digest_rows(_normalized(meter.leaves(self.tree.iterate()), normalization, decoder), totals, hooks)
        totals.input_rows = totals.memiavl_rows = meter.rows
        return totals

    def inspect(
        self, query: InspectQuery, normalization: Normalization, on_row: Callable[[Row], None] | None
    ) -> Inspection:
        outcome, counter = Inspection(), Totals()
        decoder = SemanticDecoder(caller="inspect")
        meter = _Meter(Backend.MEMIAVL, counter, ScanHooks(), decoder.accounts)
        inspect_rows(_normalized(meter.leaves(self.tree.iterate()), normalization, decoder), query, on_row, outcome)
        outcome.input_rows = meter.rows
        return outcome

    def storage_details(self, query: InspectQuery, on_row: Callable[[Row], None]) -> Inspection:
        outcome = Inspection()
        offset = query.key_offset - len(EVM_PREFIX)
        if offset < 0:
            raise DigestError("--details storage memiavl requires --key-offset >= 4")
        for key, value, version in self.tree.iterate_with_versions():
            outcome.input_rows += 1
            if raw_kind(key) is not RawKind.STORAGE or not key.startswith(query.key_prefix, offset):
                continue
            if not any(value):
                continue
            if len(value) != 32:
                raise DigestError(
                    f"parse storage value {key.hex().upper()}: invalid storage value length: got {len(value)}, expected 32"
                )
            outcome.matched += 1
            on_row(Row(Bucket.STORAGE, EVM_PREFIX + key, value, value, version))
        return outcome

    def shard_tree(self, normalization: Normalization) -> ShardTree:
        return shard_tree(_normalized(self.tree.iterate(), normalization, SemanticDecoder()))

    def rows(self, shards: Sequence[Shard], normalization: Normalization) -> Iterator[Row]:
        return rows_in(_normalized(self.tree.iterate_with_versions(), normalization, SemanticDecoder()), shards)

    def close(self) -> None:
        self.tree.close()


def _normalized(leaves: Iterable[Leaf], normalization: Normalization, decoder: SemanticDecoder) -> Iterator[Row]:
    if normalization is Normalization.TRANSLATOR:
        return translator_rows(leaves, decoder.accounts)
    return semantic_rows(leaves, decoder)


class ReferenceComposite:
    """CompositeStore: FlatKV rows, then the memiavl leaves behind the boundary, accounts merged over both."""

    def __init__(self, flatkv: ReferenceFlatkv, memiavl: ReferenceMemiavl) -> None:
        self.flatkv: FlatkvStore = flatkv
        self.memiavl: MemiavlStore = memiavl
        self._rows = flatkv.opened
        self._tree = memiavl.tree
        self._boundary = flatkv.migration_state().boundary

    def digest(self, hooks: ScanHooks) -> Totals:
        totals = Totals()
        digest_rows(self._logical(totals, hooks), totals, hooks)
        return totals

    def shard_tree(self) -> ShardTree:
        return shard_tree(self._logical(Totals(), ScanHooks()))

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]:
        return rows_in(self._logical(Totals(), ScanHooks()), shards)

    def _logical(self, totals: Totals, hooks: ScanHooks) -> Iterator[Row]:
        decoder = SemanticDecoder()
        meter = _Meter(Backend.FLATKV, totals, hooks, decoder.accounts)
        yield from self._flatkv_rows(meter, decoder.accounts)
        totals.input_rows = meter.rows
        if self._boundary.status is not BoundaryStatus.COMPLETE:
            meter = _Meter(Backend.MEMIAVL, totals, hooks, decoder.accounts)
            yield from _unmigrated(meter.leaves(self._tree.iterate()), self._boundary, decoder, totals)
            totals.memiavl_rows = meter.rows
        yield from account_rows(decoder.accounts)

    def _flatkv_rows(self, meter: _Meter, accounts: Accounts) -> Iterator[Row]:
        for key, stored in self._rows.rows():
            meter.count()
            bucket = physical_bucket(key)
            if bucket is Bucket.ACCOUNT:
                payload = payload_of(bucket, stored)
                height = int.from_bytes(stored[1:9], "big", signed=True)
                accounts[key[5:]] = Account(payload[:32], int.from_bytes(payload[32:40], "big"), payload[40:], height)
            elif bucket is not None:
                yield decode_row(bucket, key, stored)


def _unmigrated(
    leaves: Iterable[Leaf], boundary: MigrationBoundary, decoder: SemanticDecoder, totals: Totals
) -> Iterator[Row]:
    for leaf in leaves:
        if boundary.is_migrated(b"evm", leaf.key):
            continue
        totals.consumed_rows += 1
        row = decoder.decode(leaf)
        if row is not None:
            yield row


class ReferenceEngine:
    """Engine in pure Python."""

    name = "reference"

    def __init__(self) -> None:
        self.version = package_version("seiops")

    def open_flatkv(self, root: str, height: int, options: OpenOptions) -> FlatkvStore:
        try:
            return ReferenceFlatkv(open_at_height(root, height, options.verification))
        except DigestError as error:
            raise type(error)(f"open flatkv read-only: {error}") from error

    def open_memiavl(self, root: str, height: int, mode: OpenMode, options: OpenOptions) -> MemiavlStore:
        if mode is OpenMode.SNAPSHOT:
            return ReferenceMemiavl(SnapshotTree(root, height, options.verification), mode)
        try:
            return ReferenceMemiavl(open_replayed(root, height, options.verification), mode)
        except MissingTreeError:
            raise
        except DigestError as error:
            raise type(error)(f"open memiavl read-only replay: {error}") from error

    def composite(self, flatkv: FlatkvStore, memiavl: MemiavlStore) -> CompositeStore:
        if not isinstance(flatkv, ReferenceFlatkv) or not isinstance(memiavl, ReferenceMemiavl):
            raise TypeError("both stores have to be opened by the reference engine")
        return ReferenceComposite(flatkv, memiavl)
