"""cli.jsonl: the `seictl` command line. Its `report` family is posed to `seiops report`; the other families are not ours.

What a report case read was put into the bucket by hand when it was recorded. It can be put there again: a report object
stands in the task case that the line names, and a listing opens nothing, so that names are enough.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import posixpath
import re
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay import sidecar_markdown
from replay.context import iterate_jsonl
from replay.sidecar_compare import Comparison, errors, member_order
from replay.sidecar_servers import Stored
from replay.sidecar_stage import NotPosableError, Stage, content
from replay.sidecar_world import NOT_YET, World

SECONDS = 60.0
S3_PORT = 9000
FAMILY = "report"
_VALUED = ("env", "bucket", "prefix", "region", "key", "height")
# What the S3 library says of its own accord.
_LIBRARY = re.compile(r"SDK \S+ \S+ WARN .*\n")
_PAGE = re.compile(r"(\d+)-(\d+)\.compare\.ndjson\.gz$")
_REPORT = re.compile(r"divergence-(\d+)\.report\.json\.gz$")
_ROW = re.compile(r"(?:page +(?P<first>\d+) - (?P<last>\d+) +\d+|divergence +(?P<height>\d+) +-)")
# Names that a listing leaves out (docs/contracts/shadow.md 7.3): with them in the bucket leaving out is seen, too.
_UNLISTED = ("1-1000.ndjson.gz", "evm-logical-digest-100.json.gz", "1-9.compare.ndjson", "divergence-9.report.json")
_MISSING_BUCKET = "NoSuchBucket"
_MISSING_OBJECT = re.compile(r"NoSuchKey|StatusCode: 404")

Rows = list[tuple[int, ...]]


def units(world: World) -> Iterator[tuple[str, Callable[[], Awaitable[None]], float]]:
    path = world.golden / "cli.jsonl"
    if not path.is_file():
        return
    for recorded in iterate_jsonl(path):
        name = f"cli/{recorded['case']}"
        if world.wants(name):

            async def run(name: str = name, recorded: Any = recorded) -> None:
                await pose(world, name, recorded)

            yield name, run, 2.0 if recorded["args"][:1] == [FAMILY] else 0.0


async def pose(world: World, name: str, recorded: dict[str, Any]) -> None:
    if recorded["args"][:1] != [FAMILY]:
        world.skip(name, f"{NOT_YET}: the seictl command line")
        return
    if recorded["exit"] == 0 and recorded["stdout"].startswith("NAME:\n"):
        world.skip(name, "help text of the Go program")
        return
    comparison = world.comparison(name)
    try:
        async with world.stage(name) as stage:
            await _play(world.golden, stage, recorded, comparison)
    except NotPosableError as reason:
        world.skip(name, str(reason))
        return
    world.emit(comparison.result())


async def _play(golden: Path, stage: Stage, recorded: dict[str, Any], comparison: Comparison) -> None:
    asked = Asked.of(recorded)
    if asked.bucket and _MISSING_BUCKET not in recorded["stderr"]:
        stage.s3.buckets.add(asked.bucket)
    for key, body in _objects(golden, recorded, asked).items():
        stage.s3.objects[f"{asked.bucket}/{key}"] = Stored(body, "application/gzip", written=False)
    await stage.s3.open(S3_PORT, [])
    cwd = stage.root / "cwd"
    cwd.mkdir()
    for name, text in recorded["files_before"].items():
        (cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (cwd / name).write_text(text, encoding="utf-8")
    before = _files(cwd)
    produced = await _run(stage, cwd, recorded)
    after = _files(cwd)
    produced["files_changed"] = {name: entry for name, entry in after.items() if before.get(name) != entry}
    _compare(recorded, produced, asked, comparison)


async def _run(stage: Stage, cwd: Path, recorded: dict[str, Any]) -> dict[str, Any]:
    """Raises RuntimeError when the program does not end."""

    def real(text: str) -> str:
        return text.replace("CWD", str(cwd))

    environment = {"PYTHONDONTWRITEBYTECODE": "1", **stage.environment}
    environment |= {key: real(value) for key, value in recorded["env"].items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "seiops.cli", *map(real, recorded["args"]), cwd=cwd, env=environment, umask=0o022,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate(real(recorded["stdin"]).encode())
    except TimeoutError:
        raise RuntimeError(f"`seiops report` did not end within {SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    out_text, err_text = (text.decode("utf-8", "replace").replace(str(cwd), "CWD") for text in (out, err))
    return {"exit": process.returncode, "stdout": out_text, "stderr": err_text}


def _files(folder: Path) -> dict[str, dict[str, str]]:
    return {
        path.relative_to(folder).as_posix(): {
            "text": path.read_text(encoding="utf-8"),
            "mode": f"0{stat.S_IMODE(path.stat().st_mode):o}",
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- what was asked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """The place that a recorded command speaks of, and by what it was named (`flag` or `environment`)."""

    command: str
    flags: dict[str, str]
    bucket: str
    prefix: str
    named: dict[str, str]

    @classmethod
    def of(cls, recorded: dict[str, Any]) -> Asked:
        flags: dict[str, str] = {}
        words: list[str] = []
        arguments = iter(recorded["args"][1:])
        for word in arguments:
            name, is_assigned, value = word.lstrip("-").partition("=")
            if not word.startswith("-"):
                words.append(word)
            elif name in _VALUED:
                flags[name] = value if is_assigned else next(arguments, "")
        environment = {
            name: recorded["env"].get(f"SEI_RESULT_EXPORT_{name.upper()}", "") for name in ("bucket", "prefix")
        }
        named = {name: "environment" for name, value in environment.items() if value} | dict.fromkeys(flags, "flag")
        bucket = flags.get("bucket") or environment["bucket"]
        if flags.get("env"):
            bucket = f"{flags['env']}-sei-shadow-results"
        prefix = flags.get("prefix") or environment["prefix"] or "shadow-results/"
        return cls("".join(words[:1]), flags, bucket, prefix if prefix.endswith("/") else prefix + "/", named)

    @property
    def key(self) -> str:
        return self.flags.get("key") or f"{self.prefix}divergence-{self.flags.get('height', '')}.report.json.gz"


# --- what was in the bucket -------------------------------------------------------------------------------------------


def _objects(golden: Path, recorded: dict[str, Any], asked: Asked) -> dict[str, bytes]:
    """Key to body. Raises NotPosableError when the record does not tell what the command read."""
    if recorded["exit"] == 0 and asked.command == "divergence":
        return {asked.key: _report_object(golden, recorded, asked.key)}
    if recorded["exit"] == 0 and asked.command == "list":
        return dict.fromkeys(_listed(golden, recorded, asked), gzip.compress(b"", mtime=0))
    told = re.search(r"(listing|downloading|decompressing|decoding)\b.*", recorded["stderr"])
    if told and _MISSING_BUCKET not in told[0] and not _MISSING_OBJECT.search(told[0]):
        raise NotPosableError(f"the object or the answer of the store behind `{told[1]}` was left out of the record")
    return {}


def _report_object(golden: Path, recorded: dict[str, Any], key: str) -> bytes:
    """The report object of the task case that the case's note or name ends with, under the name it was asked by."""
    words = [text.split()[-1] for text in (recorded["note"], recorded["case"]) if text]
    path = next(
        (path for word in words if (path := golden / "tasks" / f"{posixpath.basename(word)}.json").is_file()), None
    )
    if path is None:
        raise NotPosableError("no recorded task is named whose report was read")
    written = json.loads(path.read_text(encoding="utf-8"))["s3_objects_written"]
    reports = {posixpath.basename(place): entry for place, entry in written.items() if _REPORT.search(place)}
    entry = reports.get(posixpath.basename(key)) or (next(iter(reports.values())) if len(reports) == 1 else None)
    if entry is None or "decompressed" not in entry:
        raise NotPosableError(f"the task case {path.stem} holds no report {posixpath.basename(key)}")
    payload = content(entry["decompressed"], key)
    return gzip.compress(payload, mtime=0) if key.endswith(".gz") else payload


