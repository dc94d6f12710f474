"""tasks/<case>.json: scenarios of one or more tasks with everything around them."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from replay import sidecar_canned, sidecar_compare, sidecar_lines
from replay.sidecar_compare import Comparison, body, mask, mask_text, member_order
from replay.sidecar_servers import Stored
from replay.sidecar_stage import FakeSeid, NotPosableError, Stage, content
from replay.sidecar_world import NOT_YET, World, offered
from seiops.objectstore import records
from seiops.seid.chains import known_chain
from seiops.sidecar import clock

PATIENCE_SECONDS = 30.0
NOT_POSABLE = {
    "tasks/compare-cancel-inside-layer1": "the answer that hung until the task was stopped was recorded without its delay",
    "tasks/set-genesis-peers": "the object was replaced between the two tasks; the record keeps only the first one",
    "tasks/snapshot-restore-twice": "what the first task restored was removed by hand before the second",
}


def units(world: World) -> Iterator[tuple[str, Callable[[], Awaitable[None]], float]]:
    for path in sorted((world.golden / "tasks").glob("*.json")):
        name = f"tasks/{path.stem}"
        if world.wants(name):
            recorded = read(path)

            async def run(name: str = name, path: Path = path) -> None:
                await pose(world, name, read(path))

            yield name, run, recorded_seconds(recorded)


def read(path: Path) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return recorded


def recorded_seconds(recorded: dict[str, Any]) -> float:
    """How long the scenario took when it was recorded."""
    total = 0.0
    for step in recorded["steps"]:
        task = step.get("task") or {}
        if task.get("completedAt"):
            total += (clock.from_text(task["completedAt"]) - clock.from_text(task["submittedAt"])) / 1e9
        total += float(step.get("seconds") or 0)
    return total


async def pose(world: World, name: str, recorded: dict[str, Any]) -> None:
    missing = next((kind for kind in submitted_types(recorded) if not offered(kind)), None)
    if missing is not None:
        world.skip(name, f"{NOT_YET}: {missing}")
        return
    if name in NOT_POSABLE:
        world.skip(name, NOT_POSABLE[name])
        return
    comparison = world.comparison(name, [*recorded["rpc_requests"], *recorded["steps"]])
    try:
        async with world.stage(name) as stage:
            scene = Scene(stage, recorded, comparison, world.golden)
            await scene.play()
    except NotPosableError as error:
        world.skip(name, str(error))
        return
    world.emit(comparison.result())


def submitted_types(recorded: dict[str, Any]) -> Iterator[str]:
    """Types of the tasks that were accepted when recorded."""
    for step in recorded["steps"]:
        if step["do"] == "submit" and step["status"] == 201:
            document = body(step["body"])
            if isinstance(document, dict) and isinstance(document.get("type"), str):
                yield document["type"]


class Scene:
    """One scenario on its stage."""

    def __init__(self, stage: Stage, recorded: dict[str, Any], comparison: Comparison, golden: Path) -> None:
        self._stage = stage
        self._recorded = recorded
        self._comparison = comparison
        self._golden = golden
        self._ids: dict[str, str] = {}
        self._fakes: list[FakeSeid] = []
        self._observed = 0
        self._lost: set[int] = set()

    async def play(self) -> None:
        await self._prepare()
        steps = self._recorded["steps"]
        starts = [step for step in steps if step["do"] == "start"]
        before = self._stage.snapshot()
        if starts:
            await self._failed_start(starts[0])
        else:
            await self._stage.start()
            for number, step in enumerate(steps):
                await self._step(number, step)
        if steps and any(step.get("method") == "DELETE" for step in steps):
            # what a stopped task still publishes comes a moment after the answer
            wanted = set(self._recorded["s3_objects_written"])
            files = [self._stage.home / name for name in self._recorded["files_after"]]
            await _eventually(
                lambda: wanted <= set(self._stage.s3.objects) and all(path.exists() for path in files), 5.0
            )
        self._objects()
        self._files(before)

    # --- before ------------------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        recorded, stage = self._recorded, self._stage
        for key, value in recorded["env"].items():
            if value is None:
                stage.environment.pop(key, None)
            else:
                stage.environment[key] = stage.real(value)
        for key in recorded["env_removed"]:
            stage.environment.pop(key, None)
        self._genesis()
        stage.place(stage.home, recorded["files_before"])
        if any("not a database" in line for line in recorded["stderr"]):
            (stage.home / "sidecar.db").write_bytes(b"no database at all\n" * 100)
        self._stubs()
        await self._s3()
        canned = sidecar_canned.complete(recorded)
        self._lost = canned.lost
        await stage.rpc.open(canned.entries, stage.work / "c.pem")
        await self._seid()

    def _genesis(self) -> None:
        """The bytes of a public chain's genesis are supplied with a build or not at all; ours may be named here."""
        stage = self._stage
        if folder := os.environ.get("SEI_SIDECAR_GENESIS_DIR"):
            stage.environment["SEI_SIDECAR_GENESIS_DIR"] = folder
        chain = known_chain(stage.environment.get("SEI_CHAIN_ID", ""))
        if chain is not None and chain.genesis() is None:
            raise NotPosableError(f"the genesis of {chain.chain_id} was not supplied: set SEI_SIDECAR_GENESIS_DIR")

    def _stubs(self) -> None:
        """The stand-ins for seidb that the submits name, and the permission to run them."""
        allowed: list[str] = []
        for step in self._recorded["steps"]:
            document = body(step.get("body") or "")
            path = (document.get("params") or {}).get("seidbPath") if isinstance(document, dict) else None
            if not isinstance(path, str):
                continue
            if path == "SEIDB_BIN":
                path = os.environ.get("SEIDB") or self._not_posable("needs a real seidb: set SEIDB")
            allowed.append(self._stage.real(path))
            if path.startswith("WORK_DIR/stub/"):
                self._stub(path.removeprefix("WORK_DIR/stub/"))
        self._stage.environment["SEI_SIDECAR_SEIDB_ALLOW"] = ":".join(allowed)

    def _stub(self, name: str) -> None:
        known = json.loads((self._golden / "stubs.json").read_text(encoding="utf-8"))["stubs"]
        folder = self._stage.work / "stub"
        folder.mkdir(exist_ok=True)
        files = known.get(name)
        if files is None and self._recorded.get("seidb_stub_output"):
            files = _canned_stub(name, self._recorded["seidb_stub_output"])
        if files is None:
            raise NotPosableError(f"the stand-in {name} is not in stubs.json (a real seidb is needed)")
        for index, (file, text) in enumerate(files.items()):
            (folder / file).write_text(self._stage.real(text))
            (folder / file).chmod(0o644 if index else 0o755)

    async def _s3(self) -> None:
        stage, recorded = self._stage, self._recorded
        for place, entry in recorded["s3_before"].items():
            stage.s3.objects[place] = Stored(content(entry, place), written=False)
        touched = {f"{entry['bucket']}/{entry['key']}" for entry in recorded["s3_requests"] if entry.get("key")}
        read = {f"{e['bucket']}/{e['key']}" for e in recorded["s3_requests"] if str(e.get("answer")) in ("200", "206")
                and e.get("method") == "GET"}  # fmt: skip
        unknown = read & touched - set(stage.s3.objects) - set(recorded["s3_objects_written"])
        if unknown:
            raise NotPosableError(f"the object {sorted(unknown)[0]} was left out of the record")
        stage.s3.secret_refused = "AWS_SECRET_ACCESS_KEY" in recorded["env"]
        endpoint = stage.environment.get("AWS_ENDPOINT_URL_S3", "")
        port = int(endpoint.rsplit(":", 1)[-1]) if endpoint.startswith("http://127.0.0.1:") else 0
        if port >= 1024:
            await stage.s3.open(port, recorded["s3_requests"])

    async def _seid(self) -> None:
        """Processes that look like seid, as many as were observed."""
        seen = [step for step in self._recorded["steps"] if step["do"] == "observe" and step["what"] == "fake seid"]
        lookalikes = [("seid", ("version", "--long")), ("seid-init", ("start", "--home"))]
        killed = "SIGKILL" in json.dumps([self._recorded["note"], self._recorded["log"]])
        for index, step in enumerate(seen):
            if step["alive"] and not step["signals"]:
                argv0, arguments = lookalikes[index % len(lookalikes)]
                self._fakes.append(await self._stage.fake_seid(arguments, argv0=argv0))
            else:
                ignores = bool(step["alive"]) or killed
                self._fakes.append(await self._stage.fake_seid(("start", "--chain-id"), ignores_term=ignores))

    @staticmethod
    def _not_posable(reason: str) -> str:
        raise NotPosableError(reason)

    # --- steps -------------------------------------------------------------------------------------------------------

    async def _step(self, number: int, step: dict[str, Any]) -> None:
        where = f"step {number + 1} ({step['do']})"
        match step["do"]:
            case "submit":
                await self._submit(where, step)
            case "get":
                await self._get(where, step)
            case "http":
                await self._http(where, step)
            case "observe":
                await self._observe(where, step)
            case other:
                raise NotPosableError(f"no rule to pose a step {other!r}")

    async def _submit(self, where: str, step: dict[str, Any]) -> None:
        last = [other for other in self._recorded["steps"] if other["do"] == "submit"][-1]
        if step is last and "reset-data" not in set(submitted_types(self._recorded)):
            self._remove_what_the_recorder_removed()
        answer = await self._stage.submit(step["body"])
        recorded, produced = body(step["response"]), body(self._stage.recorded(answer.body.decode()))
        if isinstance(recorded, dict) and isinstance(produced, dict) and "id" in recorded and "id" in produced:
            self._ids[recorded["id"]] = produced["id"]
        self._comparison.documents("http", {"status": step["status"], "body": mask(recorded)},
                                   {"status": answer.status, "body": mask(produced)}, where)  # fmt: skip

    def _remove_what_the_recorder_removed(self) -> None:
        """Directories that no task of the scenario deletes were deleted by hand before its last task."""
        for name, entry in self._recorded["files_after"].items():
            if entry.get("removed") and name.endswith("/"):
                shutil.rmtree(self._stage.home / name, ignore_errors=True)

    async def _get(self, where: str, step: dict[str, Any]) -> None:
        recorded = step["task"]
        task_id = self._ids.get(step["id"], step["id"])
        patience = PATIENCE_SECONDS + 3 * recorded_seconds({"steps": [step]})
        answer = await self._stage.poll(task_id, recorded["status"] if recorded else "", patience)
        produced = body(self._stage.recorded(answer.body.decode()))
        if not isinstance(produced, dict) or not isinstance(recorded, dict):
            self._comparison.documents("http", body(step["response"]), produced, where)
            return
        left, right = sidecar_compare.row(recorded, produced)
        self._comparison.documents("task", left, right, where)
        for wrong in member_order(left, right):
            self._comparison.add(f"{where}: {wrong}")

    async def _http(self, where: str, step: dict[str, Any]) -> None:
        target = step["target"]
        for theirs, ours in self._ids.items():
            target = target.replace(theirs, ours)
        if step["method"] == "DELETE":
            await self._until_ripe(step)
        raw = None if step["body"] is None else self._stage.real(step["body"]).encode()
        answer = await self._stage.request(step["method"], target, raw, [["Host", "sidecar"], ["Connection", "close"]])
        recorded, produced = body(step["response"]), body(self._stage.recorded(answer.body.decode()))
        if target == "/v0/node-id" and answer.status == step["status"] == 200:
            recorded, produced = (
                re.sub(r"[0-9a-f]{40}", "<id>", step["response"]),
                re.sub(r"[0-9a-f]{40}", "<id>", answer.body.decode()),
            )
        if isinstance(recorded, dict) and "submittedAt" in recorded and isinstance(produced, dict):
            recorded, produced = sidecar_compare.row(recorded, produced)
        if target.startswith("/v0/metrics"):
            recorded = produced = "metrics"
        self._comparison.documents("http", {"status": step["status"], "body": mask(recorded)},
                                   {"status": answer.status, "body": mask(produced)}, where)  # fmt: skip

    def _before_stop(self, step: dict[str, Any]) -> float:
        """How long the recorder let the task run before it stopped it, where the record tells."""
        told = json.dumps(self._recorded["steps"])
        submitted = re.search(r"submittedAt\W+([0-9T:.-]+Z)", told)
        stopped = dict(step["response_headers"]).get("Date")
        if submitted is None or stopped is None:
            return PATIENCE_SECONDS
        seconds = parsedate_to_datetime(stopped).timestamp() - clock.from_text(submitted[1]) / 1e9
        return max(3.0, 1.0 + 2 * seconds)

    async def _until_ripe(self, step: dict[str, Any]) -> None:
        """Before a cancellation: what the record had done by then is done (objects written, child started)."""
        wanted = set(self._recorded["s3_objects_written"])
        pid = self._stage.work / "stub" / "pid"
        child = any(step.get("what") == "child process" for step in self._recorded["steps"])
        deadline = time.monotonic() + min(PATIENCE_SECONDS, self._before_stop(step))
        while time.monotonic() < deadline:
            if wanted <= set(self._stage.s3.objects) and (not child or pid.exists()):
                return
            await asyncio.sleep(0.05)

    async def _observe(self, where: str, step: dict[str, Any]) -> None:
        match step["what"]:
            case "fake seid":
                fake = self._fakes[self._observed]
                self._observed += 1
                expected = {"alive": step["alive"], "signals": step["signals"]}
                await _eventually(lambda: fake.observe() == expected)
                self._comparison.documents("observe", expected, fake.observe(), where)
            case "child process":
                pid = int((self._stage.work / "stub" / "pid").read_text())
                await _eventually(lambda: not alive(pid))
                self._comparison.documents("observe", {"alive after": step["alive_after"]},
                                           {"alive after": alive(pid)}, where)  # fmt: skip
            case "server store":
                recorded = {
                    place: entry["attributes"].get("user.content-type") for place, entry in step["objects"].items()
                }
                produced = {
                    place: stored.content_type for place, stored in self._stage.s3.objects.items() if stored.written
                }
                self._comparison.documents("objects", recorded, produced, where)
            case other:
                raise NotPosableError(f"no rule to observe {other!r}")

    async def _failed_start(self, step: dict[str, Any]) -> None:
        await self._stage.start(listening=False)
        still = step["exit"] == "still running"
        status = await self._stage.exit_status(3.0 if still else 20.0)
        produced = "still running" if status is None else status
        self._comparison.documents("startup", {"exit": step["exit"]}, {"exit": produced}, "start")
        if not still:
            theirs = [line[20:] for line in self._recorded["stderr"]]
            ours = [line[20:] for line in self._stage.recorded(self._stage.stderr()).splitlines()]
            self._comparison.documents("startup", {"stderr": theirs}, {"stderr": ours}, "start")

    # --- afterwards --------------------------------------------------------------------------------------------------

    def _files(self, before: dict[str, dict[str, Any]]) -> None:
        after = self._stage.snapshot()
        produced: dict[str, dict[str, Any]] = {}
        for name, entry in after.items():
            if name not in before:
                produced[name] = {**entry, "change": "created"}
            elif entry != before[name]:
                produced[name] = {**entry, "change": "modified"}
        for name in before:
            if name not in after:
                produced[name] = {"removed": True}
        recorded: dict[str, dict[str, Any]] = {}
        for name, entry in self._recorded["files_after"].items():
            recorded[name] = {key: entry[key] for key in ("mode", "change", "link", "removed") if key in entry}
            if name.endswith("/") or "link" in entry or entry.get("removed"):
                continue
            try:
                recorded[name]["bytes"] = self._stage.real(content(entry, name).decode()).encode()
            except UnicodeDecodeError:
                recorded[name]["bytes"] = content(entry, name)
            except NotPosableError:
                # Slim cases keep only the digest of large files.
                ours = hashlib.sha256(produced.get(name, {}).get("bytes", b"")).hexdigest()
                if name in produced and ours != entry["sha256"] and not self._recorded["varies"]:
                    recorded[name]["sha256"] = entry["sha256"]
        left, right = sidecar_compare.files(recorded, produced, self._recorded["varies"], byte_exact=False)
        self._comparison.documents("files", left, right, "files")

    def _objects(self) -> None:
        cut = self._recorded.get("pages") or {}
        recorded = {
            place: _recorded_object(entry, cut.get(place))
            for place, entry in self._recorded["s3_objects_written"].items()
        }
        produced: dict[str, Any] = {}
        for place, stored in self._stage.s3.objects.items():
            if stored.written and (recorded or not self._has_server_store()):
                produced[place] = _written_object(stored, recorded.get(place, {}))
                _same_lines(recorded.get(place, {}), produced[place], self._lost)
        self._comparison.documents("objects", recorded, produced, "objects")

    def _has_server_store(self) -> bool:
        return any(step.get("what") == "server store" for step in self._recorded["steps"])


