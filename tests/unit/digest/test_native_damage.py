"""Every byte of a small store changed, every file cut: each engine refuses, or still says the same, or, where no checksum
covers the byte, says something else; it never panics, hangs or forgets to say which file it was (ruling on flips, docs/digest.md).

One store a backend, made by the test writer with every kind of file in it. SEIOPS_FLIP_STEP=1 tries every byte (default: every
eleventh for the native engine, fewer for the slow one).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seiops.digest.engine import Engine, OpenOptions, ScanHooks
from seiops.digest.errors import DigestError
from seiops.digest.model import Normalization, OpenMode, Verification
from seiops.digest.native import NativeEngine
from seiops.digest.pebble.database import Database
from seiops.digest.reference import ReferenceEngine
from support.digest_stores import ADDRESSES, BASE, SLOTS, History, write_flatkv_store, write_memiavl_store
from support.digest_writer import Pair
from support.digest_writer_flatkv import DATABASES
from support.digest_writer_pebble import Compression, DatabaseShape, Kind, Op, TableShape, batch, record_file

STEP = int(os.environ.get("SEIOPS_FLIP_STEP", "11"))
MASKS = (0x01, 0x80, 0xFF)
Digest = Callable[[Path, int, Verification], str]


def small_history() -> History:
    def account(address: bytes, nonce: int) -> list[Pair]:
        return [(b"\x0a" + address, nonce.to_bytes(8, "big")), (b"\x08" + address, b"\x2a" * 32)]

    base: list[Pair] = [(b"\x03" + ADDRESSES[2] + slot, bytes(31) + b"\x07") for slot in SLOTS]
    base += account(ADDRESSES[1], 5) + account(ADDRESSES[2], 7)[:1]
    base += [(b"\x07" + ADDRESSES[1], b"code" * 9), (b"\x0a\x01", b"odd"), (b"\x20block", b"")]
    blocks: list[list[Pair]] = [
        [(b"\x03" + ADDRESSES[2] + SLOTS[0], None), (b"\x09x", b"new")],
        account(ADDRESSES[3], 1),
    ]
    noise = {name: [(0, Kind.SET), (1, Kind.SETWITHDEL), (2, Kind.RANGEDEL), (0, Kind.SET)] for name in DATABASES}
    shapes = [
        DatabaseShape(((6, 3), (0, 2)), tables=2, shapes=(TableShape(block_size=90, two_level=True),)),
        DatabaseShape(((5, 4),), shapes=(TableShape(version=3, compression=Compression.SNAPPY, value_blocks=True),)),
        DatabaseShape(((6, 5),), logs=2),
        DatabaseShape(),
    ]
    return History([base], blocks, [[], [(b"a", b"coin")]], [1], noise, shapes, b"")


def options(verification: Verification) -> OpenOptions:
    """Full verification in pieces, the plain scan in one."""
    return OpenOptions(verification, threads=2 if verification is Verification.FULL else 1)


def memiavl_digest(engine: Engine) -> Digest:
    def digest(root: Path, height: int, verification: Verification) -> str:
        mode = OpenMode.SNAPSHOT if height == BASE else OpenMode.REPLAY
        store = engine.open_memiavl(str(root), height, mode, options(verification))
        try:
            return store.digest([Normalization.SEMANTIC], ScanHooks())[0].final_hex
        finally:
            store.close()

    return digest


def flatkv_digest(engine: Engine) -> Digest:
    def digest(root: Path, height: int, verification: Verification) -> str:
        store = engine.open_flatkv(str(root), height, options(verification))
        try:
            totals = store.digest(ScanHooks())
            return f"{totals.final_hex} {store.migration_state()}"
        finally:
            store.close()

    return digest


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size)


def outcome(digest: Digest, root: Path, height: int, verification: Verification) -> str | None:
    """The digest, or None when the store is refused. Anything but a DigestError escapes and fails the test."""
    try:
        return digest(root, height, verification)
    except DigestError as error:
        assert len(str(error)) > 10
        return None


def damaged(path: Path, step: int) -> Iterator[str]:
    """Put the file through its damages, one at a time, and restore it at the end."""
    whole = path.read_bytes()
    try:
        for at in range(0, len(whole), step):
            mask = MASKS[at // step % len(MASKS)]
            path.write_bytes(whole[:at] + bytes([whole[at] ^ mask]) + whole[at + 1 :])
            yield f"{path.name} byte {at} ^ {mask:#x}"
        for length in range(0, len(whole), step * 5):
            path.write_bytes(whole[:length])
            yield f"{path.name} cut to {length}"
    finally:
        path.write_bytes(whole)


def covered(path: Path, verification: Verification) -> bool:
    """Whether a checksum covers the file, so that another digest would be a wrong one."""
    unsealed_by_nature = path.parent.name == "changelog" and path.suffix != ".wal" and not path.name.endswith(".u")
    bare = path.name == "kvs" or unsealed_by_nature
    return not bare or (path.name == "kvs" and verification is Verification.FULL)


@pytest.mark.parametrize("verification", list(Verification))
@pytest.mark.parametrize(
    ("engine", "step"), [(NativeEngine(), STEP), (ReferenceEngine(), STEP * 9)], ids=["native", "reference"]
)
@pytest.mark.parametrize("backend", ["memiavl", "flatkv"])
def test_damage_never_gives_a_wrong_digest(
    backend: str, engine: Engine, step: int, verification: Verification, tmp_path: Path
) -> None:
    history = small_history()
    root = tmp_path / backend
    if backend == "memiavl":
        write_memiavl_store(root, history)
        digest = memiavl_digest(engine)
    else:
        write_flatkv_store(root, history)
        digest = flatkv_digest(engine)
    heights = (BASE, history.last - 1, history.last)
    right = {height: digest(root, height, verification) for height in heights}
    wrong = []
    for path in files(root):
        for what in damaged(path, step):
            for height in heights:
                said = outcome(digest, root, height, verification)
                if said not in (None, right[height]) and covered(path, verification):
                    wrong.append(f"{path.relative_to(root).parent}/{what} at height {height}")
                if (
                    verification is Verification.FULL
                    and height == BASE
                    and path.name == "kvs"
                    and path.parent.parent.name.endswith(str(BASE))
                    and path.parent.name == "evm"
                ):
                    assert said is None, what
    assert not wrong


@pytest.mark.parametrize("database", DATABASES)
def test_a_changed_row_with_right_checksums_is_found_by_full_verification(database: str, tmp_path: Path) -> None:
    """Rewrite a row as Pebble would: only the hashes in the bookkeeping can tell."""
    history = small_history()
    root = tmp_path / "flatkv"
    write_flatkv_store(root, history)
    right = flatkv_digest(NativeEngine())(root, BASE, Verification.CHEAP)
    directory = root / f"snapshot-{BASE:020d}" / database
    append_batch(directory)
    for engine in (NativeEngine(), ReferenceEngine()):
        digest = flatkv_digest(engine)
        assert outcome(digest, root, BASE, Verification.CHEAP) not in (None, right)
        assert outcome(digest, root, BASE, Verification.FULL) is None


def append_batch(directory: Path) -> None:
    """A newer value of equal length for one row of the database, in a log of its own."""
    rows = [(key, value) for key, value in Database(directory).rows() if key.startswith(b"evm/") and len(value) > 9]
    key, value = rows[0]
    changed = value[:-1] + bytes([value[-1] ^ 1])
    if directory.name == "account":
        changed = value[:48] + bytes([value[48] ^ 1]) + value[49:]
    log = record_file([batch([Op(1 << 30, Kind.SET, key, changed)])], 99)
    (directory / "000099.log").write_bytes(log)
