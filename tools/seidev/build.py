"""Obtains the real servers: builds them once from their Go modules and keeps the programs outside the tree.

The cache entry is named after everything the programs depend on (go.mod, go.sum, our few lines of Go, the build flags
and the Go version), so a checkout finds exactly its own programs and several checkouts share them. A build happens in
a temporary directory and is renamed into place when it is complete; an interrupted one leaves nothing but Go's own
compiler cache, from which the next try goes on.

    python -m seidev.build            build what is missing, print where the programs are
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from seidev import browser
from seidev.processes import ToolError

HERE = Path(__file__).resolve().parent.parent
OLDEST_GO = (1, 25)
KUBERNETES_VERSION = "v1.35.4"
# What the compiler writes at the worst moment: its cache and as much again in temporary files.
DISK_BYTES = {"servers": 5 << 30, "s3": 1 << 30, "helm": 1 << 30, "leveldb": 1 << 28}
PLAIN_PROGRESS_SECONDS = 15.0

OnLine = Callable[[str], None]


@dataclass(frozen=True)
class Kit:
    """One Go module of ours and the program built from it; `programs` are the names it answers to."""

    name: str
    package: str
    output: str
    programs: tuple[str, ...]
    ldflags: str
    about: str

    @property
    def module(self) -> Path:
        return HERE / self.name

    def sources(self) -> list[Path]:
        return sorted(p for p in self.module.iterdir() if p.name in ("go.mod", "go.sum") or p.suffix == ".go")


_VERSION = "k8s.io/component-base/version"
SERVERS = Kit(
    name="servers",
    package=".",
    output="servers",
    programs=("etcd", "kube-apiserver", "kube-controller-manager", "kubectl"),
    ldflags=f"-s -w -X {_VERSION}.gitVersion={KUBERNETES_VERSION} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=35",
    about=f"etcd, kube-apiserver, kube-controller-manager and kubectl {KUBERNETES_VERSION} (about 5 minutes on two cores)",
)
S3 = Kit(
    name="s3",
    package="github.com/versity/versitygw/cmd/versitygw",
    output="versitygw",
    programs=("versitygw",),
    ldflags="-s -w",
    about="versitygw, the S3 server (about 1.5 minutes on two cores)",
)
HELM = Kit(
    name="helm",
    package=".",
    output="helm-render",
    programs=("helm-render",),
    ldflags="-s -w",
    about="helm-render, Helm's template engine (about half a minute on two cores)",
)
LEVELDB = Kit(
    name="leveldb",
    package=".",
    output="goleveldb",
    programs=("goleveldb",),
    ldflags="-s -w",
    about="goleveldb, seid's LevelDB library (some seconds)",
)
KITS = (SERVERS, S3, HELM, LEVELDB)


@dataclass(frozen=True)
class KubernetesPrograms:
    """Paths of the four programs, from wherever each was found."""

    etcd: Path
    api_server: Path
    controller_manager: Path
    kubectl: Path


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/seiops/tools`, by default under `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "seiops" / "tools"


def kubernetes_programs(console: Console | None = None) -> KubernetesPrograms:
    """Programs of `KUBEBUILDER_ASSETS` where that names a directory, the others from our own build.

    Raises ToolError when the directory lacks a program it must have, or when a needed build is not possible.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    given = _assets(Path(assets)) if assets else {}
    missing = [name for name in SERVERS.programs if name not in given]
    built = obtain(SERVERS, console) if missing else Path()
    paths = {name: given.get(name, built / name) for name in SERVERS.programs}
    return KubernetesPrograms(
        etcd=paths["etcd"],
        api_server=paths["kube-apiserver"],
        controller_manager=paths["kube-controller-manager"],
        kubectl=paths["kubectl"],
    )


def _assets(directory: Path) -> dict[str, Path]:
    found = {name: directory / name for name in SERVERS.programs if os.access(directory / name, os.X_OK)}
    for name in ("etcd", "kube-apiserver", "kubectl"):
        if name not in found:
            raise ToolError(
                f"KUBEBUILDER_ASSETS={directory} has no executable {name}: "
                "point it at a directory with etcd, kube-apiserver and kubectl, or unset it to have them built"
            )
    return found


def versitygw(console: Console | None = None) -> Path:
    return obtain(S3, console) / "versitygw"


def helm_render(console: Console | None = None) -> Path:
    """`helm-render CHART NAMESPACE [VALUES.yaml]` prints what `helm template --include-crds` would."""
    return obtain(HELM, console) / "helm-render"


def goleveldb(console: Console | None = None) -> Path:
    """`goleveldb print|apply DIR`: see its main.go."""
    return obtain(LEVELDB, console) / "goleveldb"


def obtain(kit: Kit, console: Console | None = None) -> Path:
    """Directory holding the kit's programs, built first if need be. Raises ToolError."""
    version = _go_version(kit)
    if version is None:
        ready = _any_ready(kit)
        if ready is None:
            raise ToolError(_no_go(kit))
        return ready
    target = cache_root() / f"{kit.name}-{_source_key(kit)}-{version}"
    if _complete(kit, target):
        return target
    console = console or Console(stderr=True)
    with _lock(target.with_name(f"{kit.name}.lock"), console):
        if not _complete(kit, target):
            _build(kit, target, console)
    return target


