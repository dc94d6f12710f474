"""process.json and the metrics files: start-up, logging, port, home, signals, restarts, and what a scrape shows."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from replay.sidecar_compare import Comparison
from replay.sidecar_http import socket_address
from replay.sidecar_stage import PORT, Answer, NotPosableError, Stage
from replay.sidecar_world import World

_STAMP = re.compile(r"time=\S+")
AWAIT = '{"id":"%s","type":"await-condition","params":{"condition":"height","targetHeight":5}}'
ID = "00000077-0000-4000-8000-000000000000"

Pose = Callable[[Stage, str, Any, Comparison], Awaitable[None]]


def units(world: World) -> Iterator[tuple[str, Callable[[], Awaitable[None]], float]]:
    path = world.golden / "process.json"
    if path.is_file():
        for key, recorded in json.loads(path.read_text(encoding="utf-8")).items():
            name = f"process/{key.replace(' ', '-').replace('/', '-')}"
            if world.wants(name):

                async def run(name: str = name, key: str = key, recorded: Any = recorded) -> None:
                    await pose(world, name, key, recorded)

                yield name, run, 2.0
    for file in ("metrics-start.txt", "metrics.txt"):
        if (world.golden / file).is_file() and world.wants(file):

            async def scrape(file: str = file) -> None:
                await pose_metrics(world, file)

            yield file, scrape, 2.0


async def pose(world: World, name: str, key: str, recorded: Any) -> None:
    how = next((how for prefix, how in _RULES if key.startswith(prefix)), None)
    if how is None:
        world.skip(name, "no rule to pose this observation")
        return
    comparison = world.comparison(name)
    try:
        async with world.stage(name) as stage:
            await how(stage, key, recorded, comparison)
    except NotPosableError as reason:
        world.skip(name, str(reason))
        return
    world.emit(comparison.result())


# --- start-up ----------------------------------------------------------------------------------------------------------


async def _started(stage: Stage, comparison: Comparison, recorded: Any, *, port: int = PORT, **how: Any) -> None:
    """Starts, looks at the socket table, stops; compares what the record holds of it."""
    await stage.start(listening=False, **how)
    listens = await stage.listens(port=port)
    address = socket_address(port) if listens else ""
    status = await stage.stop()
    for member, produced in (
        ("listen", [address]),
        ("exit", status),
        ("stdout", _masked(stage, stage.stdout())),
        ("stderr", stage.recorded(stage.stderr())),
    ):
        if member in recorded:
            theirs = recorded[member]
            if isinstance(theirs, list) and member == "stdout":
                theirs = "\n".join(theirs)
            comparison.documents("startup", {member: theirs}, {member: produced})


def _masked(stage: Stage, text: str) -> str:
    return _STAMP.sub("time=TIME", stage.recorded(text))


def listed(folder: Path) -> list[str]:
    """The names in a folder; none when it is not there."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


