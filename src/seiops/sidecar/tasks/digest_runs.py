"""The two ways the digest task gets its numbers: the operator's seidb, and our own engine, each as a confined child.

Both children start through `seiops.digest.launch`, which gives way to seid and bounds their memory; cancelling the task
ends the whole process group (docs/contracts/shadow.md 6.2 to 6.5).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seiops.digest import child as native_child
from seiops.digest.engine import ShardTree
from seiops.digest.errors import DigestError
from seiops.digest.launch import default_memory_bound
from seiops.digest.localize import SideTree
from seiops.digest.model import Backend
from seiops.digest.seidb_report import parse_report
from seiops.digest.side import SideDigest, from_wire
from seiops.digest.sources import Source
from seiops.seid.quoting import quoted
from seiops.sidecar import child
from seiops.sidecar.task import TaskContext, TaskError

TASK = "evm-logical-digest"
SEIDB = "seidb"
STDOUT_KEPT = 2 * 1024 * 1024
STDERR_KEPT = 32 * 1024
CLONE_PATTERN = ".seidb-flatkv-tool-*"
OUT_OF_MEMORY_SIGNALS = frozenset((int(signal.SIGKILL), int(signal.SIGABRT), int(signal.SIGSEGV)))


@dataclass(frozen=True, slots=True)
class DigestJob:
    """Both stores and how to read them. `memory_bytes` 0 is the default bound; an empty `open_mode` the engine's default."""

    flatkv_dir: str
    memiavl_dir: str
    height: int
    normalizations: tuple[str, ...]
    open_mode: str = ""
    memory_bytes: int = 0
    threads: int = 1

    @property
    def memory_bound(self) -> int:
        return self.memory_bytes or default_memory_bound()


def _environment() -> dict[str, str]:
    """Ours, with seidb's log lines kept out of its report unless the operator says otherwise."""
    return {"SEI_LOG_OUTPUT": "stderr", **os.environ}


class SeidbRun:
    """Runs one seidb binary over the stores of a job."""

    def __init__(self, ctx: TaskContext, job: DigestJob, path: str) -> None:
        self._ctx = ctx
        self._job = job
        self._path = path
        self._program = self._resolve(path)

    @staticmethod
    def find(name: str) -> str | None:
        return shutil.which(name)

    def _resolve(self, path: str) -> str | None:
        """The file to run, None when a bare `seidb` is not on PATH. Raises TaskError for a path nobody allowed."""
        if path == SEIDB:
            return self.find(SEIDB)
        if path not in self._ctx.settings.seidb_allow:
            raise TaskError(
                f"{TASK}: 'seidbPath' {quoted(path)} is not allowed: add it to SEI_SIDECAR_SEIDB_ALLOW, "
                "or put seidb on PATH and leave the param out",
                retryable=False,
            )
        return path

    async def flatkv(self) -> SideDigest:
        arguments = ["--backend", "flatkv", "-d", self._job.flatkv_dir, "--height", str(self._job.height)]
        with _clones_removed(Path(self._job.flatkv_dir)):
            return await self._run(Backend.FLATKV, arguments, "flatkv digest")

    async def memiavl(self, normalization: str) -> SideDigest:
        arguments = ["--backend", "memiavl", "-d", self._job.memiavl_dir, "--height", str(self._job.height)]
        arguments += ["--memiavl-normalization", normalization]
        if self._job.open_mode:
            arguments += ["--memiavl-open-mode", self._job.open_mode]
        return await self._run(Backend.MEMIAVL, arguments, f"memiavl digest ({normalization})")

    def program_digest(self) -> str:
        """SHA-256 of the binary, lower-case hex: digests of two builds must never be compared unknowingly."""
        assert self._program is not None
        with Path(self._program).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    async def _run(self, backend: Backend, arguments: list[str], what: str) -> SideDigest:
        shown = f"running {self._path} {' '.join(['evm-logical-digest', *arguments])}"
        program = self._runnable(f"{TASK}: {what}: {shown}: ")
        self._ctx.progress({"phase": what})
        ended = await child.run(
            _launched(self._job, [program, "evm-logical-digest", *arguments]),
            environment=_environment(),
            keep_bytes=STDOUT_KEPT,
        )
        if ended.status != 0:
            text = f"{TASK}: {what}: {shown}: {ended.how}"
            kept = _kept(ended.stderr)
            raise TaskError(f"{text} (stderr: {kept})" if kept else text, hint=_hint(ended, self._job))
        if not ended.stdout.complete:
            raise TaskError(f"{TASK}: {what}: seidb printed more than {STDOUT_KEPT} bytes", retryable=False)
        try:
            return parse_report(ended.stdout.text(), backend, self._job.height)
        except DigestError as error:
            raise TaskError(f"{TASK}: {what}: {error}", retryable=False) from error

    def _runnable(self, prefix: str) -> str:
        """The program, checked before it is handed to the launcher so that the error is about it and not about ours."""
        if self._program is None:
            raise TaskError(f'{prefix}exec: "{self._path}": executable file not found in $PATH', retryable=False)
        if not Path(self._program).exists():
            raise TaskError(f"{prefix}fork/exec {self._program}: no such file or directory", retryable=False)
        if not Path(self._program).is_file() or not os.access(self._program, os.X_OK):
            raise TaskError(f"{prefix}fork/exec {self._program}: permission denied", retryable=False)
        return self._program


