"""Starting, watching and stopping the servers: each in a process group of its own, its output in a file, its death noticed.

A server that ends while it is being waited for is reported with the last lines of its own log, because that is where
the reason stands.
"""

import contextlib
import functools
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from seidev import guard

STOP_SECONDS = 10.0
# Below the range from which the kernel takes the ports of outgoing connections, so that none of those is in the way.
PORT_RANGE = range(18000, 31000)


class ToolError(Exception):
    """A sentence for the person at the terminal: what failed and what to do."""


class PortTakenError(ToolError):
    """A server could not listen; another port may do."""


def module_environment() -> dict[str, str]:
    """Environment in which `python -m seidev...` finds this package, however we ourselves were started."""
    here = str(Path(__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *(path for path in known if path and path != here)])}


class Guard:
    """Line to the guard process (see `seidev.guard`); one per Python process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", guard.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._lock = threading.Lock()

    def _order(self, line: str) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            pipe.write(line.encode() + b"\n")
            pipe.flush()

    def watch(self, pid: int) -> None:
        self._order(f"+{pid} {guard.start_time(pid)}")

    def forget(self, pid: int) -> None:
        self._order(f"-{pid}")

    def remove_afterwards(self, directory: Path) -> None:
        self._order(f"rm {directory}")

    def keep_running(self) -> None:
        """Leaves every server of this process running after it ends."""
        self._order("keep")


@functools.cache
def the_guard() -> Guard:
    return Guard()


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A loopback port nobody listens on at the moment. Another process may be faster: callers retry on `PortTakenError`."""
    for _ in range(200):
        port = random.choice(PORT_RANGE)
        if port_is_free(port, host):
            return port
    raise ToolError(f"no free port on {host} between {PORT_RANGE.start} and {PORT_RANGE.stop}: stop some servers")


class Server:
    """One server process. `ready` is asked until it says yes; it must not block for more than about a second."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], bool],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready_seconds: float = 120.0,
    ) -> None:
        self.name = name
        self.command = [str(part) for part in command]
        self.log = log
        self._ready = ready
        self._env = env
        self._cwd = cwd
        self._ready_seconds = ready_seconds
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        if self.running:
            raise ToolError(f"{self.name} is already running")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        the_guard().watch(self._process.pid)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + self._ready_seconds
        while time.monotonic() < deadline:
            assert self._process is not None
            code = self._process.poll()
            if code is not None:
                self._gone()
                raise self._early_end(code)
            if self._ready():
                return
            time.sleep(0.05)
        self.kill()
        raise ToolError(
            f"{self.name} was not ready after {self._ready_seconds:.0f} s; its log is {self.log}\n{self.tail()}"
        )

    def _early_end(self, code: int) -> ToolError:
        tail = self.tail()
        if "address already in use" in tail:
            return PortTakenError(f"{self.name} could not listen: its port was taken by another process\n{tail}")
        return ToolError(f"{self.name} ended with status {code} before it was ready; its log is {self.log}\n{tail}")

    def tail(self, lines: int = 8) -> str:
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 16384))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(f"  | {line[:300]}" for line in text.splitlines()[-lines:])

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM, then SIGKILL for what is left after `seconds`. Stopping twice is harmless."""
        if self._process is None:
            return
        guard.signal_group(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        if self._process is None:
            return
        guard.signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._gone()

    def _gone(self) -> None:
        if self._process is not None:
            the_guard().forget(self._process.pid)
            self._process = None


def exists(pid: int) -> bool:
    return guard.start_time(pid) != "" if Path("/proc/self/stat").exists() else _answers_signal_zero(pid)


def _answers_signal_zero(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