async def _home_variable(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    if "blanks and dots" in key:
        stage.environment["SEI_HOME"] = "  ./hh/../. "
        folder = stage.root / "cwd"
        (folder / "hh").mkdir(parents=True)
    else:
        stage.environment["SEI_HOME"] = ""
        folder = stage.root / "cwd"
        folder.mkdir()
    await stage.start(listening=False, cwd=folder)
    await stage.listens()
    created = listed(folder)
    default = Path("/sei")
    if not created and listed(default):
        created = ["(nothing: the default home was used)"]
    status = await stage.stop()
    shutil.rmtree(default, ignore_errors=True) if "set but empty" in key else None
    names = [name for name in created if not name.startswith("sidecar.db-")]
    comparison.documents("startup", {"exit": recorded["exit"], "created": recorded["created_in_cwd"]},
                         {"exit": status, "created": names})  # fmt: skip


async def _no_home(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    if listed(Path("/sei")):
        raise NotPosableError("/sei exists on this machine")
    stage.environment["SEI_HOME"] = ""
    try:
        await stage.start()
        names = [name for name in listed(Path("/sei")) if not name.startswith("sidecar.db-")]
        status = await stage.stop()
    finally:
        shutil.rmtree("/sei", ignore_errors=True)
    comparison.documents("startup", {"exit": recorded["exit"], "created": recorded["created"]},
                         {"exit": status, "created": names})  # fmt: skip


async def _empty_port(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    stage.environment["SEI_SIDECAR_PORT"] = ""
    await stage.start(listening=False)
    await stage.listens()
    address = socket_address()
    status = await stage.stop()
    shape = ["*:<random>"] if recorded["listen"] != ["*:7777"] else recorded["listen"]
    comparison.documents("startup", {"listen": shape, "exit": recorded["exit"]}, {"listen": [address], "exit": status})


async def _port_flag(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    await _started(stage, comparison, recorded, port=7999, arguments=("serve", "--port", "7999", "extra", "words"))


async def _variable(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    name, _, value = key.partition(" ")
    spoken = {"relative": "relative.log", "file": str(stage.root / "logs" / "sidecar.log"), "a single blank": " "}
    stage.environment[name] = spoken.get(value, value)
    if value != "file":
        await _started(stage, comparison, recorded)
        return
    stage.environment["SEI_LOG_ADD_SOURCE"] = "true"
    await stage.start()
    await stage.stop()
    path = stage.root / "logs" / "sidecar.log"
    first = _masked(stage, path.read_text().splitlines(keepends=True)[0])
    source = re.compile(r"source=\S+")
    comparison.documents(
        "startup",
        {"stdout": recorded["stdout"], "mode": recorded["mode"], "dir_mode": recorded["dir_mode"],
         "first_line": source.sub("source=<file:line>", recorded["first_line"])},
        {"stdout": stage.stdout(), "mode": f"0o{path.stat().st_mode & 0o777:o}",
         "dir_mode": f"0o{path.parent.stat().st_mode & 0o777:o}", "first_line": source.sub("source=<file:line>", first)},
    )  # fmt: skip


async def _json_format(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    stage.environment["SEI_LOG_FORMAT"] = "json"
    await stage.start()
    await stage.stop()
    theirs, ours = json.loads(recorded["stdout"][0]), json.loads(stage.stdout().splitlines()[0])
    time_shape = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
    for line in (theirs, ours):
        line["time"] = bool(time_shape.fullmatch(line["time"]))
    comparison.documents("startup", theirs, ours)


async def _start_line(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    value = key.split("=", 1)[1]
    if value != "None":
        stage.environment["SEI_SIDECAR_AUTHN_MODE"] = value.strip("'")
    await stage.start()
    await stage.stop()
    line = _masked(stage, stage.stdout().splitlines(keepends=True)[0])
    comparison.documents("startup", {"line": recorded}, {"line": line})


async def _durations(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    stage.environment |= {"SEI_SNAPSHOT_UPLOAD_INTERVAL": "-1h", "SEI_SNAPSHOT_UPLOAD_TIMEOUT": "0s"}
    await _started(stage, comparison, recorded)


async def _port_taken(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("::", PORT))
        taken.listen()
        await stage.start(listening=False)
        status = await stage.exit_status(20)
    comparison.documents("startup", {"exit": recorded["exit"], "stderr": recorded["stderr"][20:]},
                         {"exit": status, "stderr": stage.stderr()[20:]})  # fmt: skip


# --- signals and restarts ------------------------------------------------------------------------------------------------


async def _half_sent(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    await stage.start()
    await stage.submit(AWAIT % ID)
    _, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(b"POST /v0/tasks HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    await writer.drain()
    await asyncio.sleep(0.2)
    status = await stage.stop()
    writer.close()
    import sqlite3

    with sqlite3.connect(stage.home / "sidecar.db") as db:
        rows = [list(row) for row in db.execute("SELECT type, status FROM task_results")]
    comparison.documents("rows", {"exit": recorded["exit"], "rows": recorded["rows"]}, {"exit": status, "rows": rows})


async def _interrupt(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    await stage.start()
    started = time.monotonic()
    status = await stage.stop(signal.SIGINT)
    comparison.documents("startup", {"exit": recorded["exit"]}, {"exit": status})
    if time.monotonic() - started > 10:
        comparison.add("SIGINT took more than ten seconds")


async def _after_delete(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    await stage.start()
    await stage.submit(AWAIT % ID)
    await asyncio.sleep(0.3)
    await stage.request("DELETE", f"/v0/tasks/{ID}")
    await asyncio.sleep(0.3)
    text = (await stage.request("GET", "/v0/metrics")).body.decode()
    from replay.sidecar_http import _pick, _series

    wanted = _series("\n".join(recorded["metrics"]))
    comparison.documents("metrics", wanted, _pick(wanted, text))


async def _ready_after_restart(stage: Stage, key: str, recorded: Any, comparison: Comparison) -> None:
    mark = json.dumps({"id": ID, "type": "mark-ready"})
    await stage.start()
    await stage.submit(mark)
    await stage.poll(ID, "completed", 10)
    before = await stage.request("GET", "/v0/healthz")
    await stage.stop()
    await stage.start()
    again: Answer = await stage.submit(mark)
    after = await stage.request("GET", "/v0/healthz")
    comparison.documents(
        "http",
        recorded,
        {
            "before": before.status_line,
            "resubmit": again.status_line,
            "body": again.body.decode(),
            "healthz": after.status_line,
        },
    )


# --- metrics -------------------------------------------------------------------------------------------------------------


async def pose_metrics(world: World, file: str) -> None:
    """Every `seictl_` family of the record exists with its type, help and label names; a start shows the recorded values."""
    recorded = (world.golden / file).read_text(encoding="utf-8")
    comparison = world.comparison(file)
    async with world.stage(file) as stage:
        if file == "metrics-start.txt":
            from replay.sidecar_http import _series

            values = {
                name.split("{")[0]: int(value)
                for name, value in _series(recorded).items()
                if name.startswith("seictl_")
            }
            state = {"lastUploadedHeight": values.get("seictl_snapshot_upload_last_uploaded_height", 0),
                     "lastUploadedAt": values.get("seictl_snapshot_upload_last_uploaded_timestamp_seconds", 0)}  # fmt: skip
            (stage.home / ".sei-sidecar-last-upload.json").write_text(json.dumps(state))
        await stage.start()
        produced = (await stage.request("GET", "/v0/metrics")).body.decode()
    ours = set(produced.splitlines())
    for line in recorded.splitlines():
        if line.startswith(("# HELP seictl_", "# TYPE seictl_")) and line not in ours:
            comparison.documents("metrics", {"line": line}, {"line": next(
                (own for own in ours if own.split(" ")[:3] == line.split(" ")[:3]), None)})  # fmt: skip
    if file == "metrics-start.txt":
        from replay.sidecar_http import _pick, _series

        wanted = {name: value for name, value in _series(recorded).items() if name.startswith("seictl_")}
        comparison.documents("metrics", wanted, _pick(wanted, produced))
    world.emit(comparison.result())


_RULES: tuple[tuple[str, Pose], ...] = (
    ("SEI_HOME ", _home_variable),
    ("SEI_SIDECAR_PORT set but empty", _empty_port),
    ("--port 7999", _port_flag),
    ("SEI_LOG_FORMAT json", _json_format),
    ("SEI_LOG_", _variable),
    ("SEI_CHAIN_ID a single blank", _variable),
    ("non-positive durations", _durations),
    ("no home given", _no_home),
    ("SIGTERM with a half-sent request", _half_sent),
    ("SIGINT", _interrupt),
    ("port already in use", _port_taken),
    ("metrics after DELETE of a running task", _after_delete),
    ("D-3 mark-ready id after a restart", _ready_after_restart),
    ("start line, SEI_SIDECAR_AUTHN_MODE=", _start_line),
)
