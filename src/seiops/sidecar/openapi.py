"""The OpenAPI description of the HTTP API, kept by hand beside the routes it describes.

Checked in as `docs/contracts/sidecar-openapi.json` (`python -m seiops.sidecar.openapi` writes it), served at
`/v0/openapi.json`, and held against the running server by the contract tests: upstream's own description disagreed with
its server (docs/contracts/sidecar.md 2.8).
"""

from __future__ import annotations

import json
import sys
from typing import Any

from seiops.sidecar.tasks import REGISTRY

VERSION = "0.9.0"

_JSON = "application/json"


def document() -> dict[str, Any]:
    """The whole description as JSON-ready data."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sei node sidecar",
            "version": VERSION,
            "description": "Task engine of one Sei node. Submit a task, poll it by id; a completed id never runs again.",
        },
        "paths": {
            "/v0/healthz": {"get": _probe("healthz", "200 once a mark-ready task has run and no hold is in force")},
            "/v0/startupz": {"get": _probe("startupz", "The same answer as healthz")},
            "/v0/livez": {"get": _liveness()},
            "/v0/status": {"get": _status()},
            "/v0/metrics": {"get": _metrics()},
            "/v0/node-id": {"get": _node_id()},
            "/v0/openapi.json": {"get": _self()},
            "/v0/tasks": {"get": _list(), "post": _submit()},
            "/v0/tasks/{id}": {"parameters": [_ID], "get": _get(), "delete": _delete()},
        },
        "components": {
            "schemas": {
                "Error": _object({"error": {"type": "string"}}, ["error"]),
                "Status": _object({"status": {"enum": ["Initializing", "Ready"]}}, ["status"]),
                "NodeId": _object({"nodeId": {"type": "string", "pattern": "^[0-9a-f]{40}$"}}, ["nodeId"]),
                "Accepted": _object({"id": {"type": "string", "minLength": 1}}, ["id"]),
                "Submission": _submission(),
                "Task": _task(),
            },
            "securitySchemes": {
                "remoteUser": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Remote-User",
                    "description": "Set by the proxy in front; asked for in trusted-header mode only.",
                }
            },
        },
    }


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _answer(schema: str, about: str) -> dict[str, Any]:
    return {"description": about, "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _retry(about: str) -> dict[str, Any]:
    return {
        **_answer("Error", about),
        "headers": {"Retry-After": {"required": True, "schema": {"type": "integer"}}},
    }


def _operation(name: str, about: str, responses: dict[str, Any]) -> dict[str, Any]:
    guarded = {**responses, "401": _answer("Error", "Trusted-header mode: no single, non-empty X-Remote-User header")}
    return {"operationId": name, "summary": about, "security": [{"remoteUser": []}, {}], "responses": guarded}


def _open(name: str, about: str, responses: dict[str, Any]) -> dict[str, Any]:
    """An operation that never asks for credentials."""
    return {"operationId": name, "summary": about, "security": [], "responses": responses}


def _probe(name: str, about: str) -> dict[str, Any]:
    return _open(name, about, {"200": {"description": "ready"}, "503": {"description": "not ready"}})


def _liveness() -> dict[str, Any]:
    operation = _open(
        "livez",
        "200 while the store answers; says nothing about readiness",
        {"200": {"description": "alive"}, "503": {"description": "the store does not answer; a body with verbose=1"}},
    )
    operation["parameters"] = [{"name": "verbose", "in": "query", "schema": {"type": "string"}}]
    return operation


def _metrics() -> dict[str, Any]:
    exposition = {"description": "Prometheus text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return _open("metrics", "Metrics, gzip-compressed on request", {"200": exposition})


def _status() -> dict[str, Any]:
    return _operation("status", "Readiness as a word", {"200": _answer("Status", "the state")})


def _node_id() -> dict[str, Any]:
    failure = _answer("Error", "No key file yet, or one without an Ed25519 key")
    return _operation("nodeId", "The node's peer-to-peer id", {"200": _answer("NodeId", "the id"), "500": failure})


def _self() -> dict[str, Any]:
    own = {"description": "this document", "content": {_JSON: {"schema": {"type": "object"}}}}
    return _operation("openapi", "This document", {"200": own})


def _list() -> dict[str, Any]:
    rows = {"type": "array", "maxItems": 100, "items": {"$ref": "#/components/schemas/Task"}}
    answer = {"description": "newest submission first, at most 100", "content": {_JSON: {"schema": rows}}}
    return _operation("listTasks", "Latest tasks", {"200": answer, "503": _retry("The store cannot be read")})


def _submit() -> dict[str, Any]:
    operation = _operation(
        "submitTask",
        "Accept a task; an id that is running or completed is left alone, a failed one runs again",
        {
            "201": _answer("Accepted", "accepted, or already there"),
            "400": _answer("Error", "Not JSON, no type, an unknown type, or an id that is no UUID"),
            "413": _answer("Error", "The body is larger than the limit"),
            "503": _retry("The store cannot be written, too much is running, or the process is stopping"),
        },
    )
    operation["requestBody"] = {
        "required": True,
        "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Submission"}}},
    }
    return operation


def _get() -> dict[str, Any]:
    return _operation(
        "getTask",
        "One task",
        {
            "200": _answer("Task", "the task"),
            "404": _answer("Error", "No such task"),
            "503": _retry("The store cannot be read"),
        },
    )


def _delete() -> dict[str, Any]:
    return _operation(
        "deleteTask",
        "Cancel a task and forget it; the handler may still be unwinding when the answer comes",
        {
            "204": {"description": "gone"},
            "404": _answer("Error", "No such task"),
            "503": _retry("Cancelled, but its row could not be deleted"),
        },
    )


def _submission() -> dict[str, Any]:
    return _object(
        {
            "type": {"type": "string", "enum": sorted(REGISTRY)},
            "id": {"type": "string", "description": "a UUID; empty or absent asks for a new one"},
            "params": {"type": ["object", "null"]},
        },
        ["type"],
    )


def _task() -> dict[str, Any]:
    time = {"type": "string", "format": "date-time"}
    return _object(
        {
            "id": {"type": "string"},
            "type": {"type": "string"},
            "status": {"enum": ["running", "completed", "failed"]},
            "run": {"type": "integer", "minimum": 1},
            "params": {"type": "object"},
            "result": {"description": "what the handler returned; progress while the task is running"},
            "error": {"type": "string"},
            "errorDetail": _object(
                {
                    "task": {"type": "string"},
                    "operation": {"type": "string"},
                    "retryable": {"type": "boolean"},
                    "hint": {"type": "string"},
                    "cause": {"type": "string"},
                },
                [],
            ),
            "submittedAt": time,
            "completedAt": time,
        },
        ["id", "type", "status", "run", "submittedAt"],
    )


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=2)
    sys.stdout.write("\n")
