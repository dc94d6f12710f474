"""How fast the native digest engine is, against the machine, the reference engine and seidb.

    .venv/bin/python bench/digest.py [--rows 5000000] [--dir /tmp/seiops-bench] [--json FILE] [--keep] [--under COMMAND]

Stores are generated (bench/storegen) and scanned in child processes, one a line of the table; what counts is the CPU time of the
scan (user and system, all threads) without the start of the interpreter, because wall time on a shared machine says little.
Yardsticks: `cat` of the files a scan has to read, plain SHA-256 of as many 97-byte rows, the reference engine on a small store,
and seidb where SEIDB names its binary. `cold` drops the files from the page cache first (POSIX_FADV_DONTNEED). Each limit stands
beside what was measured. `--under` starts every measured process under a command, such as one that waits for a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from seiops.digest.engine import Engine, OpenOptions, ScanHooks
from seiops.digest.model import Normalization, OpenMode, Totals, Verification
from seiops.digest.native import NativeEngine
from seiops.digest.reference import ReferenceEngine

ROOT = Path(__file__).resolve().parent.parent
VERSION = 1_000_000
BLOCKS_BEYOND = 20
WRITES = 3000
OVERLAY = 0.06
SMALL_ROWS = 200_000
TARGETS = {"snapshot": 7.6, "replay": 4.4, "flatkv": 3.0, "flatkv+20": 2.2}
"""Millions of rows per CPU second, one thread, warm, at 30 M rows (docs/digest.md)."""
TWO_THREADS = 0.6
"""Most of one thread's wall time that two threads may take."""
TWO_NORMALIZATIONS = 1.15
"""Most of one normalization's CPU time that two may take."""
ANONYMOUS_MIB = 1024
"""Private memory of any scan, at any size."""
ONE_NORMALIZATION = "snapshot, one normalization"
MODES = {"memiavl": ("snapshot", "replay"), "flatkv": ("flatkv", "flatkv+20")}
BOTH = (Normalization.SEMANTIC, Normalization.TRANSLATOR)


@dataclass(frozen=True)
class Job:
    """One line of the table."""

    what: str
    store: str
    rows: int
    threads: int = 1
    engine: str = "native"
    verify: bool = False
    cold: bool = False


@dataclass(frozen=True)
class Result:
    rows: int
    bytes: int
    cpu: float
    wall: float
    anonymous_mib: float
    final: str = ""

    @property
    def rows_per_cpu_second(self) -> float:
        return self.rows / self.cpu / 1e6

    @property
    def mb_per_cpu_second(self) -> float:
        return self.bytes / self.cpu / 1e6


def cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def files_of(job: Job) -> list[Path]:
    """What a scan of this kind has to read: `kvs` of a tree, everything of a FlatKV snapshot, and the log for replay."""
    root = Path(job.store)
    if job.what.startswith("flatkv"):
        found = [*root.glob("snapshot-*/*/*.sst"), *root.glob("snapshot-*/*/*.log")]
        return found + ([*root.glob("changelog/*")] if job.what == "flatkv+20" else [])
    found = [*root.glob("snapshot-*/evm/kvs")]
    if job.verify:
        found += [*root.glob("snapshot-*/evm/leaves"), *root.glob("snapshot-*/evm/nodes")]
    return found + ([*root.glob("changelog/*")] if job.what == "replay" else [])


def drop_from_cache(paths: Iterable[Path]) -> None:
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class Memory:
    """Highest RssAnon + RssShmem while it runs, MiB."""

    def __init__(self) -> None:
        self.peak = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            kib = sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
            self.peak = max(self.peak, kib / 1024)


def scan(job: Job) -> Totals:
    engine: Engine = NativeEngine() if job.engine == "native" else ReferenceEngine()
    options = OpenOptions(Verification.FULL if job.verify else Verification.CHEAP, job.threads)
    if job.what.startswith("flatkv"):
        height = VERSION + (BLOCKS_BEYOND if job.what == "flatkv+20" else 0)
        return engine.open_flatkv(job.store, height, options).digest(ScanHooks())
    mode, height = (OpenMode.REPLAY, 0) if job.what == "replay" else (OpenMode.SNAPSHOT, VERSION)
    normalizations = BOTH if job.what == "snapshot" else BOTH[:1]
    return engine.open_memiavl(job.store, height, mode, options).digest(normalizations, ScanHooks())[0]