def _canned_stub(name: str, output: dict[str, str]) -> dict[str, str]:
    """The script of a stand-in that prints a recorded report, in the shape of those in stubs.json."""
    parts = {"f": "flatkv", "s": "semantic", "t": "translator"}
    base = f"WORK_DIR/stub/{name}"
    script = (
        '#!/bin/bash\ncase "$*" in *"--backend flatkv"*) cat '
        + f"{base}.f;; *translator*) cat {base}.t;; *) cat {base}.s;; esac\n"
    )
    return {name: script} | {f"{name}.{suffix}": output.get(key, "") for suffix, key in parts.items()}


def _recorded_object(entry: dict[str, Any], cut: dict[str, Any] | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"content-type": entry["headers"].get("content-type")}
    shown["sha256 seal"] = "x-amz-checksum-sha256" in entry["headers"]
    if "gzip_header" in entry:
        shown["gzip header"] = entry["gzip_header"]
    if "tar" in entry:
        shown["tar"] = [
            _member(item["name"], item["type"], item["mode"], item["size"], item["linkname"]) for item in entry["tar"]
        ]
    elif cut is not None:
        shown["lines"] = cut["lines"]
        shown |= _lines([*cut["first_40"], *cut["last_3"]])
    elif "decompressed" in entry:
        shown |= _payload(content(entry["decompressed"], "payload").decode("utf-8", "replace"))
    elif "decompressed_sha256" in entry:
        shown["payload sha256"] = entry["decompressed_sha256"]
    elif "body" in entry:
        shown["body"] = mask_text(content(entry["body"], "body").decode("utf-8", "replace"))
    else:
        shown["sha256"] = entry["sha256"]
    return shown


