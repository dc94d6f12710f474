"""memiavl on the kernel: which snapshot and which segments matter is decided here, leaves and writes are read there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from seiops import _native
from seiops.digest.engine import Inspection, InspectQuery, OpenOptions, ScanHooks, Shard, ShardTree
from seiops.digest.errors import DigestError, ReferenceOnlyError
from seiops.digest.files import join_path
from seiops.digest.memiavl.changelog import list_segments
from seiops.digest.memiavl.replay import base_directory, check_trees, tree_names
from seiops.digest.memiavl.snapshot import EVM_TREE, read_multi_tree_metadata
from seiops.digest.memiavl.source import SnapshotTree
from seiops.digest.model import Backend, Normalization, OpenMode, Row, Tally, Totals, Verification
from seiops.digest.native.bridge import (
    HELD_WRITES,
    digested,
    inspection_of,
    listed,
    query_tuple,
    report_found,
    scanned,
    shard_numbers,
    spill_directory,
    streamed,
    totals_of,
    translated,
    worded_for,
)


class NativeMemiavl:
    """MemiavlStore over the kernel."""

    def __init__(
        self, state: _native.MemiavlState, mode: OpenMode, tree_dir: str, root_hash: bytes | None, options: OpenOptions
    ) -> None:
        self.state = state
        self.version = state.version
        self.mode = mode
        self.tree_dir = tree_dir
        self._root_hash = root_hash
        self._options = options

    def digest(self, normalizations: Sequence[Normalization], hooks: ScanHooks) -> list[Totals]:
        """One pass for all normalizations: they refuse the same leaves and accept the same rows (1.8)."""
        self.verify(hooks)
        wording, threads = normalizations[0].value, self._options.threads
        found = digested(
            Backend.MEMIAVL,
            hooks,
            lambda counters: self.state.digest(counters, wording, threads, hooks.find),
            lambda counters: self.state.survey(counters, wording, threads),
        )
        for normalization in normalizations:
            report_found(found, hooks, worded_for(normalization))
        totals = totals_of(found)
        totals.memiavl_rows = totals.input_rows
        return [_copy(totals) for _ in normalizations]

    def verify(self, hooks: ScanHooks) -> None:
        """With full verification: every hash of the snapshot's tree, up to the root in its metadata."""
        if self._options.verification is not Verification.FULL:
            return
        root = scanned(Backend.MEMIAVL, hooks, lambda counters: self.state.verify(counters, self._options.threads))
        if root is not None and self._root_hash is not None and root != self._root_hash:
            raise DigestError(
                f"{self.tree_dir}: root hash is {root.hex()}, but __metadata says {self._root_hash.hex()}; the snapshot is damaged"
            )

    def inspect(
        self, query: InspectQuery, normalization: Normalization, on_row: Callable[[Row], None] | None
    ) -> Inspection:
        wording = "inspect" if normalization is Normalization.SEMANTIC else normalization.value
        if on_row is None:
            return inspection_of(
                translated(
                    lambda: self.state.inspect(_native.Progress(), wording, self._options.threads, query_tuple(query))
                )
            )
        worded = worded_for(normalization)
        return listed(
            lambda counters, take: self.state.inspect_rows(counters, wording, query_tuple(query), take),
            lambda row: on_row(worded(row)),
        )

    def storage_details(self, query: InspectQuery, on_row: Callable[[Row], None]) -> Inspection:
        if query.key_offset < len(b"evm/"):
            raise DigestError("--details storage memiavl requires --key-offset >= 4")
        return listed(
            lambda counters, take: self.state.storage_details(counters, query.key_offset, query.key_prefix, take),
            on_row,
        )

    def shard_tree(self, normalization: Normalization) -> ShardTree:
        trees: list[ShardTree] = []
        self.digest([normalization], ScanHooks(on_tree=trees.append))
        return trees[0]

    def rows(self, shards: Sequence[Shard], normalization: Normalization) -> Iterator[Row]:
        rows = streamed(
            lambda counters, take: self.state.rows(counters, normalization.value, shard_numbers(shards), take)
        )
        return map(worded_for(normalization), rows)

    def close(self) -> None:
        """Files are closed with the kernel's objects."""


def _copy(totals: Totals) -> Totals:
    tallies = {bucket: Tally(tally.accumulator, tally.count) for bucket, tally in totals.tallies.items()}
    return Totals(tallies, dict(totals.markers), totals.input_rows, totals.memiavl_rows, totals.consumed_rows)


def open_snapshot(root: str, height: int, options: OpenOptions) -> NativeMemiavl:
    source = SnapshotTree(root, height, Verification.CHEAP)
    source.close()
    base = str(Path(source.tree_dir).parent)
    _require_index_files(source.tree_dir)
    root_hash = _stored_root(base) if options.verification is Verification.FULL else None
    state = translated(
        lambda: _native.MemiavlState.open(base, [], EVM_TREE, source.version, [], spill_directory(options))
    )
    return NativeMemiavl(state, OpenMode.SNAPSHOT, source.tree_dir, root_hash, options)


def _require_index_files(tree_dir: str) -> None:
    """The kernel finds its way by `leaves` and `nodes`; a snapshot without sound ones is left to the reference engine."""
    try:
        leaves, nodes = (Path(tree_dir, name).stat().st_size for name in ("leaves", "nodes"))
    except FileNotFoundError as error:
        raise ReferenceOnlyError(f"{error.filename}: missing, the native engine needs it") from error
    record = 48
    if leaves % record or nodes % record or max(leaves - record, 0) != nodes:
        raise ReferenceOnlyError(
            f"{tree_dir}: leaves ({leaves} bytes) and nodes ({nodes} bytes) do not fit together, the native engine needs both"
        )


def _stored_root(base: str) -> bytes | None:
    return read_multi_tree_metadata(base).roots.get(EVM_TREE)


def open_replayed(root: str, height: int, options: OpenOptions) -> NativeMemiavl:
    base = base_directory(root, height)
    metadata = read_multi_tree_metadata(base)
    trees = tree_names(base)
    check_trees(base, trees)
    needs_log = height == 0 or height > metadata.version
    segments = list_segments(Path(root) / "changelog") if needs_log else []
    state = translated(
        lambda: _native.MemiavlState.open(
            base,
            trees,
            EVM_TREE,
            metadata.version,
            [(str(segment.path), segment.index) for segment in segments],
            spill_directory(options),
            metadata.next_version,
            height if height > 0 else None,
            options.threads,
            HELD_WRITES,
        )
    )
    if height != 0 and state.version != height:
        raise DigestError(f"version mismatch: requested {height}, reached {state.version}; the changelog ends there")
    root_hash = metadata.roots.get(EVM_TREE)
    return NativeMemiavl(state, OpenMode.REPLAY, join_path(base, EVM_TREE), root_hash, options)
