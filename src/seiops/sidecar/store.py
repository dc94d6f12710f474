"""The task store: one SQLite file per node, the single source of truth for what was asked and what became of it.

The layout is the upstream sidecar's, version 5, so either program can take over the other's file at any time
(docs/contracts/sidecar.md 3.12). What we add lives beside it: an index that orders submissions by exact time, and
tables of our own that upstream never reads. Writes go through one connection on one thread, reads through another, so
that a writer waiting for a lock held by someone else never delays a probe. A write is on its way to disk when its call
returns: it survives the death of the process (WAL, synchronous NORMAL); signing markers survive the machine's too.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from seiops.sidecar import clock, wirejson
from seiops.sidecar.task import TxMarker

T = TypeVar("T")

BUSY_TIMEOUT_MS = 5000
SCHEMA_VERSION = 5

RUNNING = "running"
COMPLETED = "completed"
FAILED = "failed"

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE task_results (id TEXT PRIMARY KEY, type TEXT NOT NULL, status TEXT NOT NULL, params TEXT,"
        " schedule TEXT, error TEXT NOT NULL DEFAULT '', submitted_at TEXT NOT NULL, completed_at TEXT, next_run_at TEXT)",
        "CREATE INDEX idx_task_results_submitted_at ON task_results (submitted_at DESC)",
        "CREATE INDEX idx_task_results_schedule ON task_results (next_run_at) WHERE schedule IS NOT NULL",
    ),
    (
        "DROP INDEX IF EXISTS idx_task_results_schedule",
        "ALTER TABLE task_results DROP COLUMN schedule",
        "ALTER TABLE task_results DROP COLUMN next_run_at",
    ),
    ("ALTER TABLE task_results ADD COLUMN run INTEGER NOT NULL DEFAULT 1",),
    ("ALTER TABLE task_results ADD COLUMN result TEXT",),
    (
        "CREATE TABLE tx_markers (task_id TEXT PRIMARY KEY, tx_hash TEXT NOT NULL, tx_bytes BLOB NOT NULL,"
        " account_number INTEGER NOT NULL, sequence INTEGER NOT NULL, chain_id TEXT NOT NULL, created_at TEXT NOT NULL)",
    ),
)

# The fraction of a stored time is trimmed, so its text does not sort; padded to nine digits it does.
_EXACT_ORDER = "substr(submitted_at, 1, 19) || '.' || substr(rtrim(substr(submitted_at, 21), 'Z') || '000000000', 1, 9)"

_OUR_TABLES = (
    f"CREATE INDEX IF NOT EXISTS idx_seiops_submission_order ON task_results ({_EXACT_ORDER})",
    "CREATE INDEX IF NOT EXISTS idx_seiops_running ON task_results (status) WHERE status = 'running'",
    "CREATE TABLE IF NOT EXISTS seiops_error_details (id TEXT PRIMARY KEY, detail TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS seiops_attempts (id TEXT PRIMARY KEY, attempts INTEGER NOT NULL)",
)

_COLUMNS = "t.id, t.type, t.status, t.run, t.params, t.result, t.error, t.submitted_at, t.completed_at, d.detail"
_SELECT = (
    f"SELECT {_COLUMNS} FROM task_results t LEFT JOIN seiops_error_details d ON d.id = t.id AND t.status = 'failed'"
)


class StoreUnavailableError(Exception):
    """The store could not answer; the text is SQLite's own with its code."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A stored task. `params` and `result` are JSON text or None; `damage` says what could not be read, if anything."""

    id: str
    type: str
    status: str
    run: int
    params: str | None
    result: str | None
    error: str
    submitted_text: str
    completed_text: str | None
    detail: str | None
    damage: str | None = None

    @property
    def submitted_at(self) -> int | None:
        """Nanoseconds since the epoch, or None when the stored text is no time."""
        try:
            return clock.from_text(self.submitted_text)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Claim:
    """What became of a submission: `started` when the caller now owns a run, else the row that was already there."""

    started: bool
    status: str
    run: int


