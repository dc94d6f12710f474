"""The controller's side of the sidecar API: submit a task, poll it, ask for health and node id.

Plain HTTP to the kube-rbac-proxy of a node's Pod with our ServiceAccount token. Every call has a deadline, so a sidecar
that accepts and never answers costs its own node a few seconds and nobody else anything
(docs/contracts/controller-behaviour.md 7; D4).
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult

from seiops.api.names import sidecar_url
from seiops.kube import ConfigError, Key
from seiops.kube.client.credentials import FileToken

PROBE_DEADLINE = 2.0
NODE_ID_DEADLINE = 2.0
SUBMIT_DEADLINE = 10.0
POLL_DEADLINE = 5.0
CONNECT_DEADLINE = 2.0
MAX_CONNECTIONS = 2048
CONNECTIONS_PER_NODE = 4
IDLE_CONNECTION_LIFETIME = 75.0
MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of an answer that are read; a task result larger than that is an error."""

log = structlog.get_logger("sidecar")


class SidecarError(Exception):
    """No usable answer: not reachable, too late, or not what the API promises. Trying again may help."""


class LateError(SidecarError):
    """No answer before the deadline."""


class RefusedError(SidecarError):
    """The sidecar or its proxy answered and said no; the message is its own."""


class Health(StrEnum):
    READY = "ready"
    NOT_READY = "not_ready"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Probe:
    """Outcome of one health question; ``error`` only if unreachable."""

    health: Health
    error: str = ""


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """A task as the sidecar tells it: ``status`` is running, completed, failed, or a word we do not know."""

    status: str
    error: str
    result: Any


class FileResolver(AbstractResolver):
    """Development only: names under ``.svc.cluster.local`` come from a JSON file (name to address), read on every look-up.

    A name that is not in the file does not exist. All other names are resolved as usual.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._usual = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not host.endswith(".svc.cluster.local"):
            return await self._usual.resolve(host, port, family)
        try:
            address = orjson.loads(self._path.read_bytes()).get(host)
        except (OSError, ValueError) as error:
            raise OSError(None, f"{self._path}: {error}") from error
        if address is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        found = ResolveResult(
            hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
        )
        return [found]

    async def close(self) -> None:
        await self._usual.close()


class SidecarClient:
    """One for the process, one connection pool for all nodes. Nodes are named by namespace and name."""

    def __init__(self, token_file: str, resolve_file: str = "") -> None:
        self._token = FileToken(Path(token_file))
        self._resolve_file = resolve_file
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def health(self, node: Key) -> Probe:
        """Never raises: whatever is not 200 or 503 is unreachable (controller-behaviour.md 3.3).

        A late answer is asked for once more: on a busy machine it says nothing about the sidecar.
        """
        try:
            try:
                status, body = await self._call(node, "GET", "/v0/healthz", PROBE_DEADLINE)
            except LateError:
                status, body = await self._call(node, "GET", "/v0/healthz", PROBE_DEADLINE)
        except SidecarError as error:
            return Probe(Health.UNREACHABLE, f"querying sidecar healthz: {error}")
        if status == 200:
            return Probe(Health.READY)
        if status == 503:
            return Probe(Health.NOT_READY)
        return Probe(Health.UNREACHABLE, f"sidecar healthz returned {status}: {_text(body)}")

    async def submit(self, node: Key, task_type: str, body: bytes) -> None:
        """Posts a submission (:func:`seiops.controller.plan.wire.body`).

        A known id that runs or is done changes nothing; one that failed runs again.
        """
        status, content = await self._call(node, "POST", "/v0/tasks", SUBMIT_DEADLINE, body)
        if status in (201, 202):
            answer = _json(content)
            if not isinstance(answer, dict) or not answer.get("id"):
                raise RefusedError(f"sidecar {task_type} task submission returned {status} without a task id")
            return
        if status == 400:
            answer = _json(content)
            message = answer.get("error") if isinstance(answer, dict) else None
            raise RefusedError(f"sidecar rejected {task_type} task: {message or _text(content)}")
        raise RefusedError(f"sidecar {task_type} task submission returned {status}: {_text(content)}")

    async def task(self, node: Key, task_id: str) -> TaskAnswer | None:
        """The task, or None if the sidecar does not know the id."""
        status, body = await self._call(node, "GET", f"/v0/tasks/{task_id}", POLL_DEADLINE)
        if status == 404:
            return None
        answer = _json(body)
        if status != 200 or not isinstance(answer, dict):
            raise SidecarError(f"sidecar task query returned {status}: {_text(body)}")
        return TaskAnswer(str(answer.get("status") or ""), str(answer.get("error") or ""), answer.get("result"))

    async def node_id(self, node: Key) -> str:
        """P2P id of the node, as its sidecar reads it from the node key."""
        status, body = await self._call(node, "GET", "/v0/node-id", NODE_ID_DEADLINE)
        answer = _json(body)
        found = answer.get("nodeId") if status == 200 and isinstance(answer, dict) else None
        if not isinstance(found, str) or not found:
            raise SidecarError(f"sidecar node-id returned {status}: {_text(body)}")
        return found

    async def _call(
        self, node: Key, method: str, path: str, deadline: float, body: bytes | None = None
    ) -> tuple[int, bytes]:
        namespace, name = node
        url = sidecar_url(name, namespace) + path
        try:
            headers = {"Authorization": f"Bearer {await self._token.token()}"}
        except ConfigError as error:
            raise SidecarError(str(error)) from error
        if body is not None:
            headers["Content-Type"] = "application/json"
        timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=CONNECT_DEADLINE)
        try:
            session = self._open()
            async with session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                content = await _bounded(response)
                if response.status == 401:
                    self._token.drop()
                return response.status, content
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            kind = LateError if isinstance(error, TimeoutError) else SidecarError
            raise kind(f'{method.capitalize()} "{url}": {describe(error)}') from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = FileResolver(Path(self._resolve_file)) if self._resolve_file else aiohttp.ThreadedResolver()
            connector = aiohttp.TCPConnector(
                limit=MAX_CONNECTIONS,
                limit_per_host=CONNECTIONS_PER_NODE,
                resolver=resolver,
                # A Pod that was replaced has another address; a cached one would point at a stranger.
                use_dns_cache=False,
                keepalive_timeout=IDLE_CONNECTION_LIFETIME,
            )
            self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": "seiops-controller"})
        return self._session


_REFUSED_ADDRESS = re.compile(r"\('([^']+)', (\d+)")


def describe(error: BaseException) -> str:
    """A transport error in the words that conditions have always used for it (golden flows `sidecar-unreachable-*`)."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError):
        place = _REFUSED_ADDRESS.search(str(error.os_error))
        where = f"{place[1]}:{place[2]}" if place else f"{error.host}:{error.port}"
        if isinstance(error.os_error, ConnectionRefusedError):
            return f"dial tcp {where}: connect: connection refused"
        return f"dial tcp {where}: {error.os_error.strerror or error.os_error}"
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    return str(error) or type(error).__name__


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_ANSWER:
            raise SidecarError(f"sidecar answer is larger than {MAX_ANSWER} bytes")
    return bytes(content)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _text(body: bytes) -> str:
    return body[:500].decode(errors="replace").strip()
