"""One cluster for a whole test run, however many workers it has.

The first worker that needs the cluster starts `python -m seidev.cluster` under a file lock; the others read the state
file it writes. It belongs to the main pytest process: it ends when that process asks, or is gone.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from seidev.cluster import Access
from seidev.processes import ToolError, exists, module_environment

# A first run builds the servers from source before it starts them.
START_SECONDS = 1800.0


def access(directory: Path, owner: int) -> Access:
    """The run's cluster, started if no worker has done so yet. `directory` is common to all workers of the run."""
    state = directory / "cluster.json"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not state.exists():
            _start(directory, state, owner)
    return Access.load(state)


def _start(directory: Path, state: Path, owner: int) -> None:
    log = directory / "cluster.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "seidev.cluster", "--state", str(state), "--owner", str(owner)],
            env=module_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not state.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise ToolError(f"the cluster for the tests did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


def stop(directory: Path) -> None:
    """Ends the run's cluster, if there is one, and waits until it is gone."""
    state = directory / "cluster.json"
    if not state.exists():
        return
    pid = json.loads(state.read_text())["pid"]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    state.unlink()
