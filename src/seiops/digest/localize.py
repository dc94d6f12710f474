"""Finding the keys in which two stores differ without moving a keyspace.

One scan of each side gives a shard tree of kilobytes; comparing two trees names the shards that differ; a second scan
exports the rows of just those shards; comparing the rows names the keys. Trees and rows are plain files, so the two sides
may be on two machines (docs/contracts/digest.md 9).
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from seiops.digest.engine import SHARD_BITS, Shard, ShardTree
from seiops.digest.errors import DigestError
from seiops.digest.keys import BUCKETS, Bucket, RawKind, raw_kind
from seiops.digest.model import Row, Tally, final_digest
from seiops.digest.sources import OpenedSource

TREE_FORMAT = "seiops-shard-tree/1"
ROWS_FORMAT = "seiops-rows/1"
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_DAMAGED_TEXT = (EOFError, UnicodeDecodeError, gzip.BadGzipFile, zlib.error)


@dataclass(slots=True)
class SideTree:
    """A shard tree and where it came from."""

    origin: str
    version: int
    engine: str
    shards: ShardTree

    def buckets(self) -> dict[Bucket, Tally]:
        totals = {bucket: Tally() for bucket in BUCKETS}
        for shard, tally in self.shards.items():
            total = totals[shard.bucket]
            total.accumulator ^= tally.accumulator
            total.count += tally.count
        return totals

    @property
    def final(self) -> str:
        return final_digest({bucket: tally.digest for bucket, tally in self.buckets().items()}).hex().upper()


def take_tree(source: OpenedSource, engine: str) -> SideTree:
    return SideTree(str(source.source), source.version, engine, source.shard_tree())


def encode_tree(tree: SideTree) -> dict[str, Any]:
    """JSON form: per bucket its total and [index, count, digest] of every shard that holds rows."""
    buckets: dict[str, Any] = {
        bucket: {"count": tally.count, "digest": tally.hex, "shards": []} for bucket, tally in tree.buckets().items()
    }
    for shard, tally in sorted(tree.shards.items(), key=lambda pair: pair[0].index):
        buckets[shard.bucket]["shards"].append([shard.index, tally.count, tally.hex])
    return {
        "format": TREE_FORMAT,
        "shard_bits": SHARD_BITS,
        "origin": tree.origin,
        "version": tree.version,
        "engine": tree.engine,
        "final": tree.final,
        "buckets": buckets,
    }


def decode_tree(content: Mapping[str, Any], path: str) -> SideTree:
    """Read a tree back; its shards must add up to what it says of its buckets. Raises DigestError naming the file."""
    if content.get("format") != TREE_FORMAT or content.get("shard_bits") != SHARD_BITS:
        raise DigestError(f"{path}: not a shard tree this version reads (want {TREE_FORMAT}, {SHARD_BITS} shard bits)")
    try:
        shards = dict(
            decode_shard(bucket, entry) for bucket in BUCKETS for entry in content["buckets"][bucket]["shards"]
        )
        tree = SideTree(str(content["origin"]), int(content["version"]), str(content["engine"]), shards)
        for bucket, tally in tree.buckets().items():
            said = content["buckets"][bucket]
            if (tally.hex, tally.count) != (said["digest"], said["count"]):
                raise DigestError(
                    f"{path}: the shards of bucket {bucket} do not add up to its digest; the file is damaged"
                )
    except (KeyError, TypeError, ValueError) as error:
        raise DigestError(f"{path}: shard tree does not read: {error!r}") from error
    return tree


def decode_shard(bucket: Bucket, entry: Any) -> tuple[Shard, Tally]:
    """One `[index, count, digest]`. Raises ValueError or TypeError when it is none."""
    index, count, digest = entry
    if not (isinstance(index, int) and 0 <= index < 1 << SHARD_BITS and isinstance(count, int) and count > 0):
        raise ValueError(f"no shard: index {index!r}, count {count!r}")
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"no digest: {digest!r}")
    return Shard(bucket, index), Tally(int(digest, 16), count)


def differing_shards(one: ShardTree, other: ShardTree) -> list[Shard]:
    """Shards whose digest or count differ, in bucket and index order."""
    found = [shard for shard in one.keys() | other.keys() if one.get(shard, Tally()) != other.get(shard, Tally())]
    return sorted(found, key=lambda shard: (BUCKETS.index(shard.bucket), shard.index))


def write_rows(path: Path, source: OpenedSource, shards: list[Shard]) -> int:
    """Export the rows of some shards as JSON lines (gzipped for a name ending in .gz); how many. Whole or absent."""
    partial = path.with_name(path.name + ".part")
    count = 0
    try:
        with _open_text(partial, "wt", compressed=path.suffix == ".gz") as file:
            header = {
                "format": ROWS_FORMAT,
                "origin": str(source.source),
                "version": source.version,
                "shards": [[shard.bucket, shard.index] for shard in shards],
            }
            file.write(json.dumps(header) + "\n")
            for row in source.rows(shards):
                file.write(json.dumps(encode_row(row)) + "\n")
                count += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def encode_row(row: Row) -> dict[str, Any]:
    members: dict[str, Any] = {"bucket": row.bucket, "key": row.key.hex(), "value": row.payload.hex()}
    if row.height is not None:
        members["height"] = row.height
    return members


@dataclass(frozen=True, slots=True)
class RowFile:
    """Header of a row file; `rows` reads on from there."""

    path: Path
    origin: str
    version: int
    shards: frozenset[Shard]

    def rows(self) -> Iterator[Row]:
        with _open_text(self.path, "rt", compressed=self.path.suffix == ".gz") as file:
            number = 1
            try:
                next(file)
                for number, line in enumerate(file, 2):  # noqa: B007 (the error names it)
                    yield _decode_row(line)
            except (KeyError, TypeError, AttributeError, ValueError, RecursionError, *_DAMAGED_TEXT) as error:
                raise DigestError(f"{self.path}:{number}: not a row: {error!r}") from error


def _decode_row(line: str) -> Row:
    members = json.loads(line)
    height = members.get("height")
    if height is not None and not isinstance(height, int):
        raise ValueError(f"height {height!r}")
    return Row(Bucket(members["bucket"]), bytes.fromhex(members["key"]), bytes.fromhex(members["value"]), b"", height)


def open_row_file(path: Path) -> RowFile:
    """Read the header of a row file. Raises DigestError when it is none."""
    try:
        with _open_text(path, "rt", compressed=path.suffix == ".gz") as file:
            header = json.loads(next(file, ""))
        if header["format"] != ROWS_FORMAT:
            raise ValueError(header["format"])
        shards = frozenset(Shard(Bucket(bucket), int(index)) for bucket, index in header["shards"])
        return RowFile(path, str(header["origin"]), int(header["version"]), shards)
    except (OSError, KeyError, TypeError, ValueError, RecursionError, *_DAMAGED_TEXT) as error:
        raise DigestError(f"{path}: not a row file ({ROWS_FORMAT}): {error!r}") from error


def _open_text(path: Path, mode: str, *, compressed: bool) -> IO[str]:
    if compressed:
        return gzip.open(path, mode, encoding="utf-8")  # type: ignore[return-value]
    return path.open(mode, encoding="utf-8")


@dataclass(frozen=True, slots=True)
class KeyDifference:
    """One key and what each side holds for it; None where a side has no such row. Heights never make a difference."""

    bucket: Bucket
    key: bytes
    one: bytes | None
    other: bytes | None
    one_height: int | None = None
    other_height: int | None = None

    @property
    def address(self) -> str:
        """Address the row belongs to, empty for rows of no account."""
        return self.key[5:25].hex() if self.bucket is not Bucket.MISC else ""

    @property
    def slot(self) -> str:
        return self.key[25:].hex() if raw_kind(self.key[4:]) is RawKind.STORAGE else ""

    def members(self) -> dict[str, Any]:
        return {
            "bucket": self.bucket,
            "key": self.key.hex(),
            "address": self.address,
            "slot": self.slot,
            "a": None if self.one is None else self.one.hex(),
            "b": None if self.other is None else self.other.hex(),
            "a_height": self.one_height,
            "b_height": self.other_height,
        }


@dataclass(slots=True)
class _Held:
    payloads: list[bytes] = field(default_factory=list)
    height: int | None = None


def diff_rows(one: Iterable[Row], other: Iterable[Row]) -> Iterator[KeyDifference]:
    """Keys whose payload differs, in key order. Memory holds the rows of `one` (those of the differing shards)."""
    held: dict[tuple[Bucket, bytes], _Held] = {}
    for row in one:
        entry = held.setdefault((row.bucket, row.key), _Held())
        entry.payloads.append(row.payload)
        entry.height = row.height
    found: list[KeyDifference] = []
    for row in other:
        entry = held.get((row.bucket, row.key), _Held())
        if row.payload in entry.payloads:
            entry.payloads.remove(row.payload)
            if not entry.payloads:
                held.pop((row.bucket, row.key), None)
            continue
        mine = entry.payloads.pop(0) if entry.payloads else None
        if not entry.payloads:
            held.pop((row.bucket, row.key), None)
        found.append(KeyDifference(row.bucket, row.key, mine, row.payload, entry.height, row.height))
    for (bucket, key), entry in held.items():
        found += [KeyDifference(bucket, key, payload, None, entry.height, None) for payload in entry.payloads]
    yield from sorted(found, key=lambda difference: (BUCKETS.index(difference.bucket), difference.key))
