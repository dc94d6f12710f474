"""Logs that do not fit in memory, and logs that begin at a height of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seiops import _native
from seiops.digest.engine import Engine, OpenOptions, ScanHooks
from seiops.digest.errors import DigestError
from seiops.digest.model import Normalization, OpenMode
from seiops.digest.native import NativeEngine, flatkv, memiavl
from seiops.digest.reference import ReferenceEngine
from support.digest_stores import BASE, History, histories, write_flatkv_store, write_memiavl_store
from support.digest_writer import Block, Pair, Upgrade, point_current, write_changelog, write_snapshot

NATIVE, REFERENCE = NativeEngine(), ReferenceEngine()
BOTH: tuple[Engine, ...] = (REFERENCE, NATIVE)
searched = settings(max_examples=40, deadline=None, suppress_health_check=[*HealthCheck])
HEIGHT = 100


@contextmanager
def holding(writes: int) -> Iterator[None]:
    """So few writes in memory that a short log spills."""
    with pytest.MonkeyPatch.context() as patch:
        for room in (memiavl, flatkv):
            patch.setattr(room, "HELD_WRITES", writes)
        yield


def said_of_memiavl(engine: Engine, root: Path, height: int, options: OpenOptions) -> list[object]:
    store = engine.open_memiavl(str(root), height, OpenMode.REPLAY, options)
    tree = store.shard_tree(Normalization.SEMANTIC)
    rows = sorted((row.key, row.payload, row.height) for row in store.rows(list(tree), Normalization.SEMANTIC))
    (totals,) = store.digest([Normalization.SEMANTIC], ScanHooks())
    return [store.version, totals.final_hex, totals.input_rows, rows]


def said_of_flatkv(engine: Engine, root: Path, height: int, options: OpenOptions) -> list[object]:
    store = engine.open_flatkv(str(root), height, options)
    totals = store.digest(ScanHooks())
    rows = [(row.key, row.payload, row.height) for row in store.rows(list(store.shard_tree()))]
    return [store.version, totals.final_hex, totals.input_rows, rows]


@searched
@given(history=histories(), held=st.sampled_from([1, 2, 7]), threads=st.integers(1, 2))
def test_a_log_that_spills_says_the_same(history: History, held: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as scratch, holding(held):
        spill = Path(scratch, "spill")
        spill.mkdir()
        options = OpenOptions(threads=threads, spill_dir=spill)
        tree, flat = Path(scratch, "memiavl"), Path(scratch, "flatkv")
        write_memiavl_store(tree, history)
        write_flatkv_store(flat, history)
        for height in range(BASE, history.last + 1):
            assert said_of_memiavl(NATIVE, tree, height, options) == said_of_memiavl(REFERENCE, tree, height, options)
            assert said_of_flatkv(NATIVE, flat, height, options) == said_of_flatkv(REFERENCE, flat, height, options)
        assert not list(spill.iterdir())


def many_writes(root: Path) -> None:
    writes: list[Pair] = [(b"\x03" + bytes(20) + at.to_bytes(32, "big"), bytes(31) + b"\x01") for at in range(5000)]
    write_snapshot(root, BASE, {"evm": {b"\x01": (b"x", 3)}})
    point_current(root, BASE)
    write_changelog(root, [Block(BASE + 1, [("evm", writes)])], [])


def test_what_spills_has_no_name_while_it_is_used(tmp_path: Path) -> None:
    many_writes(tmp_path / "store")
    spill = tmp_path / "spill"
    spill.mkdir()
    with holding(1000):
        store = NATIVE.open_memiavl(str(tmp_path / "store"), 0, OpenMode.REPLAY, OpenOptions(spill_dir=spill))
    assert isinstance(store, memiavl.NativeMemiavl)
    assert store.state.spilled
    assert f"{spill}/" in Path("/proc/self/maps").read_text()
    assert not list(spill.iterdir())


def test_a_log_that_fits_does_not_spill(tmp_path: Path) -> None:
    many_writes(tmp_path / "store")
    options = OpenOptions(spill_dir=Path("/nowhere"))
    store = NATIVE.open_memiavl(str(tmp_path / "store"), 0, OpenMode.REPLAY, options)
    assert isinstance(store, memiavl.NativeMemiavl)
    assert not store.state.spilled


def test_a_directory_that_cannot_be_spilled_to_is_named(tmp_path: Path) -> None:
    many_writes(tmp_path / "store")
    options = OpenOptions(spill_dir=tmp_path / "gone")
    with holding(1000), pytest.raises(DigestError, match=f"{tmp_path}/gone: cannot spill the writes of the log here"):
        NATIVE.open_memiavl(str(tmp_path / "store"), 0, OpenMode.REPLAY, options)


def born_at(root: Path, first: int, trees: list[str], versions: list[int]) -> None:
    """A database without any block yet that begins at height `first`, and a log of `versions`."""
    write_snapshot(root, 0, {name: {} for name in trees}, initial_version=first)
    point_current(root, 0)
    blocks = [
        Block(version, [("evm", [(b"\x01%d" % version, b"x"), (b"\x02", b"%d" % version)])]) for version in versions
    ]
    if "evm" not in trees:
        blocks[0].upgrades.append(Upgrade("evm"))
    write_changelog(root, blocks, [1])


@pytest.mark.parametrize("trees", [[], ["evm"], ["bank", "evm"]])
def test_a_database_may_begin_at_any_height(trees: list[str], tmp_path: Path) -> None:
    born_at(tmp_path, HEIGHT, trees, [HEIGHT, HEIGHT + 1, HEIGHT + 2])
    for height in (0, HEIGHT, HEIGHT + 1, HEIGHT + 2):
        said = [said_of_memiavl(engine, tmp_path, height, OpenOptions()) for engine in BOTH]
        assert said[0] == said[1]
        reached = height or HEIGHT + 2
        assert said[0][0] == reached
        heights = {key[4:]: stamp for key, _, stamp in said[0][3]}  # type: ignore[attr-defined]
        # the first block of a tree's life is stamped 1 (docs/contracts/digest.md 3.8)
        assert heights[b"\x01%d" % HEIGHT] == 1
        assert heights[b"\x02"] == (1 if reached == HEIGHT else reached)


@pytest.mark.parametrize("engine", BOTH, ids=["reference", "native"])
@pytest.mark.parametrize(
    ("first", "versions", "text"),
    [
        (HEIGHT, [HEIGHT + 1, HEIGHT + 2], f"the changelog starts at version {HEIGHT + 1}, but replay must start at {HEIGHT}"),
        (HEIGHT, [50, 51], f"holds version 5[01], but the database begins at version {HEIGHT}"),
        (0, [2, 3], "the changelog starts at version 2, but replay must start at 1"),
        (1, [HEIGHT, HEIGHT + 1], f"the changelog starts at version {HEIGHT}, but replay must start at 1"),
    ],
)  # fmt: skip
def test_a_log_that_begins_elsewhere_is_refused(
    engine: Engine, first: int, versions: list[int], text: str, tmp_path: Path
) -> None:
    born_at(tmp_path, first, ["evm"], versions)
    with pytest.raises(DigestError, match=text):
        engine.open_memiavl(str(tmp_path), 0, OpenMode.REPLAY, OpenOptions())


@pytest.mark.parametrize("engine", BOTH, ids=["reference", "native"])
@pytest.mark.parametrize(
    ("block", "text"),
    [
        (Block(BASE + 2, [("bnak", [(b"a", b"b")])]), "unknown tree name bnak during WAL replay"),
        (Block(BASE + 2, [], [Upgrade("new", rename_from="bnak")]), "process log failed, unknown tree name bnak"),
        (Block(BASE + 2, [], [Upgrade("bnak", delete=True)]), "process log failed, unknown tree name bnak"),
        (Block(BASE + 2, [], [Upgrade("bank")]), "memiavl tree name conflicts: bank"),
        (Block(BASE + 2, [], [Upgrade("evm", delete=True)]), 'memiavl tree "evm" not found'),
    ],
)
def test_a_log_for_other_trees_than_there_are_is_refused(
    engine: Engine, block: Block, text: str, tmp_path: Path
) -> None:
    write_snapshot(tmp_path, BASE, {"bank": {}, "evm": {b"\x01": (b"x", 3)}})
    point_current(tmp_path, BASE)
    write_changelog(tmp_path, [Block(BASE + 1, [("evm", [(b"\x02", b"y")])]), block], [])
    assert engine.open_memiavl(str(tmp_path), BASE + 1, OpenMode.REPLAY, OpenOptions()).version == BASE + 1
    with pytest.raises(DigestError, match=text):
        engine.open_memiavl(str(tmp_path), 0, OpenMode.REPLAY, OpenOptions())


@pytest.mark.parametrize("engine", BOTH, ids=["reference", "native"])
def test_a_snapshot_whose_other_trees_are_incomplete_is_refused(engine: Engine, tmp_path: Path) -> None:
    many_writes(tmp_path)
    write_snapshot(tmp_path, BASE + 1, {"bank": {}, "evm": {}})
    (tmp_path / f"snapshot-{BASE + 1:020d}" / "bank" / "nodes").unlink()
    with pytest.raises(DigestError, match=r"bank/nodes: no such file or directory"):
        engine.open_memiavl(str(tmp_path), BASE + 1, OpenMode.REPLAY, OpenOptions())


def test_the_kernel_opens_a_snapshot_without_a_log(tmp_path: Path) -> None:
    write_snapshot(tmp_path, 7, {"evm": {b"\x01": (b"x", 3)}})
    snapshot = str(tmp_path / "snapshot-00000000000000000007")
    state = _native.MemiavlState.open(snapshot, ["evm"], "evm", 7, [], str(tmp_path))
    assert (state.version, state.leaves, state.overlay_rows, state.spilled) == (7, 1, 0, False)
