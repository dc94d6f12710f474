"""What a task handler sees of the sidecar, and how it fails.

A handler is `async def run(ctx: TaskContext, params: Mapping[str, Any]) -> dict | None`, one module a task type under
`tasks/`. It returns its structured result, raises `TaskError` for everything it foresaw, and lets everything else
escape: the engine turns an unforeseen exception into a failed task and counts it as a crash. Handlers are idempotent,
because a task that was running when the process died is run again under the same id.

This module imports nothing heavy: it is loaded at start-up, the handlers only when a task of their type arrives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from seiops.sidecar.wirejson import fold

if TYPE_CHECKING:
    import aiohttp

    from seiops.sidecar.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

Params = Mapping[str, Any]
Handler = Callable[["TaskContext", Params], Awaitable[dict[str, Any] | None]]


class TaskError(Exception):
    """A failure the handler foresaw; its text is stored and shown to callers as it stands.

    `result` is stored next to the error text (a digest that found a mismatch still reports its totals).
    `retryable`, `hint` and `cause` are advisory and shown in `errorDetail` beside `error`.
    Never put a secret or a stack trace into any of them.
    """

    def __init__(
        self,
        message: str,
        *,
        retryable: bool | None = None,
        hint: str | None = None,
        cause: str | None = None,
        task: str | None = None,
        operation: str | None = None,
        result: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.hint = hint
        self.cause = cause
        self.task = task
        self.operation = operation
        self.result = result

    @classmethod
    def structured(
        cls,
        task: str,
        operation: str,
        message: str,
        *,
        retryable: bool,
        hint: str | None = None,
        cause: str | None = None,
    ) -> TaskError:
        """The classified form: rendered `<task>: <operation>: <message> [hint: <hint>]` (docs/contracts/sidecar.md 3.10)."""
        text = f"{task}: {operation}: {message}"
        if hint:
            text += f" [hint: {hint}]"
        return cls(text, retryable=retryable, hint=hint, cause=cause, task=task, operation=operation)

    def detail(self) -> dict[str, Any] | None:
        """The machine-readable members that were given, or None when there are none."""
        members = {
            "task": self.task,
            "operation": self.operation,
            "retryable": self.retryable,
            "hint": self.hint,
            "cause": self.cause,
        }
        return {name: value for name, value in members.items() if value is not None} or None


class HoldRecords(Protocol):
    """What a task may know of and do to other tasks' rows: a hold removes every recorded mark-ready."""

    async def held(self) -> bool:
        """Whether a hold was submitted and no mark-ready after it. Raises StoreUnavailableError."""
        ...

    async def purge(self, task_type: str) -> int:
        """Deletes all rows of a type whatever their status; the number removed. Raises StoreUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class TxMarker:
    """What is written before a transaction is broadcast, and read when the same task id runs again (sidecar.md 3.13)."""

    task_id: str
    tx_hash: str
    tx_bytes: bytes
    account_number: int
    sequence: int
    chain_id: str


class TxMarkers(Protocol):
    async def load(self, task_id: str) -> TxMarker | None: ...

    async def save(self, marker: TxMarker) -> None:
        """On disk (synchronous FULL) before it returns."""
        ...


@dataclass(slots=True)
class TaskContext:
    """Everything a handler may use.

    home: the node's home directory. settings: the validated environment. http: one session shared by all tasks; give
    every request its own `aiohttp.ClientTimeout`. log: bound to the task's logger name; use `extra={"attrs": {...}}`
    with values that hold no secret.
    cancelled: set when the task was deleted or the process is stopping; code running in threads polls it.
    """

    task_id: str
    task_type: str
    run: int
    home: Path
    settings: Settings
    open_http: Callable[[], aiohttp.ClientSession]
    log: logging.Logger
    records: HoldRecords
    markers: TxMarkers
    report: Callable[[dict[str, Any]], None]
    cancelled: threading.Event = field(default_factory=threading.Event)

    def progress(self, value: dict[str, Any]) -> None:
        """Shows `value` as the `result` of the running task. Cheap (kept in memory), so call it as often as you like.

        Keys the CLI draws as a bar: `phase` (text), `done` and `total` (numbers), `unit` ("bytes", "rows", "blocks").
        """
        self.report(value)

    async def blocking(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs synchronous work in a thread and, even when the task is cancelled, waits for it to end.

        A cancelled `asyncio.to_thread` leaves its thread writing behind the engine's back; here the cancellation is
        raised again after the work ended. Work longer than a second polls `ctx.cancelled` and returns early.
        """
        running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await running
            raise

    @property
    def http(self) -> aiohttp.ClientSession:
        """The shared session, made when the first task asks: loading aiohttp costs a quarter of an idle sidecar."""
        return self.open_http()

    @property
    def config_dir(self) -> Path:
        return self.home / "config"

    def marker(self, name: str) -> Path:
        """The path of a marker file such as `.sei-sidecar-genesis-done` (docs/contracts/sidecar.md 1.4)."""
        return self.home / name