def measure(job: Job) -> Result:
    """Run one job in this process."""
    paths = files_of(job)
    if job.cold:
        drop_from_cache(paths)
    with Memory() as memory:
        cpu, wall = cpu_seconds(), time.perf_counter()
        totals = scan(job)
        cpu, wall = cpu_seconds() - cpu, time.perf_counter() - wall
    size = sum(path.stat().st_size for path in paths)
    return Result(totals.input_rows, size, cpu, wall, memory.peak, totals.final_hex)


class Runner:
    """Starts what is measured, one process at a time."""

    def __init__(self, under: str) -> None:
        self._under = shlex.split(under)

    def scan(self, job: Job) -> Result:
        command = [*self._under, sys.executable, __file__, "--job", json.dumps(asdict(job))]
        return Result(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))

    def program(self, command: list[str], rows: int, size: int) -> Result:
        timed = [sys.executable, __file__, "--command", json.dumps([command, rows, size])]
        found = subprocess.run([*self._under, *timed], check=True, capture_output=True, text=True).stdout
        return Result(**json.loads(found))


def command_cost(command: list[str], rows: int, size: int) -> Result:
    cpu, wall = cpu_seconds(resource.RUSAGE_CHILDREN), time.perf_counter()
    with Path(os.devnull).open("wb") as nowhere:
        subprocess.run(command, check=True, stdout=nowhere, stderr=nowhere)
    cpu = cpu_seconds(resource.RUSAGE_CHILDREN) - cpu
    return Result(rows, size, cpu, time.perf_counter() - wall, 0.0)


def storegen() -> str:
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "storegen"], cwd=ROOT, check=True)
    return str(ROOT / "target/release/storegen")


def generate(tool: str, folder: Path, kind: str, rows: int) -> str:
    """A store of that size, made once."""
    path = folder / f"{kind}-{rows}"
    if not path.exists():
        writes = int(rows * OVERLAY)
        blocks = max(BLOCKS_BEYOND, writes // WRITES) if kind == "memiavl" else BLOCKS_BEYOND
        draft = folder / f"{kind}-{rows}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        subprocess.run([tool, kind, str(draft), str(rows), str(blocks), str(min(WRITES, writes // blocks))], check=True)
        draft.rename(path)
    return str(path)


def seidb_command(binary: str, job: Job) -> list[str]:
    command = [binary, "evm-logical-digest", "--db-dir", job.store]
    if job.what.startswith("flatkv"):
        height = VERSION + (BLOCKS_BEYOND if job.what == "flatkv+20" else 0)
        return [*command, "--backend", "flatkv", "--height", str(height)]
    mode = "replay" if job.what == "replay" else "snapshot"
    return [*command, "--backend", "memiavl", "--memiavl-open-mode", mode]


def size_of(job: Job) -> int:
    return sum(path.stat().st_size for path in files_of(job))


@dataclass(frozen=True)
class Limit:
    """What a measured number is held against: at least or at most `bound`."""

    measured: float
    bound: float
    at_least: bool
    unit: str

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.measured:.2f} {sign} {self.bound} {self.unit}: {'met' if self.met else 'MISSED'}"


