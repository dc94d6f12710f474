"""What becomes of a stream of logical rows: totals, shards, listings. Shared by all sources of the reference engine."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct

from seiops.digest.engine import SHARD_BITS, Inspection, InspectQuery, ScanHooks, Shard, ShardTree
from seiops.digest.keys import BUCKETS, MARKERS, Bucket
from seiops.digest.model import Row, Tally, Totals, entry_hash

_BE32 = Struct(">I")


def digest_rows(rows: Iterable[Row], totals: Totals, hooks: ScanHooks) -> None:
    """Add every row to `totals`; rows with the wanted entry hash go to the hook as they are met, the shard tree at the end."""
    sha256, pack = hashlib.sha256, _BE32.pack
    find, on_found = hooks.find, hooks.on_found
    tallies = totals.tallies
    tree: ShardTree | None = None if hooks.on_tree is None else {}
    for row in rows:
        bucket, key, payload, _, _ = row
        row_hash = sha256(pack(len(key)) + key + pack(len(payload)) + payload).digest()
        tallies[bucket].add(row_hash)
        if key in MARKERS:
            totals.markers[key] = row_hash
        elif tree is not None:
            tree.setdefault(shard_of(bucket, key), Tally()).add(row_hash)
        if row_hash == find and on_found is not None:
            on_found(row)
    if hooks.on_tree is not None and tree is not None:
        hooks.on_tree(tree)


def inspect_rows(
    rows: Iterable[Row], query: InspectQuery, on_row: Callable[[Row], None] | None, outcome: Inspection
) -> Inspection:
    """Group matching rows by shard, or hand them to `on_row` one by one."""
    for row in rows:
        if row.bucket is not query.bucket or not query.matches(row.key):
            continue
        outcome.matched += 1
        if on_row is not None:
            on_row(row)
            continue
        outcome.shards.setdefault(query.shard_of(row.key), Tally()).add(entry_hash(row.key, row.payload))
    return outcome


def shard_of(bucket: Bucket, key: bytes) -> Shard:
    return Shard(bucket, zlib.crc32(key) >> (32 - SHARD_BITS))


def shard_tree(rows: Iterable[Row]) -> ShardTree:
    """Tally per shard; marker rows are a property of one backend, not of the state, and stay out."""
    by_bucket: dict[Bucket, dict[int, Tally]] = {bucket: {} for bucket in BUCKETS}
    for row in rows:
        if row.key not in MARKERS:
            index = zlib.crc32(row.key) >> (32 - SHARD_BITS)
            by_bucket[row.bucket].setdefault(index, Tally()).add(entry_hash(row.key, row.payload))
    return {Shard(bucket, index): tally for bucket, shards in by_bucket.items() for index, tally in shards.items()}


def rows_in(rows: Iterable[Row], shards: Sequence[Shard]) -> Iterator[Row]:
    """The rows of some shards."""
    wanted = set(shards)
    for row in rows:
        if row.key not in MARKERS and shard_of(row.bucket, row.key) in wanted:
            yield row
