"""The HTTP API: which path does what, who may call it, and how a task looks on the wire (docs/contracts/sidecar.md 2)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import orjson

from seiops.sidecar import exposition, logs, metrics, target, wirejson
from seiops.sidecar.engine import BusyError, Submission, SubmitError
from seiops.sidecar.http1 import BodyError, BodyTooLargeError, Request, Response
from seiops.sidecar.node_id import NodeIdError, read_node_id
from seiops.sidecar.settings import TRUSTED_HEADER, Settings
from seiops.sidecar.store import RUNNING, StoreUnavailableError, TaskRow

LIST_LIMIT = 100
BYPASS = ("/v0/healthz", "/v0/livez", "/v0/metrics", "/v0/startupz")
PARSE_IN_THREAD_ABOVE = 64 * 1024

MISSING_HEADER = "missing X-Remote-User header"
DUPLICATE_HEADER = "expected exactly one X-Remote-User header \u2014 proxy must overwrite, not append"
EMPTY_HEADER = "empty X-Remote-User header"

MEMBERS = ("id", "type", "params")
_QUOTED_MEMBERS = tuple(f'"{name}"'.encode() for name in MEMBERS)
# Escapes and letters that may hide a member's name, and the one integer that is a double.
_ODD_SPELLINGS = (b"\\u", "\u017f".encode(), "\u212a".encode(), b"-0")

log = logs.logger("sidecar.server")

Route = Callable[[Request, str], Awaitable[Response]]


class Tasks(Protocol):
    """What the API needs of the engine."""

    @property
    def ready(self) -> bool: ...

    async def submit(self, submission: Submission) -> str: ...

    async def delete(self, task_id: str) -> bool: ...

    def progress_of(self, task_id: str) -> dict[str, Any] | None: ...


class TaskRows(Protocol):
    """What the API needs of the store."""

    async def get(self, task_id: str) -> TaskRow | None: ...

    async def newest(self, limit: int) -> list[TaskRow]: ...

    async def ping(self) -> None: ...


class Api:
    """Answers every request; `handle` never raises for what a client sent."""

    def __init__(self, settings: Settings, tasks: Tasks, rows: TaskRows) -> None:
        self._settings = settings
        self._tasks = tasks
        self._rows = rows
        self._home: Path = settings.home
        probe: dict[str, Route] = {"GET": self._readiness}
        self._routes: dict[str, dict[str, Route]] = {
            "/v0/healthz": probe,
            "/v0/startupz": probe,
            "/v0/livez": {"GET": self._liveness},
            "/v0/status": {"GET": self._status},
            "/v0/metrics": {"GET": self._metrics},
            "/v0/node-id": {"GET": self._node_id},
            "/v0/openapi.json": {"GET": self._openapi},
            "/v0/tasks": {"GET": self._list, "POST": self._submit},
        }
        self._task_routes: dict[str, Route] = {"GET": self._get, "DELETE": self._delete}

    async def handle(self, request: Request) -> Response:
        if request.target == "*" and request.method == "OPTIONS":
            return Response(200, [("Content-Length", "0")])
        if (refusal := self._authenticate(request)) is not None:
            return refusal
        if request.target == "*":
            return Response(400, [("Connection", "close")] if request.version else [])
        clean = target.clean(request.raw_path)
        if clean != request.raw_path and request.method != "CONNECT":
            return _redirect(request, clean)
        routes, task_id = self._match(request.raw_path)
        if routes is None:
            return _plain(404, "404 page not found\n")
        route = routes.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = sorted({*routes, "HEAD"} if "GET" in routes else routes)
            return _plain(405, "Method Not Allowed\n", ("Allow", ", ".join(allowed)))
        try:
            return await route(request, task_id)
        except StoreUnavailableError as error:
            log.error("store unavailable", extra={"attrs": {"method": request.method, "err": error}})
            return _retry(f"task store unavailable: {error}")
        except Exception:
            log.exception("request handler failed", extra={"attrs": {"method": request.method, "path": request.path}})
            return _error(500, "internal error; see the sidecar's log")

    # --- access ----------------------------------------------------------------------------------------------------

    def _authenticate(self, request: Request) -> Response | None:
        """None when the request may pass. Comes before routing: an unknown path without the header is a 401."""
        if self._settings.authn_mode != TRUSTED_HEADER or request.path in BYPASS:
            return None
        values = request.header("x-remote-user")
        if not values:
            return _unauthorized("missing_header", MISSING_HEADER)
        if len(values) > 1:
            return _unauthorized("duplicate_header", DUPLICATE_HEADER)
        if not values[0]:
            return _unauthorized("empty_header", EMPTY_HEADER)
        return None

    def _match(self, raw_path: str) -> tuple[dict[str, Route] | None, str]:
        """The routes of a path by method, and the task id when the path holds one."""
        segments = [target.unescape(segment) for segment in raw_path.split("/")]
        if len(segments) == 4 and segments[:3] == ["", "v0", "tasks"] and segments[3] not in ("", "/"):
            return self._task_routes, segments[3].encode("latin-1").decode("utf-8", "replace")
        if len(segments) == 3 and "/" not in segments[2]:
            return self._routes.get("/".join(segments)), ""
        return None, ""

    # --- probes ----------------------------------------------------------------------------------------------------

    async def _readiness(self, request: Request, _: str) -> Response:
        return Response(200 if self._tasks.ready else 503)

    async def _liveness(self, request: Request, _: str) -> Response:
        try:
            await self._rows.ping()
        except StoreUnavailableError as error:
            verbose = "verbose=1" in request.query.split("&")
            return _error(503, str(error)) if verbose else Response(503)
        return Response(200)

    async def _status(self, request: Request, _: str) -> Response:
        return _json(200, '{"status":"Ready"}' if self._tasks.ready else '{"status":"Initializing"}')

    async def _metrics(self, request: Request, _: str) -> Response:
        form = exposition.choose(next(iter(request.header("accept")), ""))
        body, headers = form.write(metrics.REGISTRY), [("Content-Type", form.content_type)]
        if exposition.wants_gzip(",".join(request.header("accept-encoding"))):
            return Response(200, [("Content-Encoding", "gzip"), *headers], exposition.compress(body))
        return Response(200, headers, body)

    async def _node_id(self, request: Request, _: str) -> Response:
        try:
            node_id = await asyncio.to_thread(read_node_id, self._home)
        except NodeIdError as error:
            return _error(500, str(error))
        return _json(200, wirejson.encode({"nodeId": node_id}))

    async def _openapi(self, request: Request, _: str) -> Response:
        from seiops.sidecar.openapi import document

        return _json(200, wirejson.encode(document()))

    # --- tasks -----------------------------------------------------------------------------------------------------

    async def _submit(self, request: Request, _: str) -> Response:
        try:
            body = await request.read_body(self._settings.max_body_bytes)
        except BodyError as error:
            # what counts is the first value, and that may have arrived
            body = error.arrived
        except BodyTooLargeError:
            return _error(413, f"request body is larger than {self._settings.max_body_bytes} bytes")
        try:
            if len(body) > PARSE_IN_THREAD_ABOVE:
                submission = await asyncio.to_thread(parse_submission, body)
            else:
                submission = parse_submission(body)
        except wirejson.JsonError:
            return _error(400, "invalid request body")
        if not submission.type:
            return _error(400, "type is required")
        try:
            task_id = await self._tasks.submit(submission)
        except SubmitError as error:
            return _error(400, str(error))
        except BusyError as error:
            return _retry(str(error))
        except StoreUnavailableError as error:
            return _retry(f"persist task: {error}")
        return _json(201, wirejson.encode({"id": task_id}))

    async def _list(self, request: Request, _: str) -> Response:
        rows = await self._rows.newest(LIST_LIMIT)
        return _json(200, "[" + ",".join(self._render(row) for row in rows) + "]")

    async def _get(self, request: Request, task_id: str) -> Response:
        row = await self._rows.get(task_id)
        return _error(404, "task not found") if row is None else _json(200, self._render(row))

    async def _delete(self, request: Request, task_id: str) -> Response:
        try:
            found = await self._tasks.delete(task_id)
        except StoreUnavailableError as error:
            log.error("deleting a task failed", extra={"attrs": {"id": task_id, "err": error}})
            return _retry("failed to delete task; retry")
        return Response(204) if found else _error(404, "task not found")

    def _render(self, row: TaskRow) -> str:
        """A task result with its members in the fixed order (docs/contracts/sidecar.md 3.11), as JSON text."""
        result = row.result
        if row.status == RUNNING and (progress := self._tasks.progress_of(row.id)) is not None:
            result = wirejson.encode(progress)
        error = row.error
        if row.damage is not None:
            error = f"{error}; stored row is damaged: {row.damage}".removeprefix("; ")
        parts = [f'{{"id":{_text(row.id)},"type":{_text(row.type)},"status":{_text(row.status)},"run":{row.run}']
        if row.params is not None:
            parts.append(f'"params":{row.params}')
        if result is not None:
            parts.append(f'"result":{result}')
        if error:
            parts.append(f'"error":{_text(error)}')
        if row.detail is not None:
            parts.append(f'"errorDetail":{row.detail}')
        parts.append(f'"submittedAt":{_text(row.submitted_text)}')
        if row.completed_text is not None:
            parts.append(f'"completedAt":{_text(row.completed_text)}')
        return ",".join(parts) + "}"


def parse_submission(body: bytes) -> Submission:
    """Reads the first JSON value of a body (docs/contracts/sidecar.md 2.4). Raises JsonError; an empty type is let through.

    Repeated members are taken one after the other: a null leaves a text as it is and forgets params, further params are
    added to the earlier ones.
    """
    task_type = task_id = ""
    params: dict[str, Any] = {}
    for name, value in _members(body):
        if name == "params":
            if not isinstance(value, (dict, type(None))):
                raise wirejson.JsonError("params is an object")
            params = params | value if value is not None else {}
        elif not isinstance(value, (str, type(None))):
            raise wirejson.JsonError(f"{name} is a string")
        elif name == "type":
            task_type = task_type if value is None else value
        else:
            task_id = task_id if value is None else value
    return Submission.of(task_type, task_id, params)


def _members(body: bytes) -> list[tuple[str, Any]]:
    """The members that count. The fast reader keeps one of several and is left out where that could matter."""
    lowered = body.lower()
    if not any(odd in body for odd in _ODD_SPELLINGS) and all(lowered.count(name) <= 1 for name in _QUOTED_MEMBERS):
        with contextlib.suppress(orjson.JSONDecodeError):
            value = orjson.loads(body)
            if isinstance(value, dict):
                return [(name, item) for key, item in value.items() if (name := key.lower()) in MEMBERS]
    return wirejson.decode_members(body, MEMBERS)


def _text(value: str) -> str:
    return orjson.dumps(value).decode()


def _json(status: int, text: str) -> Response:
    body = wirejson.escape_markup(text.encode())
    return Response(status, [("Content-Type", "application/json")], body + b"\n")


def _error(status: int, message: str) -> Response:
    return _json(status, wirejson.encode({"error": message}))


def _retry(message: str) -> Response:
    response = _error(503, message)
    response.headers.append(("Retry-After", "1"))
    return response


def _plain(status: int, text: str, *extra: tuple[str, str]) -> Response:
    headers = [*extra, ("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")]
    return Response(status, headers, text.encode())


def _unauthorized(reason: str, message: str) -> Response:
    metrics.AUTHN_REJECTIONS.labels(reason).inc()
    return _error(401, message)


def _redirect(request: Request, clean: str) -> Response:
    location = target.location(clean, request.query)
    if request.method not in ("GET", "HEAD"):
        return Response(307, [("Location", location)])
    shown = (
        location.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace('"', "&#34;")
        .replace("'", "&#39;")
    )
    body = f'<a href="{shown}">Temporary Redirect</a>.\n\n' if request.method == "GET" else ""
    return Response(307, [("Content-Type", "text/html; charset=utf-8"), ("Location", location)], body.encode())
