"""Starts of the controller with good and bad configuration, each a process of its own (ruling 11): compared are the
exit code, or that it keeps running, and that what the recording names occurs in what ours says."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from replay.context import ReplayContext, read_jsonl
from replay.differences import explained
from replay.lane import RECORDED_CONFIG, ControllerProcess, Lane
from replay.report import CaseResult
from replay.script import ScriptError

STILL_RUNNING = "still running"
AT_ONCE = 3
SETTLED = 0.35
"""Part of the recorded patience after which a process that has taken its lease counts as one that keeps running."""
_KEY = re.compile(r"^([A-Za-z_][\w.]*)(?= is required|: )")
_FIELD = re.compile(r"Go struct field \w+\.([\w.]+)")


def holds_starts(folder: Path) -> bool:
    return (folder / "cases.jsonl").is_file() and (folder / "script.jsonl").is_file()


async def run(context: ReplayContext, folder: Path) -> AsyncIterator[CaseResult]:
    cases = {case["n"]: case for case in read_jsonl(folder / "cases.jsonl")}
    scripts: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for step in read_jsonl(folder / "script.jsonl"):
        if "case" in step:
            scripts[step["case"]].append(step)
    wanted = [case for case in cases.values() if context.wants(folder.name) or context.wants(_name(folder, case))]
    if not wanted:
        return
    hub = Lane(context, f"{folder.name}-lane", 1.0)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(case: dict[str, Any]) -> CaseResult:
        async with room:
            return await _run_start(hub, folder, case, scripts[case["n"]])

    try:
        await hub.start()
        for result in asyncio.as_completed([one(case) for case in wanted]):
            yield await result
    finally:
        await hub.stop()


def _name(folder: Path, case: dict[str, Any]) -> str:
    return f"{folder.name}/{case['n']:02d} {case['case']}"


async def _run_start(hub: Lane, folder: Path, case: dict[str, Any], steps: list[dict[str, Any]]) -> CaseResult:
    title = f"flows/{_name(folder, case)}"
    rules = hub.context.differences.for_case("flows", _name(folder, case), steps)
    lane = hub.beside(f"start-{case['n']}")
    controller = ControllerProcess(lane, lane.directory / "controller.log", arguments=())
    try:
        outcome = await _outcome(lane, controller, steps)
    except ScriptError as error:
        return CaseResult(title, "fail", str(error))
    finally:
        await controller.kill()
    recorded: dict[str, Any] = {"exit": STILL_RUNNING if isinstance(case["exit"], str) else case["exit"]}
    said = controller.output().replace(str(lane.config_file), RECORDED_CONFIG)
    named = recorded_names(case["log"]) if isinstance(case["exit"], int) else []
    recorded["named"] = dict.fromkeys(named, True)
    seen: dict[str, Any] = {"exit": outcome, "named": {name: name in said for name in named}}
    # Rules may depend on what ours says; it is not compared.
    recorded["said"] = seen["said"] = said
    left = rules.compare("startup", recorded, seen)
    if left:
        words = " | ".join(said.strip().splitlines()[-2:])[-300:]
        return CaseResult(title, "fail", f"{left[0]}; it said: {words or 'nothing'}", more=tuple(map(str, left[1:])))
    return CaseResult(title, "pass", differences=explained(hub.context.differences, rules.used))


async def _outcome(lane: Lane, controller: ControllerProcess, steps: list[dict[str, Any]]) -> int | str:
    """The exit code, or that it still runs."""
    outcome: int | str = STILL_RUNNING
    for step in steps:
        action = step["do"] if step["do"] != "controller" else step["op"]
        if action == "config":
            lane.set_config(step["content"])
        elif action == "config-remove":
            lane.remove_config()
        elif action == "config-dir":
            lane.config_directory()
        elif action == "start":
            environment = {name: _ours(lane, value) for name, value in step["env"].items()}
            await controller.start(environment=environment, arguments=step["args"], listen=False)
        elif action in ("expect-exit", "expect-running"):
            # A start that fails does so long before; only a loaded machine needs the whole time.
            patience = step["within"] * (2 if action == "expect-exit" else SETTLED)
            code = await controller.wait_end(patience)
            outcome = STILL_RUNNING if code is None else code
        elif action == "sigkill":
            await controller.kill()
        else:
            raise ScriptError(f"step {step.get('n')}: not in the grammar of starts: {action}")
    return outcome


def _ours(lane: Lane, value: str | None) -> str | None:
    return None if value is None else value.replace(RECORDED_CONFIG, str(lane.config_file))


def recorded_names(log: list[dict[str, Any]]) -> list[str]:
    """What the recorded errors name: a key, the file, the field of it; for a usage error the flag."""
    names: list[str] = []
    for line in log:
        error = line.get("error", "") if line.get("level") == "error" else ""
        key = _KEY.match(error)
        if key is not None and key.group(1) not in ("reading", "parsing"):
            names.append(key.group(1))
        if RECORDED_CONFIG in error:
            names.append(RECORDED_CONFIG)
        names += _FIELD.findall(error)
        undefined = re.match(r"flag provided but not defined: -+(\S+)", line.get("text", ""))
        if undefined is not None:
            names.append(undefined.group(1))
    return names
