"""configure-genesis, set-genesis-peers and generate-identity."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import lzma
import tomllib
from pathlib import Path

import pytest
from sidecar_context import ContextFactory

from seiops.objectstore import StoreError
from seiops.seid import chains
from seiops.seid.chains import KnownChain, known_chain
from seiops.sidecar.node_id import read_node_id
from seiops.sidecar.task import TaskContext, TaskError
from seiops.sidecar.tasks import configure_genesis, generate_identity, set_genesis_peers
from seiops.sidecar.tasks.buckets import open_bucket

GENESIS = b'{"genesis_time":"2026-01-01T00:00:00Z","chain_id":"golden-1","app_state":{}}\n'
DIGEST = hashlib.sha256(GENESIS).hexdigest()
MARKER = ".sei-sidecar-genesis-done"
NODE_KEY = {"priv_key": {"value": base64.b64encode(bytes(range(64))).decode()}}
NODE_ID = "72dbb7336c76780023f83da4c355f2eeea85733b"


async def seed(ctx: TaskContext, name: str, body: bytes) -> None:
    store = open_bucket(ctx.settings.genesis_bucket, "", role="test")
    await store.put(f"{ctx.settings.chain_id}/{name}", body)


@pytest.mark.parametrize("expected", ["", DIGEST, DIGEST.upper()])
async def test_genesis_from_the_bucket(expected: str, context: ContextFactory, home: Path) -> None:
    ctx = context()
    await seed(ctx, "genesis.json", GENESIS)
    await configure_genesis.run(ctx, {"expectedGenesisHash": expected})
    path = home / "config" / "genesis.json"
    assert path.read_bytes() == GENESIS
    assert path.stat().st_mode & 0o777 == 0o644
    assert (home / MARKER).read_bytes() == b""
    path.unlink()
    await configure_genesis.run(ctx, {})
    assert not path.exists()


async def test_a_genesis_that_does_not_match_is_never_seen(context: ContextFactory, home: Path) -> None:
    ctx = context()
    await seed(ctx, "genesis.json", GENESIS)
    with pytest.raises(TaskError) as failure:
        await configure_genesis.run(ctx, {"expectedGenesisHash": "ab" * 32})
    text = str(failure.value)
    assert text.startswith("configure-genesis: verify-hash: downloaded genesis.json from memory://")
    assert f"has SHA-256 {DIGEST}, expected {'ab' * 32} [hint: the genesis trust root" in text
    assert list((home / "config").iterdir()) == []
    assert not (home / MARKER).exists()


async def test_a_missing_genesis_is_classified(context: ContextFactory, home: Path) -> None:
    with pytest.raises(
        TaskError, match=r'^configure-genesis: S3: object "golden-1/genesis.json" not found in .* \[hint'
    ):
        await configure_genesis.run(context(), {})
    assert list((home / "config").iterdir()) == []


async def test_a_stream_that_breaks_leaves_nothing(
    context: ContextFactory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        async def stream(self, key: str):  # type: ignore[no-untyped-def]
            yield b"half"
            raise StoreError("Unknown", "connection reset")

    monkeypatch.setattr(configure_genesis, "open_bucket", lambda *_, **__: Broken())
    (home / "config" / "genesis.json").write_text("the old one")
    with pytest.raises(TaskError, match=r"^writing .*/config/genesis\.json: connection reset$"):
        await configure_genesis.run(context(), {})
    assert [path.name for path in (home / "config").iterdir()] == ["genesis.json"]
    assert (home / "config" / "genesis.json").read_text() == "the old one"


async def test_a_known_chain_comes_with_the_build_or_is_held_to_its_digest(
    context: ContextFactory, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = KnownChain("pacific-1", DIGEST, len(GENESIS))
    monkeypatch.setattr(configure_genesis, "known_chain", lambda _: chain)
    ctx = context(SEI_CHAIN_ID="pacific-1")
    monkeypatch.setenv("SEI_SIDECAR_GENESIS_DIR", str(tmp_path))
    (tmp_path / "pacific-1.json").write_bytes(b"{}")
    with pytest.raises(TaskError, match="is not the genesis of pacific-1: its SHA-256 is not"):
        await configure_genesis.run(ctx, {})
    (tmp_path / "pacific-1.json").unlink()
    await seed(ctx, "genesis.json", b"{}")
    with pytest.raises(TaskError, match=f"expected {DIGEST}"):
        await configure_genesis.run(ctx, {})
    (tmp_path / "pacific-1.json").write_bytes(GENESIS)
    # the recorded rule: what the caller expects does not count for a chain known by its digest
    await configure_genesis.run(ctx, {"expectedGenesisHash": "00" * 32})
    assert (home / "config" / "genesis.json").read_bytes() == GENESIS


def test_the_chains_known_by_digest() -> None:
    pacific = known_chain("pacific-1")
    assert pacific is not None
    assert pacific.sha256.startswith("d7ce8349")
    assert known_chain("golden-1") is None


def test_a_packaged_genesis_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "files", lambda _: tmp_path)
    (tmp_path / "genesis").mkdir()
    (tmp_path / "genesis" / "c-1.json.xz").write_bytes(lzma.compress(GENESIS))
    assert KnownChain("c-1", DIGEST, len(GENESIS)).genesis() == GENESIS


PEERS = ["aa@n0:26656", f"{NODE_ID}@me:26656", "bb@n1:26656", f"{NODE_ID.upper()}@me2:1", "no-at-sign", ""]


async def test_peers_without_the_node_itself(context: ContextFactory, home: Path) -> None:
    ctx = context()
    (home / "config" / "node_key.json").write_text(json.dumps(NODE_KEY))
    (home / "config" / "config.toml").write_text('# mine\nmoniker = "m"\n[p2p]\npersistent-peers = "old@x:1"\n')
    await seed(ctx, "peers.json", json.dumps(PEERS).encode())
    await set_genesis_peers.run(ctx, {})
    text = (home / "config" / "config.toml").read_text()
    peers = tomllib.loads(text)["p2p"]["persistent-peers"]
    assert peers == f"aa@n0:26656,bb@n1:26656,{NODE_ID.upper()}@me2:1,no-at-sign,"
    assert text.startswith('# mine\nmoniker = "m"\n')
    await seed(ctx, "peers.json", b'["\xff@h:1", "\\ud800@h:1"]')
    await set_genesis_peers.run(ctx, {})
    peers = tomllib.loads((home / "config" / "config.toml").read_text())["p2p"]["persistent-peers"]
    assert peers == "\ufffd@h:1,\ufffd@h:1"
    await seed(ctx, "peers.json", b"null")
    await set_genesis_peers.run(ctx, {})
    assert tomllib.loads((home / "config" / "config.toml").read_text())["p2p"]["persistent-peers"] == ""


@pytest.mark.parametrize(
    "peers, key, config, problem",
    [
        (None, NODE_KEY, "", 'S3: object "golden-1/peers.json" not found in '),
        (b"xx", NODE_KEY, "", "parsing peers.json: "),
        (b"{}", NODE_KEY, "", "parsing peers.json: expected an array of strings"),
        (b"[1]", NODE_KEY, "", "parsing peers.json: expected an array of strings"),
        (b'["a@b:1"] x', NODE_KEY, "", "parsing peers.json: unexpected content"),
        (b"\xef\xbb\xbf[]", NODE_KEY, "", "parsing peers.json: "),
        (b"[" * 200_000, NODE_KEY, "", "parsing peers.json: nested too deeply"),
        (b"[]", None, "", "reading node_key.json: open "),
        (b"[]", {"priv_key": {"value": "AA=="}}, "", "invalid Ed25519 key in node_key.json"),
        (b"[]", NODE_KEY, "a = = 1", "reading config.toml: toml: "),
    ],
)
async def test_peers_that_cannot_be_set(
    peers: bytes | None, key: object, config: str, problem: str, context: ContextFactory, home: Path
) -> None:
    ctx = context()
    if peers is not None:
        await seed(ctx, "peers.json", peers)
    if key is not None:
        (home / "config" / "node_key.json").write_text(json.dumps(key))
    (home / "config" / "config.toml").write_text(config)
    with pytest.raises(TaskError) as failure:
        await set_genesis_peers.run(ctx, {})
    prefix = "" if config else "set-genesis-peers: "
    assert str(failure.value).startswith(prefix + problem)


async def test_a_new_identity(context: ContextFactory, home: Path) -> None:
    await generate_identity.run(context(), {"chainId": "golden-1", "moniker": 'node "zero"'})
    key = json.loads((home / "config" / "node_key.json").read_bytes())
    assert key["id"] == read_node_id(home)
    assert (home / "config" / "node_pubkey.txt").read_text().startswith("node:ed25519:public:")
    validator = json.loads((home / "config" / "priv_validator_key.json").read_bytes())
    public = base64.b64decode(validator["pub_key"]["value"])
    assert validator["address"] == hashlib.sha256(public).hexdigest()[:40].upper()
    assert (home / "config" / "validator_pubkey.txt").read_text() == f"validator:ed25519:public:{public.hex()}"
    assert tomllib.loads((home / "config" / "config.toml").read_text())["moniker"] == 'node "zero"'
    genesis = json.loads((home / "config" / "genesis.json").read_bytes())
    assert (genesis["chain_id"], genesis["initial_height"], genesis["app_state"]) == ("golden-1", "1", {})
    state = (home / "data" / "priv_validator_state.json").read_text()
    assert state == '{\n  "height": "0",\n  "round": 0,\n  "step": 0\n}'
    modes = {path.name: path.stat().st_mode & 0o777 for path in (home / "config").iterdir()}
    assert modes == {
        "config.toml": 0o644,
        "genesis.json": 0o644,
        "node_key.json": 0o600,
        "node_pubkey.txt": 0o600,
        "priv_validator_key.json": 0o600,
        "validator_pubkey.txt": 0o600,
    }


async def test_keys_and_genesis_survive_a_second_identity(context: ContextFactory, home: Path) -> None:
    params = {"chainId": "golden-1", "moniker": "m"}
    await generate_identity.run(context(), params)
    (home / ".sei-sidecar-identity-done").unlink()
    (home / "config" / "config.toml").write_text("gone = true\n")
    kept = {
        name: (home / "config" / name).read_bytes()
        for name in ("node_key.json", "priv_validator_key.json", "genesis.json")
    }
    await generate_identity.run(context(), {"chainId": "other", "moniker": "m2"})
    assert {name: (home / "config" / name).read_bytes() for name in kept} == kept
    config = tomllib.loads((home / "config" / "config.toml").read_text())
    assert (config["moniker"], "gone" in config) == ("m2", False)
    # the marker skips even the check of the parameters
    await generate_identity.run(context(), {})


@pytest.mark.parametrize("params, missing", [({"moniker": "m"}, "chainId"), ({"chainId": "c"}, "moniker")])
async def test_an_identity_needs_its_parameters(params: dict[str, str], missing: str, context: ContextFactory) -> None:
    with pytest.raises(TaskError, match=f"^generate-identity: missing required param '{missing}'$"):
        await generate_identity.run(context(), params)


async def test_a_broken_key_is_never_replaced(context: ContextFactory, home: Path) -> None:
    (home / "config" / "node_key.json").write_text("{}")
    with pytest.raises(TaskError, match=r"^generate-identity: initializing validator files: .*is no key file"):
        await generate_identity.run(context(), {"chainId": "c", "moniker": "m"})
    assert (home / "config" / "node_key.json").read_text() == "{}"


def test_the_first_config_is_what_seid_writes() -> None:
    data = Path(__file__).parents[2] / "data" / "seid-config" / "seid-defaults.json.gz"
    recorded = tomllib.loads(json.loads(gzip.decompress(data.read_bytes()))["full"]["config.toml"])
    packaged = json.loads((Path(generate_identity.__file__).parents[2] / "seid" / "new_node.json").read_bytes())
    assert packaged["config.toml"].keys() == recorded.keys() - {"moniker"}
