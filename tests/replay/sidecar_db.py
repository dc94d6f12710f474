"""db/: stores of the upstream binary opened, migrated and taken up by ours, and planted rows at start-up."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from replay import sidecar_compare
from replay.context import iterate_jsonl
from replay.sidecar_compare import Comparison, mask
from replay.sidecar_stage import Answer, Stage
from replay.sidecar_world import NOT_YET, World, offered
from seiops.sidecar import clock

SETTLE_SECONDS = 15.0
SCHEMA = """
CREATE TABLE task_results (id TEXT PRIMARY KEY, type TEXT NOT NULL, status TEXT NOT NULL, params TEXT,
  error TEXT NOT NULL DEFAULT '', submitted_at TEXT NOT NULL, completed_at TEXT, run INTEGER NOT NULL DEFAULT 1, result TEXT);
CREATE INDEX idx_task_results_submitted_at ON task_results (submitted_at DESC);
CREATE TABLE tx_markers (task_id TEXT PRIMARY KEY, tx_hash TEXT NOT NULL, tx_bytes BLOB NOT NULL,
  account_number INTEGER NOT NULL, sequence INTEGER NOT NULL, chain_id TEXT NOT NULL, created_at TEXT NOT NULL);
PRAGMA user_version=5;
"""


def units(world: World) -> Iterator[tuple[str, Callable[[], Awaitable[None]], float]]:
    folder = world.golden / "db"
    for path in sorted(folder.glob("*")):
        name = f"db/{path.name}"
        if path.is_dir() and world.wants(name):

            async def run(name: str = name, path: Path = path) -> None:
                await pose_store(world, name, path)

            yield name, run, 2.0
    if (folder / "rehydration.jsonl").is_file():
        for line in iterate_jsonl(folder / "rehydration.jsonl"):
            name = f"db/rehydration/{line['scenario']}"
            if world.wants(name):

                async def rehydrate(name: str = name, line: dict[str, Any] = line) -> None:
                    await pose_rehydration(world, name, line)

                yield name, rehydrate, 2.0


async def pose_store(world: World, name: str, folder: Path) -> None:
    """A recorded store: what our sidecar shows of it and leaves in it."""
    after = _read(folder / "after-restart.json")
    run = _read(folder / "run.json")
    recorded = _read(folder / "content.json")
    expected = after["tasks"] if after else run["list"] if run else None
    stored = sorted((_as_task(row) for row in recorded["task_results"]), key=_submitted, reverse=True)
    rows = expected if expected is not None else stored
    stuck = next((row["type"] for row in rows if row["status"] != "failed" and not offered(row["type"])), None)
    if stuck is not None and any(row["status"] == "running" and row["type"] == stuck for row in rows):
        world.skip(name, f"{NOT_YET}: {stuck}")
        return
    comparison = world.comparison(name)
    async with world.stage(name) as stage:
        source = "before.db" if (folder / "before.db").exists() else "sidecar.db"
        for suffix in ("", "-wal", "-shm"):
            if (folder / (source + suffix)).exists():
                shutil.copy(folder / (source + suffix), stage.home / f"sidecar.db{suffix}")
        if after is not None:
            await stage.rpc.open([_status(11)], stage.work / "c.pem")
        await stage.start()
        wanted = {row["id"]: row["status"] for row in rows}
        answer = await _settled(stage, wanted)
        _compare_list(comparison, rows, answer)
        if not any(row["status"] == "running" for row in rows) or run is not None:
            await stage.stop()
            _compare_content(comparison, recorded, stage.home / "sidecar.db", whole=run is not None)
    world.emit(comparison.result())


async def pose_rehydration(world: World, name: str, recorded: dict[str, Any]) -> None:
    missing = [
        row["type"] for row in recorded["rows_before"] if row["status"] == "running" and not offered(row["type"])
    ]
    never = {
        row["type"] for row in recorded.get("tasks", []) if row.get("error") == "no handler registered for task type"
    }
    if set(missing) - never:
        world.skip(name, f"{NOT_YET}: {sorted(set(missing) - never)[0]}")
        return
    comparison = world.comparison(name)
    async with world.stage(name) as stage:
        stage.environment.update({key: str(value) for key, value in recorded["env"].items()})
        stage.place(stage.home, recorded["files_before"])
        height = _seen_height(recorded["log"])
        if height is not None:
            await stage.rpc.open([_status(height)], stage.work / "c.pem")
        plant(stage.home / "sidecar.db", recorded["rows_before"])
        if "tasks" in recorded:
            await stage.start()
            wanted = {row["id"]: row["status"] for row in recorded["tasks"]}
            answer = await _settled(stage, wanted)
            _compare_list(comparison, recorded["tasks"], answer)
            health = await stage.request("GET", "/v0/healthz")
            comparison.documents("http", {"healthz": recorded["healthz"]}, {"healthz": health.status_line})
            status = await stage.request("GET", "/v0/status")
            comparison.documents("http", {"status": recorded["status"]}, {"status": status.body.decode()})
            await _compare_metrics(comparison, recorded["metrics"], stage)
            exit_status = await stage.stop()
        else:
            await stage.start(listening=False)
            exit_status = await stage.exit_status(20)
            comparison.documents("startup", {"stderr": recorded["stderr"][20:]}, {"stderr": stage.stderr()[20:]})
        comparison.documents("startup", {"exit": recorded["exit"]}, {"exit": exit_status})
        rows = {"rows": read_rows(stage.home / "sidecar.db")}
        comparison.documents("rows", mask({"rows": recorded["rows_after"]}), mask(rows))
        files = sorted(name for name in stage.snapshot() if not name.endswith("/"))
        comparison.documents("files", {"files": sorted(mask(recorded["home"]))}, {"files": sorted(mask(files))})
    world.emit(comparison.result())


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _status(height: int) -> dict[str, Any]:
    body = {
        "sync_info": {"latest_block_height": str(height), "catching_up": False},
        "node_info": {"network": "golden-1"},
    }
    answer = {"status": 200, "body": json.dumps(body)}
    return {"endpoint": "127.0.0.1:26657", "method": "GET", "target": "/status", "answer": answer}


def _seen_height(log: list[str]) -> int | None:
    """The height that the recorded RPC answered with, when one answered."""
    for line in log:
        if 'msg="rpc available"' in line:
            return int(line.rsplit("height=", 1)[1])
    return None


async def _settled(stage: Stage, wanted: dict[str, str]) -> Answer:
    """The list once every row has its recorded status (or the time is up)."""
    import asyncio
    import time

    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        answer = await stage.request("GET", "/v0/tasks")
        states = {row["id"]: row["status"] for row in answer.json()} if answer.status == 200 else {}
        if states == wanted or time.monotonic() > deadline:
            return answer
        await asyncio.sleep(0.05)


def _compare_list(comparison: Comparison, recorded: list[dict[str, Any]], answer: Answer) -> None:
    if answer.status != 200:
        comparison.add(f"list: {answer.status_line}")
        return
    produced = {row["id"]: row for row in answer.json()}
    comparison.documents("http", {"order": [row["id"] for row in recorded]}, {"order": list(produced)}, "list")
    for row in recorded:
        if row["id"] in produced:
            left, right = sidecar_compare.row(row, produced[row["id"]])
            comparison.documents("task", left, right, f"task {row['id'][:8]}")
            if row["submittedAt"] != produced[row["id"]]["submittedAt"]:
                comparison.add(f"submittedAt of {row['id'][:8]} changed to {produced[row['id']]['submittedAt']}")


def _compare_content(comparison: Comparison, recorded: dict[str, Any], path: Path, *, whole: bool) -> None:
    """Version, columns and rows of a store that upstream also left behind."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        facts: dict[str, Any] = {"user_version": db.execute("PRAGMA user_version").fetchone()[0],
                                 "journal_mode": db.execute("PRAGMA journal_mode").fetchone()[0]}  # fmt: skip
        for table in recorded["columns"]:
            cursor = db.execute(f"PRAGMA table_info({table})")
            names = ("cid", "name", "type", "notnull", "default", "pk")
            facts[f"columns of {table}"] = [dict(zip(names, row, strict=True)) for row in cursor]
        indexes = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    wanted = {"user_version": recorded["user_version"], "journal_mode": recorded["journal_mode"]}
    wanted |= {f"columns of {table}": columns for table, columns in recorded["columns"].items()}
    comparison.documents("rows", wanted, facts, "store")
    lost = {name for name, _ in recorded["indexes"]} - indexes
    if lost:
        comparison.add(f"store: indexes lost: {sorted(lost)}")
    if whole:
        theirs = sorted(recorded["task_results"], key=lambda row: row["id"])
        comparison.documents("rows", mask({"rows": theirs}), mask({"rows": read_rows(path)}), "store")


