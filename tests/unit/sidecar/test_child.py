"""Children that print, linger, die and are cancelled."""

import asyncio
import os
import time
from pathlib import Path

import pytest

from seiops.sidecar import child

from .fakes import until


async def sh(script, **how):
    return await child.run(["bash", "-c", script], environment=os.environ, **how)


async def test_status_and_streams_are_kept():
    ended = await sh("echo out; echo err >&2; exit 3")
    assert (ended.how, ended.status, ended.stdout.text(), ended.stderr.text()) == ("exit status 3", 3, "out\n", "err\n")


async def test_a_killed_child_says_by_what():
    assert (await sh("kill -9 $$")).how == "signal: killed"


async def test_only_the_beginning_and_the_end_of_a_flood_are_kept():
    ended = await sh("echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last", keep_bytes=2000)
    assert ended.stdout.total == 20_000_012
    assert not ended.stdout.complete
    assert len(ended.stdout.head) + len(ended.stdout.tail) == 2000
    assert ended.stdout.text().startswith("first\n")
    assert "19998012 bytes left out" in ended.stdout.text()
    assert ended.stdout.text().endswith("last\n")


async def test_lines_come_as_they_are_printed():
    lines: list[bytes] = []
    await sh("printf 'a\\nb\\nc'", on_line=lines.append)
    assert lines == [b"a", b"b", b"c"]


async def test_what_a_child_leaves_behind_neither_lives_on_nor_holds_its_result(tmp_path):
    started = time.monotonic()
    ended = await sh(
        f"(echo $BASHPID > {tmp_path}/pid; sleep 60) & while [ ! -s {tmp_path}/pid ]; do sleep 0.01; done; exit 0"
    )
    assert ended.status == 0
    assert time.monotonic() - started < 30
    await gone(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("term_seconds", [0.0, 0.2])
async def test_cancelling_ends_the_whole_group(tmp_path, term_seconds):
    script = f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/pid; wait"
    running = asyncio.create_task(sh(script, term_seconds=term_seconds))
    await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(int((tmp_path / "pid").read_text()))


async def test_a_program_that_is_not_there_is_an_os_error():
    with pytest.raises(FileNotFoundError):
        await child.run(["/no/such/program"], environment={})


async def test_the_child_is_offered_to_the_kernel_when_memory_runs_out():
    waits = f"until [ $(cat /proc/$$/oom_score_adj) = {child.OOM_SCORE} ]; do sleep 0.01; done"
    assert (await sh(f"{waits}")).status == 0


async def gone(pid):
    await until(lambda: not Path(f"/proc/{pid}/exe").exists())
