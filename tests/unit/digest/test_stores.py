"""What a reader of live and damaged stores may and may not do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from replay import digest_judging
from replay.stores import fingerprint
from seiops.digest.engine import OpenOptions, ScanHooks
from seiops.digest.errors import DigestError, UnsupportedFormatError
from seiops.digest.flatkv import store as flatkv_store
from seiops.digest.model import Normalization, OpenMode, Totals, Verification
from seiops.digest.reference import ReferenceEngine
from support.digest_recorded import Unpacker

ENGINE = ReferenceEngine()
FLIPS = 800
"""Bytes flipped per file set: every part of every file is hit, in seconds."""


def memiavl_final(root: Path, height: int, mode: OpenMode, verification: Verification = Verification.CHEAP) -> str:
    store = ENGINE.open_memiavl(str(root), height, mode, OpenOptions(verification))
    try:
        (totals,) = store.digest([Normalization.SEMANTIC], ScanHooks())
        return totals.final_hex if store.version == height else f"version {store.version}"
    finally:
        store.close()


def flatkv_final(root: Path, height: int, verification: Verification = Verification.CHEAP) -> str:
    store = ENGINE.open_flatkv(str(root), height, OpenOptions(verification))
    try:
        totals = store.digest(ScanHooks())
        return totals.final_hex if store.version == height else f"version {store.version}"
    finally:
        store.close()


def flipped(root: Path, where: Callable[[Path], bool]) -> Iterator[tuple[Path, int]]:
    """Flips bytes of a store one at a time, evenly over the files `where` accepts, and puts each back."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink() and where(path)]
    total = sum(path.stat().st_size for path in files)
    step = max(1, total // FLIPS)
    position = 0
    for path in files:
        original = path.read_bytes()
        for offset in range(-position % step, len(original), step):
            path.write_bytes(original[:offset] + bytes([original[offset] ^ 0x10]) + original[offset + 1 :])
            yield path, offset
        position += len(original)
        path.write_bytes(original)


def outcome(take: Callable[[], str]) -> str:
    try:
        return take()
    except DigestError:
        return "refused"


@pytest.fixture
def vectors(golden: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((golden / "digest-vectors.json").read_text())
    return content


@pytest.mark.parametrize("height", [3, 6])
def test_a_flipped_byte_of_a_flatkv_store_never_gives_another_digest(
    vectors: dict[str, dict[str, object]], tmp_path: Path, height: int
) -> None:
    root = digest_judging.unpack(vectors["fixture_flatkv"], tmp_path)
    right = flatkv_final(root, height)
    for path, offset in flipped(root, lambda path: True):
        found = outcome(lambda: flatkv_final(root, height))
        assert found in (right, "refused"), f"{path.name} at {offset}"


@pytest.mark.parametrize(("height", "mode"), [(3, OpenMode.SNAPSHOT), (6, OpenMode.REPLAY)])
def test_a_flipped_byte_of_a_memiavl_store_shows_unless_nothing_covers_it(
    vectors: dict[str, dict[str, object]], tmp_path: Path, height: int, mode: OpenMode
) -> None:
    root = digest_judging.unpack(vectors["fixture_memiavl"], tmp_path)
    right = memiavl_final(root, height, mode)
    for path, offset in flipped(root, lambda path: True):
        found = outcome(lambda: memiavl_final(root, height, mode))
        uncovered = path.name == "kvs" or path.parent.name == "changelog"
        assert found in (right, "refused") or uncovered, f"{path} at {offset}: {found}"


def test_with_verification_every_flip_in_the_leaves_is_an_error(
    vectors: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    root = digest_judging.unpack(vectors["fixture_memiavl"], tmp_path)
    for path, offset in flipped(root, lambda path: path.name == "kvs" and path.parent.name == "evm"):
        found = outcome(lambda: memiavl_final(root, 3, OpenMode.SNAPSHOT, Verification.FULL))
        assert found == "refused", f"{path} at {offset}"


def test_every_truncation_of_a_store_is_refused_or_changes_nothing(
    vectors: dict[str, dict[str, object]], tmp_path: Path
) -> None:
    root = digest_judging.unpack(vectors["fixture_flatkv"], tmp_path)
    right = flatkv_final(root, 6)
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.stat().st_size:
            original = path.read_bytes()
            for length in range(0, len(original), max(1, len(original) // 12)):
                path.write_bytes(original[:length])
                assert outcome(lambda: flatkv_final(root, 6)) in (right, "refused"), f"{path} cut to {length}"
            path.write_bytes(original)


def test_reading_leaves_the_store_as_it_was(unpacked: Unpacker) -> None:
    folder = unpacked("late-start")
    before = fingerprint(folder)
    flatkv_final(folder / "FLATDIR", 5030)
    memiavl_final(folder / "MEMDIR", 5030, OpenMode.REPLAY)
    assert fingerprint(folder) == before


def test_a_snapshot_pruned_while_it_is_opened_is_chosen_again(
    unpacked: Unpacker, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = unpacked("late-start") / "FLATDIR"
    right = flatkv_final(root, 5030)
    doomed = root / "snapshot-00000000000000005020"
    select = flatkv_store.select_snapshot

    def prune(where: str, height: int) -> tuple[int, str]:
        chosen = select(where, height)
        if chosen[1] == doomed.name and doomed.is_dir():
            shutil.rmtree(doomed)
        return chosen

    monkeypatch.setattr(flatkv_store, "select_snapshot", prune)
    assert flatkv_final(root, 5030) == right


def test_files_stay_readable_after_their_snapshot_is_gone(unpacked: Unpacker) -> None:
    root = unpacked("tiny") / "MEMDIR"
    right = memiavl_final(root, 8, OpenMode.REPLAY)
    store = ENGINE.open_memiavl(str(root), 8, OpenMode.REPLAY, OpenOptions())
    shutil.rmtree(root)
    (totals,) = store.digest([Normalization.SEMANTIC], ScanHooks())
    assert totals.final_hex == right


def rename(root: Path, pattern: str, name: str) -> None:
    next(root.rglob(pattern)).rename(next(root.rglob(pattern)).with_name(name))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda root: rename(root, "account/marker.format-version*", "marker.format-version.000001.017"),
            "format major version 17",
        ),
        (
            lambda root: rename(root, "account/marker.format-version*", "marker.format-version.000001.012"),
            "older than the oldest",
        ),
        (lambda root: next(root.rglob("account")).joinpath("000009.blob").write_bytes(b""), "000009.blob: blob files"),
        (lambda root: next(root.rglob("misc")).with_name("legacy").mkdir(), "holds both misc and legacy"),
    ],
)
def test_formats_not_read_here_are_refused_with_the_file_named(
    unpacked: Unpacker, change: Callable[[Path], object], expected: str
) -> None:
    root = unpacked("tiny") / "FLATDIR"
    for snapshot in sorted(root.glob("snapshot-*"))[:-1]:
        shutil.rmtree(snapshot)
    change(root)
    with pytest.raises((UnsupportedFormatError, DigestError), match=expected):
        flatkv_final(root, 8)


@pytest.mark.parametrize("height", [7, 11])
def test_a_shard_tree_adds_up_to_its_digest(unpacked: Unpacker, height: int) -> None:
    folder = unpacked("migrating")
    flatkv = ENGINE.open_flatkv(str(folder / "FLATDIR"), height, OpenOptions())
    memiavl = ENGINE.open_memiavl(str(folder / "MEMDIR"), height, OpenMode.REPLAY, OpenOptions())
    totals: Totals = ENGINE.composite(flatkv, memiavl).digest(ScanHooks())
    tree = ENGINE.composite(flatkv, memiavl).shard_tree()
    assert sum(tally.count for tally in tree.values()) == totals.count
    merged = 0
    for tally in tree.values():
        merged ^= tally.accumulator
    expected = 0
    for tally in totals.adjusted().values():
        expected ^= tally.accumulator
    assert merged == expected