class TaskStore:
    """Opened with `TaskStore.open`; every method raises StoreUnavailableError when SQLite fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reader_thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")
        self._writer = _connect(path)
        try:
            _migrate(self._writer)
            self._reader = _connect(path)
        except sqlite3.Error as error:
            self._writer.close()
            raise StoreUnavailableError(f"migrate: {_describe(error)}") from error

    @classmethod
    def open(cls, path: Path) -> TaskStore:
        """Opens or creates the file and brings its schema to version 5; a newer one is taken as it is."""
        return cls(path)

    # --- submissions and results ---------------------------------------------------------------------------------

    async def claim(self, task_id: str, task_type: str, params: str | None, submitted_at: int) -> Claim:
        """In one transaction: a new or failed id becomes a running row, anything else stays as it is."""

        def work(db: sqlite3.Connection) -> Claim:
            found = db.execute("SELECT status, run FROM task_results WHERE id = ?", (task_id,)).fetchone()
            if found is not None and found[0] != FAILED:
                return Claim(False, found[0], found[1])
            run = 1 if found is None else found[1] + 1
            db.execute(
                "INSERT OR REPLACE INTO task_results (id, type, status, params, error, submitted_at, completed_at, run,"
                " result) VALUES (?, ?, 'running', ?, '', ?, NULL, ?, NULL)",
                (task_id, task_type, params or "null", clock.to_text(submitted_at), run),
            )
            if found is not None:
                db.execute("DELETE FROM seiops_error_details WHERE id = ?", (task_id,))
            return Claim(True, RUNNING, run)

        return await self._write(work)

    async def finish(
        self,
        row_id: str,
        submitted_text: str,
        *,
        status: str,
        completed_at: int,
        error: str = "",
        result: str | None = None,
        detail: str | None = None,
    ) -> bool:
        """Makes a running row terminal. False when the row is gone or belongs to another submission: nothing is written.

        `submitted_text` names the submission, because run numbers start at 1 again after a delete.
        """

        def work(db: sqlite3.Connection) -> bool:
            changed = db.execute(
                "UPDATE task_results SET status = ?, error = ?, result = ?, completed_at = ?"
                " WHERE id = ? AND status = 'running' AND submitted_at = ?",
                (status, error, result, clock.to_text(completed_at), row_id, submitted_text),
            ).rowcount
            if changed and detail is not None:
                db.execute("INSERT OR REPLACE INTO seiops_error_details VALUES (?, ?)", (row_id, detail))
            return changed == 1

        return await self._write(work)

    async def get(self, task_id: str) -> TaskRow | None:
        def work(db: sqlite3.Connection) -> TaskRow | None:
            found = db.execute(f"{_SELECT} WHERE t.id = ?", (task_id,)).fetchone()
            return None if found is None else _row(found)

        return await self._read(work)

    async def newest(self, limit: int) -> list[TaskRow]:
        """The latest submissions first, by exact time, then by order of insertion."""
        order = _EXACT_ORDER.replace("submitted_at", "t.submitted_at")

        def work(db: sqlite3.Connection) -> list[TaskRow]:
            query = f"{_SELECT} ORDER BY {order} DESC, t.rowid DESC LIMIT ?"
            return [_row(found) for found in db.execute(query, (limit,))]

        return await self._read(work)

    async def running(self) -> list[TaskRow]:
        """All running rows, oldest submission first; rows without a readable time come first."""

        def work(db: sqlite3.Connection) -> list[TaskRow]:
            return [_row(found) for found in db.execute(f"{_SELECT} WHERE t.status = 'running' ORDER BY t.rowid")]

        rows = await self._read(work)
        return sorted(rows, key=lambda row: row.submitted_at or 0)

    async def of_type(self, task_type: str) -> list[TaskRow]:
        """All rows of a type, whatever their status."""

        def work(db: sqlite3.Connection) -> list[TaskRow]:
            return [_row(found) for found in db.execute(f"{_SELECT} WHERE t.type = ?", (task_type,))]

        return await self._read(work)

    async def remove(self, task_id: str) -> bool:
        """Deletes a row; False when there was none."""

        def work(db: sqlite3.Connection) -> bool:
            for table in ("seiops_error_details", "seiops_attempts"):
                db.execute(f"DELETE FROM {table} WHERE id = ?", (task_id,))
            return db.execute("DELETE FROM task_results WHERE id = ?", (task_id,)).rowcount > 0

        return await self._write(work)

    async def held(self) -> bool:
        """Whether the latest of all holds and mark-readies that are recorded is a hold."""

        def work(db: sqlite3.Connection) -> bool:
            found = db.execute(
                "SELECT type FROM task_results WHERE type IN ('mark-ready', 'mark-not-ready')"
                f" ORDER BY {_EXACT_ORDER} DESC, rowid DESC LIMIT 1"
            ).fetchone()
            return found is not None and found[0] == "mark-not-ready"

        return await self._read(work)

    async def purge(self, task_type: str) -> int:
        """Deletes all rows of a type whatever their status; the number removed."""
        return await self._write(
            lambda db: db.execute("DELETE FROM task_results WHERE type = ?", (task_type,)).rowcount
        )

    async def ping(self) -> None:
        """Answers whether the connection does; says nothing about locks or tables."""
        await self._read(lambda db: db.execute("SELECT 1").fetchone())

    # --- crashes, retention ----------------------------------------------------------------------------------------

    async def count_attempt(self, task_id: str) -> int:
        """One more start of a task left behind by a dead process; how many there have been."""

        def work(db: sqlite3.Connection) -> int:
            db.execute(
                "INSERT INTO seiops_attempts VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET attempts = attempts + 1",
                (task_id,),
            )
            found = db.execute("SELECT attempts FROM seiops_attempts WHERE id = ?", (task_id,)).fetchone()
            return int(found[0])

        return await self._write(work)

    async def forget_attempts(self, task_id: str | None = None) -> None:
        """The task (or all of them) did not die with the process."""
        if task_id is None:
            await self._write(lambda db: db.execute("DELETE FROM seiops_attempts").rowcount)
        else:
            await self._write(lambda db: db.execute("DELETE FROM seiops_attempts WHERE id = ?", (task_id,)).rowcount)

    async def prune(self, *, keep: int, older_than: int) -> int:
        """Removes terminal rows beyond the newest `keep` that were submitted before `older_than` (nanoseconds).

        Holds stay: a hold must outlive every mark-ready that it supersedes.
        """
        limit = clock.to_text(older_than)[:19]

        def work(db: sqlite3.Connection) -> int:
            removed = db.execute(
                "DELETE FROM task_results WHERE status <> 'running' AND type <> 'mark-not-ready'"
                " AND substr(submitted_at, 1, 19) < ? AND id NOT IN"
                f" (SELECT id FROM task_results ORDER BY {_EXACT_ORDER} DESC LIMIT ?)",
                (limit, keep),
            ).rowcount
            if removed:
                for table in ("seiops_error_details", "seiops_attempts"):
                    db.execute(f"DELETE FROM {table} WHERE id NOT IN (SELECT id FROM task_results)")
            return removed

        return await self._write(work)

    # --- transaction markers ---------------------------------------------------------------------------------------

    async def load(self, task_id: str) -> TxMarker | None:
        """The marker of a task, or None."""

        def work(db: sqlite3.Connection) -> TxMarker | None:
            found = db.execute(
                "SELECT task_id, tx_hash, tx_bytes, account_number, sequence, chain_id FROM tx_markers WHERE task_id = ?",
                (task_id,),
            ).fetchone()
            return None if found is None else TxMarker(*found)

        return await self._read(work)

    async def save(self, marker: TxMarker) -> None:
        """Writes a marker and returns once it is on the disk itself; without that no transaction may be broadcast."""
        created = clock.to_text(clock.Clock().now())

        def work(db: sqlite3.Connection) -> None:
            db.execute("PRAGMA synchronous=FULL")
            try:
                db.execute(
                    "INSERT OR REPLACE INTO tx_markers VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        marker.task_id,
                        marker.tx_hash,
                        marker.tx_bytes,
                        marker.account_number,
                        marker.sequence,
                        marker.chain_id,
                        created,
                    ),
                )
                busy, _, _ = db.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            finally:
                db.execute("PRAGMA synchronous=NORMAL")
            if busy:
                raise sqlite3.OperationalError("checkpoint tx marker: another connection keeps the log busy")

        await self._on(self._writer_thread, lambda: work(self._writer))

    # --- plumbing --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Waits for what was begun, then closes both connections. Raises StoreUnavailableError."""
        self._reader_thread.shutdown(wait=True)
        self._writer_thread.shutdown(wait=True)
        try:
            self._reader.close()
            self._writer.close()
        except sqlite3.Error as error:
            raise StoreUnavailableError(_describe(error)) from error

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                outcome = work(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise
            return outcome

        return await self._on(self._writer_thread, transaction)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._on(self._reader_thread, lambda: work(self._reader))

    async def _on(self, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        try:
            running = asyncio.get_running_loop().run_in_executor(thread, work)
        except RuntimeError as error:
            raise StoreUnavailableError("the store is closed") from error
        try:
            return await running
        except sqlite3.Error as error:
            raise StoreUnavailableError(_describe(error)) from error


def _connect(path: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"open sqlite: {_describe(error)}") from error
    for pragma in ("journal_mode=WAL", f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=NORMAL"):
        try:
            db.execute(f"PRAGMA {pragma}")
        except sqlite3.Error as error:
            db.close()
            raise StoreUnavailableError(f"PRAGMA {pragma}: {_describe(error)}") from error
    return db


def _migrate(db: sqlite3.Connection) -> None:
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    for target in range(version + 1, SCHEMA_VERSION + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _MIGRATIONS[target - 1]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version={target}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
    db.execute("BEGIN IMMEDIATE")
    for statement in _OUR_TABLES:
        db.execute(statement)
    db.execute("COMMIT")


def _row(found: tuple[Any, ...]) -> TaskRow:
    task_id, task_type, status, run, params, result, error, submitted_text, completed_text, detail = found
    damage: list[str] = []
    if not clock.looks_like_time(submitted_text):
        damage.append("submitted_at is not a time")
    if completed_text is not None and not clock.looks_like_time(completed_text):
        damage.append("completed_at is not a time")
        completed_text = None
    if params != "null" and not _is_json(params, dict):
        damage.append("params is not a JSON object")
        params = None
    if result is not None and not _is_json(result, object):
        damage.append("result is not JSON")
        result = None
    return TaskRow(
        id=str(task_id),
        type=str(task_type),
        status=str(status),
        run=run if isinstance(run, int) else 1,
        params=None if params in ("null", "{}") else params,
        result=None if result == "null" else result,
        error=str(error or ""),
        submitted_text=str(submitted_text),
        completed_text=completed_text,
        detail=detail,
        damage="; ".join(damage) or None,
    )


def _is_json(text: Any, kind: type) -> bool:
    if not isinstance(text, str):
        return False
    try:
        value = wirejson.decode_document(text.encode())
    except (wirejson.JsonError, UnicodeEncodeError):
        return False
    return isinstance(value, kind) or value is None


def _describe(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    return f"{error} ({code})" if code is not None else str(error)
