"""config/<case>/ and config/keys.jsonl: the four tasks that write or judge configuration files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from replay import sidecar_compare
from replay.context import iterate_jsonl
from replay.sidecar_stage import Stage
from replay.sidecar_world import NOT_YET, World, offered

FULL = {"mode": "full"}


def units(world: World) -> Iterator[tuple[str, Callable[[], Awaitable[None]], float]]:
    folder = world.golden / "config"
    cases = [path for path in sorted(folder.glob("*")) if path.is_dir() and world.wants(f"config/{path.name}")]
    if cases:
        yield "config", lambda: pose_cases(world, cases), len(cases) * 0.2
    keys = folder / "keys.jsonl"
    if keys.is_file():
        lines = [
            (number, line) for number, line in enumerate(iterate_jsonl(keys)) if world.wants(_key_name(number, line))
        ]
        if lines:
            yield "config/keys", lambda: pose_keys(world, lines), len(lines) * 0.08


def _key_name(number: int, line: dict[str, Any]) -> str:
    return f"config/keys/{number:03d}-{line.get('key') or line.get('file') or 'line'}"


async def pose_cases(world: World, cases: list[Path]) -> None:
    async with world.stage("config") as stage:
        await stage.start()
        for folder in cases:
            await pose_case(world, stage, folder)


async def pose_case(world: World, stage: Stage, folder: Path) -> None:
    recorded = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    name = f"config/{folder.name}"
    if not offered(recorded["type"]):
        world.skip(name, f"{NOT_YET}: {recorded['type']}")
        return
    before = read_folder(folder / "before")
    set_config(stage, before)
    task = await run_task(stage, recorded["type"], recorded["params"])
    comparison = world.comparison(name)
    left, right = sidecar_compare.row(_row(recorded), _row(task))
    comparison.documents("task", left, right)
    after = read_folder(stage.home / "config")
    expected = read_folder(folder / "after") if (folder / "after").is_dir() else before
    params = recorded["params"] or {}
    exact = recorded["type"] == "config-apply" and not params.get("incremental")
    comparison.documents(
        "files", *sidecar_compare.files(_entries(expected), _entries(after), [], byte_exact=exact), "files"
    )
    modes = {path.name: f"0{path.stat().st_mode & 0o7777:o}" for path in sorted((stage.home / "config").iterdir())}
    comparison.documents("files", {"modes": recorded["modes_after"]}, {"modes": modes}, "files")
    world.emit(comparison.result())


async def pose_keys(world: World, lines: list[tuple[int, dict[str, Any]]]) -> None:
    if not offered("config-apply"):
        for number, line in lines:
            world.skip(_key_name(number, line), f"{NOT_YET}: config-apply")
        return
    async with world.stage("config-keys") as stage:
        await stage.start()
        set_config(stage, {})
        await run_task(stage, "config-apply", FULL)
        defaults = read_folder(stage.home / "config")
        for number, line in lines:
            await pose_key(world, stage, _key_name(number, line), line, defaults)


async def pose_key(world: World, stage: Stage, name: str, line: dict[str, Any], defaults: dict[str, bytes]) -> None:
    if "key" in line:
        set_config(stage, {})
        params: dict[str, Any] = {"mode": line["mode"], "overrides": {line["key"]: line["value"]}}
    elif line.get("op", "").startswith("incremental apply, mode "):
        files = {} if line["file"] == "(missing)" else {**defaults, line["file"]: line["text"].encode()}
        if line["file"] == "(missing)":
            files = {key: value for key, value in defaults.items() if key != "app.toml"}
        set_config(stage, files)
        params = {"mode": line["op"].removeprefix("incremental apply, mode "), "incremental": True}
    else:
        world.skip(name, "no rule to pose this line")
        return
    task = await run_task(stage, "config-apply", params)
    comparison = world.comparison(name)
    left, right = sidecar_compare.row(_row(line), _row(task))
    comparison.documents("task", left, right)
    if "sha256" in line:
        sums = {file: hashlib.sha256(data).hexdigest() for file, data in read_folder(stage.home / "config").items()}
        comparison.documents("files", {"sha256": line["sha256"]}, {"sha256": sums}, "files")
        if sums != line["sha256"]:
            _explain(comparison, line, defaults, stage)
    world.emit(comparison.result())


def _explain(
    comparison: sidecar_compare.Comparison, line: dict[str, Any], defaults: dict[str, bytes], stage: Stage
) -> None:
    """Which lines should have changed and which did, for the person reading the failure."""
    for file, text in defaults.items():
        ours = (stage.home / "config" / file).read_text().splitlines()
        old = text.decode().splitlines()
        new = [row for row in ours if row not in old]
        wanted = [row for change in line["changed"] if change["file"] == file for row in change["new"]]
        if line["mode"] == "full" and new != wanted:
            comparison.add(f"{file}: recorded lines {wanted}, got {new[:5]}")


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("status", "error", "result") if entry.get(key) is not None}


def _entries(files: dict[str, bytes]) -> dict[str, Any]:
    return {name: {"bytes": data} for name, data in files.items()}


def read_folder(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def set_config(stage: Stage, files: dict[str, bytes]) -> None:
    """The config folder holds exactly these files."""
    folder = stage.home / "config"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        (folder / name).chmod(0o644)


async def run_task(stage: Stage, kind: str, params: Any) -> dict[str, Any]:
    """Submits a task, waits for its end, returns its row with our paths replaced by the placeholders."""
    document = {"id": str(uuid.uuid4()), "type": kind} | ({} if params is None else {"params": params})
    answer = await stage.submit(json.dumps(document))
    if answer.status != 201:
        return {"status": "refused", "error": answer.body.decode()}
    done = await stage.poll(document["id"], "completed", 30)
    row: dict[str, Any] = json.loads(stage.recorded(done.body.decode()))
    return row
