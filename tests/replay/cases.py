"""Runs recorded cases of objects and flows: which are in scope, on which lane, and how each one is judged."""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncIterator, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from replay import texts
from replay.context import ReplayContext, read_jsonl
from replay.differences import explained
from replay.judge import judge, judge_checks
from replay.kubeapi import ApiError
from replay.lane import ControllerProcess, HarnessError, Lane
from replay.record import Record, produced
from replay.report import CaseResult
from replay.script import Run, ScriptError, comparable_check, recorded_checks

SCALE = 0.3
"""Of the controller's intervals and the sidecars' task durations: 30 s become 9, which is much longer than a pass on a loaded machine."""
SHARED_AT_ONCE = 10
COLLECT_SECONDS = 10.0
SHARED_START = 0.4
"""Seconds between two cases' starts on a shared controller."""
NOT_IN_SCOPE = ("SeiNetwork", "SeiNodeTask", "SeiNodeTaskWorkflow")
RECORD_FILES = ("status.jsonl", "objects.json", "sidecar.jsonl", "events.json")
STEADY_SECONDS = 240


@dataclass(frozen=True)
class Case:
    area: str
    name: str
    folder: Path
    steps: list[dict[str, Any]]

    @property
    def title(self) -> str:
        return f"{self.area}/{self.name}"

    @property
    def own_controller(self) -> bool:
        """Whether it needs a controller to itself: also when it changes the configuration, which others read."""
        return str(self.steps[0].get("controller", "own")) != "shared" or any(
            step["do"] in ("config", "config-remove", "config-dir", "controller") for step in self.steps
        )

    @property
    def namespace(self) -> str:
        return str(self.steps[0].get("namespace", self.name))

    def manifests(self) -> list[dict[str, Any]]:
        return [step["manifest"] for step in self.steps if step["do"] == "create"]

    def foreign_kinds(self) -> set[str]:
        return {manifest["kind"] for manifest in self.manifests()} & set(NOT_IN_SCOPE)

    def weight(self) -> float:
        return float(sum(step.get("seconds", 0) for step in self.steps if step["do"] == "sleep"))


