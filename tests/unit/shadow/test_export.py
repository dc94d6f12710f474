"""Acceptance, export: where it starts, what it publishes, whose fault a failure is (docs/contracts/shadow.md 10.3)."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seiops.objectstore import StoreError, open_store
from seiops.seid.bulk import BulkReader
from seiops.shadow import pages, progress, rawjson
from seiops.shadow.export import Exporter, PageError, ProducerError
from seiops.shadow.manifest import What, read_chain
from seiops.shadow.progress import ProgressError, RunKey
from seiops.shadow.sides import Patience
from support.shadow_nodes import Node, results, serving, shelf_in

KEY = RunKey("b", "run/", "export")


@pytest.mark.parametrize(
    ("files", "height"),
    [
        ({}, 1),
        ({progress.SNAPSHOT_FILE: " 100\n"}, 101),
        ({progress.SNAPSHOT_FILE: "abc"}, 1),
        ({progress.SNAPSHOT_FILE: "-5"}, 1),
        ({progress.LEGACY_FILE: '{"lastExportedHeight":150}', progress.SNAPSHOT_FILE: "999"}, 151),
        ({progress.LEGACY_FILE: "{}", progress.SNAPSHOT_FILE: "999"}, 1),
        ({progress.LEGACY_FILE: "", progress.SNAPSHOT_FILE: "999"}, 1000),
    ],
    ids=["nothing", "snapshot", "bad-snapshot", "negative-snapshot", "state-wins", "empty-object", "torn-state"],
)
def test_start_height(tmp_path: Path, files: dict[str, str], height: int) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert progress.begin(tmp_path, KEY, asked=None).height == height


def test_impossible_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / progress.LEGACY_FILE).write_text('{"lastExportedHeight":-5}')
    with pytest.raises(ProgressError, match="holds the height -5"):
        progress.begin(tmp_path, KEY, asked=None)


def test_progress_is_per_run_and_the_old_file_is_kept(tmp_path: Path) -> None:
    first = progress.begin(tmp_path, KEY, asked=None)
    first.progress.last = 700
    progress.save(tmp_path, first.progress)
    assert json.loads((tmp_path / progress.LEGACY_FILE).read_text()) == {"lastExportedHeight": 700}
    assert progress.begin(tmp_path, KEY, asked=None).height == 701
    other = progress.begin(tmp_path, RunKey("b", "else/", "export"), asked=None)
    assert other.height == 1
    assert "says 700" in other.warning
    assert progress.begin(tmp_path, RunKey("b", "run/", "compare"), asked=40).height == 40


def test_asked_start_is_kept_over_a_restart(tmp_path: Path) -> None:
    start = progress.begin(tmp_path, KEY, asked=40)
    start.progress.last = 45
    progress.save(tmp_path, start.progress)
    assert progress.begin(tmp_path, KEY, asked=40).height == 46
    assert progress.begin(tmp_path, KEY, asked=44).height == 44


def test_progress_files_are_replaced_whole(tmp_path: Path) -> None:
    start = progress.begin(tmp_path, KEY, asked=None)
    start.progress.last = 1
    progress.save(tmp_path, start.progress)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([progress.LEGACY_FILE, KEY.file_name])


@pytest.mark.parametrize(("prefix", "normal"), [("", ""), ("a", "a/"), ("a/", "a/"), ("a/b/c", "a/b/c/")])
def test_prefix(prefix: str, normal: str) -> None:
    assert pages.normal_prefix(prefix) == normal


async def _export(node: Node, home: Path, start: int, end: int, *, whole: bool = True, store: Any = None) -> int:
    async with serving(node) as session:
        exporter = Exporter(
            BulkReader(node.comet_url, session), shelf_in(home, store), lambda *_: None, Patience((0.0, 0.0))
        )
        return await exporter.run(start, end, whole_pages=whole)


def _lines(home: Path, name: str) -> list[dict[str, Any]]:
    body = (home / "bucket" / "run" / name).read_bytes()
    assert body[:10].hex() == "1f8b08000000000000ff"
    return [json.loads(line) for line in gzip.decompress(body).splitlines()]


@pytest.mark.parametrize("node", [Node(latest=1001), Node(latest=1001, batches=False)], ids=["batches", "gets"])
async def test_1001_blocks_from_1_are_one_page(tmp_path: Path, node: Node) -> None:
    assert await _export(node, tmp_path, 1, 1001) == 1
    lines = _lines(tmp_path, "1-1000.ndjson.gz")
    assert [line["height"] for line in lines] == list(range(1, 1001))
    assert list(lines[0]) == ["block_results", "exported_at", "height"]
    assert lines[6]["block_results"] == results(7)
    assert progress.begin(tmp_path, RunKey("b", "run/", "compare"), asked=None).height == 1001


async def test_end_height_makes_a_short_last_page(tmp_path: Path) -> None:
    assert await _export(Node(latest=1200), tmp_path, 1, 1100, whole=False) == 2
    assert len(_lines(tmp_path, "1001-1100.ndjson.gz")) == 100


async def test_envelope_of_the_node_is_kept(tmp_path: Path) -> None:
    await _export(Node(latest=30, enveloped=True), tmp_path, 1, 20, whole=False)
    line = _lines(tmp_path, "1-20.ndjson.gz")[4]
    assert line["block_results"] == {"jsonrpc": "2.0", "id": -1, "result": results(5)}


async def test_text_of_the_node_is_passed_through(tmp_path: Path) -> None:
    node = Node(latest=30, batches=False)
    text = '{"height":"5", "txs_results":[{"gas_used":"1.50","log":"a<b>&\\u0061 ü", "n": 1.50, "big":123456789012345678901}]}'
    node.plant("block_results", 5, text)
    await _export(node, tmp_path, 1, 20, whole=False)
    raw = gzip.decompress((tmp_path / "bucket/run/1-20.ndjson.gz").read_bytes()).splitlines()[4]
    wanted = (
        '{"block_results":{"height":"5","txs_results":[{"gas_used":"1.50","log":"a\\u003cb\\u003e\\u0026\\u0061 ü",'
        '"n":1.50,"big":123456789012345678901}]},"exported_at":'
    )
    assert raw.decode().startswith(wanted)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((500, "boom"), "exporting page 1-1000: querying block_results at height 7: HTTP 500: boom"),
        ("boom", "exporting page 1-1000: marshaling result at height 7: "),
        (
            {"code": -32603, "message": "Internal error", "data": "gone"},
            "exporting page 1-1000: querying block_results at height 7: JSON-RPC error from /block_results?height=7: ",
        ),
        (results(8), "exporting page 1-1000: querying block_results at height 7: the node answered for height 8"),
    ],
    ids=["http-500", "not-json", "flat-error", "wrong-height"],
)
async def test_producer_fault_is_not_the_stores(tmp_path: Path, answer: Any, text: str) -> None:
    node = Node(latest=1000, batches=False)
    node.plant("block_results", 7, answer)
    with pytest.raises(PageError) as caught:
        await _export(node, tmp_path, 1, 1000)
    assert str(caught.value).startswith(text)
    assert isinstance(caught.value.cause, ProducerError)
    assert not list((tmp_path / "bucket").rglob("*.gz"))
    assert not (tmp_path / progress.LEGACY_FILE).exists()


class _Refusing:
    """A store in front of a real one that takes nothing, or takes everything and refuses at the end."""

    def __init__(self, inner: Any, *, after_draining: bool) -> None:
        self._inner = inner
        self._after = after_draining

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def put(self, key: str, data: bytes, *, content_type: str = "") -> None:
        raise StoreError("SlowDown", "S3 throttled request", retryable=True)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, content_type: str = "") -> None:
        if self._after:
            async for _ in chunks:
                pass
        raise StoreError("SlowDown", "S3 throttled request", retryable=True)


@pytest.mark.parametrize("after_draining", [False, True])
async def test_upload_fault_is_the_stores_and_never_deadlocks_the_producer(
    tmp_path: Path, after_draining: bool
) -> None:
    store = _Refusing(open_store(f"file://{tmp_path}/bucket"), after_draining=after_draining)
    with pytest.raises(PageError) as caught:
        await _export(Node(latest=1000), tmp_path, 1, 1000, store=store)
    assert isinstance(caught.value.cause, StoreError)
    assert caught.value.cause.retryable


async def test_crash_in_the_producer_is_an_error_and_leaves_no_object(tmp_path: Path) -> None:
    shelf = shelf_in(tmp_path)

    async def crashing() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        raise ZeroDivisionError("bug")

    with pytest.raises(ZeroDivisionError):
        await shelf.put("run/x.gz", crashing(), What("export", "now"))
    assert not list((tmp_path / "bucket").rglob("*"))


async def test_manifest_is_a_chain_behind_the_objects(tmp_path: Path) -> None:
    await _export(Node(latest=2000), tmp_path, 1, 2000)
    store = open_store(f"file://{tmp_path}/bucket/run")
    entries = [entry async for entry, _ in read_chain(store, "run-1")]
    assert [(entry.kind, entry.start_height, entry.end_height) for entry in entries] == [
        ("export", 1, 1000), ("export", 1001, 2000),
    ]  # fmt: skip
    import hashlib

    for entry in entries:
        payload = gzip.decompress((tmp_path / "bucket/run" / str(entry.key)).read_bytes())
        assert hashlib.sha256(payload).hexdigest() == entry.sha256
        assert len(payload) == entry.bytes


@pytest.mark.parametrize("text", [b'{"a":"\\ud800"}', b'{"a":"\\ud800 , :"}'])
def test_half_surrogates_pass_through(text: bytes) -> None:
    assert rawjson.compact(text) == text


@pytest.mark.parametrize("text", [b"boom", b'{"a":}', b'{"a":1}x', b"", b"nul"])
def test_no_json_is_told(text: bytes) -> None:
    with pytest.raises(rawjson.BadJsonError):
        rawjson.compact(text)


_BLANKS = st.sampled_from(["", "", "", " ", "  ", "\n", "\t", "\r"])
_TEXTS = st.text(alphabet='ab1 ,:{}[]"\\<\n', max_size=6)


@st.composite
def _spelled(draw: st.DrawFn, depth: int = 2) -> str:
    """JSON with blanks anywhere they may stand."""

    def blank() -> str:
        return draw(_BLANKS)

    kind = draw(st.sampled_from(["text", "number", "word"] + ["list", "object"] * (depth > 0)))
    if kind == "text":
        value = json.dumps(draw(_TEXTS))
    elif kind == "number":
        value = draw(st.sampled_from(["0", "-1.50", "1e5"]))
    elif kind == "word":
        value = draw(st.sampled_from(["true", "false", "null"]))
    elif kind == "list":
        value = "[" + ",".join(draw(_spelled(depth - 1)) for _ in range(draw(st.integers(0, 3)))) + blank() + "]"
    else:
        members = [f"{blank()}{json.dumps(draw(_TEXTS))}{blank()}:{draw(_spelled(depth - 1))}" for _ in range(2)]
        value = "{" + ",".join(members) + blank() + "}"
    return blank() + value + blank()


@given(_spelled().map(str.strip))
@settings(max_examples=300)
def test_short_cut_for_texts_without_blanks_changes_nothing(text: str) -> None:
    assert rawjson.compact_parsed(text.encode()) == rawjson.compact(text.encode())


def test_spaces_inside_strings_do_not_cost_a_second_parse() -> None:
    text = b'{"log":"out of gas: not enough, sorry","n":[1,2]}'
    assert rawjson.compact_parsed(text) is text
