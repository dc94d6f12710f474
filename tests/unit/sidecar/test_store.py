"""The task store: upstream's layout, exact order, and rows that only their owner finishes."""

import sqlite3
import threading

import pytest

from seiops.sidecar import clock
from seiops.sidecar.store import StoreUnavailableError, TaskStore
from seiops.sidecar.task import TxMarker

T0 = clock.from_text("2026-03-26T20:24:20Z")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sidecar.db"


@pytest.fixture
def store(path):
    opened = TaskStore.open(path)
    yield opened
    opened.close()


def at_version(path, version):
    """A file as upstream had it at a schema version, with a finished and a running row."""
    db = sqlite3.connect(path)
    columns = ["id TEXT PRIMARY KEY", "type TEXT NOT NULL", "status TEXT NOT NULL", "params TEXT"]
    if version == 1:
        columns.append("schedule TEXT")
    columns += ["error TEXT NOT NULL DEFAULT ''", "submitted_at TEXT NOT NULL", "completed_at TEXT"]
    if version == 1:
        columns.append("next_run_at TEXT")
    if version >= 3:
        columns.append("run INTEGER NOT NULL DEFAULT 1")
    if version >= 4:
        columns.append("result TEXT")
    db.execute(f"CREATE TABLE task_results ({', '.join(columns)})")
    db.execute("CREATE INDEX idx_task_results_submitted_at ON task_results (submitted_at DESC)")
    if version == 1:
        db.execute("CREATE INDEX idx_task_results_schedule ON task_results (next_run_at) WHERE schedule IS NOT NULL")
    if version >= 5:
        db.execute(
            "CREATE TABLE tx_markers (task_id TEXT PRIMARY KEY, tx_hash TEXT NOT NULL, tx_bytes BLOB NOT NULL, account_number"
            " INTEGER NOT NULL, sequence INTEGER NOT NULL, chain_id TEXT NOT NULL, created_at TEXT NOT NULL)"
        )
    insert = (
        "INSERT INTO task_results (id, type, status, params, error, submitted_at, completed_at) VALUES (?,?,?,?,?,?,?)"
    )
    db.execute(
        insert, ("a", "config-patch", "failed", '{"a":1}', "boom", "2026-03-26T20:24:22.5Z", "2026-03-26T20:24:23Z")
    )
    db.execute(insert, ("b", "await-condition", "running", "null", "", "2026-03-26T20:24:24Z", None))
    db.execute(f"PRAGMA user_version={version}")
    db.commit()
    db.close()


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
async def test_a_file_of_every_version_opens_and_keeps_its_rows(path, version):
    at_version(path, version)
    store = TaskStore.open(path)
    rows = await store.newest(10)
    store.close()
    assert [(row.id, row.status, row.run, row.params) for row in rows] == [
        ("b", "running", 1, None),
        ("a", "failed", 1, '{"a":1}'),
    ]
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone()[0] == max(version, 5)
    names = [row[1] for row in db.execute("PRAGMA table_info(task_results)")]
    assert names == ["id", "type", "status", "params", "error", "submitted_at", "completed_at", "run", "result"]


async def test_a_second_opening_changes_nothing(path):
    TaskStore.open(path).close()
    schema = sqlite3.connect(path).execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    TaskStore.open(path).close()
    assert sqlite3.connect(path).execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == schema


def test_a_file_that_is_no_database_is_refused_with_the_known_words(path):
    path.write_bytes(b"nothing of the kind\n" * 100)
    with pytest.raises(StoreUnavailableError, match=r"^PRAGMA journal_mode=WAL: file is not a database \(26\)$"):
        TaskStore.open(path)


async def test_an_id_is_claimed_once(store):
    first = await store.claim("x", "t", None, T0)
    again = await store.claim("x", "other", '{"a":1}', T0 + 1)
    assert (first.started, first.run) == (True, 1)
    assert (again.started, again.status, again.run) == (False, "running", 1)


async def test_only_a_failed_id_runs_again_and_everything_of_the_last_run_is_gone(store):
    await store.claim("x", "t", '{"a":1}', T0)
    await store.finish(
        "x", clock.to_text(T0), status="failed", error="boom", result='{"r":1}', detail='{"d":1}', completed_at=T0
    )
    claim = await store.claim("x", "t", None, T0 + 5)
    row = await store.get("x")
    assert (claim.started, claim.run) == (True, 2)
    assert (row.status, row.error, row.result, row.detail, row.params, row.completed_text) == (
        "running",
        "",
        None,
        None,
        None,
        None,
    )
    await store.finish("x", clock.to_text(T0 + 5), status="completed", completed_at=T0 + 6)
    assert not (await store.claim("x", "t", None, T0 + 7)).started


async def test_a_row_is_only_finished_by_its_own_submission(store):
    await store.claim("x", "t", None, T0)
    await store.remove("x")
    assert not await store.finish("x", clock.to_text(T0), status="completed", completed_at=T0)
    assert await store.get("x") is None
    await store.claim("x", "t", None, T0 + 1)
    assert not await store.finish("x", clock.to_text(T0), status="completed", completed_at=T0)
    assert (await store.get("x")).status == "running"


