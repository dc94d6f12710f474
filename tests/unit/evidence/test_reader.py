"""Reading a manifest and its objects: every break is told with its place, and nothing is held as a whole."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from seiops.evidence import reader
from seiops.evidence.reader import Chain, Kind, LongLineError, Reading, folders, named, read_chain
from seiops.objectstore import Store, StoreError, open_store
from seiops.shadow.manifest import ChainHead, What, Writer, entry_key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file://{tmp_path}")


async def _run(store: Store, prefix: str = "") -> None:
    writer = Writer(store, ChainHead("r1"), prefix)
    for number in range(4):
        await writer.append(What("page", "now", (number * 100 + 1, number * 100 + 100), {"clean": 100}))


async def _chain(store: Store) -> Chain:
    (folder,) = await folders(store)
    return await read_chain(store, folder, "r1")


@pytest.mark.parametrize(
    ("key", "kind", "heights"),
    [
        ("a/1-100.compare.ndjson.gz", Kind.COMPARE, (1, 100)),
        ("1-1000.ndjson.gz", Kind.EXPORT, (1, 1000)),
        ("divergence-7.report.json.gz", Kind.REPORT, (7, 7)),
        ("x/y/endpoint-digest-9-semantic.json.gz", Kind.DIGEST, (9, 9)),
        ("hashlog-5-6.csv.gz", Kind.HASHLOG, (5, 6)),
    ],
)
def test_names_tell_kind_and_heights(key: str, kind: Kind, heights: tuple[int, int]) -> None:
    found = named(key)
    assert found is not None
    assert (found.kind, (found.start, found.end)) == (kind, heights)
    assert named(key + ".part") is None


async def test_every_folder_has_its_own_runs_and_objects(store: Store) -> None:
    await _run(store, "a/b/")
    await store.put("a/b/1-100.compare.ndjson.gz", b"x")
    await store.put("1-100.compare.ndjson.gz", b"xy")
    found = await folders(store)
    assert [(one.prefix, one.objects) for one in found] == [
        ("", {"1-100.compare.ndjson.gz": 2}),
        ("a/b/", {"1-100.compare.ndjson.gz": 1}),
    ]
    assert found[1].runs == {"r1": [1, 2, 3, 4]}


async def test_a_whole_chain_has_no_break_and_a_head(store: Store) -> None:
    await _run(store)
    chain = await _chain(store)
    last = hashlib.sha256(await store.get(entry_key("r1", 4))).hexdigest()
    assert (chain.breaks, len(chain.entries), chain.head) == ([], 4, ChainHead("r1", 4, last))
    assert chain.digests[4] == last


async def test_a_missing_entry_is_told_once_and_the_rest_is_read(store: Store) -> None:
    await _run(store)
    await store.delete(entry_key("r1", 2))
    chain = await _chain(store)
    assert [(one.why, one.key, one.text) for one in chain.breaks] == [
        ("missing", entry_key("r1", 2), "entry 2 is not there, although entry 3 is")
    ]
    assert [entry.seq for entry in chain.entries] == [1, 3, 4]


async def test_an_edited_entry_breaks_the_chain_behind_it(store: Store) -> None:
    await _run(store)
    second = await store.get(entry_key("r1", 2))
    await store.put(entry_key("r1", 2), second.replace(b'"clean":100', b'"clean":1'))
    chain = await _chain(store)
    assert [(one.why, one.key) for one in chain.breaks] == [("broken", entry_key("r1", 3))]
    assert len(chain.entries) == 4


@pytest.mark.parametrize(("member", "value"), [("run", "r2"), ("seq", 9)])
async def test_an_entry_of_another_place_is_a_break(store: Store, member: str, value: object) -> None:
    await _run(store)
    last = json.loads(await store.get(entry_key("r1", 4))) | {member: value}
    await store.put(entry_key("r1", 4), json.dumps(last).encode())
    assert [one.why for one in (await _chain(store)).breaks] == ["broken"]


async def test_an_object_is_hashed_as_stored_and_as_payload(store: Store) -> None:
    payload = b"".join(b"%d\n" % number for number in range(200_000))
    stored = gzip.compress(payload)
    await store.put("x.gz", stored)
    heard: list[int] = []
    reading = Reading(store, "x.gz", heard.append)
    lines = [line async for batch in reading.lines() for line in batch]
    assert (len(lines), lines[-1]) == (200_000, b"199999")
    assert (reading.sha256, reading.payload_bytes) == (hashlib.sha256(payload).hexdigest(), len(payload))
    assert (reading.stored_sha256, sum(heard)) == (hashlib.sha256(stored).hexdigest(), len(stored))


async def test_a_line_without_end_is_refused_before_it_is_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LONGEST_LINE", 1 << 20)
    await store.put("x.gz", gzip.compress(b"x" * (64 << 20)))
    reading = Reading(store, "x.gz")
    with pytest.raises(LongLineError):
        _ = [batch async for batch in reading.lines()]
    assert reading.payload_bytes < 4 << 20


async def test_a_cut_object_raises(store: Store) -> None:
    await store.put("x.gz", gzip.compress(b"abc" * 1000)[:-8])
    with pytest.raises(StoreError, match="the gzip stream is cut"):
        _ = [piece async for piece in Reading(store, "x.gz").pieces()]
