"""Real stores with what seidb printed for each command line, against `seiops digest ... --format seidb` (ruling 4).

Compared are exit 0 or not and stdout without log lines. Every command runs through our command line in a small pool of
processes; the first command of a store that succeeds and the first that fails run as processes of their own, as a script
would start them. Each command runs once more on the native engine, which has to fail where the default one does and
otherwise print the same, or to decline the store. After the last command of a store its files must be as they were.
The vectors beside the stores (`digest-vectors.json`) are cases too, see `digest_vectors`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import multiprocessing
import re
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from replay import digest_vectors
from replay.compare import shown
from replay.context import ReplayContext
from replay.report import CaseResult
from replay.stores_worker import run as run_command
from seiops.digest.engines import has_native

NATIVE = ("--engine", "native")
NATIVE_DECLINES = re.compile(r"the native engine needs (?:it|both)\n$")
"""A snapshot without sound index files is the reference engine's; `auto` hands it over."""
WINDOW = 1 << 27
PLACEHOLDERS = {"memiavl": "MEMDIR", "flatkv": "FLATDIR"}
LOG_LINE = re.compile(r"time=")
ENTRY = "import sys; from seiops.cli.main import main; sys.exit(main())"
CRASH = 2
EXIT_OK, EXIT_ERROR = "exit: ok", "exit: error"
_SCRATCH = re.compile(r"FLATDIR/\.seidb-flatkv-tool-[^/ ]+/(readonly-[^/ ]+|changelog/iterator/\d+)/")
_IN_STORE = re.compile(r"FLATDIR/(snapshot-\d{20}|changelog)/")


@dataclass(frozen=True)
class Command:
    name: str
    argv: tuple[str, ...]
    exit: int
    stdout: str

    def flag(self, name: str) -> str:
        """Value of a flag, empty when it is not given."""
        return self.argv[self.argv.index(name) + 1] if name in self.argv else ""


@dataclass(frozen=True)
class Store:
    """One archive, where in it the two directories are, and the commands recorded over it."""

    name: str
    archive: Path
    inner: str
    commands: tuple[Command, ...]


@dataclass
class Outcome:
    """What a case is judged by, as a document that rules of `differences.yaml` can point into."""

    stream: str
    document: dict[str, Any] = field(default_factory=dict)


def read_stores(context: ReplayContext) -> Iterator[Store]:
    """Stores of both recordings' folders, whichever of the two layouts their expected.json has."""
    for folder, prefix in ((context.golden / "stores", ""), (context.golden / "chain" / "stores", "chain/")):
        expected = folder / "expected.json"
        if not expected.is_file():
            continue
        content = json.loads(expected.read_text(encoding="utf-8"))
        for name, store in content.get("stores", {}).items():
            commands = _commands(prefix + name, store["commands"], context)
            yield Store(prefix + name, folder / store["archive"], store.get("dir", "."), commands)
        for name, fixture in content.get("fixtures", {}).items():
            commands = _commands(prefix + name, fixture["cases"], context)
            yield Store(prefix + name, folder / f"{name}.tar.zst", ".", commands)


def _commands(store: str, recorded: Sequence[dict[str, Any]], context: ReplayContext) -> tuple[Command, ...]:
    commands = (
        Command(f"{store}/{index:02d}", _argv(entry["args"]), entry["exit"], entry["stdout"])
        for index, entry in enumerate(recorded)
    )
    return tuple(command for command in commands if context.wants(command.name))


def _argv(args: Sequence[str]) -> tuple[str, ...]:
    if args and args[0] == "migrate-evm-status":
        return ("status", *args[1:], "--format", "seidb")
    return (*(args[1:] if args and args[0] == "evm-logical-digest" else args), "--format", "seidb")


def unpack(store: Store, target: Path) -> Path:
    """The folder that holds MEMDIR and FLATDIR of a store."""
    with store.archive.open("rb") as packed:
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(packed)
        with tarfile.open(fileobj=reader, mode="r|") as archive:
            archive.extractall(target, members=_below(archive, store.inner), filter="data")
    folder = target / store.inner
    for name, placeholder in PLACEHOLDERS.items():
        if (folder / name).is_dir():
            (folder / name).rename(folder / placeholder)
    return folder


def _below(archive: tarfile.TarFile, inner: str) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        path = member.name.removeprefix("./")
        if inner == "." or path == inner or path.startswith(inner + "/"):
            yield member