def _source_key(kit: Kit) -> str:
    digest = hashlib.sha256(f"{kit.package} {kit.ldflags}\n".encode())
    for source in kit.sources():
        digest.update(f"{source.name}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _complete(kit: Kit, directory: Path) -> bool:
    return all(os.access(directory / name, os.X_OK) for name in kit.programs)


def _any_ready(kit: Kit) -> Path | None:
    """A finished build of exactly these sources by some Go version: good enough where there is no Go any more."""
    found = cache_root().glob(f"{kit.name}-{_source_key(kit)}-*")
    return next((path for path in sorted(found) if _complete(kit, path)), None)


def _no_go(kit: Kit) -> str:
    hint = "install Go 1.25 or newer (https://go.dev/dl/) so that `go` is on PATH and run again"
    if kit is SERVERS:
        hint += (
            "; or set KUBEBUILDER_ASSETS to a directory with etcd, kube-apiserver, kube-controller-manager and kubectl"
        )
    return f"the Go toolchain was not found, and {kit.about.split(' (')[0]} must be built: {hint}"


def _go_version(kit: Kit) -> str | None:
    """Version the module would be built with, e.g. `go1.26.3-linux-amd64`; None without a Go toolchain."""
    if shutil.which("go") is None:
        return None
    result = subprocess.run(
        ["go", "env", "GOVERSION", "GOOS", "GOARCH"], cwd=kit.module, capture_output=True, text=True, timeout=300
    )
    if result.returncode != 0:
        raise ToolError(f"`go env` failed in {kit.module}: {result.stderr.strip()}")
    version, system, architecture = result.stdout.split()
    numbers = re.match(r"go(\d+)\.(\d+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST_GO:
        raise ToolError(f"{version} is too old: install Go 1.25 or newer (https://go.dev/dl/) and run again")
    return f"{version}-{system}-{architecture}"


@contextlib.contextmanager
def _lock(path: Path, console: Console) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"another build holds {path}: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(kit: Kit, target: Path, console: Console) -> None:
    for leftover in target.parent.glob(f".{kit.name}-*.partial"):
        shutil.rmtree(leftover, ignore_errors=True)
    _ask_for_disk(kit, target.parent)
    partial = Path(tempfile.mkdtemp(prefix=f".{kit.name}-", suffix=".partial", dir=target.parent))
    try:
        console.print(f"building {kit.about}")
        _compile(kit, partial / kit.output, console)
        for name in kit.programs:
            if name != kit.output:
                (partial / name).symlink_to(kit.output)
        partial.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _ask_for_disk(kit: Kit, directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < DISK_BYTES[kit.name]:
        raise ToolError(
            f"{free / 1e9:.1f} GB free under {directory}, and the build of {kit.output} needs up to "
            f"{DISK_BYTES[kit.name] / 1e9:.0f} GB with Go's compiler cache: make room and run again"
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}


def _compile(kit: Kit, output: Path, console: Console) -> None:
    total = _packages(kit, console)
    command = ["go", "build", "-v", "-trimpath", "-ldflags", kit.ldflags, "-o", str(output), kit.package]
    with _meter(console, kit, total) as on_line:
        _run_go(kit, command, on_line)


def _packages(kit: Kit, console: Console) -> int:
    """Number of packages to compile. Downloads the modules on the way, which is why it is shown."""
    console.print("  fetching modules")
    listed = _run_go(kit, ["go", "list", "-deps", kit.package], lambda line: None)
    return len(listed)


def _run_go(kit: Kit, command: list[str], on_line: OnLine) -> list[str]:
    """Runs Go in the kit's module, calls `on_line` per line of output; ends it with us when we are interrupted."""
    process = subprocess.Popen(
        command,
        cwd=kit.module,
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    with _ended_with_us(process):
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            on_line(lines[-1])
        code = process.wait()
    if code != 0:
        raise ToolError(_go_failure(kit, command, lines))
    return [line for line in lines if not line.startswith("go: ")]


@contextlib.contextmanager
def _ended_with_us(process: "subprocess.Popen[str]") -> Iterator[None]:
    previous = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.suppress(ValueError):  # not the main thread: no handler, the finally still runs
            signal.signal(signal.SIGTERM, _interrupt)
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, previous)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _go_failure(kit: Kit, command: list[str], lines: list[str]) -> str:
    text = "\n".join(f"  | {line}" for line in lines[-8:])
    joined = "\n".join(lines)
    if "no space left on device" in joined:
        hint = "the disk is full: make room (Go's compiler cache is in `go env GOCACHE`) and run again"
    elif re.search(r"dial tcp|no such host|proxyconnect|i/o timeout|connection refused|TLS handshake", joined):
        hint = "the modules could not be fetched: check the network and `go env GOPROXY`, then run again"
    elif "signal: killed" in joined:
        hint = "the compiler was killed, most likely for want of memory: free some and run again"
    else:
        hint = "run again to go on from where it stopped"
    return f"`{' '.join(command[:2])}` failed in {kit.module}: {hint}\n{text}"


@contextlib.contextmanager
def _meter(console: Console, kit: Kit, total: int) -> Iterator[OnLine]:
    """A bar on a terminal, elsewhere a line now and then, so that a quiet log is not taken for a hang."""
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("  compiling"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(kit.name, total=total)
            yield lambda line: progress.advance(task)
        return
    begun = last = time.monotonic()
    done = 0

    def on_line(line: str) -> None:
        nonlocal done, last
        done += 1
        if time.monotonic() - last > PLAIN_PROGRESS_SECONDS:
            last = time.monotonic()
            console.print(f"  compiled {done} of at most {total} packages, {last - begun:.0f} s")

    yield on_line


def _browser(console: Console) -> None:
    """Tests of report pages want a browser; where none can be had they skip and say so, and everything else goes on."""
    try:
        print(browser.obtain())
    except ToolError as error:
        console.print(f"tests of report pages will be skipped: {error}", markup=False, highlight=False)


def main() -> int:
    console = Console(stderr=True)
    try:
        programs = kubernetes_programs(console)
        print(programs.etcd.parent)
        print(versitygw(console).parent)
        print(helm_render(console).parent)
        print(goleveldb(console).parent)
        _browser(console)
    except ToolError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: run again to go on from where it stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
