"""Measures the sidecar as issue 5 item 10 asks: first answer, idle memory, submits, history, a child that prints.

`python bench/sidecar.py [--program "CMD"]` starts the program (default: ours) with a home of its own and prints each
number beside what the Go sidecar needs for the same on the machine of the recordings, as a ratio. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shlex
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

PORT = 17_771
GO = {
    "first answer": 0.2,
    "idle MiB": 63.0,
    "submits/s": 1700.0,
    "submit ms": 0.45,
    "list ms": 0.7,
    "child MiB": 1843.0,
}
ENVIRONMENT = {
    "SEI_CHAIN_ID": "bench-1",
    "SEI_GENESIS_BUCKET": "g",
    "SEI_GENESIS_REGION": "r",
    "SEI_SNAPSHOT_BUCKET": "s",
    "SEI_SNAPSHOT_REGION": "r",
    "SEI_SIDECAR_PORT": str(PORT),
    "SEI_LOG_LEVEL": "warn",
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
}


def memory_mib(pid: int, what: str = "VmRSS") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(program: list[str], home: Path, extra: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The process and the seconds until its first answer."""
    environment = {**os.environ, **ENVIRONMENT, "SEI_HOME": str(home), **extra}
    started = time.perf_counter()
    process = subprocess.Popen(program, env=environment, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
                connection.request("GET", "/v0/livez")
                connection.getresponse().read()
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - started > 30:
                    raise SystemExit(f"{program} does not answer on port {PORT}") from None
                time.sleep(0.002)
        yield process, time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


def submits(count: int) -> list[float]:
    """Seconds of each submit of one client on one connection; every one is a task of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    took: list[float] = []
    for _ in range(count):
        body = json.dumps({"id": str(uuid.uuid4()), "type": "mark-ready"})
        started = time.perf_counter()
        connection.request("POST", "/v0/tasks", body)
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - started)
        if answer.status != 201:
            raise SystemExit(f"a submit was refused with {answer.status}")
    return took


def lists(count: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    took: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        connection.request("GET", "/v0/tasks")
        rows = json.loads(connection.getresponse().read())
        took.append(time.perf_counter() - started)
        if len(rows) != 100:
            raise SystemExit(f"the list holds {len(rows)} tasks")
    return took


def digest(program: Path) -> None:
    """Runs a digest task whose program is ours to its end."""
    params = {"flatkvDir": "/no/flat", "memiavlDir": "/no/mem", "height": 1, "bucket": "b", "region": "r"}
    task_id = str(uuid.uuid4())
    body = {"id": task_id, "type": "evm-logical-digest", "params": {**params, "seidbPath": str(program)}}
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    connection.request("POST", "/v0/tasks", json.dumps(body))
    connection.getresponse().read()
    while True:
        connection.request("GET", f"/v0/tasks/{task_id}")
        if json.loads(connection.getresponse().read())["status"] != "running":
            return
        time.sleep(0.05)


def printing_child(process: subprocess.Popen[bytes], quiet: Path, noisy: Path) -> float:
    """How much more the process needs at its peak for a program that prints 500 MB than for one that prints nothing."""
    digest(quiet)
    before = memory_mib(process.pid, "VmHWM")
    digest(noisy)
    return max(memory_mib(process.pid, "VmHWM") - before, 0.01)


def report(name: str, value: float, go: float, unit: str, *, target: str, better: str) -> None:
    ratio = value / go if better == "lower" else go / value
    print(f"{name:<34} {value:>10.2f} {unit:<5} {ratio:>6.2f} x the Go sidecar   target {target}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", default=f"{sys.executable} -m seiops.sidecar serve", help="command to measure")
    parser.add_argument("--submits", type=int, default=5000)
    options = parser.parse_args()
    program = shlex.split(options.program)
    with tempfile.TemporaryDirectory() as scratch:
        home, folder = Path(scratch) / "home", Path(scratch)
        noisy = folder / "noisy"
        noisy.write_text("#!/bin/sh\nhead -c 500000000 /dev/zero | tr '\\0' 'x'\nexit 1\n")
        quiet = folder / "quiet"
        quiet.write_text("#!/bin/sh\nexit 1\n")
        for script in (noisy, quiet):
            script.chmod(0o755)
        allowed = {"SEI_SIDECAR_SEIDB_ALLOW": f"{noisy}:{quiet}"}
        starts = []
        for index in range(3):
            with running(program, folder / f"home-{index}", {}) as (_, seconds):
                starts.append(seconds)
        report("first answer", min(starts), GO["first answer"], "s", target="< 1 s", better="lower")
        with running(program, home, allowed) as (process, _):
            time.sleep(5)
            report(
                "idle VmRSS after 5 s", memory_mib(process.pid), GO["idle MiB"], "MiB", target="<= 64", better="lower"
            )
            before = cpu_seconds(process.pid)
            took = submits(options.submits)
            spent = (cpu_seconds(process.pid) - before) / len(took) * 1000
            rate = len(took) / sum(took)
            report("submits by one client", rate, GO["submits/s"], "/s", target=">= 1000", better="higher")
            report(
                "  median of one submit",
                statistics.median(took) * 1000,
                GO["submit ms"],
                "ms",
                target="1",
                better="lower",
            )
            print(f"  CPU of the sidecar for one, its run included {spent:.2f} ms")
            process.send_signal(signal.SIGKILL)
            process.wait()
            with sqlite3.connect(home / "sidecar.db") as db:
                kept = db.execute("SELECT count(*) FROM task_results").fetchone()[0]
            print(f"  kept after SIGKILL                {kept} of {options.submits} accepted")
        with sqlite3.connect(home / "sidecar.db") as db:
            missing = max(10_000 - kept, 0)
            row = "INSERT INTO task_results VALUES (?, 'mark-ready', 'completed', 'null', '', ?, ?, 1, NULL)"
            for number in range(missing):
                moment = f"2026-01-01T00:{number // 60 % 60:02d}:{number % 60:02d}.{number:06d}Z"
                db.execute(row, (str(uuid.uuid4()), moment, moment))
        with running(program, home, allowed) as (process, _):
            report("newest 100 of 10,000 (median)", statistics.median(lists(300)) * 1000, GO["list ms"], "ms", target="2",
                   better="lower")  # fmt: skip
            lists(20)
            report("growth while a child prints 500 MB", printing_child(process, quiet, noisy), GO["child MiB"], "MiB",
                   target="<= 20", better="lower")  # fmt: skip


if __name__ == "__main__":
    main()