class Decoder:
    """Reads a task's params the way callers of the wire rely on (docs/contracts/sidecar.md 3.14).

    Keys match in any letter case, unknown keys are ignored, null equals absent, `500.0` is an integer. Of several
    spellings of one key the last in byte order counts. A value of the wrong type raises
    `TaskError("parsing params: ...")` that names the field.
    """

    def __init__(self, params: Params) -> None:
        self._folded: dict[str, list[Any]] = {}
        for key in sorted(params):
            self._folded.setdefault(fold(key), []).append(params[key])

    def _values(self, name: str) -> list[Any]:
        return self._folded.get(name.lower(), [])

    def is_text(self, name: str) -> bool:
        """Whether the value that counts is a string, for params that take one or something else."""
        given = [value for value in self._values(name) if value is not None]
        return bool(given) and isinstance(given[-1], str)

    def text(self, name: str, default: str = "") -> str:
        for value in self._values(name):
            if value is not None:
                default = _text(name, value)
        return default

    def integer(self, name: str, default: int = 0) -> int:
        """A signed 64-bit integer."""
        for value in self._values(name):
            if value is not None:
                default = _integer(name, value)
        return default

    def flag(self, name: str, default: bool = False) -> bool:
        for value in self._values(name):
            if value is None:
                continue
            if not isinstance(value, bool):
                raise _mismatch(name, value, "true or false")
            default = value
        return default

    def texts(self, name: str) -> list[str]:
        """An array of strings; absent is empty."""
        found: list[str] = []
        for value in self._values(name):
            if not isinstance(value, list | None):
                raise _mismatch(name, value, "an array of strings")
            items = enumerate(value or ())
            found = ["" if item is None else _text(f"{name}[{index}]", item) for index, item in items]
        return found

    def text_map(self, name: str) -> dict[str, str]:
        """An object whose values are strings; absent is empty."""
        return {key: "" if item is None else _text(f"{name}.{key}", item) for key, item in self._object(name).items()}

    def object_map(self, name: str) -> dict[str, dict[str, Any]]:
        """An object whose values are objects; absent is empty, a null value is an empty object."""
        out: dict[str, dict[str, Any]] = {}
        for key, item in self._object(name).items():
            if item is not None and not isinstance(item, dict):
                raise _mismatch(f"{name}.{key}", item, "an object")
            out[key] = item or {}
        return out

    def objects(self, name: str) -> list[Mapping[str, Any]]:
        """An array of objects; absent is empty."""
        found: list[Mapping[str, Any]] = []
        for value in self._values(name):
            if not isinstance(value, list | None):
                raise _mismatch(name, value, "an array of objects")
            for index, item in enumerate(value or ()):
                if item is not None and not isinstance(item, dict):
                    raise _mismatch(f"{name}[{index}]", item, "an object")
            found = [item or {} for item in value or ()]
        return found

    def _object(self, name: str) -> dict[str, Any]:
        """Members under several spellings of the name are taken together."""
        found: dict[str, Any] = {}
        for value in self._values(name):
            if not isinstance(value, dict | None):
                raise _mismatch(name, value, "an object")
            found = found | value if value is not None else {}
        return found


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _mismatch(where, value, "a string")
    return value


def _integer(where: str, value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _mismatch(where, value, "an integer")
    if not -(2**63) <= value < 2**63:
        raise TaskError(f"parsing params: {where}: {value} does not fit a 64-bit integer")
    return value


_JSON_KINDS: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
}


def _mismatch(where: str, value: Any, wanted: str) -> TaskError:
    got = _JSON_KINDS.get(type(value), type(value).__name__)
    return TaskError(f"parsing params: {where}: expected {wanted}, got {got}")