async def test_the_list_follows_exact_times_within_a_second(store):
    moments = ["20:24:29Z", "20:24:29.5Z", "20:24:29.25Z", "20:24:28.999999999Z", "20:24:30Z"]
    for moment in moments:
        await store.claim(moment, "t", None, clock.from_text(f"2026-03-26T{moment}"))
    order = [row.id for row in await store.newest(10)]
    assert order == ["20:24:30Z", "20:24:29.5Z", "20:24:29.25Z", "20:24:29Z", "20:24:28.999999999Z"]
    assert [row.id for row in await store.newest(2)] == order[:2]


@pytest.mark.parametrize(
    ("column", "value", "word"),
    [("params", "{broken", "params"), ("params", None, "params"), ("params", "[1]", "params"), ("result", "{", "result"),
     ("submitted_at", "soon", "submitted_at"), ("completed_at", "later", "completed_at")],
)  # fmt: skip
async def test_a_damaged_row_is_marked_and_the_others_are_shown(path, store, column, value, word):
    await store.claim("good", "t", '{"a":1}', T0)
    await store.claim("bad", "t", None, T0 + 1)
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE task_results SET {column} = ? WHERE id = 'bad'", (value,))
    rows = {row.id: row for row in await store.newest(10)}
    assert rows["good"].damage is None
    assert word in rows["bad"].damage


async def test_a_node_is_held_while_the_latest_word_is_a_hold(store):
    async def submit(task_id: str, kind: str, second: int) -> None:
        await store.claim(task_id, kind, None, 1_700_000_000_000_000_000 + second)

    assert not await store.held()
    await submit("a", "mark-ready", 500_000_000)
    assert not await store.held()
    await submit("b", "mark-not-ready", 500_000_001)
    assert await store.held()
    await submit("c", "mark-ready", 1_000_000_000)
    assert not await store.held()
    await store.remove("c")
    assert await store.held()


async def test_a_write_lock_held_by_someone_else_does_not_stop_reads(path, store, monkeypatch):
    await store.claim("x", "t", None, T0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._writer.execute("PRAGMA busy_timeout=50")
    with pytest.raises(StoreUnavailableError, match=r"database is locked \(5\)"):
        await store.claim("y", "t", None, T0)
    await store.ping()
    assert (await store.get("x")).status == "running"
    other.execute("ROLLBACK")
    assert (await store.claim("y", "t", None, T0)).started


async def test_a_closed_store_says_so(path):
    store = TaskStore.open(path)
    store.close()
    with pytest.raises(StoreUnavailableError):
        await store.ping()


async def test_old_terminal_rows_go_and_holds_and_running_rows_stay(store):
    hour = 3_600 * 10**9
    for number in range(20):
        await store.claim(f"done-{number:02d}", "t", None, T0 + number * hour)
        await store.finish(f"done-{number:02d}", clock.to_text(T0 + number * hour), status="completed", completed_at=T0)
    await store.claim("hold", "mark-not-ready", None, T0 - hour)
    await store.finish("hold", clock.to_text(T0 - hour), status="completed", completed_at=T0)
    await store.claim("old", "t", None, T0 - 2 * hour)
    removed = await store.prune(keep=5, older_than=T0 + 18 * hour)
    assert removed == 15
    left = {row.id for row in await store.newest(100)}
    assert left == {f"done-{number}" for number in range(15, 20)} | {"hold", "old"}
    assert await store.prune(keep=1, older_than=T0 - 5 * hour) == 0


async def test_a_marker_is_on_disk_when_saved(path, store):
    marker = TxMarker("task", "AB", b"\x00\x01", 7, 42, "golden-1")
    await store.save(marker)
    assert await store.load("task") == marker
    assert await store.load("other") is None
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1:] == (0, 0) or db.execute(
            "SELECT count(*) FROM tx_markers"
        ).fetchone() == (1,)
    assert store._writer.execute("PRAGMA synchronous").fetchone() == (1,)


async def test_attempts_are_counted_until_they_are_forgotten(store):
    await store.claim("x", "t", None, T0)
    assert [await store.count_attempt("x") for _ in range(3)] == [1, 2, 3]
    await store.forget_attempts("x")
    assert await store.count_attempt("x") == 1
    await store.forget_attempts()
    assert await store.count_attempt("x") == 1


async def test_claims_from_many_threads_of_control_start_one_run(path):
    """Two processes over one file: each id still starts once."""
    stores = [TaskStore.open(path) for _ in range(2)]
    started: list[bool] = []
    lock = threading.Lock()
    for number in range(20):
        for store in stores:
            claim = await store.claim(f"id-{number}", "t", None, T0 + number)
            with lock:
                started.append(claim.started)
    for store in stores:
        store.close()
    assert sum(started) == 20
