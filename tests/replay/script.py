"""Executes a recorded script (golden flows README, "Re-executing a flow") against a lane."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from replay.conditions import holds, values
from replay.differences import CaseRules
from replay.kubeapi import KINDS, USER, ApiError
from replay.lane import ControllerProcess, Lane, describe
from replay.recorder import WATCHED

LEAST_WAIT = 60.0
BIND_SECONDS = 20.0
SEEN_SECONDS = 10.0
QUIET, QUIET_AT_MOST = 0.3, 4.0
LEAST_PASS = 1.5
"""Real seconds left to passes under way: the API server behind them does not get faster with the intervals."""


class ScriptError(Exception):
    """The script could not be carried out as recorded; the message says at which step."""


@dataclass
class Run:
    """One execution of a script. `checks` collects what `check` steps saw: `Kind/name path` -> value; `also_opened`: the
    namespaces that it needed besides its own."""

    lane: Lane
    namespace: str
    controller: ControllerProcess | None
    rules: CaseRules = field(default_factory=lambda: CaseRules([]))
    checks: dict[str, Any] = field(default_factory=dict)
    also_opened: set[str] = field(default_factory=set)

    async def execute(self, steps: list[dict[str, Any]]) -> None:
        for step in steps:
            try:
                await self._actions()[step["do"]](step)
            except KeyError as error:
                raise ScriptError(f"step {step.get('n')}: not in the grammar: {error} in {step}") from error
            except ApiError as failure:
                raise ScriptError(
                    f"step {step.get('n')} ({step['do']}): the API server answered {failure}"
                ) from failure

    def _actions(self) -> dict[str, Callable[[dict[str, Any]], Awaitable[None]]]:
        return {
            "begin": self._begin,
            "create": self._create,
            "patch": self._patch,
            "delete": self._delete,
            "config": self._config,
            "config-remove": self._config_remove,
            "config-dir": self._config_dir,
            "controller": self._controller,
            "sidecar-rule": self._sidecar_rule,
            "sidecar-clear": self._sidecar_clear,
            "sidecar-address": self._sidecar_address,
            "sidecar-unready": self._sidecar_unready,
            "job": self._job,
            "ec2": self._ec2,
            "sleep": self._sleep,
            "wait": self._wait,
            "check": self._check,
            "end": self._end,
        }

    def lookup(self, reference: str, namespace: str | None = None) -> dict[str, Any] | None:
        kind, _, name = reference.partition("/")
        where = (namespace or self.namespace) if KINDS[kind].namespaced else None
        return self.lane.recorder.live(kind, where, name)

    async def _begin(self, step: dict[str, Any]) -> None:
        await self.lane.open_namespace(self.namespace)

    async def _create(self, step: dict[str, Any]) -> None:
        manifest = step["manifest"]
        if manifest["kind"] == "Namespace":
            await self._open(manifest["metadata"]["name"])
            return
        namespaced = KINDS[manifest["kind"]].namespaced
        if namespaced:
            await self._open(step.get("namespace") or self.namespace)
        stored = await self.lane.api.create(manifest, (step.get("namespace") or self.namespace) if namespaced else None)
        await self._seen(stored)
        if manifest["kind"] == "PersistentVolumeClaim":
            await self._bound(manifest)

    async def _open(self, namespace: str) -> None:
        """Another namespace is one that hosts SeiNodes like the case's own, with the controller's rights in it."""
        if namespace != self.namespace and namespace not in self.also_opened:
            await self.lane.open_namespace(namespace)
            self.also_opened.add(namespace)

    async def _seen(self, stored: dict[str, Any]) -> None:
        """Until the recorder knows of a write of ours: what follows in the script must not look at an older state."""
        metadata = stored["metadata"]
        deadline = asyncio.get_running_loop().time() + SEEN_SECONDS
        while stored["kind"] in WATCHED and asyncio.get_running_loop().time() < deadline:
            live = self.lane.recorder.live(stored["kind"], metadata.get("namespace"), metadata["name"])
            if live is not None and int(live["metadata"]["resourceVersion"]) >= int(metadata["resourceVersion"]):
                return
            await self.lane.recorder.changed(metadata.get("namespace", ""), 0.2)

    async def _bound(self, claim: dict[str, Any]) -> None:
        """A claim whose volume is there is bound by the cluster, which may look only every 15 s; the recordings' did not
        have to wait for that."""
        volume = self.lane.recorder.live("PersistentVolume", None, claim["spec"].get("volumeName", ""))
        if volume is None:
            return
        until = {
            "object": f"PersistentVolumeClaim/{claim['metadata']['name']}",
            "path": "status.phase",
            "equals": "Bound",
        }
        deadline = asyncio.get_running_loop().time() + BIND_SECONDS
        while not holds(until, self.lookup) and asyncio.get_running_loop().time() < deadline:
            await self.lane.recorder.changed(self.namespace, 0.5)

    async def _patch(self, step: dict[str, Any]) -> None:
        kind, _, name = step["object"].partition("/")
        namespace = step.get("namespace") or self.namespace
        await self._seen(await self.lane.api.merge_patch(kind, namespace, name, step["body"], manager=USER))

    async def _delete(self, step: dict[str, Any]) -> None:
        kind, _, name = step["object"].partition("/")
        options = {"propagationPolicy": step["propagationPolicy"]} if "propagationPolicy" in step else None
        with contextlib.suppress(ApiError):  # the answer is not judged
            await self.lane.api.delete(kind, step.get("namespace") or self.namespace, name, options)

    async def _config(self, step: dict[str, Any]) -> None:
        self.lane.set_config(step["content"])

    async def _config_remove(self, step: dict[str, Any]) -> None:
        self.lane.remove_config()

    async def _config_dir(self, step: dict[str, Any]) -> None:
        self.lane.config_directory()

    async def _controller(self, step: dict[str, Any]) -> None:
        if self.controller is None:
            raise ScriptError(f"step {step.get('n')}: the script starts or stops a controller that it shares")
        if step["op"] == "start":
            await self.controller.start(environment=step.get("env"))
            if step.get("waitReady"):
                await self.controller.wait_ready()
        elif step["op"] in ("sigterm", "sigkill"):
            number = signal.SIGTERM if step["op"] == "sigterm" else signal.SIGKILL
            if not await self.controller.end(number):
                raise ScriptError(f"step {step.get('n')}: the controller had not ended 40 s after {step['op']}")
        else:
            raise ScriptError(f"step {step.get('n')}: controller op {step['op']!r} belongs to startup only")

    async def _sidecar_rule(self, step: dict[str, Any]) -> None:
        self.lane.sidecars.add_rule(self.namespace, step["node"], step["rule"])

    async def _sidecar_clear(self, step: dict[str, Any]) -> None:
        self.lane.sidecars.clear_rules(self.namespace, step["node"])

    async def _sidecar_address(self, step: dict[str, Any]) -> None:
        self.lane.sidecars.set_address(self.namespace, step["node"], step["value"])

    async def _sidecar_unready(self, step: dict[str, Any]) -> None:
        self.lane.sidecars.set_unready(self.namespace, step["node"])

    async def _job(self, step: dict[str, Any]) -> None:
        self.lane.kubelet.set_outcome(self.namespace, step["node"], step["outcome"])

    async def _ec2(self, step: dict[str, Any]) -> None:
        self.lane.ec2.change(step)

    async def _sleep(self, step: dict[str, Any]) -> None:
        seconds = step["seconds"]
        if step.get("scalable") is True:
            seconds = max(seconds * self.lane.scale, min(seconds, LEAST_PASS))
        elif step.get("scalable") is False:
            # Everything timed that falls into it (polls, back-off, task durations) is scaled alike.
            seconds *= self.lane.scale
        await asyncio.sleep(seconds)

    async def _wait(self, step: dict[str, Any]) -> None:
        namespace = step.get("namespace")
        timeout = max(LEAST_WAIT, step["timeout"] * self.lane.scale)
        deadline = asyncio.get_running_loop().time() + timeout
        while not holds(step["until"], lambda reference: self.lookup(reference, namespace)):
            if self.controller is not None and self.controller.exit_code not in (None, 0, -15, -9):
                raise ScriptError(
                    f"step {step.get('n')}: the controller ended with {self.controller.exit_code} "
                    f"while {step['what']!r} was awaited"
                )
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 and self.rules.may_be_missing("waits", {"what": step["what"], "until": step["until"]}):
                return
            if left <= 0:
                raise ScriptError(
                    f"step {step.get('n')}: {step['what']!r} was not reached in {timeout:.0f} s: "
                    f"{self._where(step['until'])}"
                )
            await self.lane.recorder.changed(namespace or self.namespace, min(left, 1.0))
        await self._quiet()

    async def _quiet(self) -> None:
        """Until nothing has changed for a moment. The recorder looked at intervals, and its controller was slow: when it
        saw a condition, whatever was about to happen had happened."""
        end = asyncio.get_running_loop().time() + QUIET_AT_MOST
        while asyncio.get_running_loop().time() < end and await self.lane.recorder.changed(self.namespace, QUIET):
            pass

    def _where(self, condition: dict[str, Any]) -> str:
        if "object" in condition:
            return f"{condition['object']}: {describe(self.lookup(condition['object']))}"
        parts = condition.get("all") or condition.get("any") or []
        open_parts = [part for part in parts if not holds(part, self.lookup)]
        return self._where(open_parts[0]) if open_parts else "all reached"

    async def _check(self, step: dict[str, Any]) -> None:
        found = values(self.lookup(step["object"]), step["path"])
        self.checks[f"{step['n']} {step['object']} {step['path']}"] = found[0] if found else None

    async def _end(self, step: dict[str, Any]) -> None:
        await asyncio.sleep(step.get("wait", 0))


def recorded_checks(steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{step['n']} {step['object']} {step['path']}": step["recorded"] for step in steps if step["do"] == "check"}


def comparable_check(recorded: Any, seen: Any) -> Any:
    """What was seen, reduced to what the recording holds: presence, or the fields it names."""
    if recorded == "present":
        return "present" if seen not in (None, "", [], {}) else None
    if isinstance(recorded, dict) and isinstance(seen, dict):
        return {name: seen.get(name) for name in recorded}
    return seen
