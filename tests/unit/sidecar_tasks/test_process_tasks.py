"""stop-seid, restart-seid, reset-data and await-condition on real processes that obey, ignore, fork or are gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sidecar_context import ContextFactory
from sidecar_stands import FORKS, IGNORES, OBEYS, Child, Rpc, status

from seiops.seid import process
from seiops.seid.process import Handle, SeidProcess, find, is_node, is_seid
from seiops.sidecar.task import TaskError
from seiops.sidecar.tasks import await_condition, reset_data, restart_seid, seid_control, stop_seid

Rpcs = Callable[[], Awaitable[Rpc]]
Seid = Callable[..., Child]


async def test_stop_ends_it_with_one_signal(context: ContextFactory, seid: Seid) -> None:
    child = seid(OBEYS)
    await stop_seid.run(context(), {})
    assert child.received() == "TERM\n"


async def test_stop_never_kills(context: ContextFactory, seid: Seid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seid_control, "STOP_GRACE_S", 0.3)
    child = seid(IGNORES)
    with pytest.raises(TaskError) as failure:
        await stop_seid.run(context(), {})
    assert str(failure.value) == (
        f"seid pid {child.pid} still alive 300ms after SIGTERM; "
        "leaving it running (not force-killing a validator mid-commit)"
    )
    assert child.process.poll() is None
    child.process.kill()
    assert child.received() == "TERM\n"


async def test_stop_takes_a_fork_with_it(context: ContextFactory, seid: Seid) -> None:
    child = seid(FORKS)
    child.enter(int(child.first_line))
    await stop_seid.run(context(), {})
    assert sorted(child.received().splitlines()) == ["child TERM", "parent TERM"]


async def test_stop_without_a_process(context: ContextFactory, seid: Seid, rpcs: Rpcs) -> None:
    await stop_seid.run(context(), {})
    rpc = await rpcs()
    with pytest.raises(TaskError) as failure:
        await stop_seid.run(context(SEI_SIDECAR_RPC_URL=rpc.url), {})
    assert str(failure.value) == (
        'seid RPC is serving but its process was not found in /proc: process "seid" not found in /proc — '
        "refusing to report a stop that did not happen"
    )
    rpc.http_status = 500
    await stop_seid.run(context(SEI_SIDECAR_RPC_URL=rpc.url), {})


async def test_stop_leaves_lookalikes_alone(context: ContextFactory, seid: Seid) -> None:
    version = seid(OBEYS, arguments=("version", "start"))
    starter = seid(OBEYS, name="seid-init")
    await stop_seid.run(context(), {})
    assert version.process.poll() is None
    assert starter.process.poll() is None


async def test_a_cancelled_stop_ends_at_once(context: ContextFactory, seid: Seid) -> None:
    child = seid(IGNORES)
    running = asyncio.ensure_future(stop_seid.run(context(), {}))
    assert child.process.stdout is not None
    assert await asyncio.to_thread(child.process.stdout.readline) == "TERM\n"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_used_pid_is_somebody_else(seid: Seid) -> None:
    child = seid(OBEYS)
    found = find(is_node)
    assert found is not None
    with Handle(SeidProcess(found.pid, found.started - 1)) as stranger:
        assert not stranger.alive
        stranger.send(process.signal.SIGTERM)
    assert child.process.poll() is None


@pytest.mark.parametrize(
    "comm, arguments, node, any_seid",
    [
        ("seid", ["seid", "start"], True, True),
        ("seid", ["/usr/bin/seid", "start", "--home", "x"], True, True),
        ("seid", ["seid", "version"], False, True),
        ("seid", ["seid"], False, True),
        ("seid", [], False, False),
        ("seid-init", ["seid-init", "start"], False, False),
        ("sh", ["sh", "-c", "seid start"], False, False),
        ("cosmovisor", ["seid", "start"], False, True),
    ],
)
def test_the_lookup_rules(comm: str, arguments: list[str], node: bool, any_seid: bool) -> None:
    assert (is_node(comm, arguments), is_seid(comm, arguments)) == (node, any_seid)


async def test_restart_waits_for_the_rpc(
    context: ContextFactory, seid: Seid, rpcs: Rpcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart_seid, "PROBE_INTERVAL_S", 0.02)
    child, rpc = seid(OBEYS), await rpcs()
    rpc.http_status = 503
    running = asyncio.ensure_future(restart_seid.run(context(SEI_SIDECAR_RPC_URL=rpc.url), {}))
    async with asyncio.timeout(20):
        while len(rpc.asked) < 3:  # noqa: ASYNC110  the stand-in only counts
            await asyncio.sleep(0.01)
    assert not running.done()
    rpc.http_status = 200
    await running
    assert child.received() == "TERM\n"


async def test_restart_gives_up(context: ContextFactory, seid: Seid, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restart_seid, "COMES_UP_WITHIN_S", 0.2)
    with pytest.raises(TaskError, match=r"^seid RPC did not come up within 200ms after restart$"):
        await restart_seid.run(context(), {})


async def test_restart_of_a_held_node_is_refused_before_anything_is_stopped(
    context: ContextFactory, seid: Seid, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, ctx = seid(OBEYS), context()

    async def held() -> bool:
        return True

    monkeypatch.setattr(ctx.records, "held", held)
    with pytest.raises(TaskError, match=r"^restart-seid: the node is held by mark-not-ready"):
        await restart_seid.run(ctx, {})
    assert child.process.poll() is None


async def test_reset_wipes_data_and_nothing_else(context: ContextFactory, home: Path, seid: Seid) -> None:
    data = home / "data"
    (data / "application.db").mkdir()
    (data / "application.db" / "x").write_bytes(b"a" * 1000)
    outside = home.parent / "outside"
    outside.mkdir()
    (outside / "keep").write_text("k")
    (data / "link").symlink_to(outside)
    (home / "config" / "genesis.json").write_text("{}")
    for name in (".sei-sidecar-statesync-done", ".sei-sidecar-snapshot-done", ".sei-sidecar-genesis-done"):
        (home / name).touch()
    assert await reset_data.run(context(), {}) == {"wipedBytes": 1000}
    assert [path.name for path in data.iterdir()] == ["priv_validator_state.json"]
    state = data / "priv_validator_state.json"
    assert state.read_bytes() == b'{"height":"0","round":0,"step":0}\n'
    assert state.stat().st_mode & 0o777 == 0o600
    assert (outside / "keep").exists()
    assert not (home / ".sei-sidecar-statesync-done").exists()
    assert (home / ".sei-sidecar-snapshot-done").exists()
    assert await reset_data.run(context(), {}) == {"wipedBytes": 34}


async def test_reset_makes_a_missing_folder(context: ContextFactory, home: Path, seid: Seid) -> None:
    (home / "data").rmdir()
    assert await reset_data.run(context(), {}) == {"wipedBytes": 0}
    assert (home / "data" / "priv_validator_state.json").exists()


async def test_reset_refuses_while_seid_serves_or_runs(
    context: ContextFactory, home: Path, seid: Seid, rpcs: Rpcs
) -> None:
    (home / "data" / "x").write_text("precious")
    rpc = await rpcs()
    with pytest.raises(TaskError) as failure:
        await reset_data.run(context(SEI_SIDECAR_RPC_URL=rpc.url), {})
    assert str(failure.value) == (
        "reset-data: seid RPC is serving; node is not held — refusing to wipe a live data directory"
    )
    child = seid(OBEYS)
    # its RPC is too slow for the probe: the process table still knows
    rpc.delay_s = 30
    with pytest.raises(TaskError, match=rf"reset-data: seid is running \(pid {child.pid}\)"):
        await reset_data.run(context(SEI_SIDECAR_RPC_URL=rpc.url), {})
    assert (home / "data" / "x").read_text() == "precious"


@pytest.mark.parametrize(
    "params, problem",
    [
        ({}, "condition is required"),
        ({"condition": "x"}, 'unknown condition "x"'),
        ({"condition": "height"}, "targetHeight must be > 0, got 0"),
        ({"condition": "height", "targetHeight": -1}, "targetHeight must be > 0, got -1"),
        ({"condition": "catchingUp", "action": "REBOOT"}, 'unknown action "REBOOT"'),
        (
            {"condition": "height", "targetHeight": "5"},
            "parsing params: targetHeight: expected an integer, got a string",
        ),
    ],
)
async def test_await_checks_before_it_waits(params: dict[str, object], problem: str, context: ContextFactory) -> None:
    with pytest.raises(TaskError) as failure:
        await await_condition.run(context(), params)
    assert str(failure.value) == problem


async def test_await_height_survives_errors_and_a_low_height(context: ContextFactory, rpcs: Rpcs) -> None:
    rpc = await rpcs()
    rpc.http_status = 500
    reports: list[dict[str, object]] = []
    ctx = context(SEI_SIDECAR_RPC_URL=rpc.url)
    ctx.report = reports.append
    running = asyncio.ensure_future(await_condition.run(ctx, {"condition": "height", "targetHeight": 5}))
    await asked(rpc, 2)
    rpc.http_status, rpc.status = 200, status(4)
    await asked(rpc, 5)
    assert not running.done()
    rpc.status = status(5)
    await running
    assert reports[-1] == {"phase": "awaiting height", "done": 5, "total": 5, "unit": "blocks"}


async def test_caught_up_at_height_one_is_not_caught_up(context: ContextFactory, rpcs: Rpcs) -> None:
    rpc = await rpcs()
    rpc.status = status(1)
    running = asyncio.ensure_future(
        await_condition.run(context(SEI_SIDECAR_RPC_URL=rpc.url), {"condition": "catchingUp"})
    )
    await asked(rpc, 3)
    rpc.status = status(7, catching_up=True)
    await asked(rpc, 6)
    assert not running.done()
    rpc.status = status(7)
    await running


async def test_await_with_a_deadline(context: ContextFactory) -> None:
    params = {"condition": "catchingUp", "timeoutSeconds": 1}
    with pytest.raises(TaskError, match='condition "catchingUp" was not met within 1 s'):
        await await_condition.run(context(), params)


async def test_await_then_stop(
    context: ContextFactory, rpcs: Rpcs, seid: Seid, monkeypatch: pytest.MonkeyPatch
) -> None:
    rpc = await rpcs()
    ctx = context(SEI_SIDECAR_RPC_URL=rpc.url)
    params = {"condition": "height", "targetHeight": 5, "action": "SIGTERM_SEID"}
    with pytest.raises(TaskError, match=r'^finding seid process: process "seid" not found in /proc$'):
        await await_condition.run(ctx, params)
    child = seid(OBEYS)
    await await_condition.run(ctx, params)
    assert child.received() == "TERM\n"
    monkeypatch.setattr(await_condition, "GRACE_S", 0.2)
    stubborn = seid(IGNORES)
    await await_condition.run(ctx, params)
    assert stubborn.received() == "TERM\n"
    assert stubborn.process.returncode == -9


async def asked(rpc: Rpc, more: int) -> None:
    """Waits until the stand-in was asked that many times more."""
    wanted = len(rpc.asked) + more
    async with asyncio.timeout(20):
        while len(rpc.asked) < wanted:  # noqa: ASYNC110  the stand-in only counts
            await asyncio.sleep(0.01)
