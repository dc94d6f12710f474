"""Runs tasks: accepts submissions, executes handlers, stores what became of them, and takes up what a dead process left.

The store is the truth; this module holds only what dies with the process: readiness, and a handle for every run in
progress. The rules are docs/contracts/sidecar.md 3; where upstream breaks its own promises (section 9: D-1, D-4, D-6,
D-8, D-9, D-11, D-13, D-62) the promise is kept here instead:

- an id never has two runs at once: a run whose task was deleted writes nothing, and a new run of that id waits for it;
- a row is only ever finished by the submission that owns it;
- readiness follows the order of submission, so a slow mark-ready cannot release a node after a later hold;
- nothing is executed on the strength of a read that failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seiops.seid.durations import format_duration
from seiops.seid.quoting import quoted
from seiops.sidecar import clock, logs, metrics, tasks, wirejson
from seiops.sidecar.settings import Settings
from seiops.sidecar.store import COMPLETED, FAILED, StoreUnavailableError, TaskRow, TaskStore
from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks import TaskType

if TYPE_CHECKING:
    import aiohttp

MARK_READY = "mark-ready"
HOLD = "mark-not-ready"
SUPERSEDED = "superseded by hold"
NO_HANDLER = "no handler registered for task type"
CRASH_LIMIT = 5
HOLD_SECONDS = 30.0
SURVIVED_SECONDS = 600.0
RETRY_STORE_SECONDS = (0.2, 1.0, 5.0, 15.0, 30.0)
PRUNE_EVERY_SECONDS = 3600.0

_LOGGER_SUFFIX = {
    "configure-genesis": "genesis",
    "configure-state-sync": "state-sync",
    "snapshot-upload-once": "snapshot-upload",
    "assemble-and-upload-genesis": "assemble-genesis",
    "upload-genesis-artifacts": "upload-genesis-artifacts",
}

log = logs.logger("engine")


_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_BARE_UUID = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True)
class Submission:
    """What a caller asked for. `encoded_params`: the params as JSON text with sorted keys, None when empty."""

    type: str
    id: str = ""
    params: Params = field(default_factory=dict)
    encoded_params: str | None = None

    @classmethod
    def of(cls, task_type: str, task_id: str = "", params: dict[str, Any] | None = None) -> Submission:
        return cls(task_type, task_id, params or {}, wirejson.encode(params, sort_keys=True) if params else None)


def is_uuid(text: str) -> bool:
    """Any version; hyphenated, also within one leading and one trailing character or after `urn:uuid:`, or 32 digits."""
    match len(text.encode()):
        case 36:
            return _UUID.fullmatch(text) is not None
        case 38:
            return _UUID.fullmatch(text[1:-1]) is not None
        case 45:
            return text[:9].lower() == "urn:uuid:" and _UUID.fullmatch(text[9:]) is not None
        case 32:
            return _BARE_UUID.fullmatch(text) is not None
    return False


class SubmitError(Exception):
    """The submission is refused for good: unknown type or an id that is no UUID."""


class BusyError(Exception):
    """The submission is refused for now: the process is stopping or too much is running."""


@dataclass(slots=True)
class _Run:
    """A run in progress. `order` grows with every start of the process; run numbers cannot tell runs apart."""

    id: str
    type: str
    run: int
    submitted_at: int
    submitted_text: str
    order: int
    params: Params
    cancelled: threading.Event = field(default_factory=threading.Event)
    deleted: bool = False
    progress: dict[str, Any] | None = None
    task: asyncio.Task[None] | None = None
    predecessor: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        self.cancelled.set()
        if self.task is not None:
            self.task.cancel()


class Engine:
    """One per process. Call `rehydrate` before listening, `stop` before closing the store."""

    def __init__(
        self,
        settings: Settings,
        store: TaskStore,
        open_http: Callable[[], aiohttp.ClientSession],
        find_type: Callable[[str], TaskType | None] = tasks.find,
    ) -> None:
        self._settings = settings
        self._store = store
        self._open_http = open_http
        self._find_type = find_type
        self._clock = clock.Clock()
        self._orders = itertools.count(1)
        self._lock = asyncio.Lock()
        self._runs: dict[str, _Run] = {}
        self._unwinding: set[asyncio.Task[None]] = set()
        self._heavy = asyncio.Semaphore(settings.max_heavy_tasks)
        self._exclusive: dict[str, asyncio.Lock] = {}
        self._stopping = False
        self._ready = False
        self._ready_order = 0
        self._pruning: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        return self._ready

    # --- submissions ---------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> str:
        """Accepts a task and returns its id (a new one when none was given).

        An id that is running or completed is left alone; a failed one runs again. Raises SubmitError, BusyError and
        StoreUnavailableError; after the last two the same submission may be repeated.
        """
        task_type = submission.type
        if self._find_type(task_type) is None:
            raise SubmitError(f"unknown task type: {task_type}")
        if submission.id and not is_uuid(submission.id):
            raise SubmitError(f"task ID must be a valid UUID: {quoted(submission.id)}")
        chosen = submission.id or str(uuid.uuid4())
        async with self._lock:
            if self._stopping:
                raise BusyError("the sidecar is shutting down; retry")
            if len(self._runs) >= self._settings.max_running_tasks and chosen not in self._runs:
                raise BusyError(f"{len(self._runs)} tasks are running already; retry")
            submitted_at = self._clock.now()
            claim = await self._store.claim(chosen, task_type, submission.encoded_params, submitted_at)
            if not claim.started:
                return chosen
            metrics.TASK_SUBMISSIONS.labels(task_type).inc()
            log.info("task submitted", extra={"attrs": {"type": task_type, "id": chosen, "run": claim.run}})
            self._start(
                _Run(
                    chosen,
                    task_type,
                    claim.run,
                    submitted_at,
                    clock.to_text(submitted_at),
                    next(self._orders),
                    submission.params,
                )
            )
        return chosen

    async def delete(self, task_id: str) -> bool:
        """Cancels the task if it runs and deletes its row; False when there was no row.

        Raises StoreUnavailableError: the task is cancelled, its row stays, and a later delete or restart finds it.
        """
        async with self._lock:
            run = self._runs.get(task_id)
            if run is not None:
                run.cancel()
            removed = await self._store.remove(task_id)
            if removed and run is not None:
                run.deleted = True
        return removed

    def progress_of(self, task_id: str) -> dict[str, Any] | None:
        """What a running task last reported, if anything."""
        run = self._runs.get(task_id)
        return run.progress if run is not None and not run.deleted else None

    # --- start and stop of the process -----------------------------------------------------------------------------

    async def rehydrate(self) -> None:
        """Takes up the running rows of a dead process: holds first and to their end, then everything else.

        When the store cannot be read nothing is started; the rows wait for the next start.
        """
        try:
            rows = await self._store.running()
            holds = [row for row in rows if row.type == HOLD]
            for row in holds:
                if not await self._rehydrate_hold(row):
                    log.error("a hold does not end, resuming nothing", extra={"attrs": {"id": row.id}})
                    return
            if holds:
                rows = await self._store.running()
        except StoreUnavailableError as error:
            log.error("listing stale tasks failed, resuming nothing", extra={"attrs": {"err": error}})
            return
        for row in rows:
            if row.type != HOLD:
                await self._rehydrate_row(row)
        self._pruning = asyncio.create_task(self._prune_for_ever())

    async def stop(self, seconds: float) -> bool:
        """Cancels every run and waits for their code to unwind; rows stay running. Whether all ended in time."""
        async with self._lock:
            self._stopping = True
        if self._pruning is not None:
            self._pruning.cancel()
        for run in list(self._runs.values()):
            run.cancel()
        deadline = time.monotonic() + seconds
        while self._unwinding and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(set(self._unwinding), timeout=left)
        try:
            await self._store.forget_attempts()
        except StoreUnavailableError as error:
            log.warning("attempts could not be cleared", extra={"attrs": {"err": error}})
        return not self._unwinding

    async def _rehydrate_hold(self, row: TaskRow) -> bool:
        """Whether the hold ran to its end; it is a short store operation, so anything longer is a broken store."""
        attributes = {"type": row.type, "id": row.id, "run": row.run}
        log.info("rehydrating hold synchronously before other tasks", extra={"attrs": attributes})
        started = self._start(self._stale(row))
        done, _ = await asyncio.wait({started}, timeout=HOLD_SECONDS)
        return bool(done)

    async def _rehydrate_row(self, row: TaskRow) -> None:
        if row.damage is not None or row.submitted_at is None:
            await self._give_up(row, f"stored task cannot be read: {row.damage or 'submitted_at is not a time'}")
            return
        if row.type == MARK_READY and not await self._may_mark_ready(row):
            return
        kind = self._find_type(row.type)
        if kind is None:
            log.warning("stale task has no handler, marking failed", extra={"attrs": {"type": row.type, "id": row.id}})
            await self._give_up(row, NO_HANDLER)
            return
        if kind.heavy and not await self._may_try_again(row):
            return
        attributes = {"type": row.type, "id": row.id, "run": row.run}
        log.info("rehydrating stale task", extra={"attrs": attributes})
        self._start(self._stale(row))

    def _stale(self, row: TaskRow) -> _Run:
        params = wirejson.decode_document(row.params.encode()) if row.params else {}
        return _Run(
            row.id, row.type, row.run, row.submitted_at or 0, row.submitted_text, next(self._orders), params or {}
        )

    async def _may_mark_ready(self, row: TaskRow) -> bool:
        """False when any recorded hold is as late as this mark-ready, or when that cannot be found out."""
        try:
            holds = await self._store.of_type(HOLD)
        except StoreUnavailableError as error:
            log.error("looking for holds failed, leaving mark-ready alone", extra={"attrs": {"err": error}})
            return False
        own = row.submitted_at or 0
        later = [hold for hold in holds if hold.submitted_at is None or hold.submitted_at >= own]
        if not later:
            return True
        hold = max(later, key=lambda found: found.submitted_at or 2**63)
        log.warning(
            "stranded mark-ready superseded by a hold; marking failed instead of rehydrating",
            extra={"attrs": {"markReadyID": row.id, "holdID": hold.id, "holdStatus": hold.status}},
        )
        await self._give_up(row, SUPERSEDED)
        return False

    async def _may_try_again(self, row: TaskRow) -> bool:
        """False when starting this task has killed the process too often."""
        try:
            attempts = await self._store.count_attempt(row.id)
        except StoreUnavailableError as error:
            log.error("counting attempts failed, leaving the task alone", extra={"attrs": {"err": error, "id": row.id}})
            return False
        if attempts <= CRASH_LIMIT:
            asyncio.get_running_loop().call_later(SURVIVED_SECONDS, self._survived, row.id)
            return True
        await self._give_up(row, f"the sidecar died {CRASH_LIMIT} times while this task was running; not started again")
        return False

    def _survived(self, task_id: str) -> None:
        if not self._stopping:
            self._keep(asyncio.create_task(self._forget_attempts(task_id)))

    async def _forget_attempts(self, task_id: str) -> None:
        try:
            await self._store.forget_attempts(task_id)
        except StoreUnavailableError as error:
            log.warning("attempts could not be cleared", extra={"attrs": {"err": error}})

    async def _give_up(self, row: TaskRow, error: str) -> None:
        try:
            await self._store.finish(
                row.id, row.submitted_text, status=FAILED, error=error, completed_at=self._clock.now()
            )
        except StoreUnavailableError as failure:
            log.error("failed to persist task result", extra={"attrs": {"id": row.id, "err": failure}})

    # --- one run ---------------------------------------------------------------------------------------------------

    def _start(self, run: _Run) -> asyncio.Task[None]:
        before = self._runs.get(run.id)
        run.predecessor = before.task if before is not None else None
        self._runs[run.id] = run
        run.task = asyncio.create_task(self._execute(run), name=f"{run.type} {run.id}")
        run.task.add_done_callback(lambda _: self._forget(run))
        self._keep(run.task)
        return run.task

    def _forget(self, run: _Run) -> None:
        run.predecessor = None
        if self._runs.get(run.id) is run:
            del self._runs[run.id]

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._unwinding.add(task)
        task.add_done_callback(self._unwinding.discard)

    async def _execute(self, run: _Run) -> None:
        try:
            if run.predecessor is not None and not run.predecessor.done():
                await asyncio.wait({run.predecessor})
            await self._execute_alone(run)
        except asyncio.CancelledError:
            self._log_cancelled(run)

    async def _execute_alone(self, run: _Run) -> None:
        kind = self._find_type(run.type)
        assert kind is not None
        async with contextlib.AsyncExitStack() as turn:
            if kind.exclusive is not None:
                await turn.enter_async_context(self._exclusive.setdefault(kind.exclusive, asyncio.Lock()))
            if kind.heavy:
                if self._heavy.locked():
                    run.progress = {"phase": "waiting for another heavy task to end"}
                await turn.enter_async_context(self._heavy)
                run.progress = None
            await self._execute_admitted(run, kind)

    async def _execute_admitted(self, run: _Run, kind: TaskType) -> None:
        started = time.monotonic()
        metrics.TASKS_RUNNING.labels(run.type).inc()
        outcome = _Outcome()
        try:
            outcome.take_result(await kind.handler()(self._context(run), run.params))
        except asyncio.CancelledError:
            outcome.error = "context canceled"
            if not run.cancelled.is_set():
                outcome.crash("the handler cancelled itself")
        except TaskError as error:
            outcome.take(error)
        except (Exception, SystemExit) as error:
            outcome.crash(_describe(error))
            stack = traceback.format_exc(limit=-20)
            log.error("task handler panicked", extra={"attrs": {"type": run.type, "panic": error, "stack": stack}})
        finally:
            metrics.TASKS_RUNNING.labels(run.type).dec()
        self._observe(run, outcome, time.monotonic() - started)
        if outcome.error and run.cancelled.is_set():
            self._log_cancelled(run)
            return
        await self._conclude(run, outcome)

    async def _conclude(self, run: _Run, outcome: _Outcome) -> None:
        if run.deleted:
            self._log_cancelled(run)
            return
        if not outcome.error and run.type in (MARK_READY, HOLD) and not self._apply_readiness(run):
            outcome.error = SUPERSEDED
        finishing = asyncio.ensure_future(self._persist(run, outcome))
        self._keep(finishing)
        while not finishing.done():
            try:
                await asyncio.shield(finishing)
            except asyncio.CancelledError:
                # A run that ended is stored even when it was cancelled meanwhile; only a stop that cannot wait gives up.
                if self._stopping:
                    await asyncio.wait({finishing}, timeout=5)
                    finishing.cancel()
                    return

    async def _persist(self, run: _Run, outcome: _Outcome) -> None:
        completed_at = self._clock.now()
        for wait in (*RETRY_STORE_SECONDS, None):
            try:
                await self._store.finish(
                    run.id,
                    run.submitted_text,
                    status=FAILED if outcome.error else COMPLETED,
                    error=outcome.error,
                    result=outcome.result,
                    detail=outcome.detail,
                    completed_at=completed_at,
                )
                return
            except StoreUnavailableError as error:
                log.error("failed to persist task result", extra={"attrs": {"id": run.id, "err": error}})
            if wait is not None:
                await asyncio.sleep(wait)

    def _apply_readiness(self, run: _Run) -> bool:
        """Readiness as of the latest submission that took effect; False when a later hold was faster."""
        if run.order < self._ready_order:
            return run.type == HOLD
        self._ready = run.type == MARK_READY
        self._ready_order = run.order
        return True

    def _observe(self, run: _Run, outcome: _Outcome, seconds: float) -> None:
        elapsed = format_duration(round(seconds * 1000) * 1_000_000)
        if not outcome.error:
            metrics.TASK_SECONDS.labels(run.type, COMPLETED).observe(seconds)
            log.info("task completed", extra={"attrs": {"type": run.type, "elapsed": elapsed}})
            return
        metrics.TASK_FAILURES.labels(run.type).inc()
        if outcome.crashed:
            metrics.TASK_PANICS.labels(run.type).inc()
        else:
            metrics.TASK_SECONDS.labels(run.type, FAILED).observe(seconds)
        log.error("task failed", extra={"attrs": {"type": run.type, "elapsed": elapsed, "err": outcome.error}})

    def _context(self, run: _Run) -> TaskContext:
        def report(value: dict[str, Any]) -> None:
            run.progress = value

        return TaskContext(
            task_id=run.id,
            task_type=run.type,
            run=run.run,
            home=self._settings.home,
            settings=self._settings,
            open_http=self._open_http,
            log=_task_logger(run.type),
            records=self._store,
            markers=self._store,
            report=report,
            cancelled=run.cancelled,
        )

    def _log_cancelled(self, run: _Run) -> None:
        attributes = {"type": run.type, "id": run.id, "run": run.run}
        log.info("task cancelled; leaving store untouched", extra={"attrs": attributes})

    # --- retention -------------------------------------------------------------------------------------------------

    async def _prune_for_ever(self) -> None:
        while True:
            older_than = time.time_ns() - int(self._settings.keep_tasks_seconds * 1e9)
            try:
                removed = await self._store.prune(keep=self._settings.keep_tasks, older_than=older_than)
                if removed:
                    log.info("removed old tasks", extra={"attrs": {"count": removed}})
            except StoreUnavailableError as error:
                log.warning("removing old tasks failed", extra={"attrs": {"err": error}})
            await asyncio.sleep(PRUNE_EVERY_SECONDS)


@dataclass(slots=True)
class _Outcome:
    """How a handler ended; an empty error is success."""

    error: str = ""
    result: str | None = None
    detail: str | None = None
    crashed: bool = False

    def take_result(self, result: dict[str, Any] | None) -> None:
        if result is None:
            return
        try:
            self.result = wirejson.encode(result)
        except (TypeError, ValueError) as error:
            self.error = f"marshaling result: {error}"

    def take(self, failure: TaskError) -> None:
        self.error = str(failure) or "the task failed without saying why"
        detail = failure.detail()
        self.detail = wirejson.encode(detail) if detail else None
        if failure.result is not None:
            try:
                self.result = wirejson.encode(failure.result)
            except (TypeError, ValueError):
                log.warning("a failed task's result has no JSON form", extra={"attrs": {"err": self.error}})

    def crash(self, what: str) -> None:
        self.crashed = True
        self.error = f"task handler panicked: {what}"


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _task_logger(task_type: str) -> logging.Logger:
    return logs.logger(f"task.{_LOGGER_SUFFIX.get(task_type, task_type)}")
