"""Starts a digest where it cannot harm the node: last in line for CPU and disk, bounded in memory, gone with its parent.

Run as `python -m seiops.digest.launch BYTES PROGRAM ARG...`; the program replaces this process. `confine` is also what our
own child calls on itself. Linux only parts are skipped elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

NICENESS = 19
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
_PR_SET_PDEATHSIG = 1
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
EXEC_FAILED = 127


def default_memory_bound() -> int:
    """Half of what this container or machine has, in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(Path(name).read_text()))
    return total // 2


def confine(memory_bytes: int) -> None:
    """Apply the limits to this process and everything it becomes or starts.

    The bound is on private data (heap and anonymous maps), not on address space: stores are mapped, whatever their size.
    """
    os.nice(NICENESS)
    if memory_bytes > 0:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    if platform.system() != "Linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    number = _IOPRIO_SET.get(platform.machine())
    if number is not None:
        library.syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
    library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(argv: Sequence[str]) -> int:
    memory_bytes, program, *arguments = argv
    parent = os.getppid()
    confine(int(memory_bytes))
    if os.getppid() != parent:
        return EXEC_FAILED
    try:
        os.execv(program, [program, *arguments])
    except OSError as error:
        print(f"fork/exec {program}: {os.strerror(error.errno or 0).lower()}", file=sys.stderr)
        return EXEC_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
