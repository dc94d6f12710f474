"""The replay server answers as the recorded node did, and fails like a node outside its window."""

import json
from pathlib import Path

import aiohttp
import pytest

from seidev.chain import ChainServer, Recording, Replay, Window, _lines, _rows, window_of
from seidev.processes import ToolError

DATA = Path(__file__).resolve().parents[2] / "data" / "chain"


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.load(DATA / "rpc-memiavl.jsonl.zst")


@pytest.mark.parametrize("name", ["rpc-memiavl", "rpc-flatkv"])
def test_every_recorded_answer_is_given_byte_for_byte(name: str) -> None:
    replay = Replay(Recording.load(DATA / f"{name}.jsonl.zst"), Window(1, 1000))
    compared = 0
    for row in map(_rows.decode, _lines(DATA / f"{name}.jsonl.zst")):
        request = (row.req or "").encode()
        if row.path == "/status" or b'"status"' in request:
            continue
        if row.plane == "evm":
            answer = replay.evm_post(request)
        else:
            answer = replay.comet_get(row.path) if row.method == "GET" else replay.comet_post(request)
        assert (answer.status, answer.headers, answer.body) == (row.status, row.headers, row.body.encode()), row
        compared += 1
    assert compared > 2700


def test_window_of_a_comparison_ends_one_above_it(recording: Recording) -> None:
    assert recording.heights == range(421, 541)
    assert window_of(recording, first=None, last=None, head=None) == Window(421, 541)
    assert window_of(recording, first=430, last=440, head=None) == Window(430, 441)
    assert window_of(recording, first=None, last=None, head=2500) == Window(421, 2500)


def _comet(replay: Replay, path: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(replay.comet_get(path).body)
    return found


def _evm(replay: Replay, method: str, *params: object, identity: object = 1) -> dict[str, object]:
    request = json.dumps({"jsonrpc": "2.0", "id": identity, "method": method, "params": params})
    found: dict[str, object] = json.loads(replay.evm_post(request.encode()).body)
    return found


def test_status_shows_the_window(recording: Recording) -> None:
    replay = Replay(recording, Window(430, 2500, catching_up=True))
    shown = _comet(replay, "/status")["sync_info"]
    assert isinstance(shown, dict)
    assert (shown["earliest_block_height"], shown["latest_block_height"], shown["catching_up"]) == ("430", "2500", True)


def test_heights_outside_the_window_fail_as_on_a_node(recording: Recording) -> None:
    replay = Replay(recording, Window(430, 441))
    future = "height must be less than or equal to the head of the node's blockchain "
    assert _comet(replay, "/block?height=442")["data"] == future + "(requested height: 442, blockchain height: 441)"
    pruned = "height is not available (requested height: 429, base height: 430)"
    assert _comet(replay, "/block_results?height=429") == {"code": -32603, "message": "Internal error", "data": pruned}
    address = "0x10d81fdb4dd75dcf44f2280b6c25d7f5680c47e7"
    assert _evm(replay, "eth_getBalance", address, hex(442))["error"] == {
        "code": -32000,
        "message": "requested height 442 is not yet available; safe latest is 441: block height not yet available",
    }
    assert _evm(replay, "eth_getBlockByNumber", hex(442), True) == {"jsonrpc": "2.0", "id": 1, "result": None}
    error = _evm(replay, "eth_getBlockReceipts", hex(429))["error"]
    assert error == {"code": -32000, "message": "requested height 429 has been pruned; earliest available is 430"}


def test_unrecorded_reads_inside_the_window_are_errors(recording: Recording) -> None:
    replay = Replay(recording, Window(421, 2500))
    assert _comet(replay, "/block?height=2000")["code"] == -32000
    error = _evm(replay, "eth_getBalance", "0x" + "99" * 20, hex(430))["error"]
    assert isinstance(error, dict)
    assert error["code"] == -32000
    assert replay.comet_get("/nonexistent").status == 404


def test_batches_are_composed_and_ids_copied(recording: Recording) -> None:
    replay = Replay(recording, Window(421, 541))
    calls = [
        {"jsonrpc": "2.0", "id": "first", "method": "eth_getBlockTransactionCountByNumber", "params": ["0x21c"]},
        {"jsonrpc": "2.0", "id": None, "method": "eth_nosuch", "params": []},
        {"jsonrpc": "2.0", "id": 2.5, "method": "eth_chainId"},
    ]
    answers = json.loads(replay.evm_post(json.dumps(calls).encode()).body)
    assert [answer["id"] for answer in answers] == ["first", None, 2.5]
    assert answers[0]["result"] == "0x1"
    assert answers[1]["error"]["code"] == -32601
    assert answers[2]["result"] == "0xae3f2"


async def test_both_planes_on_real_sockets(recording: Recording) -> None:
    async with ChainServer(Replay(recording, Window(421, 2500))) as server, aiohttp.ClientSession() as session:
        async with session.get(f"{server.comet_url}/block?height=500") as response:
            block = await response.json()
        assert block["block"]["header"]["height"] == "500"
        async with session.post(server.evm_url, json={"jsonrpc": "2.0", "id": 7, "method": "eth_chainId"}) as response:
            assert await response.json() == {"jsonrpc": "2.0", "id": 7, "result": "0xae3f2"}


async def test_taken_port_is_told_in_a_sentence(recording: Recording) -> None:
    replay = Replay(recording, Window(421, 541))
    async with ChainServer(replay) as server:
        port = int(server.comet_url.rpartition(":")[2])
        with pytest.raises(ToolError, match=f"cannot listen on 127.0.0.1:{port}"):
            await ChainServer(replay, comet_port=port).start()


def test_genesis_is_cut_out_of_its_answer(recording: Recording) -> None:
    assert json.loads(recording.genesis())["chain_id"] == "seiops-local-1"


def test_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"plane":"comet"}\n')
    with pytest.raises(ToolError, match=r"wrong\.jsonl, line 1"):
        Recording.load(wrong)
