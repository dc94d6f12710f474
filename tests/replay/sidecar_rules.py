"""What a recorded node sidecar would answer: tasks, readiness and the list of rules of one node, without any network.

This is the rule engine of the recordings (golden flows README, "Sidecar stand-in"). Time comes from outside, in
seconds, so that tests can turn the clock; `ms` of a rule is scaled with the controller's intervals.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Answered = Literal["http", "close", "hang"]


@dataclass(frozen=True)
class Answer:
    how: Answered
    status: int = 200
    body: Any = None

    def encoded(self) -> bytes:
        return b"" if self.body is None else compact(self.body)


def compact(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@dataclass
class Rule:
    on: str
    type: str | None = None
    left: int | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Rule:
        rest = {name: value for name, value in raw.items() if name not in ("on", "type", "times")}
        return cls(raw["on"], raw.get("type"), raw.get("times"), rest)


@dataclass
class Task:
    id: str
    type: str
    params: Any
    started: float
    run: int = 1
    ms: float = 0.0
    error: str | None = None
    result: Any = None
    status: str = "running"

    @property
    def due(self) -> float:
        return self.started + self.ms / 1000

    def shown(self) -> dict[str, Any]:
        body: dict[str, Any] = {"id": self.id, "type": self.type, "status": self.status, "run": self.run}
        if self.params:
            body["params"] = self.params
        ended = self.status != "running"
        if ended and self.result is not None:
            body["result"] = self.result
        if self.status == "failed":
            body["error"] = self.error
        body["submittedAt"] = _time(self.started)
        if ended:
            body["completedAt"] = _time(self.due)
        return body


class NodeSidecar:
    """The sidecar of one node: survives replaced Pods, but for the ready flag."""

    def __init__(self, namespace: str, node: str, scale: float = 1.0) -> None:
        self.namespace = namespace
        self.node = node
        self.ready = False
        self.tasks: dict[str, Task] = {}
        self.rules: list[Rule] = []
        self._scale = scale

    @property
    def node_id(self) -> str:
        return hashlib.sha256(f"{self.namespace}/{self.node}".encode()).hexdigest()[:40]

    def settle(self, now: float) -> None:
        """End every task whose time has come, oldest end first, with its effect on readiness."""
        due = [task for task in self.tasks.values() if task.status == "running" and task.due <= now]
        for task in sorted(due, key=lambda task: task.due):
            self._end(task)

    def answer(self, method: str, path: str, body: bytes, now: float) -> Answer:
        self.settle(now)
        if method == "GET" and path in ("/v0/healthz", "/v0/node-id"):
            return self._plain_get(path)
        if method == "GET" and path.startswith("/v0/tasks/"):
            rule = self._take("get", None)
            return _ruled(rule) if rule is not None else self._task(path.removeprefix("/v0/tasks/"))
        if method == "POST" and path == "/v0/tasks":
            return self._post(body, now)
        return Answer("http", 404)

    def _plain_get(self, path: str) -> Answer:
        rule = self._take(path.removeprefix("/v0/"), None)
        if rule is not None:
            return _ruled(rule)
        if path == "/v0/healthz":
            return Answer("http", 200 if self.ready else 503)
        return Answer("http", 200, {"nodeId": self.node_id})

    def _task(self, ident: str) -> Answer:
        task = self.tasks.get(ident)
        if task is None:
            return Answer("http", 404, {"error": "task not found"})
        return Answer("http", 200, task.shown())

    def _post(self, body: bytes, now: float) -> Answer:
        try:
            request = json.loads(body)
        except ValueError:
            return Answer("http", 400, {"error": "invalid JSON"})
        rule = self._take("post", request.get("type"))
        if rule is not None:
            return _ruled(rule)
        ident = request.get("id", "")
        known = self.tasks.get(ident)
        if known is None or known.status == "failed":
            self._start(request, now, known.run + 1 if known else 1)
        return Answer("http", 201, {"id": ident})

    def _start(self, request: dict[str, Any], now: float, run: int) -> None:
        rule = self._take("task", request.get("type"))
        fields = rule.fields if rule is not None else {}
        task = Task(
            request.get("id", ""),
            request.get("type", ""),
            request.get("params"),
            now,
            run,
            fields.get("ms", 0) * self._scale,
            fields.get("error"),
            fields.get("result"),
        )
        self.tasks[task.id] = task
        if task.ms == 0:
            self._end(task)

    def _end(self, task: Task) -> None:
        task.status = "completed" if task.error is None else "failed"
        if task.status == "completed" and task.type in ("mark-ready", "mark-not-ready"):
            self.ready = task.type == "mark-ready"

    def _take(self, on: str, kind: str | None) -> Rule | None:
        """The first rule that matches and has not run out; its use is counted."""
        for rule in self.rules:
            if rule.on == on and rule.type in (None, kind) and rule.left != 0:
                if rule.left is not None:
                    rule.left -= 1
                return rule
        return None


def _ruled(rule: Rule) -> Answer:
    how = rule.fields.get("do", "http")
    return Answer(how, rule.fields.get("status", 200), rule.fields.get("body"))


def _time(seconds: float) -> str:
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return text + "Z"
