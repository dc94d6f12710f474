"""The digest task with real child processes: stand-ins for seidb, and our own engine over recorded stores."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from typer.testing import CliRunner
from watchfiles import awatch

from seiops.cli.digest import app as digest_cli
from seiops.digest.child import ChildRequest
from seiops.digest.localize import decode_tree
from seiops.evidence.verify import verify
from seiops.objectstore import open_store
from seiops.shadow.manifest import read_chain
from seiops.sidecar import settings
from seiops.sidecar.task import TaskContext, TaskError
from seiops.sidecar.tasks.evm_logical_digest import run
from support.digest_recorded import Unpacker
from support.digest_reports import report
from support.silent import Silent
from support.waiting import until

HEIGHT = 100


class World:
    """A sidecar's surroundings: settings, a bucket on disk, and stand-ins for seidb that it allows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = root / "bucket"
        self.flatkv_dir = root / "flat"
        self.flatkv_dir.mkdir()
        self.environment = dict.fromkeys(settings.REQUIRED, "x")
        self.shown: list[dict[str, Any]] = []

    def context(self) -> TaskContext:
        loaded = settings.load(dict(self.environment), home=str(self.root), port=None)
        nothing: Any = None
        return TaskContext(
            "id", "evm-logical-digest", 1, self.root, loaded, cast(aiohttp.ClientSession, nothing),
            logging.getLogger("test"), nothing, nothing, self.shown.append,
        )  # fmt: skip

    def seidb(self, script: str) -> str:
        """An allowed stand-in; `script` is the body of a shell script."""
        path = self.root / "seidb-stand-in"
        path.write_text("#!/bin/bash\n" + script)
        path.chmod(0o755)
        self.environment["SEI_SIDECAR_SEIDB_ALLOW"] = str(path)
        return str(path)

    def printing(self, flatkv: str, memiavl: str) -> str:
        """A stand-in that prints one text for FlatKV and another for memiavl."""
        (self.root / "f.txt").write_text(flatkv)
        (self.root / "m.txt").write_text(memiavl)
        return self.seidb(
            f'case "$*" in *"--backend flatkv"*) cat {self.root}/f.txt;; *) cat {self.root}/m.txt;; esac\n'
        )

    async def run(self, **params: Any) -> dict[str, Any]:
        given = {
            "flatkvDir": str(self.flatkv_dir),
            "memiavlDir": "/no/mem",
            "height": HEIGHT,
            "bucket": self.bucket.as_uri(),
            "region": "eu",
            "prefix": "dig",
        }
        return await run(self.context(), {**given, **params})

    async def failure(self, **params: Any) -> TaskError:
        with pytest.raises(TaskError) as failed:
            await self.run(**params)
        assert self.published() == []
        return failed.value

    def checksum(self, path: str) -> str:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    async def until(self, marker: Path) -> int:
        """Waits until a stand-in has written its process id, whole, into a file."""
        async with asyncio.timeout(30):
            async for _ in awatch(self.root, yield_on_timeout=True, rust_timeout=50):
                if (process := self.written(marker)) is not None:
                    return process
        raise AssertionError("unreachable")

    def written(self, marker: Path) -> int | None:
        return int(marker.read_text()) if marker.exists() else None

    def alive(self, process: int) -> bool:
        return Path(f"/proc/{process}").exists()

    def published(self) -> list[str]:
        return sorted(path.name for path in self.bucket.rglob("*.gz"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_seidb_is_run_and_its_verdict_published(world: World) -> None:
    path = world.printing(report("flatkv"), report("memiavl"))
    result = await world.run(seidbPath=path)
    assert result["match"] is True
    assert result["engine"] == "seidb"
    assert result["engineVersions"] == {"seidb": f"sha256:{world.checksum(path)}"}
    for entry in result["records"]:
        payload = gzip.decompress((world.bucket / entry["key"]).read_bytes())
        assert hashlib.sha256(payload).hexdigest() == entry["sha256"]
        assert json.loads(payload)["engine"] == "seidb"
    assert world.published() == ["endpoint-digest-100-semantic.json.gz", "endpoint-digest-100-translator.json.gz"]


async def test_a_normalization_named_twice_is_run_once(world: World) -> None:
    path = world.printing(report("flatkv"), report("memiavl"))
    result = await world.run(seidbPath=path, normalizations=["semantic", "semantic"])
    assert [entry["normalization"] for entry in result["records"]] == ["semantic"]


async def test_both_engines_have_to_agree(world: World, unpacked: Unpacker) -> None:
    folder = unpacked("tiny")
    world.flatkv_dir = folder / "FLATDIR"
    path = world.printing(report("flatkv", 8), report("memiavl", 8))
    error = await world.failure(engine="both", seidbPath=path, memiavlDir=str(folder / "MEMDIR"), height=8)
    assert "disagree on flatkv at height 8: account" in str(error)


async def test_our_engine_proves_a_recorded_store(world: World, unpacked: Unpacker) -> None:
    folder = unpacked("tiny")
    world.flatkv_dir = folder / "FLATDIR"
    world.environment["SEI_SIDECAR_DIGEST_ENGINE"] = "native"
    result = await world.run(memiavlDir=str(folder / "MEMDIR"), height=8, threads=2, memoryLimitMiB=512)
    assert result["match"] is True
    assert result["engine"] in ("native", "reference")
    assert result["sides"]["flatkv"]["final"] == "7E77CDDEAE9A6DE065190772A446CD1060DF3030908936A4FBD0545982E6F6AC"
    assert {side["version"] for side in result["sides"].values()} == {8}


async def test_shard_trees_are_published_beside_the_records_and_sealed(world: World, unpacked: Unpacker) -> None:
    folder = unpacked("migrating")
    world.flatkv_dir = folder / "FLATDIR"
    result = await world.run(engine="native", memiavlDir=str(folder / "MEMDIR"), height=9)
    assert result["match"] is False
    assert [tree["side"] for tree in result["shardTrees"]] == ["flatkv", "memiavl"]
    finals = {}
    for tree in result["shardTrees"]:
        assert tree["key"] == f"dig/endpoint-digest-9-{tree['side']}.tree.json.gz"
        payload = gzip.decompress((world.bucket / tree["key"]).read_bytes())
        assert hashlib.sha256(payload).hexdigest() == tree["sha256"]
        read = decode_tree(json.loads(payload), tree["key"])
        assert read.version == 9
        finals[tree["side"]] = read.final
    sides = result["sides"]
    assert finals == {"flatkv": sides["flatkv"]["final"], "memiavl": sides["memiavl/semantic"]["final"]}
    seals = {tree["side"]: tree["sha256"] for tree in result["shardTrees"]}
    for entry in result["records"]:
        record = json.loads(gzip.decompress((world.bucket / entry["key"]).read_bytes()))
        assert record["shard_trees"] == seals
    urls = [f"{world.bucket.as_uri()}/{tree['key']}" for tree in result["shardTrees"]]
    found = await asyncio.to_thread(CliRunner().invoke, digest_cli, ["diff", *urls, "--format", "json"])
    assert found.exit_code == 2, found.output
    assert json.loads(found.output)["shards"]


async def test_the_run_writes_a_manifest_that_verifies(world: World, unpacked: Unpacker) -> None:
    folder = unpacked("tiny")
    world.flatkv_dir = folder / "FLATDIR"
    result = await world.run(engine="native", memiavlDir=str(folder / "MEMDIR"), height=8)
    store = open_store(f"{world.bucket.as_uri()}/dig")
    entries = [entry async for entry, _ in read_chain(store, result["manifest"])]
    assert [entry.kind for entry in entries] == ["run", "tree", "tree", "digest", "digest", "end"]
    assert {entry.key: entry.sha256 for entry in entries if entry.key} == {
        one["key"].removeprefix("dig/"): one["sha256"] for one in result["shardTrees"] + result["records"]
    }
    found = await verify(store, "x", Silent())
    assert found.findings == []
    assert (found.runs[0].verdict, found.runs[0].finished, found.runs[0].info["chain"]) == ("match", True, "x")
    (world.bucket / result["shardTrees"][0]["key"]).write_bytes(gzip.compress(b"{}"))
    assert {one.name for one in (await verify(store, "x", Silent())).findings} == {"seal-differs", "size-differs"}


async def test_shard_trees_can_be_left_out(world: World, unpacked: Unpacker) -> None:
    folder = unpacked("tiny")
    world.flatkv_dir = folder / "FLATDIR"
    result = await world.run(engine="native", memiavlDir=str(folder / "MEMDIR"), height=8, shardTrees=False)
    assert result["shardTrees"] == []
    assert not any("tree" in name for name in world.published())


async def test_seidb_makes_no_shard_trees(world: World) -> None:
    path = world.printing(report("flatkv"), report("memiavl"))
    result = await world.run(seidbPath=path)
    assert result["shardTrees"] == []
    record = json.loads(gzip.decompress((world.bucket / result["records"][0]["key"]).read_bytes()))
    assert "shard_trees" not in record


async def test_stores_that_differ_complete_with_the_verdict_or_fail_on_request(
    world: World, unpacked: Unpacker
) -> None:
    folder = unpacked("migrating")
    params = {
        "flatkvDir": str(folder / "FLATDIR"),
        "memiavlDir": str(folder / "MEMDIR"),
        "height": 9,
        "engine": "native",
    }
    result = await world.run(**params)
    assert result["match"] is False
    assert len(world.published()) == 4
    with pytest.raises(TaskError, match="the digests differ at height 9") as failed:
        await world.run(**params, failOnMismatch=True)
    assert failed.value.result is not None
    assert failed.value.result["match"] is False


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda text: text.replace("version: 100", "version: 99"), "flatkv opened version 99 != requested height 100"),
        (lambda text: text[: len(text) // 2], "flatkv digest: seidb output missing FINAL_DIGEST line"),
        (lambda text: "", "flatkv digest: seidb output missing 'version:' line"),
        (lambda text: text.replace("CE77", "CE78"), "does not follow from the bucket digests"),
    ],
)
async def test_a_report_that_proves_nothing_publishes_nothing(
    world: World, damage: Callable[[str], str], expected: str
) -> None:
    path = world.printing(damage(report("flatkv")), report("memiavl"))
    assert expected in str(await world.failure(seidbPath=path))


async def test_two_builds_of_seidb_are_not_compared(world: World) -> None:
    path = world.printing(report("flatkv"), report("memiavl", fourth="legacy"))
    assert "different builds of seidb" in str(await world.failure(seidbPath=path))


async def test_only_allowed_programs_run(world: World) -> None:
    world.seidb("exit 0")
    error = await world.failure(seidbPath="/bin/false")
    assert '"/bin/false" is not allowed: add it to SEI_SIDECAR_SEIDB_ALLOW' in str(error)


async def test_a_missing_seidb_is_the_error_callers_know(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert str(await world.failure()).endswith('exec: "seidb": executable file not found in $PATH')


async def test_a_killed_child_is_a_failed_task_that_says_so(world: World) -> None:
    error = await world.failure(seidbPath=world.seidb("kill -9 $$\n"))
    assert str(error).endswith(": signal: killed")
    assert error.hint is not None
    assert "ran out of memory" in error.hint


async def test_stderr_is_quoted_and_bounded(world: World) -> None:
    path = world.seidb("for i in $(seq 1 30000); do echo line $i >&2; done; exit 3\n")
    text = str(await world.failure(seidbPath=path))
    assert "exit status 3 (stderr: line 1\n" in text
    assert " bytes ...\n" in text
    assert text.endswith("line 30000)")
    assert len(text) < 80_000


async def test_the_child_gives_way_and_is_bounded(world: World) -> None:
    path = world.seidb("nice >&2; ulimit -d >&2; exit 1\n")
    error = await world.failure(seidbPath=path, memoryLimitMiB=256)
    assert "(stderr: 19\n262144)" in str(error)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of the system call differs")
async def test_the_child_waits_for_everybody_at_the_disk(world: World) -> None:
    asks = "import ctypes, sys; print(ctypes.CDLL(None).syscall(252, 1, 0) >> 13, file=sys.stderr)"
    error = await world.failure(seidbPath=world.seidb(f"{sys.executable} -c '{asks}'; exit 1\n"))
    assert "(stderr: 3)" in str(error)  # the idle class


@contextlib.contextmanager
def held_reader(store: Path) -> Iterator[Callable[[], bool]]:
    """Holds whoever reads a FlatKV store at its log, a pipe that never ends; the condition is that somebody has come."""
    log = store / "changelog" / "99.wal.u"
    os.mkfifo(log)
    writers: list[int] = []

    def has_come() -> bool:
        with contextlib.suppress(OSError):  # no reader yet
            writers.append(os.open(log, os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    try:
        yield has_come
    finally:
        for writer in writers:
            os.close(writer)


def child_of(parent: int) -> int:
    """The engine's process that a parent started."""
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in task.read_text().split():
            with contextlib.suppress(OSError):
                if b"seiops.digest.child" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                    return int(child)
    raise AssertionError("no such process")


async def test_cancelling_ends_our_own_engine(world: World, unpacked: Unpacker) -> None:
    folder = unpacked("tiny")
    world.flatkv_dir = folder / "FLATDIR"
    with held_reader(world.flatkv_dir) as has_come:
        task = asyncio.create_task(world.run(engine="native", memiavlDir=str(folder / "MEMDIR"), height=8))
        await asyncio.to_thread(until, has_come)
        process = child_of(os.getpid())
        assert os.getpriority(os.PRIO_PROCESS, process) == 19
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not world.alive(process)
    assert world.published() == []


async def test_our_own_engine_dies_with_its_parent(world: World, unpacked: Unpacker) -> None:
    store = unpacked("tiny") / "FLATDIR"
    request = ChildRequest("flatkv", str(store), 8).encode()
    starts = f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'seiops.digest.child', {request!r}])"
    with held_reader(store) as has_come:
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", starts)
        await asyncio.to_thread(until, has_come)
        process = child_of(parent.pid)
        parent.kill()
        await parent.wait()
        await asyncio.to_thread(until, lambda: not world.alive(process))


async def test_a_child_that_outgrows_its_bound_fails_alone(world: World) -> None:
    eater = 'exec python3 -c "x = bytearray(600 * 1024 * 1024)"\n'
    error = await world.failure(seidbPath=world.seidb(eater), memoryLimitMiB=64)
    assert "MemoryError" in str(error)


async def test_cancelling_ends_the_child_and_leaves_no_scratch_copy(world: World) -> None:
    started = world.root / "started"
    path = world.seidb(
        f"mkdir {world.flatkv_dir}/.seidb-flatkv-tool-2; echo $$ > {started}.tmp; mv {started}.tmp {started}\n"
        "sleep 600 & wait\n"
    )
    (world.flatkv_dir / ".seidb-flatkv-tool-1").mkdir()
    task = asyncio.create_task(world.run(seidbPath=path))
    process = await world.until(started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not world.alive(process)
    assert [path.name for path in world.flatkv_dir.iterdir()] == [".seidb-flatkv-tool-1"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"bucket": ""}, "missing required param 'bucket'"),
        ({"region": None}, "missing required param 'region'"),
        ({"height": -1}, "'height' must be a positive block height, got -1"),
        ({"flatkvDir": ""}, "missing required param 'flatkvDir'"),
        ({"memiavlDir": ""}, "missing required param 'memiavlDir'"),
        ({"normalizations": ["independent"]}, 'unknown normalization "independent" (want semantic|translator)'),
        ({"engine": "fast"}, 'unknown engine "fast" (want seidb|native|both)'),
        ({"memiavlOpenMode": "guess"}, 'unknown memiavlOpenMode "guess" (want snapshot|replay)'),
        ({"threads": 0}, "'threads' must be between 1 and 64, got 0"),
        ({"memoryLimitMiB": -1}, "'memoryLimitMiB' must not be negative, got -1"),
        ({"bucket": "http://x"}, "building S3 uploader"),
    ],
)
async def test_bad_parameters_are_named(world: World, params: dict[str, Any], expected: str) -> None:
    assert str(await world.failure(**params)).startswith("evm-logical-digest: ")
    assert expected in str(await world.failure(**params))
