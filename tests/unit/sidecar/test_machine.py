"""A model of the engine against the engine: submit, let go, cancel, delete, hold, crash, start again.

Handlers do what the machine says, one step at a time. A crash drops the process's memory and keeps its file; a stop is
orderly. What must always hold: an id never runs twice at once, what was accepted is not lost, what was deleted does not
come back, what completed does not run again, and readiness is what the latest effective submission says.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from seiops.sidecar.engine import Engine, Submission
from seiops.sidecar.store import TaskStore
from seiops.sidecar.task import TaskError

from .fakes import FakeType, Registry, no_http
from .fakes import settings as sidecar_settings

IDS = [str(uuid.UUID(int=number, version=4)) for number in range(4)]


@dataclass
class Handlers:
    """What runs right now, and how often each id was started."""

    now: dict[str, int] = field(default_factory=dict)
    futures: dict[str, list[asyncio.Future[str]]] = field(default_factory=dict)
    most: int = 0

    async def work(self, ctx, params):
        self.now[ctx.task_id] = self.now.get(ctx.task_id, 0) + 1
        self.most = max(self.most, self.now[ctx.task_id])
        future = asyncio.get_running_loop().create_future()
        self.futures.setdefault(ctx.task_id, []).append(future)
        try:
            outcome = await future
        finally:
            self.now[ctx.task_id] -= 1
            self.futures[ctx.task_id].remove(future)
        if outcome == "fail":
            raise TaskError("as told")
        if outcome == "crash":
            raise RuntimeError("as told")
        return {"outcome": outcome}


class SidecarMachine(RuleBasedStateMachine):
    submitted = Bundle("submitted")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="seiops-machine-"))
        self.loop = asyncio.new_event_loop()
        self.handlers = Handlers()
        self.expected: dict[str, str] = {}
        self.runs: dict[str, int] = {}
        self.ready = False
        self.open()

    # --- lives -----------------------------------------------------------------------------------------------------

    def open(self) -> None:
        self.handlers = Handlers()
        self.store = TaskStore.open(self.folder / "sidecar.db")
        registry = Registry(work=FakeType(self.handlers.work))
        self.engine = Engine(sidecar_settings(self.folder), self.store, no_http, registry.find)
        self.ready = False
        self.do(self.engine.rehydrate())

    def do(self, coroutine):
        return self.loop.run_until_complete(asyncio.wait_for(coroutine, 20))

    def settle(self) -> None:
        """Lets everything that can happen happen."""

        async def quiet() -> None:
            for _ in range(400):
                waiting = sum(len(futures) for futures in self.handlers.futures.values())
                if len(self.engine._unwinding) <= waiting + len([1 for t in self.engine._unwinding if t.done()]):
                    rows = {row.id: row.status for row in await self.store.newest(50)}
                    live = {task_id for task_id, count in self.handlers.now.items() if count}
                    if live == {task_id for task_id, status in rows.items() if status == "running"}:
                        return
                await asyncio.sleep(0.002)
            raise AssertionError("the engine does not settle")

        self.do(quiet())

    @rule()
    def stop_and_start(self) -> None:
        self.do(self.engine.stop(5))
        self.store.close()
        self.open()
        self.settle()

    @rule()
    def crash_and_start(self) -> None:
        """Nothing of the process survives but its file."""
        copy = self.folder / "crashed"
        copy.mkdir()
        for name in ("sidecar.db", "sidecar.db-wal"):
            if (self.folder / name).exists():
                shutil.copy(self.folder / name, copy / name)
        self.do(self.engine.stop(5))
        self.store.close()
        for path in self.folder.glob("sidecar.db*"):
            path.unlink()
        for path in copy.iterdir():
            path.rename(self.folder / path.name)
        copy.rmdir()
        self.open()
        self.settle()

    # --- what callers do ---------------------------------------------------------------------------------------------

    @rule(target=submitted, task_id=st.sampled_from(IDS))
    def submit(self, task_id: str) -> str:
        assert self.do(self.engine.submit(Submission.of("work", task_id))) == task_id
        before = self.expected.get(task_id)
        if before not in ("running", "completed"):
            self.runs[task_id] = self.runs.get(task_id, 0) + 1 if before == "failed" else 1
            self.expected[task_id] = "running"
        self.settle()
        return task_id

    @rule(task_id=submitted)
    def submit_twenty_times(self, task_id: str) -> None:
        if self.expected.get(task_id) != "running":
            return

        async def all_at_once() -> None:
            await asyncio.gather(*(self.engine.submit(Submission.of("work", task_id)) for _ in range(20)))

        self.do(all_at_once())
        self.settle()

    @rule(task_id=submitted, outcome=st.sampled_from(["complete", "fail", "crash"]))
    def let_go(self, task_id: str, outcome: str) -> None:
        for future in self.handlers.futures.get(task_id, [])[:1]:
            future.set_result(outcome)
            self.expected[task_id] = "completed" if outcome == "complete" else "failed"
        self.settle()

    @rule(task_id=submitted)
    def delete(self, task_id: str) -> None:
        found = self.do(self.engine.delete(task_id))
        assert found == (task_id in self.expected)
        self.expected.pop(task_id, None)
        self.runs.pop(task_id, None)
        self.settle()

    @rule(task_id=submitted)
    def delete_and_submit_at_once(self, task_id: str) -> None:
        async def both() -> None:
            await self.engine.delete(task_id)
            await self.engine.submit(Submission.of("work", task_id))

        self.do(both())
        self.expected[task_id], self.runs[task_id] = "running", 1
        self.settle()

    @rule()
    def mark_ready(self) -> None:
        self.do(self.engine.submit(Submission.of("mark-ready")))
        self.settle()
        self.ready = True

    @rule()
    def hold(self) -> None:
        self.do(self.engine.submit(Submission.of("mark-not-ready")))
        self.settle()
        self.ready = False

    # --- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def no_id_runs_twice_at_once(self) -> None:
        assert self.handlers.most <= 1

    @invariant()
    def rows_are_as_expected(self) -> None:
        rows = {row.id: row for row in self.do(self.store.newest(100)) if row.type == "work"}
        assert {task_id: row.status for task_id, row in rows.items()} == self.expected
        assert {task_id: row.run for task_id, row in rows.items()} == self.runs
        running = {task_id for task_id, count in self.handlers.now.items() if count}
        assert running == {task_id for task_id, status in self.expected.items() if status == "running"}

    @invariant()
    def readiness_is_of_this_life(self) -> None:
        assert self.engine.ready == self.ready

    def teardown(self) -> None:
        self.do(self.engine.stop(5))
        self.store.close()
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def test_the_engine_keeps_its_promises_whatever_happens_in_whatever_order():
    run_state_machine_as_test(SidecarMachine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None))
