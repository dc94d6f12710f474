"""seid as a process in another container: found through `/proc`, signalled and watched through a pid file descriptor.

The containers of a Pod share one process namespace, so the sidecar can see seid but did not start it. A pid may be used
again by another process while we wait; a pid file descriptor names the process itself. The lookup rules are
docs/contracts/sidecar.md 5.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
NOT_FOUND = 'process "seid" not found in /proc'


@dataclass(frozen=True, slots=True)
class SeidProcess:
    """A process that ran when it was found. `started` is its start time in clock ticks since boot."""

    pid: int
    started: int


class SignalError(OSError):
    """The kernel refused to deliver a signal; the text is the reason."""


Rule = Callable[[str, list[str]], bool]
"""Whether a process counts: its `comm` and its argument list."""


def is_node(comm: str, arguments: list[str]) -> bool:
    """The running node itself: comm `seid`, called as `seid start` or `<path>/seid start`."""
    return comm == "seid" and len(arguments) > 1 and _is_seid(arguments[0]) and arguments[1] == "start"


def is_seid(comm: str, arguments: list[str]) -> bool:
    """Any seid, whatever its subcommand."""
    return bool(arguments) and _is_seid(arguments[0])


def _is_seid(program: str) -> bool:
    return program == "seid" or program.endswith("/seid")


def find(rule: Rule) -> SeidProcess | None:
    """The first process that fits, or None."""
    return next(_matching(rule), None)


def _matching(rule: Rule) -> Iterator[SeidProcess]:
    for entry in sorted(PROC.iterdir(), key=lambda entry: entry.name):
        if not entry.name.isdecimal():
            continue
        # a process may be gone between two reads
        with contextlib.suppress(OSError, ValueError, IndexError):
            comm = (entry / "comm").read_text(errors="replace").strip()
            arguments = [part.decode(errors="replace") for part in (entry / "cmdline").read_bytes().split(b"\0")[:-1]]
            if rule(comm, arguments):
                yield SeidProcess(int(entry.name), _started(entry))


def _started(entry: Path) -> int:
    # the second field, the name, may hold blanks and parentheses
    return int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[19])


class Handle:
    """A grip on one process that cannot slip to another one. Use as a context manager."""

    def __init__(self, process: SeidProcess) -> None:
        self.process = process
        self._descriptor: int | None = None
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            if _started(PROC / str(process.pid)) == process.started:
                self._descriptor = descriptor
                return
        # the pid belongs to somebody else by now
        os.close(descriptor)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @property
    def alive(self) -> bool:
        """False from the moment the process ended, even while nobody has reaped it."""
        if self._descriptor is None:
            return False
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        return not poller.poll(0)

    def send(self, number: signal.Signals) -> None:
        """Delivers a signal; a process that is gone counts as delivered. Raises SignalError."""
        if self._descriptor is None:
            return
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return
        except OSError as error:
            raise SignalError((error.strerror or str(error)).lower()) from error

    async def ended(self, within_s: float) -> bool:
        """Waits for the end of the process; False when it still runs after that many seconds."""
        if self._descriptor is None or not self.alive:
            return True
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(self._descriptor, gone.set)
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the end.
            async with asyncio.timeout(within_s):
                await gone.wait()
        except TimeoutError:
            return not self.alive
        finally:
            loop.remove_reader(self._descriptor)
        return True


def ticks_now() -> int:
    """The present in the unit of `SeidProcess.started`."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def survivor(rule: Rule, moment: int) -> SeidProcess | None:
    """A process that fits and was there at a moment (in ticks): a fork left behind, not one the container runtime restarted."""
    return next((process for process in _matching(rule) if process.started <= moment), None)