def _written_object(stored: Stored, recorded: dict[str, Any]) -> dict[str, Any]:
    sealed = stored.checksum_sha256 is not None and recorded.get("sha256 seal", True)
    shown: dict[str, Any] = {"content-type": stored.content_type, "sha256 seal": sealed}
    if stored.body[:2] == b"\x1f\x8b":
        shown["gzip header"] = stored.body[:10].hex()
        payload = gzip.decompress(stored.body)
        if "tar" in recorded:
            with tarfile.open(fileobj=io.BytesIO(payload)) as archive:
                shown["tar"] = [
                    _member(item.name, item.type.decode(), f"0{item.mode:o}", item.size, item.linkname)
                    for item in archive
                ]
        elif "payload sha256" in recorded:
            shown["payload sha256"] = hashlib.sha256(payload).hexdigest()
        elif "lines" in recorded:
            lines = payload.decode("utf-8", "replace").splitlines()
            shown["lines"] = len(lines)
            shown |= _lines([*lines[:40], *lines[-3:]])
        else:
            shown |= _payload(payload.decode("utf-8", "replace"))
    elif "sha256" in recorded:
        shown["sha256"] = hashlib.sha256(stored.body).hexdigest()
    else:
        shown["body"] = mask_text(stored.body.decode("utf-8", "replace"))
    return shown