def _listed(golden: Path, recorded: dict[str, Any], asked: Asked) -> list[str]:
    """Keys of the bucket: those its own answer names below the prefix, else those of its table; and what others name."""
    own = _json_keys(recorded)
    told = {
        key
        for other in iterate_jsonl(golden / "cli.jsonl")
        if other["args"][:1] == [FAMILY] and Asked.of(other).bucket == asked.bucket
        for key in _json_keys(other) or ()
    }
    if own is None:
        table = _table_rows(recorded["stdout"])
        below = [key for key in told if key.startswith(asked.prefix)]
        own = below if _rows(below) == table else [asked.prefix + _name(row) for row in table]
    unlisted = [asked.prefix + name for name in _UNLISTED]
    return [*own, *(key for key in sorted(told) if not key.startswith(asked.prefix)), *unlisted]


def _json_keys(recorded: dict[str, Any]) -> list[str] | None:
    """The keys that a `report list --json` named; None for any other answer."""
    if recorded["args"][1:2] != ["list"] or not recorded["stdout"].startswith("{"):
        return None
    found = json.loads(recorded["stdout"])
    return [entry["key"] for entry in [*found["pages"], *found["divergenceReports"]]]


def _table_rows(text: str) -> Rows:
    found = [match for line in text.splitlines() if (match := _ROW.fullmatch(line))]
    return [
        (int(match["height"]),) if match["height"] else (int(match["first"]), int(match["last"])) for match in found
    ]


