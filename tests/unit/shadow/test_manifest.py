"""The manifest: a chain that shows every change, and a writer that survives a crash at any point."""

from __future__ import annotations

from pathlib import Path

import pytest

from seiops.objectstore import Store, open_store
from seiops.shadow.manifest import ChainHead, ManifestError, What, Writer, entry_key, list_runs, parse_key, read_chain


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}")


async def _three(store: Store) -> Writer:
    writer = Writer(store, ChainHead("r1"))
    for number in range(3):
        await writer.append(What("page", "now", (number * 100 + 1, number * 100 + 100), {"clean": 100}))
    return writer


async def test_entries_are_chained_and_read_in_order(store: Store) -> None:
    writer = await _three(store)
    entries = [entry async for entry, _ in read_chain(store, "r1")]
    assert [entry.seq for entry in entries] == [1, 2, 3]
    assert entries[0].prev == ""
    assert writer.head.seq == 3
    assert await list_runs(store) == {"r1": 3}
    assert parse_key(entry_key("r1", 2)) == ("r1", 2)
    assert parse_key("1-100.compare.ndjson.gz") is None


@pytest.mark.parametrize("change", ["edit", "drop", "swap"])
async def test_any_change_shows(store: Store, change: str) -> None:
    await _three(store)
    second = await store.get(entry_key("r1", 2))
    if change == "edit":
        await store.put(entry_key("r1", 2), second.replace(b'"clean":100', b'"clean":999'))
    elif change == "drop":
        await store.put(entry_key("r1", 2), await store.get(entry_key("r1", 3)))
    else:
        await store.put(entry_key("r1", 3), second)
    with pytest.raises(ManifestError):
        _ = [entry async for entry in read_chain(store, "r1")]


async def test_crash_between_entry_and_progress_goes_on_behind_it(store: Store) -> None:
    writer = await _three(store)
    forgot_the_last = Writer(store, ChainHead("r1", 2, await _sha(store, 2)))
    await forgot_the_last.append(What("end", "now"))
    assert [entry.kind async for entry, _ in read_chain(store, "r1")] == ["page", "page", "page", "end"]
    assert forgot_the_last.head.seq == writer.head.seq + 1


async def test_place_taken_by_another_writer_starts_a_chain_of_its_own(store: Store) -> None:
    await _three(store)
    stranger = Writer(store, ChainHead("r1", 1, "0" * 64))
    await stranger.append(What("page", "now"))
    assert stranger.head.run.startswith("r1-")
    assert [entry.seq async for entry, _ in read_chain(store, stranger.head.run)] == [1]


async def _sha(store: Store, seq: int) -> str:
    import hashlib

    return hashlib.sha256(await store.get(entry_key("r1", seq))).hexdigest()