class Report:
    """The table, and the same as data."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._table = Table(title="EVM logical digest: millions of rows and megabytes per CPU second")
        for name in ("what", "threads", "M rows/CPU s", "MB/CPU s", "CPU s", "wall s", "anon MiB", "limit", "against"):
            self._table.add_column(name, justify="left" if name in ("what", "limit", "against") else "right")
        self.lines: list[dict[str, object]] = []

    def add(self, what: str, threads: int, result: Result, limit: Limit | None = None, against: str = "") -> None:
        rate = result.rows_per_cpu_second
        anonymous = f"{result.anonymous_mib:.0f}" if result.final else ""
        cells = [what, str(threads), f"{rate:.2f}", f"{result.mb_per_cpu_second:,.0f}", f"{result.cpu:.2f}"]
        self._table.add_row(*cells, f"{result.wall:.2f}", anonymous, str(limit or ""), against)
        line = {"what": what, "threads": threads, "rows_per_cpu_second": rate * 1e6, "limit": str(limit or "")}
        self.lines.append(line | asdict(result))
        self._console.print(
            f"  {what}, {threads} thread(s): {rate:.2f} M rows per CPU second {limit or ''}", highlight=False
        )

    def show(self) -> None:
        peak = max(float(str(line["anonymous_mib"])) for line in self.lines)
        self._console.print(self._table)
        self._console.print(
            f"private memory: {Limit(peak, ANONYMOUS_MIB, at_least=False, unit='MiB')}", highlight=False
        )


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 170)
    folder, rows = Path(arguments.dir), int(arguments.rows)
    folder.mkdir(parents=True, exist_ok=True)
    tool, runner = storegen(), Runner(arguments.under)
    report = Report(console)
    hashing = {
        threads: runner.program([tool, "sha256", str(rows), str(threads)], rows, rows * 97) for threads in (1, 2)
    }
    for threads, result in hashing.items():
        report.add("plain SHA-256 of 97-byte rows", threads, result)
    bench = Bench(report, runner, hashing[1], os.environ.get("SEIDB"))
    finals: dict[str, set[str]] = {}
    for kind in arguments.only or MODES:
        store = generate(tool, folder, kind, rows)
        for what in MODES[kind]:
            finals[what] = bench.scans(Job(what, store, rows))
        if not arguments.keep:
            shutil.rmtree(store)
    for kind, what in (("memiavl", "replay"), ("flatkv", "flatkv+20")):
        job = Job(what, generate(tool, folder, kind, SMALL_ROWS), SMALL_ROWS, engine="reference")
        report.add(f"reference engine: {what}, {SMALL_ROWS:,} rows", 1, runner.scan(job))
    report.show()
    if arguments.json:
        machine = {"cpu": cpu_model(), "cores": os.cpu_count(), "rows": rows}
        Path(arguments.json).write_text(json.dumps({"machine": machine, "results": report.lines}, indent=1))
    if (
        any(len(found) != 1 for found in finals.values())
        or len({*finals.get("snapshot", ()), *finals.get("flatkv", ())}) > 1
    ):
        console.print(f"[red]digests disagree: {finals}")
        return 1
    return 0


@dataclass(frozen=True)
class Bench:
    """Every line about one way to scan."""

    report: Report
    runner: Runner
    hashing: Result
    seidb: str | None

    def scans(self, job: Job) -> set[str]:
        """The digests found."""
        add, scan = self.report.add, self.runner.scan
        scan(job)  # warms the page cache
        cat = self.runner.program(["cat", *map(str, files_of(job))], job.rows, size_of(job))
        add(f"cat of the files: {job.what}", 1, cat)
        warm = scan(job)
        parts = f"{warm.cpu / cat.cpu:.1f} x cat, {warm.cpu / self.hashing.cpu:.2f} x SHA-256"
        target = Limit(warm.rows_per_cpu_second, TARGETS[job.what], at_least=True, unit="M rows/CPU s")
        add(job.what, 1, warm, target, parts)
        two = scan(replace(job, threads=2))
        add(job.what, 2, two, Limit(two.wall / warm.wall, TWO_THREADS, at_least=False, unit="of one thread's wall"))
        found = [warm, two]
        if job.what == "snapshot":
            one = scan(replace(job, what=ONE_NORMALIZATION))
            ratio = Limit(warm.cpu / one.cpu, TWO_NORMALIZATIONS, at_least=False, unit="x for the second normalization")
            add(ONE_NORMALIZATION, 1, one, ratio)
            found.append(one)
        for threads in (1, 2):
            verified = scan(replace(job, threads=threads, verify=True))
            add(f"{job.what} --verify", threads, verified, None, f"{verified.cpu / warm.cpu:.2f} x without")
            found.append(verified)
        cold = scan(replace(job, cold=True))
        add(f"{job.what}, cold", 1, cold, None, f"{cold.wall / warm.wall:.2f} x warm wall")
        if self.seidb:
            theirs = self.runner.program(seidb_command(self.seidb, job), job.rows, size_of(job))
            add(f"seidb: {job.what}", 1, theirs, None, f"{theirs.cpu / warm.cpu:.1f} x ours")
        return {result.final for result in [*found, cold]}


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument(
        "--dir", default="/tmp/seiops-bench", help="where stores are generated: 120 bytes a row and backend"
    )
    parser.add_argument("--json", help="write the results there as well")
    parser.add_argument("--keep", action="store_true", help="keep the generated stores for the next run")
    parser.add_argument("--only", action="append", choices=MODES, help="one kind of store, where disk is short")
    parser.add_argument("--under", default="", help="command every measured process is started under")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--command", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(asdict(measure(Job(**json.loads(arguments.job))))))
        return 0
    if arguments.command:
        print(json.dumps(asdict(command_cost(*json.loads(arguments.command)))))
        return 0
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
