"""Writes FlatKV stores: rows spread over four databases with their bookkeeping, and the state log (docs/contracts/digest.md 4)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from blake3 import blake3

from support.digest_writer import Block, framed, named_changeset, uvarint
from support.digest_writer_pebble import DatabaseShape, Kind, Op, visible, write_database

DATABASES = ("account", "code", "storage", "misc")
ZERO = bytes(32)


def stored(height: int, payload: bytes) -> bytes:
    return b"\0" + struct.pack(">q", height) + payload


def account_value(height: int, balance: int, nonce: int, codehash: bytes) -> bytes:
    fields = balance.to_bytes(32, "big") + nonce.to_bytes(8, "big")
    return stored(height, fields if codehash == ZERO else fields + codehash)


def database_of(physical: bytes) -> str:
    raw = physical[4:]
    if not physical.startswith(b"evm/"):
        return "misc"
    shapes = {(b"\x0a", 21): "account", (b"\x07", 21): "code", (b"\x03", 53): "storage"}
    return shapes.get((raw[:1], len(raw)), "misc")


def lattice(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """LtHash over rows, limb by limb."""
    limbs = [0] * 1024
    for key, value in rows:
        message = struct.pack("<I", len(key)) + key + struct.pack("<I", len(value)) + value
        for at, limb in enumerate(struct.unpack("<1024H", blake3(message).digest(2048))):
            limbs[at] = (limbs[at] + limb) & 0xFFFF
    return struct.pack("<1024H", *limbs)


def meta_rows(rows: dict[bytes, bytes], version: int, per_module: bool = True) -> dict[bytes, bytes]:
    """Bookkeeping of one database that holds `rows`."""
    meta = {b"_meta/version": struct.pack(">Q", version), b"_meta/hash": lattice(rows.items())}
    for module in {key.split(b"/")[0] for key in rows} if per_module else ():
        mine = {key: value for key, value in rows.items() if key.split(b"/")[0] == module}
        size = sum(len(key) + len(value) for key, value in mine.items())
        meta[b"_meta/x:" + module + b"/hash"] = lattice(mine.items())
        meta[b"_meta/x:" + module + b"/stats"] = struct.pack(">qq", len(mine), size)
    return meta


def write_flatkv_snapshot(
    root: Path, version: int, histories: dict[str, list[Op]], shapes: Sequence[DatabaseShape], fourth: str = "misc"
) -> None:
    """A snapshot whose databases went through `histories` (ops ascending by sequence); bookkeeping is added last."""
    directory = root / f"snapshot-{version:020d}"
    directory.mkdir(parents=True)
    for number, name in enumerate(DATABASES):
        ops = list(histories.get(name, ()))
        following = ops[-1].sequence + 1 if ops else 10
        meta = meta_rows(visible(ops), version, fourth == "misc")
        ops += [Op(following + at, Kind.SET, key, meta[key]) for at, key in enumerate(sorted(meta))]
        write_database(directory / (fourth if name == "misc" else name), ops, shapes[number % len(shapes)])


def state_record(block: Block) -> bytes:
    payload = b"\x01" + b"".join(framed(named_changeset(name, pairs)) for name, pairs in block.changes)
    body = uvarint(block.version) + framed(payload)
    return body + struct.pack(">I", zlib.crc32(body))


def write_state_log(root: Path, blocks: Sequence[Block], cuts: Sequence[int], unsealed_tail: bytes | None) -> None:
    """State log files cut at positions `cuts`; with a tail given, the last file is unsealed and ends in those bytes."""
    directory = root / "changelog"
    directory.mkdir(parents=True)
    edges = [0, *sorted(set(cuts)), len(blocks)]
    spans = [(start, end) for start, end in pairwise(edges) if start < end]
    for sequence, (start, end) in enumerate(spans):
        data = b"SEIWL\x01" + b"".join(state_record(block) for block in blocks[start:end])
        name = f"{sequence}-{blocks[start].version}-{blocks[end - 1].version}.wal"
        if unsealed_tail is not None and sequence == len(spans) - 1:
            name, data = f"{sequence}.wal.u", data + unsealed_tail
        (directory / name).write_bytes(data)
