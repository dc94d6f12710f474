"""The traps T1 to T27: each has a check, and each check of stores, engines and hashes can tell good from bad on real data."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from typer.testing import CliRunner

from seiops.cli.main import app
from seiops.shadow import assemble, preflight
from seiops.shadow.preflight import Preflight
from seiops.shadow.traps import Check, Plan
from seiops.sidecar.tasks.export_migration import migration_facts
from support.digest_writer_flatkv import write_flatkv_snapshot
from support.digest_writer_pebble import DatabaseShape
from support.shadow_nodes import Node, block, flat_error, request_for, serving, with_state

DATA = Path(__file__).resolve().parents[2] / "data"
METRICS = {path.stem: path.read_text() for path in (DATA / "shadow").glob("*.prom")}


def _store(archive: str, folder: Path) -> Path:
    packed = (DATA / archive).read_bytes()
    content = zstandard.ZstdDecompressor().decompress(packed, max_output_size=1 << 27)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def _empty_store(folder: Path) -> Path:
    write_flatkv_snapshot(folder / "flatkv", 5, {}, [DatabaseShape()])
    (folder / "flatkv" / "current").symlink_to(f"snapshot-{5:020d}")
    return folder


async def _checked(shadow: Node, canonical: Node, **changes: Any) -> Preflight:
    async with serving(shadow, canonical) as session:
        urls = {name: node.comet_url + "/metrics" for name, node in
                (("shadow_metrics", shadow), ("canonical_metrics", canonical)) if node.metrics}  # fmt: skip
        given: dict[str, Any] = {"migration": True} | urls | with_state(shadow, canonical) | changes
        request = request_for(shadow, canonical, **given)
        comparator = assemble.comparator(request, session, 1)
        return await preflight.run(Plan(request, 1, "test-1", migration=migration_facts), comparator, session)


def _named(found: Preflight, name: str) -> Check:
    (check,) = [check for check in found.checks if check.name == name]
    return check


def _pair(**changes: Any) -> tuple[Node, Node]:
    return Node(latest=200, identity="a", **changes), Node(latest=400, identity="b", **changes)


async def test_every_trap_has_a_check() -> None:
    found = await _checked(*_pair())
    covered = {trap for check in found.checks for trap in check.traps.split()}
    assert covered == {f"T{number}" for number in range(1, 28)}
    assert {side: node["id"] for side, node in found.nodes.items()} == {"shadow": "a", "canonical": "b"}


@pytest.mark.parametrize(
    ("archive", "inside", "state", "said"),
    [
        ("shadow/migrated.tar.zst", "flatkv", "held", "the store at 10 says: complete"),
        ("digest/migrating.tar.zst", "flatkv", "failed", "the store at 15 says: in progress"),
        ("stores/tiny.tar.zst", "flatkv", "note", "the store at 8 says: no migration was ever started"),
        ("stores/tiny.tar.zst", "memiavl", "not checked", "not a FlatKV snapshot"),
        ("", "flatkv", "failed", "the store at 5 says: no EVM row at all"),
    ],
    ids=["complete", "in-the-middle", "from-the-beginning", "memiavl-directory", "empty"],
)
async def test_migration_is_read_from_the_store(
    tmp_path: Path, archive: str, inside: str, state: str, said: str
) -> None:
    folder = _store(archive, tmp_path) if archive else _empty_store(tmp_path)
    found = await _checked(*_pair(), flatkv_dir=str(folder / inside))
    check = _named(found, "migration-complete")
    assert (check.state, said in check.finding) == (state, True), check
    assert ("migration-complete" in {stop.name for stop in found.stopping}) is (state in ("failed", "not checked"))


@pytest.mark.parametrize(
    ("ours", "theirs", "engines", "baseline", "migration"),
    [
        ("flatkv-only", "memiavl-only", "held", "held", "not checked"),
        ("memiavl-only", "memiavl-only", "failed", "held", "not checked"),
        ("flatkv-only", "flatkv-only", "failed", "failed", "not checked"),
        ("migrated-live", "memiavl-only", "held", "held", "held"),
        ("migrated-after-restart", "memiavl-only", "held", "held", "not checked"),
    ],
)
async def test_engines_are_told_by_real_metrics(
    ours: str, theirs: str, engines: str, baseline: str, migration: str
) -> None:
    shadow, canonical = _pair()
    shadow.metrics, canonical.metrics = METRICS[ours], METRICS[theirs]
    found = await _checked(shadow, canonical)
    states = {name: _named(found, name).state for name in ("two-engines", "clean-baseline", "migration-complete")}
    assert states == {"two-engines": engines, "clean-baseline": baseline, "migration-complete": migration}
    stops = {stop.name for stop in found.stopping}
    # a node with both engines whose metric is gone has to be asked through its store
    assert ("migration-complete" in stops) is (ours == "migrated-after-restart")


async def test_metric_of_a_migration_that_still_runs_fails() -> None:
    shadow, canonical = _pair()
    running = METRICS["migrated-live"].splitlines()
    at = next(index for index, line in enumerate(running) if line.startswith("sei_chain_seidb_migration_version{"))
    running[at] = running[at].rpartition(" ")[0] + " 0"
    shadow.metrics, canonical.metrics = "\n".join(running) + "\n", METRICS["memiavl-only"]
    check = _named(await _checked(shadow, canonical), "migration-complete")
    assert (check.state, check.finding) == ("failed", "migration version 0")


@pytest.mark.parametrize(
    ("ours", "theirs", "state"),
    [("AA", "EE", "held"), ("EE", "AA", "held"), ("AA", "AA", "failed")],
    ids=["canonical-differs", "shadow-differs", "both-like-the-network"],
)
async def test_own_app_hashes_tell_engines_apart(ours: str, theirs: str, state: str) -> None:
    """The header of the next block shows what the network committed: AA and the height in `support.shadow_nodes.block`."""
    shadow, canonical = _pair()
    shadow.commits(199, block(200)["block"]["header"]["app_hash"] if ours == "AA" else "EE" * 32)
    canonical.commits(399, block(400)["block"]["header"]["app_hash"] if theirs == "AA" else "EE" * 32)
    assert _named(await _checked(shadow, canonical), "own-app-hashes").state == state


async def test_own_app_hash_of_a_tip_nobody_has_gone_beyond_is_not_checked() -> None:
    shadow, canonical = _pair()
    shadow.commits(199, "EE" * 32)
    canonical.commits(400, "EE" * 32)
    check = _named(await _checked(shadow, canonical), "own-app-hashes")
    assert (check.state, "neither node has block 401 yet" in check.finding) == ("not checked", True)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("distinct-nodes", lambda ours, theirs: setattr(ours, "identity", "b")),
        ("same-chain", lambda ours, theirs: setattr(theirs, "network", "other-1")),
        ("right-direction", lambda ours, theirs: setattr(theirs, "latest", 250)),
        ("retained-history", lambda ours, theirs: setattr(theirs, "earliest", 7)),
        ("same-base", lambda ours, theirs: setattr(theirs, "earliest", 7)),
        ("lenient-decoder", lambda ours, theirs: ours.plant(
            "block_results", 3, {"height": "3", "txs_results": [{"code": 2, "log": "tx parse error: unknown field"}]})),
        ("executors", lambda ours, theirs: ours.plant(
            "block_results", 3, {"height": "3", "txs_results": [{"evm_tx_info": {"txHash": "0x1"}}, {}]})),
        ("traces-work", lambda ours, theirs: theirs.plant_state("debug_traceBlockByNumber", 2, None)),
        ("headers-mean-something", None),
    ],
)  # fmt: skip
async def test_each_trap_is_sprung(name: str, spoil: Any) -> None:
    shadow, canonical = _pair()
    before = await _checked(shadow, canonical)
    assert {check.state for check in before.checks if check.name == name} == {"held"}
    if spoil is not None:
        spoil(shadow, canonical)
    found = await _checked(shadow, canonical, migration=spoil is not None)
    assert "failed" in {check.state for check in found.checks if check.name == name}
    assert name in {stop.name for stop in found.stopping}


async def test_node_that_is_silent_is_not_checked_and_never_held() -> None:
    shadow, canonical = _pair()
    canonical.plant("status", 0, flat_error("gone"))
    found = await _checked(shadow, canonical)
    for name in ("distinct-nodes", "same-chain", "right-direction", "retained-history", "same-base", "keeps-up"):
        assert _named(found, name).state == "not checked"


@pytest.mark.parametrize(
    ("arguments", "same", "status"),
    [(["--strict"], False, 0), (["--strict"], True, 2), ([], True, 0), (["--output", "yaml"], False, 1),
     (["--shadow-evm-rpc", "http://127.0.0.1:1"], False, 1)],
    ids=["holds", "strict-stops", "warns", "wrong-output", "half-set"],
)  # fmt: skip
async def test_command_line_says_it_by_its_status(arguments: list[str], same: bool, status: int) -> None:
    shadow, canonical = Node(latest=200, identity="a"), Node(latest=400, identity="a" if same else "b")
    async with serving(shadow, canonical):
        command = ["shadow", "preflight", "--rpc", shadow.comet_url, "--canonical-rpc", canonical.comet_url, *arguments]
        found = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert found.exit_code == status, found.output
    if status == 1:
        assert found.stderr.startswith("Error: ")
    else:
        assert "distinct-nodes" in found.stdout.replace("\n", "")
