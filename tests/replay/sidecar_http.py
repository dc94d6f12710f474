"""http.jsonl: one request and its exact answer a line. Lines of a group share a process and are sent in order.

What a line needs around it (a key file, a held lock, 105 earlier tasks) is said in its note or its case name; a line
whose set-up this module cannot read off is skipped with that reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import shutil
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from replay import sidecar_compare
from replay.context import iterate_jsonl
from replay.sidecar_compare import body, mask, member_order
from replay.sidecar_db import same_series
from replay.sidecar_stage import PORT, Answer, NotPosableError, Stage
from replay.sidecar_world import NOT_YET, World, offered

# Groups that go on in the process of the group before them.
CONTINUED = {"broken store"}
MODES = {"trusted-header mode": "trusted-header", "unauthenticated mode": " UNAUTHENTICATED "}
_NOTED_FILE = re.compile(r"^([\w./-]+) = (.*)$", re.DOTALL)
_PADDED = re.compile(r'^(\w+) (\S+) with header "([\w-]+): " \+ "(.)" \* (\d+)')
_SHORT = re.compile(r"^(\w+) (\S+) HTTP/1\.1((?:, [\w-]+: [^,]+)*)$")
_REPEATED_TEXT = re.compile(r'"" \+ "(.)" \* (\d+)')
_REPEATED = re.compile(r'"(.)" \* (\d+)(?: \+ )?')
_MANY = re.compile(r'^(\d+) (\S+) tasks with params \{"(\w+)":0\.\.(\d+)\}')
_CONCURRENT = re.compile(r"^(\d+) x POST (\{.*\})$", re.DOTALL)
_ENV = re.compile(r'(\w+)="([^"]*)"')


def units(world: World) -> Iterator[tuple[str, Callable[[], Awaitable[None]], float]]:
    path = world.golden / "http.jsonl"
    if not path.is_file():
        return
    runs: list[list[dict[str, Any]]] = []
    for group, members in itertools.groupby(iterate_jsonl(path), key=lambda line: line["group"]):
        if group in CONTINUED and runs:
            runs[-1] += members
        else:
            runs.append(list(members))
    for lines in runs:
        if any(world.wants(_name(line)) for line in lines):

            async def run(lines: list[dict[str, Any]] = lines) -> None:
                await pose(world, lines)

            yield f"http/{lines[0]['group']}", run, 8.0 + len(lines) * 0.05


def _name(line: dict[str, Any]) -> str:
    return f"http/{line['seq']:03d}-{line['case'].replace(' ', '-')}"


async def pose(world: World, lines: list[dict[str, Any]]) -> None:
    async with world.stage(f"http-{lines[0]['seq']}") as stage:
        mode = MODES.get(lines[0]["group"])
        for line in lines:
            if (noted := _ENV.search(line.get("note") or "")) and noted[1] == "SEI_SIDECAR_AUTHN_MODE":
                mode = noted[2]
        if mode is not None:
            stage.environment["SEI_SIDECAR_AUTHN_MODE"] = mode
        await stage.start()
        session = Session(world, stage)
        for line in lines:
            await session.pose(line)
        session.close()


class Session:
    """The lines of one process. Ids that the server chose are followed from answer to request."""

    def __init__(self, world: World, stage: Stage) -> None:
        self._world = world
        self._stage = stage
        self._ids: dict[str, str] = {}
        self._numbered: dict[int, str] = {}
        self._lock: sqlite3.Connection | None = None
        self._last: int | None = None
        self._gaps = False

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()

    async def pose(self, line: dict[str, Any]) -> None:
        name = _name(line)
        wanted = self._world.wants(name)
        self._gaps = self._gaps or (self._last is not None and line["seq"] != self._last + 1)
        self._last = line["seq"]
        try:
            kind = self._unoffered(line)
            if kind is not None:
                raise NotPosableError(f"{NOT_YET}: {kind}")
            await self._set_up(line)
            special = self._special(line)
            if special is not None:
                recorded, produced = await special
            else:
                answer = await self._ask(line)
                recorded, produced = self._documents(line, answer)
        except NotPosableError as reason:
            if wanted:
                self._world.skip(name, str(reason))
            return
        if not wanted:
            return
        comparison = self._world.comparison(name)
        comparison.documents("http", recorded, produced)
        if "body" in recorded:
            for wrong in member_order(recorded["body"], produced.get("body")):
                comparison.add(wrong)
        self._world.emit(comparison.result())

    @staticmethod
    def _unoffered(line: dict[str, Any]) -> str | None:
        """The type of an accepted task that our registry does not hold, also when this line only reads its row."""
        request, response = line["request"], line["response"]
        if "unknown task type" in str(response.get("body")) or " 400 " in str(response.get("status_line")):
            return None
        for text in (request.get("body"), request.get("body_generator"), response.get("body"), request.get("note")):
            # Of two types in one text the later one counts.
            kinds = re.findall(r'"type":\s*"([a-z-]+)"', text if isinstance(text, str) else "", re.IGNORECASE)
            if kinds and not offered(kinds[-1]):
                return str(kinds[-1])
        return None

    # --- set-up ------------------------------------------------------------------------------------------------------

    async def _set_up(self, line: dict[str, Any]) -> None:
        case, note = line["case"], line.get("note") or ""
        key_file = self._stage.home / "config" / "node_key.json"
        if line["group"] == "node-id":
            shutil.rmtree(key_file, ignore_errors=True)
            key_file.unlink(missing_ok=True)
            if noted := _NOTED_FILE.match(note):
                (self._stage.home / noted[1]).write_text(noted[2])
            elif case.endswith("is a directory"):
                key_file.mkdir()
            elif "not found" not in str(line["response"].get("body")):
                raise NotPosableError("the record does not say what the key file held")
        if case.startswith("write lock held") and self._lock is None:
            self._lock = sqlite3.connect(self._stage.home / "sidecar.db", isolation_level=None)
            self._lock.execute("BEGIN IMMEDIATE")
        elif not case.startswith("write lock held") and self._lock is not None:
            self._lock.execute("ROLLBACK")
            self._lock.close()
            self._lock = None
        if case.startswith("table dropped"):
            with contextlib.closing(sqlite3.connect(self._stage.home / "sidecar.db", timeout=10)) as db:
                db.execute("DROP TABLE IF EXISTS task_results")
        many = _MANY.match(line["request"].get("note") or "")
        if many and not self._numbered:
            await self._submit_many(int(many[1]), many[2], many[3])

    async def _submit_many(self, count: int, kind: str, member: str) -> None:
        if not offered(kind):
            raise NotPosableError(f"{NOT_YET}: {kind}")
        for number in range(count):
            answer = await self._stage.submit(json.dumps({"type": kind, "params": {member: number}}))
            self._numbered[number] = answer.json()["id"]
        for task_id in self._numbered.values():
            await self._stage.poll(task_id, "completed", 20)

    # --- requests ----------------------------------------------------------------------------------------------------

    async def _ask(self, line: dict[str, Any]) -> Answer:
        request = line["request"]
        if "raw" in request:
            return await self._raw(request["raw"], line["case"])
        headers = [list(pair) for pair in request.get("headers", [])]
        payload = request.get("body")
        if "body_generator" in request:
            payload = _generated(request["body_generator"], headers)
        target = self._translate(request["target"], line)
        version = request.get("version") or "HTTP/1.1"
        data = None if payload in (None, "") else self._stage.real(payload).encode()
        if data is None and any(name.lower() == "content-length" and value != "0" for name, value in headers):
            raise NotPosableError("the body was left out of the record")
        answer = await self._stage.request(request["method"], target, data, headers, version)
        # The row may still be running a moment after its submission.
        expected = body(line["response"].get("body") or "")
        if (
            request["method"] == "GET"
            and isinstance(expected, dict)
            and expected.get("status") in ("completed", "failed")
        ):
            deadline = time.monotonic() + 10
            while answer.status == 200 and answer.json().get("status") == "running" and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
                answer = await self._stage.request(request["method"], target, data, headers, version)
        given = body(answer.body)
        if isinstance(expected, dict) and isinstance(given, dict) and answer.status == 201 and "id" in expected:
            self._ids[expected["id"]] = str(given.get("id"))
        return answer

    def _translate(self, target: str, line: dict[str, Any]) -> str:
        for theirs, ours in self._ids.items():
            target = target.replace(theirs, ours)
        expected = body(line["response"].get("body") or "")
        if self._numbered and isinstance(expected, dict) and isinstance(expected.get("params"), dict):
            number = next(iter(expected["params"].values()), None)
            if isinstance(number, int) and number in self._numbered and expected["id"] not in self._ids:
                target = target.replace(expected["id"], self._numbered[number])
        return target

    async def _raw(self, raw: str, case: str) -> Answer:
        if padded := _PADDED.match(raw):
            method, target, name, character, count = padded.groups()
            head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{name}: {character * int(count)}\r\n\r\n"
            return await self._stage.send(head.encode(), head_only=method == "HEAD")
        if short := _SHORT.match(raw):
            headers = [["Host", "sidecar"], ["Connection", "close"]]
            headers += [pair.split(": ", 1) for pair in short[3].split(", ") if pair]
            return await self._stage.request(short[1], short[2], None, headers)
        if "\r\n" not in raw:
            raise NotPosableError("the record describes this request in words only")
        data = raw.replace("(and nothing more)", "").encode("utf-8", "surrogateescape")
        return await self._stage.send(data, half_close="half close" in case or "half-close" in case)

    def _special(self, line: dict[str, Any]) -> Awaitable[tuple[dict[str, Any], dict[str, Any]]] | None:
        """Lines that are no single request: many at once, a look at the socket table, a part of the metrics."""
        request = line["request"]
        if request.get("method") or "raw" in request:
            return None
        note = request.get("note") or ""
        if together := _CONCURRENT.match(note):
            return self._together(line, int(together[1]), together[2])
        if note.startswith("socket table"):
            return self._listening(line)
        if note.startswith("GET /v0/metrics"):
            return self._metrics(line)
        raise NotPosableError("no rule to pose this line")

    async def _together(self, line: dict[str, Any], count: int, payload: str) -> tuple[dict[str, Any], dict[str, Any]]:
        answers = await asyncio.gather(*(self._stage.submit(payload) for _ in range(count)))
        wanted = _series(line["response"]["body"])
        recorded = {"status": [line["response"]["status_line"]], "metrics": wanted}
        text = (await self._stage.request("GET", "/v0/metrics")).body.decode()
        produced = {
            "status": sorted({answer.status_line for answer in answers}),
            "metrics": _pick(wanted, text),
        }
        return recorded, produced

    async def _metrics(self, line: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        text = (await self._stage.request("GET", "/v0/metrics")).body.decode()
        recorded: dict[str, Any] = {
            "metrics": _series(line["response"]["body"]),
            "about": _about(line["response"]["body"]),
        }
        if self._gaps:
            # Requests that are not in the record were counted too.
            recorded["metrics"] = dict.fromkeys(recorded["metrics"], 1.0)
            text = re.sub(r"(?m)^(seictl_\S+) [1-9]\d*(?:\.0)?$", r"\1 1.0", text)
        about = {name: value for name, value in _about(text).items() if name in recorded["about"]}
        return recorded, {"metrics": _pick(recorded["metrics"], text), "about": about}

    async def _listening(self, line: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"listens on": line["response"]["body"].strip()}, {"listens on": socket_address()}

    # --- answers -----------------------------------------------------------------------------------------------------

    def _documents(self, line: dict[str, Any], answer: Answer) -> tuple[dict[str, Any], dict[str, Any]]:
        response = line["response"]
        recorded: dict[str, Any] = {"status": response["status_line"]}
        produced: dict[str, Any] = {"status": answer.status_line}
        ours = body(self._stage.recorded(answer.body.decode("utf-8", "replace")))
        theirs = response.get("body")
        left, right = self._bodies(line, theirs, ours)
        recorded["body"], produced["body"] = left, right
        counted = (
            left != "omitted"
            and not _says(line.get("varies"), "Content-Length")
            and left == right
            and mask(theirs) == theirs
        )
        recorded["headers"] = _headers(response.get("headers") or [], counted)
        produced["headers"] = _headers([list(pair) for pair in answer.headers], counted)
        if " 100 " in str(response["status_line"]):
            # Both answers in sequence: the interim one and, in what follows it, the final one.
            final = re.findall(r"HTTP/1\.1 [2-5]\d\d [^\r\n]*", json.dumps(response).replace("\\r\\n", "\r\n"))
            recorded = {"status": response["status_line"], "final": final[-1] if final else None}
            produced = {"status": (answer.interim or ["none"])[0], "final": answer.status_line if final else None}
        return recorded, produced

    def _bodies(self, line: dict[str, Any], recorded: Any, produced: Any) -> tuple[Any, Any]:
        note = line.get("note") or ""
        summary = body(recorded) if isinstance(recorded, str) else recorded
        if isinstance(summary, dict) and "summary" in summary and isinstance(produced, list):
            numbers = [next(iter(row["params"].values())) for row in produced]
            return summary, {
                "summary": f"array length {len(produced)}",
                "n_of_first": numbers[0],
                "n_of_last": numbers[-1],
            }
        if isinstance(recorded, str) and "first line only" in note:
            shape = "# HELP <first family>"
            return shape, shape if str(produced).startswith("# HELP ") else produced
        if isinstance(recorded, str) and "omitted" in recorded:
            return "omitted", "omitted"
        document = body(recorded if recorded is not None else "")
        if isinstance(document, dict) and isinstance(produced, dict):
            if "submittedAt" in document:
                return sidecar_compare.row(document, produced)
            left, right = mask(document), mask(produced)
            left_error, right_error = sidecar_compare.errors(document.get("error"), produced.get("error"))
            return (left | {"error": left_error}, right | {"error": right_error}) if left_error else (left, right)
        return mask(document), mask(produced)


def _headers(pairs: list[Any], counted: bool) -> dict[str, list[str]]:
    """Header values by name, without what differs from run to run."""
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        if name == "Date" or (name in ("Content-Length", "Transfer-Encoding") and not counted):
            continue
        found.setdefault(name, []).append(value)
    return found


def _says(varies: list[str] | None, word: str) -> bool:
    return any(word in entry and "metrics only" not in entry for entry in varies or [])


def _series(text: str) -> dict[str, float]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def _about(text: str) -> dict[str, str]:
    return {" ".join(line.split(" ")[:3]): line for line in text.splitlines() if line.startswith("# ")}


def _pick(wanted: dict[str, float], text: str) -> dict[str, float]:
    """Our values of the recorded series, under the recorded spelling."""
    ours = _series(text)
    return {
        series: next((value for name, value in ours.items() if same_series(name, series)), float("nan"))
        for series in wanted
    }


def socket_address(port: int = PORT) -> str:
    """Where something listens on the port, written as socket tables write it."""
    places: set[str] = set()
    for table, wildcard in (("/proc/net/tcp", "00000000"), ("/proc/net/tcp6", "0" * 32)):
        with contextlib.suppress(OSError), open(table) as lines:  # noqa: PTH123
            for line in lines.readlines()[1:]:
                parts = line.split()
                address, number = parts[1].split(":")
                if parts[3] == "0A" and int(number, 16) == port:
                    places.add(
                        "*" if address == wildcard else ".".join(str(b) for b in reversed(bytes.fromhex(address)))
                    )
    return " ".join(f"{place}:{port}" for place in sorted(places))


def _generated(text: str, headers: list[list[str]]) -> str:
    """A body that is written down as an expression. Its length is checked against the recorded Content-Length."""
    built = _REPEATED_TEXT.sub(lambda found: '"' + found[1] * int(found[2]) + '"', text)
    built = _REPEATED.sub(lambda found: found[1] * int(found[2]), built)
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), None)
    for candidate in (built, built.replace(" ", "")):
        if length is None or len(candidate.encode()) == length:
            return candidate
    raise NotPosableError("the generated body is not as long as the recorded one")