def _payload(text: str) -> dict[str, Any]:
    """A payload as text; a record as the document it is, so that what was added can be told from what was changed, and
    whether it is spelled the way records are."""
    masked = mask_text(text)
    if text.startswith('{"') and text.endswith("}\n"):
        return _lines(text.splitlines())
    if not text.startswith("{\n"):
        return {"payload": masked}
    return {
        "payload": json.loads(masked),
        "spelled as records are": records.document(json.loads(text)).decode() == text,
    }


def _lines(lines: list[str]) -> dict[str, Any]:
    """NDJSON as documents, by height where the lines have one."""
    documents = [json.loads(mask_text(line)) for line in lines]
    keys = [str(document.get("height", index)) for index, document in enumerate(documents)]
    spelled = all(records.line(json.loads(line)).decode() == line + "\n" for line in lines)
    return {"payload": dict(zip(keys, documents, strict=True)), "spelled as records are": spelled}


def _same_lines(recorded: dict[str, Any], produced: dict[str, Any], lost: set[int]) -> None:
    """Takes out lines whose planted answers the record lost, and foreign wording of errors where both sides have some."""
    theirs, ours = recorded.get("payload"), produced.get("payload")
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return
    if any("false" in json.dumps(line) for line in theirs.values()):
        for height in map(str, lost):
            theirs.pop(height, None)
            ours.pop(height, None)
    for line in theirs.values():
        if isinstance(line, dict):
            sidecar_lines.mark_spelling(line)
    for height in theirs.keys() & ours.keys():
        _same_errors(theirs[height], ours[height])


def _same_errors(recorded: Any, produced: Any) -> None:
    if not isinstance(recorded, dict) or not isinstance(produced, dict):
        return
    for name in recorded.keys() & produced.keys():
        if name == "error" and isinstance(recorded[name], str) and isinstance(produced[name], str):
            recorded[name], produced[name] = sidecar_compare.errors(recorded[name], produced[name])
        else:
            _same_errors(recorded[name], produced[name])


def _member(name: str, kind: str, mode: str, size: int, link: str) -> str:
    return f"{kind} {mode} {size} {name.rstrip('/')} {link}".rstrip()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def _eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        await asyncio.sleep(0.05)
