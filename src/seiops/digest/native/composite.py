"""Both stores of a node in mid-migration, joined by the kernel under the boundary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seiops import _native
from seiops.digest.boundary import BoundaryStatus, MigrationBoundary
from seiops.digest.engine import FlatkvStore, MemiavlStore, ScanHooks, Shard, ShardTree
from seiops.digest.memiavl.snapshot import EVM_TREE
from seiops.digest.model import Backend, Row, Totals
from seiops.digest.native.bridge import digested, report_found, shard_numbers, streamed, totals_of, translated
from seiops.digest.native.flatkv import NativeFlatkv
from seiops.digest.native.memiavl import NativeMemiavl

_MIGRATED_NOTHING = b""


class NativeComposite:
    """CompositeStore over the kernel."""

    def __init__(self, flatkv: NativeFlatkv, memiavl: NativeMemiavl) -> None:
        self.flatkv: FlatkvStore = flatkv
        self.memiavl: MemiavlStore = memiavl
        self._threads = flatkv._options.threads
        self._verify = (flatkv.verify, memiavl.verify)
        boundary = flatkv.migration_state().boundary
        start = _first_unmigrated(boundary)
        self._state = _native.CompositeState(flatkv.state, memiavl.state, start)
        # leaves that are all migrated are still counted, unless the migration is over and memiavl is not looked at
        self._only_counted = memiavl.state if start is None and boundary.status is not BoundaryStatus.COMPLETE else None

    def digest(self, hooks: ScanHooks) -> Totals:
        for verify in self._verify:
            verify(hooks)
        found = digested(
            Backend.FLATKV,
            hooks,
            lambda counters: self._state.digest(counters, self._threads, hooks.find),
            lambda counters: self._state.survey(counters, self._threads),
        )
        report_found(found, hooks)
        totals = totals_of(found)
        totals.memiavl_rows = found["memiavl_rows"]
        if (state := self._only_counted) is not None:
            totals.memiavl_rows = translated(lambda: state.count(_native.Progress()))
        totals.consumed_rows = found["consumed_rows"]
        return totals

    def shard_tree(self) -> ShardTree:
        trees: list[ShardTree] = []
        self.digest(ScanHooks(on_tree=trees.append))
        return trees[0]

    def rows(self, shards: Sequence[Shard]) -> Iterator[Row]:
        return streamed(lambda counters, take: self._state.rows(counters, shard_numbers(shards), take))


def _first_unmigrated(boundary: MigrationBoundary) -> bytes | None:
    """First raw key of `evm` that memiavl still owns; None when it owns none (docs/contracts/digest.md 1.9)."""
    evm = EVM_TREE.encode()
    if boundary.status is BoundaryStatus.COMPLETE:
        return None
    if boundary.status is BoundaryStatus.NOT_STARTED or boundary.module < evm:
        return _MIGRATED_NOTHING
    if boundary.module == evm:
        return boundary.key + b"\0"
    return None
