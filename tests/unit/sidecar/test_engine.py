"""The engine's promises, one by one (docs/contracts/sidecar.md 3, 9.1, 10.5)."""

import asyncio
import sqlite3
import uuid

import pytest
from prometheus_client import CollectorRegistry

from seiops.sidecar import clock, metrics
from seiops.sidecar.engine import BusyError, Submission, SubmitError
from seiops.sidecar.store import StoreUnavailableError
from seiops.sidecar.task import TaskError

from .fakes import FakeType, Registry, life, until

assert isinstance(metrics.REGISTRY, CollectorRegistry)
ID = "3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a11"
OTHER = "3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a12"


class Gate:
    """A handler that waits to be let go, and counts how many of it run at once."""

    def __init__(self, result=None, error=None, ignores_cancel=False):
        self.open = asyncio.Event()
        self.runs = 0
        self.now = 0
        self.most = 0
        self.result, self.error, self.ignores_cancel = result, error, ignores_cancel

    async def __call__(self, ctx, params):
        self.runs += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            while not self.open.is_set():
                try:
                    await self.open.wait()
                except asyncio.CancelledError:
                    if not self.ignores_cancel:
                        raise
            if self.error is not None:
                raise self.error
            return self.result
        finally:
            self.now -= 1


def counted(family, **labels):
    return metrics.REGISTRY.get_sample_value(family, labels) or 0.0


async def quick(ctx, params):
    return {"params": dict(params)}


async def test_a_task_runs_and_its_result_is_stored(tmp_path):
    async with life(tmp_path, Registry(quick=FakeType(quick))) as world:
        task_id = await world.submit("quick", params={"b": 2.0, "a": 1})
        row = await world.ended(task_id)
    assert (row.status, row.run, row.params, row.result) == (
        "completed",
        1,
        '{"a":1,"b":2}',
        '{"params":{"b":2,"a":1}}',
    )
    uuid.UUID(task_id)


@pytest.mark.parametrize(("kind", "task_id"), [("nope", ""), ("quick", "zzz")])
async def test_unknown_types_and_bad_ids_are_refused(tmp_path, kind, task_id):
    async with life(tmp_path, Registry(quick=FakeType(quick))) as world:
        with pytest.raises(SubmitError):
            await world.submit(kind, task_id)
        assert await world.store.newest(10) == []


async def test_one_id_runs_once_while_running_and_when_completed(tmp_path):
    gate = Gate()
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        before = counted("seictl_task_submissions_total", type="gate")
        await asyncio.gather(*(world.submit("gate", ID) for _ in range(20)))
        gate.open.set()
        await world.ended(ID)
        await world.submit("gate", ID)
        await asyncio.sleep(0)
        assert gate.runs == 1
        assert counted("seictl_task_submissions_total", type="gate") - before == 1


async def test_a_failed_id_runs_again_with_the_next_run_number(tmp_path):
    error = [TaskError("boom", result={"seen": 1}, retryable=True)]

    async def flaky(ctx, params):
        if error:
            raise error.pop()
        return

    async with life(tmp_path, Registry(flaky=FakeType(flaky))) as world:
        await world.submit("flaky", ID)
        first = await world.ended(ID)
        assert (first.status, first.error, first.result, first.detail) == (
            "failed", "boom", '{"seen":1}', '{"retryable":true}')  # fmt: skip
        await world.submit("flaky", ID)
        second = await world.ended(ID)
    assert (second.status, second.run, second.error, second.result, second.detail) == ("completed", 2, "", None, None)


@pytest.mark.parametrize("escaped", [ValueError("five"), KeyError("x"), SystemExit(3), MemoryError()])
async def test_an_unforeseen_exception_is_a_failed_task_and_counted(tmp_path, escaped):
    async def crash(ctx, params):
        raise escaped

    before = [counted(f"seictl_task_{name}_total", type="crash") for name in ("panics", "failures")]
    async with life(tmp_path, Registry(crash=FakeType(crash), quick=FakeType(quick))) as world:
        row = await world.ended(await world.submit("crash"))
        assert row.status == "failed"
        assert row.error.startswith("task handler panicked: ")
        assert row.result is None
        assert (await world.ended(await world.submit("quick"))).status == "completed"
    after = [counted(f"seictl_task_{name}_total", type="crash") for name in ("panics", "failures")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1]


async def test_a_result_without_json_form_is_a_failure(tmp_path):
    async def odd(ctx, params):
        return {"x": object()}

    async with life(tmp_path, Registry(odd=FakeType(odd))) as world:
        row = await world.ended(await world.submit("odd"))
    assert (row.status, row.result) == ("failed", None)
    assert row.error.startswith("marshaling result: ")


