"""Runs a heavy program beside the sidecar so that whatever becomes of it stays with it (docs/contracts/sidecar.md 3.5).

The child leads a process group of its own, is the kernel's first choice when memory runs out, and may print as much as
it likes: of each stream only the beginning and the end are kept. Cancelling the task ends the whole group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

READ_BYTES = 64 * 1024
OOM_SCORE = "800"


@dataclass(frozen=True, slots=True)
class Captured:
    """What is left of a stream: its first and last bytes, and how many it had in all."""

    head: bytes
    tail: bytes
    total: int

    @property
    def complete(self) -> bool:
        return self.total == len(self.head) + len(self.tail)

    def text(self) -> str:
        """The stream as text; where bytes were left out, a line says how many."""
        joint = (
            b"" if self.complete else b"\n... %d bytes left out ...\n" % (self.total - len(self.head) - len(self.tail))
        )
        return (self.head + joint + self.tail).decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: `status` is its exit status, or None when a signal ended it."""

    status: int | None
    signal_number: int | None
    stdout: Captured
    stderr: Captured

    @property
    def how(self) -> str:
        """`exit status 3`, `signal: killed`."""
        if self.signal_number is None:
            return f"exit status {self.status}"
        return f"signal: {_SIGNAL_NAMES.get(self.signal_number, str(self.signal_number))}"


_SIGNAL_NAMES = {
    int(signal.SIGKILL): "killed",
    int(signal.SIGTERM): "terminated",
    int(signal.SIGABRT): "aborted",
    int(signal.SIGSEGV): "segmentation fault",
    int(signal.SIGINT): "interrupt",
    int(signal.SIGBUS): "bus error",
}


async def run(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    keep_bytes: int = 1024 * 1024,
    on_line: Callable[[bytes], None] | None = None,
    term_seconds: float = 0.0,
    cwd: str | None = None,
) -> Ended:
    """Runs a program to its end. Raises OSError when it cannot be started.

    keep_bytes: how much of each stream is kept (half from its beginning, half from its end).
    on_line: called with every line of stdout as it comes, without its end; longer lines than READ_BYTES come in pieces.
    term_seconds: on cancellation the group gets SIGTERM and so long to end before SIGKILL; 0 kills at once.
    """
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(environment),
        cwd=cwd,
        start_new_session=True,
        limit=READ_BYTES,
    )
    _offer_to_oom_killer(process.pid)
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = _Keeper(keep_bytes, on_line), _Keeper(keep_bytes, None)
    draining = asyncio.gather(stdout.drain(process.stdout), stderr.drain(process.stderr))
    try:
        await _exited(process.pid)
        _kill_group(process.pid)
        await asyncio.gather(draining, process.wait())
    except BaseException:
        await asyncio.shield(_end_group(process, term_seconds))
        raise
    code = process.returncode
    assert code is not None
    ended_by = -code if code < 0 else None
    return Ended(code if code >= 0 else None, ended_by, stdout.captured(), stderr.captured())


class _Keeper:
    """Drains a stream into a bounded space."""

    def __init__(self, keep_bytes: int, on_line: Callable[[bytes], None] | None) -> None:
        self._half = keep_bytes // 2
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._total = 0
        self._on_line = on_line
        self._line = b""

    async def drain(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(READ_BYTES):
            self._keep(data)
            if self._on_line is not None:
                self._lines(data)
        if self._on_line is not None and self._line:
            self._on_line(self._line)

    def captured(self) -> Captured:
        tail = b"".join(self._tail)
        return Captured(bytes(self._head), tail[-self._half :] if self._half else b"", self._total)

    def _keep(self, data: bytes) -> None:
        self._total += len(data)
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_bytes += len(data)
        while self._tail and self._tail_bytes - len(self._tail[0]) >= self._half:
            self._tail_bytes -= len(self._tail.popleft())

    def _lines(self, data: bytes) -> None:
        assert self._on_line is not None
        *whole, self._line = (self._line + data).split(b"\n")
        for line in whole:
            self._on_line(line)
        if len(self._line) > READ_BYTES:
            self._on_line(self._line)
            self._line = b""


async def _exited(pid: int) -> None:
    """Returns when the leader ended, even while something it started still holds its pipes open."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def _end_group(process: asyncio.subprocess.Process, term_seconds: float) -> None:
    if term_seconds > 0 and process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(term_seconds):
                await process.wait()
    _kill_group(process.pid)
    await process.wait()


def _kill_group(group: int) -> None:
    """Also ends what the program left behind when it ended by itself, and so closes its pipes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _offer_to_oom_killer(pid: int) -> None:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "w") as score:  # noqa: PTH123
        score.write(OOM_SCORE)