def _rows(keys: list[str]) -> Rows:
    """What a table shows of these keys, in its order."""
    pages = sorted((int(found[1]), int(found[2])) for key in keys if (found := _PAGE.search(key)))
    reports = sorted((int(found[1]),) for key in keys if (found := _REPORT.search(key)))
    return [*pages, *reports]


def _name(row: tuple[int, ...]) -> str:
    return f"{row[0]}-{row[1]}.compare.ndjson.gz" if len(row) == 2 else f"divergence-{row[0]}.report.json.gz"


# --- what came out ----------------------------------------------------------------------------------------------------


def _compare(recorded: dict[str, Any], produced: dict[str, Any], asked: Asked, comparison: Comparison) -> None:
    usage = recorded["stderr"].startswith("Incorrect Usage:") or recorded["stdout"].startswith("NAME:\n")
    left: dict[str, Any] = {"exit": recorded["exit"], "named": asked.named, "usage": usage}
    right: dict[str, Any] = {"exit": produced["exit"], "named": asked.named, "usage": "Usage:" in produced["stderr"]}
    if not usage:
        # help text is laid out by each program's own library; what is said beside it is about its own flags
        theirs = _LIBRARY.sub("", recorded["stderr"])
        left["stderr"], right["stderr"] = _said(recorded["exit"], theirs), _said(produced["exit"], produced["stderr"])
        left["stderr"]["message"], right["stderr"]["message"] = errors(
            left["stderr"]["message"], right["stderr"]["message"]
        )
        left["stdout"], right["stdout"] = _answers(asked.command, recorded["stdout"], produced["stdout"])
    left["files_changed"], right["files_changed"] = recorded["files_changed"], produced["files_changed"]
    comparison.documents("cli", left, right)
    for wrong in member_order(left["stdout"], right["stdout"]) if not usage else ():
        if ".fields[" not in wrong:  # upstream sorts the members of values it has decoded (7.4)
            comparison.add(wrong)


def _said(status: int | None, text: str) -> dict[str, str]:
    """Stderr; of a failed command how its line begins, and the message behind that."""
    begins = next((word for word in ("TIMESTAMP ", "Error: ") if status and text.startswith(word)), "")
    return {"begins": begins.strip(), "message": text.removeprefix(begins)}


def _answers(command: str, recorded: str, produced: str) -> tuple[Any, Any]:
    """Both outputs: a report in Markdown by its contract literals, JSON by its values and its indent, else the text."""
    if recorded == produced or command != "divergence":
        return recorded, produced
    if recorded.startswith("# "):
        return sidecar_markdown.beside(recorded, produced)
    try:
        return _document(recorded), _document(produced)
    except ValueError:
        return recorded, produced


def _document(text: str) -> dict[str, Any]:
    inner = [line for line in text.splitlines() if line.strip()][1:2]
    indent = len(inner[0]) - len(inner[0].lstrip()) if inner else 0
    return {"document": json.loads(text), "indent": indent, "ends": text[-1:]}