def fingerprint(folder: Path) -> str:
    """Hash over every name, size and modification time below a folder: changes when anything is written there."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        digest.update(f"{path.relative_to(folder)} {stat.st_size} {stat.st_mtime_ns} {stat.st_mode}\n".encode())
    return digest.hexdigest()


async def run(context: ReplayContext) -> AsyncIterator[CaseResult]:
    stores = [store for store in read_stores(context) if store.commands]
    methods = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=context.lanes, mp_context=methods) as pool:
        for store in stores:
            async for result in _run_store(context, store, pool):
                yield result
        vectors = context.golden / "digest-vectors.json"
        if vectors.is_file():
            for name, check in digest_vectors.cases(vectors, context.scratch / "vectors"):
                if context.wants(f"vectors/{name}"):
                    difference = check()
                    yield CaseResult(f"stores/vectors/{name}", "fail" if difference else "pass", difference or "")


async def _run_store(context: ReplayContext, store: Store, pool: Executor) -> AsyncIterator[CaseResult]:
    target = context.scratch / "stores" / store.name
    try:
        folder = unpack(store, target)
    except (OSError, tarfile.TarError, zstandard.ZstdError) as error:
        for command in store.commands:
            yield CaseResult(f"stores/{command.name}", "fail", f"{store.archive} does not unpack: {error}")
        return
    before = fingerprint(folder)
    real = _run_for_real(store.commands)
    for start in range(0, len(store.commands), context.lanes):
        batch = store.commands[start : start + context.lanes]
        for result in await asyncio.gather(*(_run_case(context, folder, one, pool, one in real) for one in batch)):
            yield result
    unchanged = fingerprint(folder) == before
    detail = "" if unchanged else "a command wrote into the store it reads"
    yield CaseResult(f"stores/{store.name}/untouched", "pass" if unchanged else "fail", detail)
    shutil.rmtree(target, ignore_errors=True)


def _run_for_real(commands: Sequence[Command]) -> list[Command]:
    """The first command that succeeds and the first that fails."""
    firsts = [next((command for command in commands if (command.exit == 0) is good), None) for good in (True, False)]
    return [command for command in firsts if command is not None]


async def _run_case(context: ReplayContext, folder: Path, command: Command, pool: Executor, real: bool) -> CaseResult:
    loop = asyncio.get_running_loop()
    status, stdout = await loop.run_in_executor(pool, run_command, folder, list(command.argv))
    runs = {"": (status, stdout)}
    if real:
        runs["process: "] = await _run_process(context, folder, command)
    if has_native():
        native = await loop.run_in_executor(pool, run_command, folder, [*command.argv, *NATIVE])
        alike = native[0] != 0 and (status != 0 or NATIVE_DECLINES.search(native[1]))
        runs["native engine: "] = (status, stdout) if alike else native
    used: set[str] = set()
    for label, (status, stdout) in runs.items():
        rules = context.differences.for_case("stores", command.name)
        recorded, produced = outcome(command, command.exit, command.stdout), outcome(command, status, stdout)
        left = rules.compare(recorded.stream, recorded.document, produced.document)
        if left:
            detail = f"{label}{' '.join(command.argv)}: {_first(left[0].path, recorded, produced)}"
            return CaseResult(f"stores/{command.name}", "fail", detail)
        used |= rules.used
    return CaseResult(f"stores/{command.name}", "pass", differences=sorted(used))


async def _run_process(context: ReplayContext, folder: Path, command: Command) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        context.python, "-c", ENTRY, "digest", *command.argv,
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    stdout, _ = await process.communicate()
    return process.returncode or 0, stdout.decode()


def outcome(command: Command, status: int, stdout: str) -> Outcome:
    """Exit (the first line) and output in comparable form. A crash of the original is a stream of its own: its output ends anywhere."""
    lines = [line for line in stdout.splitlines() if not LOG_LINE.match(line)]
    document: dict[str, Any] = {}
    text = "\n".join([EXIT_OK if status == 0 else EXIT_ERROR, *_ordered(command, lines)])
    if _SCRATCH.search(text):
        document["scratch"] = True
        text = _SCRATCH.sub(_to_store, text)
    document["stdout"] = _IN_STORE.sub(_to_store, text)
    silent = command.exit != 0 and not any(not LOG_LINE.match(line) for line in command.stdout.splitlines())
    stream = "crash" if command.exit == CRASH or silent else "stdout"
    return Outcome(stream, document)


def _to_store(match: re.Match[str]) -> str:
    """A file of the store, whether named inside upstream's scratch copy or where it is."""
    return "FLATDIR/<changelog>/" if "changelog" in match[1] else "FLATDIR/<snapshot>/"


def _ordered(command: Command, lines: list[str]) -> list[str]:
    """Rows that upstream prints in random order (memiavl accounts, translator batches) sorted, or, where a limit cuts
    that order, left out (docs/contracts/digest.md 8, open 3)."""
    memiavl = command.flag("--backend") == "memiavl"
    translator = command.flag("--memiavl-normalization") == "translator"
    if not memiavl or not (translator or command.flag("--inspect-bucket") == "account"):
        return lines
    rows = [line for line in lines if line.startswith(("key=", "FOUND-HASH "))]
    rest = [line for line in lines if not line.startswith(("key=", "FOUND-HASH "))]
    matched = next((int(line.rpartition("=")[2]) for line in rest if line.startswith("inspect bucket=")), len(rows))
    return [*(sorted(rows) if len(rows) == matched else []), *rest] if rows else rest


def _first(path: str, recorded: Outcome, produced: Outcome) -> str:
    """The first line by which two outputs differ, or the member that differs."""
    if path != "stdout":
        return f"{path}: recorded {shown(recorded.document.get(path))}, got {shown(produced.document.get(path))}"
    mine, theirs = produced.document["stdout"].split("\n"), recorded.document["stdout"].split("\n")
    for number in range(max(len(mine), len(theirs))):
        ours = mine[number] if number < len(mine) else "(end)"
        other = theirs[number] if number < len(theirs) else "(end)"
        if ours != other:
            return f"line {number}: recorded {other[:300]!r}, got {ours[:300]!r}"
    return "stdout differs"