async def test_a_timeout_inside_a_handler_is_stored(tmp_path):
    async def slow(ctx, params):
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(30)
        except TimeoutError as error:
            raise TaskError("timed out after 10ms") from error

    async with life(tmp_path, Registry(slow=FakeType(slow))) as world:
        assert (await world.ended(await world.submit("slow"))).error == "timed out after 10ms"


async def test_progress_shows_while_it_runs_and_goes_with_the_end(tmp_path):
    go = asyncio.Event()

    async def stepwise(ctx, params):
        ctx.progress({"done": 1, "total": 2})
        await go.wait()

    async with life(tmp_path, Registry(stepwise=FakeType(stepwise))) as world:
        await world.submit("stepwise", ID)
        await until(lambda: world.engine.progress_of(ID) is not None)
        assert world.engine.progress_of(ID) == {"done": 1, "total": 2}
        go.set()
        assert (await world.ended(ID)).result is None


async def test_delete_cancels_and_removes(tmp_path):
    gate = Gate()
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        assert await world.engine.delete(ID)
        assert await world.store.get(ID) is None
        assert not await world.engine.delete(ID)
        await until(lambda: gate.now == 0)


async def test_a_run_that_succeeds_after_its_delete_brings_nothing_back(tmp_path):
    gate = Gate(result={"late": True}, ignores_cancel=True)
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        await world.engine.delete(ID)
        gate.open.set()
        await until(lambda: gate.now == 0)
        await asyncio.sleep(0.05)
        assert await world.store.get(ID) is None


async def test_a_resubmitted_id_waits_for_the_deleted_run_to_unwind(tmp_path):
    gate = Gate(result={"n": 1}, ignores_cancel=True)
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        await world.engine.delete(ID)
        await world.submit("gate", ID)
        await asyncio.sleep(0.05)
        assert gate.runs == 1
        gate.open.set()
        row = await world.ended(ID)
        assert (gate.runs, gate.most, row.status, row.run) == (2, 1, "completed", 1)


async def test_a_late_cleanup_leaves_the_new_run_cancellable(tmp_path):
    old, new = Gate(ignores_cancel=True), Gate()
    order = [old, new]

    async def either(ctx, params):
        return await order.pop(0)(ctx, params)

    async with life(tmp_path, Registry(either=FakeType(either))) as world:
        await world.submit("either", ID)
        await until(lambda: old.now == 1)
        await world.engine.delete(ID)
        await world.submit("either", ID)
        old.open.set()
        await until(lambda: new.now == 1)
        assert await world.engine.delete(ID)
        await until(lambda: new.now == 0)