async def _compare_metrics(comparison: Comparison, recorded: list[str], stage: Stage) -> None:
    text = (await stage.request("GET", "/v0/metrics")).body.decode()
    ours = {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[:1] not in ("#", "")
    }
    for line in recorded:
        series, value = line.rsplit(" ", 1)
        produced = next((ours[name] for name in ours if same_series(name, series)), None)
        comparison.documents("metrics", {series: float(value)}, {series: produced})


def same_series(left: str, right: str) -> bool:
    """Whether two series names are equal whatever the order of their labels."""

    def parts(series: str) -> tuple[str, frozenset[str]]:
        name, _, labels = series.partition("{")
        return name, frozenset(labels.rstrip("}").split(",")) if labels else frozenset()

    return parts(left) == parts(right)


def _as_task(row: dict[str, Any]) -> dict[str, Any]:
    """A stored row as the API shows it."""
    task = {"id": row["id"], "type": row["type"], "status": row["status"], "run": row["run"]}
    if row["params"] not in (None, "null"):
        task["params"] = json.loads(row["params"])
    if row["result"] is not None:
        task["result"] = json.loads(row["result"])
    if row["error"]:
        task["error"] = row["error"]
    task["submittedAt"] = row["submitted_at"]
    if row["completed_at"] is not None:
        task["completedAt"] = row["completed_at"]
    return task


def _submitted(task: dict[str, Any]) -> int:
    return clock.from_text(task["submittedAt"])


def plant(path: Path, rows: list[dict[str, Any]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA)
        for row in rows:
            columns = ", ".join(row)
            db.execute(f"INSERT INTO task_results ({columns}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        db.commit()


def read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        columns = "id, type, status, params, error, submitted_at, completed_at, run, result"
        return [dict(row) for row in db.execute(f"SELECT {columns} FROM task_results ORDER BY id")]
