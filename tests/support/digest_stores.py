"""Random EVM states for both engines: one history of writes, laid out as a memiavl store and as a FlatKV store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from hypothesis import strategies as st

from support.digest_writer import Block, Pair, Upgrade, point_current, write_changelog, write_snapshot
from support.digest_writer_flatkv import (
    DATABASES,
    ZERO,
    account_value,
    database_of,
    stored,
    write_flatkv_snapshot,
    write_state_log,
)
from support.digest_writer_pebble import Checksum, Compression, DatabaseShape, Kind, Op, TableShape, visible

ADDRESSES = (bytes(20), b"\xff" * 20, b"\x11" * 20, b"\x11" * 19 + b"\x12", b"\x0a" * 20, b"\x80" + bytes(19))
SLOTS = (ZERO, b"\xff" * 32, b"\x07" * 32, b"\x07" * 31 + b"\x08", hashlib.sha256(b"slot").digest())
ODD_KEYS = (
    b"\x00",
    b"\x01" + ADDRESSES[2],
    b"\x03" * 52,
    b"\x03" * 54,
    b"\x07" * 20,
    b"\x08",
    b"\x08" + b"\x11" * 19,
    b"\x08" + b"\x11" * 20 + b"x",
    b"\x09" + ADDRESSES[2],
    b"\x0a",
    b"\x0a" + b"\x11" * 19,
    b"\x0a" + b"\x11" * 20 + b"\x00",
    b"\x0a" + b"\xff" * 21,
    b"\x0b",
    b"_meta/version",
    b"evm/",
    b"k" * 300,
    b"\xff\xff",
)
BASE = 20
ROOT_VERSION_KEY = b"migration/migration-version"
BOUNDARY_KEY = b"migration/migration-boundary"


def _value_of(key: bytes) -> st.SearchStrategy[bytes | None]:
    if key[:1] == b"\x0a" and len(key) == 21:
        values = st.sampled_from([bytes(8), b"\0" * 7 + b"\x05", b"\xff" * 8])
    elif key[:1] in (b"\x08", b"\x03") and len(key) == (21 if key[:1] == b"\x08" else 53):
        values = st.sampled_from([ZERO, b"\x2a" * 32, bytes(31) + b"\x01"])
    else:
        values = st.sampled_from([b"", b"v", b"code" * 20, bytes(range(256)) * 3])
    return st.one_of(values, values, values, st.none())


def raw_keys() -> st.SearchStrategy[bytes]:
    address = st.sampled_from(ADDRESSES)
    fields = st.builds(lambda prefix, one: prefix + one, st.sampled_from([b"\x0a", b"\x08", b"\x07"]), address)
    storage = st.builds(lambda one, slot: b"\x03" + one + slot, address, st.sampled_from(SLOTS))
    return st.one_of(fields, fields, storage, st.sampled_from(ODD_KEYS))


def writes() -> st.SearchStrategy[list[Pair]]:
    return st.lists(raw_keys().flatmap(lambda key: _value_of(key).map(lambda value: (key, value))), max_size=25)


def others() -> st.SearchStrategy[list[Pair]]:
    value = st.one_of(st.none(), st.sampled_from([b"", b"coin", b"x" * 200]))
    return st.lists(st.tuples(st.sampled_from([b"a", b"b", b"a/b", b"\xff"]), value), max_size=3)


@dataclass(frozen=True)
class History:
    """Writes to `evm` and to module `bank` up to BASE and in each block after it, and how they are laid out."""

    before: list[list[Pair]]
    blocks: list[list[Pair]]
    bank: list[list[Pair]]
    cuts: list[int]
    noise: dict[str, list[tuple[int, Kind]]]
    shapes: list[DatabaseShape]
    tail: bytes | None
    markers: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return BASE + len(self.blocks)

    def state(self, height: int) -> dict[bytes, tuple[bytes, int]]:
        """Raw key => (value, height of the last write) at a height of BASE or more."""
        state: dict[bytes, tuple[bytes, int]] = {}
        first = BASE - len(self.before) + 1
        for version, pairs in enumerate([*self.before, *self.blocks], first):
            if version > height:
                break
            for key, value in pairs:
                state.pop(key, None)
                if value is not None:
                    state[key] = (value, version)
        return state

    def chain(self) -> list[Block]:
        """Blocks behind BASE as both logs hold them."""
        return [Block(BASE + 1 + at, [("bank", self.bank[at]), ("evm", pairs)]) for at, pairs in enumerate(self.blocks)]


def table_shapes() -> st.SearchStrategy[TableShape]:
    return st.builds(
        TableShape,
        version=st.integers(1, 4),
        compression=st.sampled_from(Compression),
        checksum=st.sampled_from(Checksum),
        block_size=st.sampled_from([1, 150, 4000]),
        two_level=st.booleans(),
        value_blocks=st.booleans(),
        restart_interval=st.sampled_from([1, 3, 16]),
    )


def database_shapes() -> st.SearchStrategy[DatabaseShape]:
    shares = st.integers(1, 30)
    levels = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans(), shares, shares, shares, shares)
    return st.builds(
        DatabaseShape,
        levels=levels.map(
            lambda drawn: tuple(
                (level, share) for level, taken, share in zip((6, 4, 0, 0), drawn[:4], drawn[4:], strict=True) if taken
            )
        ),
        tables=st.integers(1, 3),
        shapes=st.lists(table_shapes(), min_size=1, max_size=3).map(tuple),
        virtual=st.booleans(),
        logs=st.integers(1, 3),
        batch=st.integers(1, 9),
    )


def histories() -> st.SearchStrategy[History]:
    ops = st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([*Kind]).filter(lambda kind: kind not in (3, 17))), max_size=30
    )

    def with_blocks(blocks: list[list[Pair]]) -> st.SearchStrategy[History]:
        return st.builds(
            History,
            before=st.lists(writes(), min_size=1, max_size=3),
            blocks=st.just(blocks),
            bank=st.lists(others(), min_size=len(blocks), max_size=len(blocks)),
            cuts=st.lists(st.integers(1, max(len(blocks) - 1, 1)), max_size=2).map(
                lambda cuts: [cut for cut in cuts if cut < len(blocks)]
            ),
            noise=st.fixed_dictionaries(dict.fromkeys(DATABASES, ops)),
            shapes=st.lists(database_shapes(), min_size=1, max_size=4),
            tail=st.sampled_from([None, b"", b"\x19", bytes(12)]),
        )

    return st.lists(writes(), min_size=1, max_size=4).flatmap(with_blocks)


def write_memiavl_store(root: Path, history: History) -> None:
    trees = {"evm": history.state(BASE), "bank": {b"a": (b"coin", 3)}, "empty": {}}
    write_snapshot(root, BASE, trees)
    if history.blocks:
        write_snapshot(root, history.last, {"evm": history.state(history.last)})
    point_current(root, BASE)
    # the log begins before the snapshot, as it does after a restart
    early = [Block(version, [("evm", [(b"early", b"%d" % version)])]) for version in range(BASE - 2, BASE + 1)]
    write_changelog(root, [*early, *history.chain()], [cut + 3 for cut in history.cuts], first_index=7)


def flat_rows(state: dict[bytes, tuple[bytes, int]]) -> dict[bytes, bytes]:
    """Physical rows FlatKV holds for a raw state."""
    rows: dict[bytes, bytes] = {}
    accounts: dict[bytes, tuple[int, bytes, int]] = {}
    for key, (value, height) in state.items():
        kind, shape = key[:1], len(key)
        if shape == 21 and kind in (b"\x0a", b"\x08"):
            nonce, codehash, seen = accounts.get(key[1:], (0, ZERO, 0))
            if kind == b"\x0a":
                nonce = int.from_bytes(value, "big")
            else:
                codehash = value
            accounts[key[1:]] = (nonce, codehash, max(seen, height))
        elif (shape == 53 and kind == b"\x03" and value == ZERO) or (shape == 21 and kind == b"\x07" and not value):
            continue
        else:
            rows[b"evm/" + key] = stored(height, value)
    for address, (nonce, codehash, height) in accounts.items():
        if nonce or codehash != ZERO:
            rows[b"evm/\x0a" + address] = account_value(height, 0, nonce, codehash)
    return rows


def write_flatkv_store(root: Path, history: History) -> None:
    rows = flat_rows(history.state(BASE))
    rows[b"bank/a"] = stored(3, b"coin")
    rows |= {key: stored(BASE, value) for key, value in history.markers.items()}
    ops = {}
    for name in DATABASES:
        mine = {key: value for key, value in rows.items() if database_of(key) == name}
        ops[name] = _history_of(mine, name, history.noise[name])
    write_flatkv_snapshot(root, BASE, ops, history.shapes)
    point_current(root, BASE)
    early = [Block(BASE, [("evm", [(b"early", b"x")])])]
    write_state_log(root, [*early, *history.chain()], [cut + 1 for cut in history.cuts], history.tail)


def _history_of(rows: dict[bytes, bytes], name: str, noise: Sequence[tuple[int, Kind]]) -> list[Op]:
    """A past that ends in exactly `rows`: noise over their keys and some others, then what is needed to put it right."""
    keys = sorted({*rows, *(b"evm/%s-%d" % (name.encode(), at) for at in range(5)), b"_meta/x"})
    ops: list[Op] = []
    for number, kind in noise:
        key = keys[number % len(keys)]
        value = b"\0" * 9 + bytes([number]) if kind in (Kind.SET, Kind.SETWITHDEL) else b""
        if kind is Kind.RANGEDEL:
            value = max(key + b"\0", keys[(number * 7 + 3) % len(keys)])
        ops.append(Op(10 + len(ops), kind, key, value))
    now = visible(ops)
    for key in sorted({*rows, *now}):
        if now.get(key) != rows.get(key):
            kind = Kind.SET if key in rows else Kind.DEL
            ops.append(Op(10 + len(ops), kind, key, rows.get(key, b"")))
    return ops


def tree_renamed_in_log(root: Path, history: History) -> None:
    """The same state, but the tree is born as `old` behind the snapshot and renamed to `evm` one block later."""
    first = BASE + 1
    blocks = [Block(first, [("old", list(chain.from_iterable(history.before)))], [Upgrade("old")])]
    for at, pairs in enumerate(history.blocks):
        upgrades = [Upgrade("evm", rename_from="old")] if at == 0 else []
        blocks.append(Block(first + 1 + at, [("bank", history.bank[at]), ("evm", pairs)], upgrades))
    write_snapshot(root, BASE, {"bank": {b"a": (b"coin", 3)}})
    point_current(root, BASE)
    write_changelog(root, blocks, history.cuts)


def with_markers(history: History, markers: dict[bytes, bytes]) -> History:
    return replace(history, markers=markers)
