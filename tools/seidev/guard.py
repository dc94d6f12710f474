"""Takes down what a session started when the session itself dies, however it dies.

Runs as a small process of its own, reading its orders from a pipe. A parent-death signal would follow the thread that
started the server rather than the process, and a test run starts servers from worker threads. End of input means that
the owner is gone: everything still registered is stopped in the order it was registered, then the scratch directories go.

    +PID START    stop this process (START: its start time, so that a reused number is never signalled)
    -PID          it ended by itself
    rm PATH       remove this directory afterwards
    keep          leave everything running
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

TERM_GRACE_SECONDS = 3.0


def start_time(pid: int) -> str:
    """Start time of a live process in clock ticks, or "" when there is none (or no /proc to ask)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]


def signal_group(pid: int, number: int) -> None:
    """Signals a process and, where it leads a group of its own, everything in that group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)


def stop(processes: dict[int, str]) -> None:
    alive = [pid for pid, started in processes.items() if start_time(pid) == started]
    for pid in alive:
        signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + TERM_GRACE_SECONDS
    while alive and time.monotonic() < deadline:
        alive = [pid for pid in alive if start_time(pid) == processes[pid]]
        time.sleep(0.05)
    for pid in alive:
        signal_group(pid, signal.SIGKILL)


def main() -> None:
    processes: dict[int, str] = {}
    directories: list[str] = []
    for line in sys.stdin:
        order, _, rest = line.rstrip("\n").partition(" ")
        if order == "keep":
            return
        if order == "rm":
            directories.append(rest)
        elif order.startswith("+"):
            processes[int(order[1:])] = rest
        elif order.startswith("-"):
            processes.pop(int(order[1:]), None)
    stop(processes)
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