async def test_a_delete_that_cannot_reach_the_store_cancels_and_can_be_repeated(tmp_path):
    gate = Gate()
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        world.store._writer.execute("PRAGMA busy_timeout=20")
        other = sqlite3.connect(tmp_path / "sidecar.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError):
            await world.engine.delete(ID)
        await until(lambda: gate.now == 0)
        assert (await world.row(ID)).status == "running"
        other.execute("ROLLBACK")
        assert await world.engine.delete(ID)


async def test_nothing_runs_when_the_store_cannot_be_read_or_written(tmp_path):
    ran = []

    async def note(ctx, params):
        ran.append(ctx.task_id)

    async with life(tmp_path, Registry(note=FakeType(note))) as world:
        await world.ended(await world.submit("note", ID))
        with sqlite3.connect(tmp_path / "sidecar.db") as db:
            db.execute("ALTER TABLE task_results RENAME TO hidden")
        with pytest.raises(StoreUnavailableError):
            await world.submit("note", ID)
        with sqlite3.connect(tmp_path / "sidecar.db") as db:
            db.execute("ALTER TABLE hidden RENAME TO task_results")
        assert ran == [ID]


async def test_a_result_survives_a_store_that_is_locked_for_a_while(tmp_path):
    gate = Gate(result={"kept": True})
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        world.store._writer.execute("PRAGMA busy_timeout=20")
        other = sqlite3.connect(tmp_path / "sidecar.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        gate.open.set()
        await until(lambda: gate.now == 0)
        await asyncio.sleep(0.05)
        other.execute("ROLLBACK")
        assert (await world.ended(ID)).result == '{"kept":true}'


async def test_a_stop_leaves_rows_running_and_the_next_life_resumes_them_unchanged(tmp_path):
    gate = Gate(result={"n": 1})
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID, {"a": 1})
        await until(lambda: gate.now == 1)
        before = await world.row(ID)
    again = Gate(result={"n": 2})
    again.open.set()
    submissions = counted("seictl_task_submissions_total", type="gate")
    async with life(tmp_path, Registry(gate=FakeType(again))) as world:
        after = await world.ended(ID)
    assert (after.run, after.params, after.submitted_text) == (before.run, before.params, before.submitted_text)
    assert (after.status, after.result) == ("completed", '{"n":2}')
    assert counted("seictl_task_submissions_total", type="gate") == submissions


async def test_a_stop_waits_for_work_that_ends_well(tmp_path):
    gate = Gate(result={"n": 1}, ignores_cancel=True)
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        asyncio.get_running_loop().call_later(0.05, gate.open.set)
        assert await world.engine.stop(5)
        assert (await world.row(ID)).status == "completed"


async def test_a_stopping_engine_takes_no_tasks_and_reports_code_that_does_not_end(tmp_path):
    gate = Gate(ignores_cancel=True)
    async with life(tmp_path, Registry(gate=FakeType(gate))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        assert not await world.engine.stop(0.05)
        with pytest.raises(BusyError):
            await world.submit("gate", OTHER)
        gate.open.set()


async def test_too_many_running_tasks_are_refused_for_now(tmp_path):
    gate = Gate()
    async with life(tmp_path, Registry(gate=FakeType(gate)), SEI_SIDECAR_MAX_RUNNING_TASKS="2") as world:
        await world.submit("gate", ID)
        await world.submit("gate")
        with pytest.raises(BusyError):
            await world.submit("gate")
        assert await world.submit("gate", ID) == ID


@pytest.mark.parametrize("kind", [{"heavy": True}, {"exclusive": "config"}])
async def test_heavy_and_exclusive_tasks_run_one_at_a_time(tmp_path, kind):
    gate = Gate()
    async with life(tmp_path, Registry(gate=FakeType(gate, **kind))) as world:
        ids = [await world.submit("gate") for _ in range(4)]
        await until(lambda: gate.now == 1)
        gate.open.set()
        for task_id in ids:
            await world.ended(task_id)
    assert (gate.runs, gate.most) == (4, 1)


async def test_a_waiting_heavy_task_can_be_deleted(tmp_path):
    gate = Gate()
    async with life(tmp_path, Registry(gate=FakeType(gate, heavy=True))) as world:
        await world.submit("gate", ID)
        await until(lambda: gate.now == 1)
        await world.submit("gate", OTHER)
        await until(lambda: world.engine.progress_of(OTHER) is not None)
        assert await world.engine.delete(OTHER)
        gate.open.set()
        await world.ended(ID)
    assert gate.runs == 1


# --- readiness -----------------------------------------------------------------------------------------------------------


async def test_readiness_follows_mark_ready_and_hold(tmp_path):
    async with life(tmp_path, Registry()) as world:
        assert not world.engine.ready
        ready = await world.submit("mark-ready")
        await world.ended(ready)
        assert world.engine.ready
        await world.ended(await world.submit("mark-not-ready"))
        assert not world.engine.ready
        assert await world.store.get(ready) is None
    async with life(tmp_path, Registry()) as world:
        assert not world.engine.ready


async def test_a_slow_mark_ready_cannot_release_a_node_after_a_later_hold(tmp_path):
    gate = Gate()
    async with life(tmp_path, Registry(**{"mark-ready": FakeType(gate)})) as world:
        await world.submit("mark-ready", ID)
        await until(lambda: gate.now == 1)
        await world.ended(await world.submit("mark-not-ready"))
        gate.open.set()
        await until(lambda: gate.now == 0)
        await asyncio.sleep(0.05)
        assert not world.engine.ready
        assert await world.store.get(ID) is None


async def test_a_hold_that_cannot_purge_leaves_readiness(tmp_path):
    async with life(tmp_path, Registry()) as world:
        await world.ended(await world.submit("mark-ready"))

        async def broken(task_type):
            raise StoreUnavailableError("disk I/O error (10)")

        world.store.purge = broken
        row = await world.ended(await world.submit("mark-not-ready"))
        assert row.error == "mark-not-ready: purging mark-ready records: disk I/O error (10)"
        assert world.engine.ready


# --- rehydration ---------------------------------------------------------------------------------------------------------


async def plant(home, *rows):
    """Rows of a dead process: (id, type, status, submitted_at)."""
    async with life(home, Registry(), rehydrate=False):
        pass
    with sqlite3.connect(home / "sidecar.db") as db:
        for task_id, kind, status, submitted in rows:
            completed = None if status == "running" else submitted
            db.execute("INSERT INTO task_results (id, type, status, params, error, submitted_at, completed_at)"
                       " VALUES (?, ?, ?, 'null', '', ?, ?)", (task_id, kind, status, submitted, completed))  # fmt: skip


READY, HOLD = "mark-ready", "mark-not-ready"


@pytest.mark.parametrize(
    ("hold", "status", "released"),
    [
        ("2026-03-26T20:24:29Z", "completed", True),
        ("2026-03-26T20:24:29.499999999Z", "failed", True),
        ("2026-03-26T20:24:29.5Z", "completed", False),
        ("2026-03-26T20:24:29.500000001Z", "failed", False),
        ("2026-03-26T20:24:30Z", "completed", False),
        ("no time at all", "completed", False),
    ],
)
async def test_a_stranded_mark_ready_is_weighed_against_the_latest_hold_by_exact_time(tmp_path, hold, status, released):
    await plant(tmp_path, ("r", READY, "running", "2026-03-26T20:24:29.5Z"), ("h", HOLD, status, hold))
    async with life(tmp_path, Registry()) as world:
        row = await world.ended("r")
        assert world.engine.ready is released
        assert (row.status, row.error) == (("completed", "") if released else ("failed", "superseded by hold"))


async def test_holds_run_first_and_purge_stranded_mark_readies(tmp_path):
    await plant(
        tmp_path, ("r", READY, "running", "2026-03-26T20:24:50Z"), ("h", HOLD, "running", "2026-03-26T20:24:10Z")
    )
    async with life(tmp_path, Registry()) as world:
        assert await world.store.get("r") is None
        assert (await world.row("h")).status == "completed"
        assert not world.engine.ready


async def test_a_hold_whose_purge_fails_still_protects_the_node_at_the_next_start(tmp_path):
    await plant(
        tmp_path, ("r", READY, "running", "2026-03-26T20:24:20Z"), ("h", HOLD, "running", "2026-03-26T20:24:30Z")
    )

    async def broken(ctx, params):
        raise TaskError("purging failed")

    async with life(tmp_path, Registry(**{HOLD: FakeType(broken)})) as world:
        assert (await world.ended("r")).error == "superseded by hold"
        assert not world.engine.ready
    with sqlite3.connect(tmp_path / "sidecar.db") as db:
        db.execute("UPDATE task_results SET status = 'running', error = '' WHERE id = 'r'")
    async with life(tmp_path, Registry()) as world:
        assert (await world.ended("r")).error == "superseded by hold"


async def test_nothing_is_resumed_when_the_rows_cannot_be_listed_after_a_hold(tmp_path):
    await plant(
        tmp_path, ("q", "quick", "running", "2026-03-26T20:24:20Z"), ("h", HOLD, "running", "2026-03-26T20:24:30Z")
    )
    async with life(tmp_path, Registry(quick=FakeType(quick)), rehydrate=False) as world:
        listed = world.store.running
        answers = [listed]

        async def once():
            if not answers:
                raise StoreUnavailableError("gone")
            return await answers.pop()()

        world.store.running = once
        await world.engine.rehydrate()
        assert (await world.row("q")).status == "running"


async def test_rows_of_unknown_types_and_damaged_rows_fail_alone(tmp_path):
    await plant(tmp_path, ("u", "seed-task", "running", "2026-03-26T20:24:20Z"), ("d", "quick", "running", "2026-03-26T20:24:21Z"),
                ("q", "quick", "running", "2026-03-26T20:24:22Z"), ("t", "quick", "running", "whenever"))  # fmt: skip
    with sqlite3.connect(tmp_path / "sidecar.db") as db:
        db.execute("UPDATE task_results SET params = '{broken' WHERE id = 'd'")
    async with life(tmp_path, Registry(quick=FakeType(quick))) as world:
        assert (await world.ended("u")).error == "no handler registered for task type"
        assert "params is not a JSON object" in (await world.ended("d")).error
        assert "submitted_at is not a time" in (await world.ended("t")).error
        assert (await world.ended("q")).status == "completed"


async def test_a_heavy_task_that_keeps_killing_the_process_is_given_up(tmp_path):
    await plant(tmp_path, ("k", "killer", "running", "2026-03-26T20:24:20Z"))
    gate = Gate()
    registry = Registry(killer=FakeType(gate, heavy=True))
    for _ in range(5):
        async with life(tmp_path, registry, rehydrate=False) as world:
            await world.engine.rehydrate()
            await until(lambda: gate.now == 1)

            async def died():
                pass

            world.store.forget_attempts = died
    async with life(tmp_path, registry) as world:
        row = await world.ended("k")
    assert row.error == "the sidecar died 5 times while this task was running; not started again"
    assert gate.runs == 5


async def test_orderly_restarts_do_not_count_as_deaths(tmp_path):
    await plant(tmp_path, ("k", "steady", "running", "2026-03-26T20:24:20Z"))
    gate = Gate()
    for life_number in range(1, 8):
        async with life(tmp_path, Registry(steady=FakeType(gate, heavy=True))):
            await until(lambda number=life_number: gate.runs == number)
    assert gate.runs == 7


async def test_submission_times_only_grow(tmp_path):
    async with life(tmp_path, Registry(quick=FakeType(quick))) as world:
        ids = [await world.submit("quick") for _ in range(50)]
        rows = await world.store.newest(100)
    assert [row.id for row in rows] == list(reversed(ids))
    assert all(clock.from_text(row.submitted_text) for row in rows)
    assert Submission.of("x").encoded_params is None