class NativeRun:
    """Runs our own engine. `versions` says, by name, which ones it was once both sides have come back."""

    def __init__(self, ctx: TaskContext, job: DigestJob) -> None:
        self._ctx = ctx
        self._job = job
        self.versions: dict[str, str] = {}
        self.trees: list[SideTree] = []

    @property
    def engine(self) -> str:
        """`native`; `reference` or `native+reference` where the native engine declined a store."""
        return "+".join(sorted(self.versions))

    async def flatkv(self) -> SideDigest:
        sides = await self._run(Backend.FLATKV, self._job.flatkv_dir, "flatkv digest")
        return sides[native_child.NATIVE_SIDE]

    async def memiavl(self) -> dict[str, SideDigest]:
        return await self._run(Backend.MEMIAVL, self._job.memiavl_dir, "memiavl digest")

    async def _run(self, backend: Backend, root: str, what: str) -> dict[str, SideDigest]:
        request = native_child.ChildRequest(
            backend=backend,
            root=root,
            height=self._job.height,
            open_mode=self._job.open_mode or "auto",
            normalizations=self._job.normalizations,
            threads=self._job.threads,
            memory_bytes=self._job.memory_bound,
            spill_dir=str(self._ctx.home),
        )
        answer: dict[str, Any] = {}
        ended = await child.run(
            [sys.executable, "-m", native_child.__name__, request.encode()],
            environment=_environment(),
            keep_bytes=STDERR_KEPT * 2,
            on_line=lambda line: self._take(line, what, answer),
        )
        if "error" in answer:
            raise TaskError(f"{TASK}: {what}: {answer['error']}")
        if ended.status != 0 or "sides" not in answer:
            kept = _kept(ended.stderr)
            text = f"{TASK}: {what}: the digest process ended with {ended.how}"
            raise TaskError(f"{text} (stderr: {kept})" if kept else text, hint=_hint(ended, self._job))
        self.versions[answer["engine"]] = answer["engine_version"]
        try:
            sides = {name: from_wire(members) for name, members in answer["sides"].items()}
            self.trees.append(self._tree(Source(backend, root, self._job.height), answer, sides))
        except DigestError as error:
            raise TaskError(f"{TASK}: {what}: {error}", retryable=False) from error
        return sides

    def _tree(self, source: Source, answer: dict[str, Any], sides: dict[str, SideDigest]) -> SideTree:
        """The shard tree that came with the sides, which must add up to their digest."""
        shards: ShardTree = {}
        for line in answer.get("shards", []):
            native_child.add_tree_line(shards, line)
        tree = SideTree(str(source), self._job.height, answer["engine"], shards)
        for name, side in sides.items():
            if tree.final != side.final:
                raise DigestError(f"the shard tree adds up to {tree.final}, but the digest ({name}) is {side.final}")
        return tree

    def _take(self, line: bytes, what: str, answer: dict[str, Any]) -> None:
        try:
            members = json.loads(line)
        except ValueError:
            return
        if not isinstance(members, dict):
            return
        if "progress" in members:
            self._ctx.progress(_progress(what, members["progress"]))
        elif "shards" in members:
            answer.setdefault("shards", []).append(members["shards"])
        else:
            answer.update(members)


def _progress(what: str, members: dict[str, Any]) -> dict[str, Any]:
    """Progress as the command line draws it: bytes where the total is known, else rows."""
    if members.get("bytes_total"):
        return {"phase": what, "done": members["bytes"], "total": members["bytes_total"], "unit": "bytes"}
    return {"phase": what, "done": members["rows"], "unit": "rows"}


def _launched(job: DigestJob, command: list[str]) -> list[str]:
    return [sys.executable, "-m", "seiops.digest.launch", str(job.memory_bound), *command]


def _kept(stderr: child.Captured) -> str:
    """What an error quotes of stderr: at most STDERR_KEPT bytes from each end (docs/contracts/shadow.md 6.4)."""
    half = STDERR_KEPT
    if stderr.total <= 2 * half and stderr.complete:
        return stderr.text().strip()
    whole = stderr.head + stderr.tail
    left_out = stderr.total - 2 * half
    joint = b"\n... omitting %d bytes ...\n" % left_out
    return (whole[:half] + joint + whole[-half:]).decode("utf-8", "replace").strip()


def _hint(ended: child.Ended, job: DigestJob) -> str | None:
    if ended.signal_number not in OUT_OF_MEMORY_SIGNALS:
        return None
    return (
        f"the process was ended from outside or ran out of memory (bound {job.memory_bound // (1 << 20)} MiB, "
        "param memoryLimitMiB)"
    )


@contextlib.contextmanager
def _clones_removed(flatkv_dir: Path) -> Iterator[None]:
    """Removes the scratch copies a seidb that did not end by itself leaves inside the store, and only those of this run."""
    before = _clones(flatkv_dir)
    try:
        yield
    finally:
        for clone in _clones(flatkv_dir) - before:
            if not _in_use(clone):
                shutil.rmtree(clone, ignore_errors=True)


def _clones(flatkv_dir: Path) -> set[Path]:
    try:
        return set(flatkv_dir.glob(CLONE_PATTERN))
    except OSError:
        return set()


def _in_use(directory: Path) -> bool:
    """Whether some process has a file open below a directory: then it is another run's scratch copy."""
    inside = f"{directory.resolve()}/"
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        try:
            links = list(descriptors.iterdir())
        except OSError:
            continue
        for link in links:
            with contextlib.suppress(OSError):
                if f"{link.readlink()}/".startswith(inside):
                    return True
    return False