class Results:
    """Results as lanes have them, until the last lane is done."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[CaseResult | None] = asyncio.Queue()
        self._reported: set[str] = set()

    async def put(self, result: CaseResult) -> None:
        self._reported.add(result.name)
        await self._queue.put(result)

    async def close(self) -> None:
        await self._queue.put(None)

    def has(self, case: Case) -> bool:
        return case.title in self._reported

    async def __aiter__(self) -> AsyncIterator[CaseResult]:
        while (result := await self._queue.get()) is not None:
            yield result


@dataclass
class Sorted:
    shared: list[Case] = field(default_factory=list)
    own: list[Case] = field(default_factory=list)
    skipped: list[CaseResult] = field(default_factory=list)


def sort_cases(context: ReplayContext, area: str, folders: list[Path]) -> Sorted:
    found = Sorted()
    for folder in folders:
        title = f"{area}/{folder.name}"
        missing = [name for name in RECORD_FILES if not (folder / name).is_file()]
        if missing:
            found.skipped.append(CaseResult(title, "skip", f"not a record: {', '.join(missing)} missing"))
            continue
        case = Case(area, folder.name, folder, load_script(folder))
        foreign = case.foreign_kinds()
        if foreign:
            found.skipped.append(CaseResult(title, "skip", f"not yet in scope: {', '.join(sorted(foreign))}"))
        else:
            (found.own if case.own_controller else found.shared).append(case)
    # The long ones first, so that none is left alone at the end.
    found.shared.sort(key=lambda case: -case.weight())
    return found


def load_script(folder: Path) -> list[dict[str, Any]]:
    """The case's script; without one, what the recordings' README says: create, then wait until all is steady."""
    if (folder / "script.jsonl").is_file():
        return read_jsonl(folder / "script.jsonl")
    documents = [doc for doc in yaml.safe_load_all((folder / "input.yaml").read_text(encoding="utf-8")) if doc]
    steady = [
        part
        for doc in documents
        if doc["kind"] == "SeiNode"
        for part in (
            {"object": f"SeiNode/{doc['metadata']['name']}", "path": "status.phase", "equals": "Running"},
            {"object": f"SeiNode/{doc['metadata']['name']}", "path": "status.plan", "absent": True},
            {"object": f"SeiNode/{doc['metadata']['name']}", "path": "status.currentImage", "exists": True},
        )
    ]
    steps: list[dict[str, Any]] = [{"do": "begin", "namespace": folder.name, "controller": "shared"}]
    steps += [{"do": "create", "manifest": doc} for doc in documents]
    steps.append({"do": "wait", "what": "all steady", "until": {"all": steady}, "timeout": STEADY_SECONDS})
    return [*steps, {"do": "end", "wait": 0.5}]


async def run_sorted(context: ReplayContext, area: str, cases: Sorted) -> AsyncIterator[CaseResult]:
    """Results as they come. Shared cases run beside each other on one lane, those with a controller of their own one
    after the other on another."""
    results = Results()
    for skipped in cases.skipped:
        yield skipped
    work = []
    if cases.shared:
        work.append(_guarded(_shared_lane(context, area, cases.shared, results), cases.shared, results))
    for index, share in enumerate(_shares(cases.own, max(1, context.lanes - 1))):
        work.append(_guarded(_own_lane(context, f"{area}-own-{index}", share, results), share, results))
    running = asyncio.create_task(_run_lanes(work, context.lanes, results))
    try:
        async for result in results:
            yield result
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _run_lanes(work: list[Coroutine[Any, Any, None]], at_once: int, results: Results) -> None:
    room = asyncio.Semaphore(at_once)

    async def one(lane: Coroutine[Any, Any, None]) -> None:
        async with room:
            await lane

    try:
        async with asyncio.TaskGroup() as group:
            for lane in work:
                group.create_task(one(lane))
    finally:
        await results.close()


def _shares(cases: list[Case], count: int) -> list[list[Case]]:
    return [share for share in (cases[start::count] for start in range(count)) if share]


async def _guarded(work: Coroutine[Any, Any, None], cases: list[Case], results: Results) -> None:
    """A lane that breaks fails every case that has no result yet: none may be lost."""
    try:
        await work
    except Exception as error:
        traceback.print_exc()
        for case in cases:
            if not results.has(case):
                await results.put(CaseResult(case.title, "fail", f"the harness broke: {type(error).__name__}: {error}"))


async def _shared_lane(context: ReplayContext, area: str, cases: list[Case], results: Results) -> None:
    lane = Lane(context, f"{area}-shared", SCALE)
    controller = ControllerProcess(lane, lane.directory / "controller.log")
    room = asyncio.Semaphore(SHARED_AT_ONCE)
    starting = asyncio.Lock()

    async def one(case: Case) -> None:
        async with room:
            async with starting:
                if not controller.running:
                    await controller.start()
                    await controller.wait_ready()
                    await lane.controller_works()
                await asyncio.sleep(SHARED_START)
            await results.put(await run_case(lane, case, None))

    try:
        await lane.start()
        await asyncio.gather(*(one(case) for case in cases))
    finally:
        await controller.kill()
        await lane.stop()


async def _own_lane(context: ReplayContext, name: str, cases: list[Case], results: Results) -> None:
    lane = Lane(context, name, SCALE)
    try:
        await lane.start()
        for case in cases:
            lane.set_config(lane.base_config())
            lane.ec2.reset()
            controller = ControllerProcess(lane, lane.directory / f"controller-{case.name}.log")
            try:
                await controller.start()
                await controller.wait_ready()
                await lane.controller_works()
                result = await run_case(lane, case, controller)
            except HarnessError as error:
                result = CaseResult(case.title, "fail", str(error))
            finally:
                await controller.release()
            await results.put(result)
    finally:
        await lane.stop()


async def _collected(lane: Lane, case: Case) -> None:
    """Until the garbage collector has taken what was gone at the end of the recording: its pace is not ours to judge."""
    objects = Record.load(case.folder).objects
    last = {(item["kind"], item["metadata"]["name"]): item for section in objects.values() for item in section}
    gone = [key for key, item in last.items() if item.get("deletedAtEnd")]
    deadline = asyncio.get_running_loop().time() + COLLECT_SECONDS
    while any(lane.recorder.live(kind, case.namespace, name) for kind, name in gone):
        if asyncio.get_running_loop().time() > deadline:
            return
        await lane.recorder.changed(case.namespace, 0.5)


async def run_case(lane: Lane, case: Case, controller: ControllerProcess | None) -> CaseResult:
    """The verdict on one case; what breaks in it is its failure and nobody else's."""
    try:
        return await _run_case(lane, case, controller)
    except (HarnessError, ApiError, ValueError, KeyError, TypeError, OSError) as error:
        traceback.print_exc()
        return CaseResult(case.title, "fail", f"the harness broke: {type(error).__name__}: {error}")


async def _run_case(lane: Lane, case: Case, controller: ControllerProcess | None) -> CaseResult:
    rules = lane.context.differences.for_case(case.area, case.name, case.steps)
    run = Run(lane, case.namespace, controller, rules)
    found: list[str] = []
    try:
        await run.execute(case.steps)
    except ScriptError as error:
        found.append(str(error))
    await _collected(lane, case)
    record = produced(
        lane.recorder.histories(case.namespace), lane.sidecars.requests_of(case.namespace), lane.recorded_text
    )
    # For whoever runs with --keep: what was seen, in the form of the recordings.
    (lane.directory / f"produced-{case.name}.json").write_text(json.dumps(asdict(record)), encoding="utf-8")
    expected = recorded_checks(case.steps)
    seen = {
        name: comparable_check(expected[name], texts.mapped(value, lane.recorded_text))
        for name, value in run.checks.items()
    }
    if not found:
        found += judge_checks(expected, seen, rules)
    found += judge(Record.load(case.folder), record, rules)
    for namespace in (case.namespace, *sorted(run.also_opened)):
        await lane.close_namespace(namespace)
    if found:
        return CaseResult(case.title, "fail", found[0], more=tuple(found[1:]))
    return CaseResult(case.title, "pass", differences=explained(lane.context.differences, rules.used))
