"""The stage of one recorded sidecar case: a real `seictl serve` with a home of its own, and what surrounds it.

Runs inside a network, process and host-name namespace (sidecar.py makes it), so that the recorded addresses
(`localhost:26657`, `127.0.0.3:8545`, port 7777) and a scan of `/proc` mean the same as when the case was recorded.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import shutil
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replay.sidecar_servers import CannedRpc, S3Stand

PORT = 7777
S3_ENDPOINT = "http://127.0.0.1:9000"
BASE_ENV = {
    "SEI_CHAIN_ID": "golden-1",
    "SEI_GENESIS_BUCKET": "gen-bucket",
    "SEI_GENESIS_REGION": "eu-central-1",
    "SEI_SNAPSHOT_BUCKET": "snap-bucket",
    "SEI_SNAPSHOT_REGION": "us-east-2",
    "HOSTNAME": "golden-pod-0",
    "AWS_ENDPOINT_URL_S3": S3_ENDPOINT,
    "AWS_ACCESS_KEY_ID": "golden",
    "AWS_SECRET_ACCESS_KEY": "golden-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    # The level of the configuration library that the recordings were made with (their README).
    "SEI_SIDECAR_CONFIG_PROFILE": "v0.0.21",
}


_SHELL = Path("/bin/bash").resolve()


class NotPosableError(Exception):
    """The record does not hold enough to pose the case; the text is the reason."""


@dataclass
class Answer:
    """What came back over the socket; `status_line` is empty when the connection closed without a word."""

    status_line: str
    headers: list[tuple[str, str]]
    body: bytes
    seconds: float = 0.0
    interim: list[str] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.status_line.split()[1]) if self.status_line else 0

    def json(self) -> Any:
        return json.loads(self.body)


class Stage:
    """Directories, stand-ins and the process of one case; everything ends with the `async with` block."""

    def __init__(self, scratch: Path, name: str) -> None:
        self.root = scratch / name
        self.home = self.root / "home"
        self.work = self.root / "work"
        self.environment = dict(BASE_ENV)
        self.process: asyncio.subprocess.Process | None = None
        self.rpc = CannedRpc()
        self.s3 = S3Stand()
        self._stack = contextlib.AsyncExitStack()
        self._fakes: list[FakeSeid] = []

    async def __aenter__(self) -> Stage:
        shutil.rmtree(self.root, ignore_errors=True)
        self.home.mkdir(parents=True)
        self.work.mkdir()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for fake in self._fakes:
            await fake.end()
        await self.rpc.close()
        await self.s3.close()
        await self._stack.aclose()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- placeholders ------------------------------------------------------------------------------------------------

    def real(self, text: str) -> str:
        """A recorded text with its placeholders replaced by this stage's paths."""
        return text.replace("HOME_DIR", str(self.home)).replace("WORK_DIR", str(self.work))

    def recorded(self, text: str) -> str:
        """The other way round."""
        return text.replace(str(self.home), "HOME_DIR").replace(str(self.work), "WORK_DIR")

    # --- the process -------------------------------------------------------------------------------------------------

    async def start(
        self, *, listening: bool = True, arguments: tuple[str, ...] = ("serve",), cwd: Path | None = None
    ) -> None:
        """Starts our program. Raises RuntimeError with its output when it does not listen within 20 seconds."""
        environment = {"SEI_HOME": str(self.home), "PYTHONDONTWRITEBYTECODE": "1", **self.environment}
        self._out = (self.root / "stdout").open("ab")
        self._err = (self.root / "stderr").open("ab")
        self._stack.callback(self._out.close)
        self._stack.callback(self._err.close)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "seiops.sidecar", *arguments,
            env=environment, stdout=self._out, stderr=self._err, stdin=asyncio.subprocess.DEVNULL, cwd=cwd or self.root,
            umask=0o022,
        )  # fmt: skip
        if listening and not await self.listens():
            raise RuntimeError(f"the sidecar does not listen: {self.stderr().strip() or self.stdout().strip()}")

    async def listens(self, seconds: float = 20.0, port: int = PORT) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return True
            except OSError:
                if self.process is None or self.process.returncode is not None:
                    return False
                await asyncio.sleep(0.02)
        return False

    async def exit_status(self, seconds: float) -> int | None:
        """The exit status, None while it is still running after `seconds`."""
        assert self.process is not None
        try:
            return await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            return None

    async def stop(self, number: int = signal.SIGTERM) -> int | None:
        if self.process is None or self.process.returncode is not None:
            return None if self.process is None else self.process.returncode
        self.process.send_signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), 40)
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    def stdout(self) -> str:
        return (self.root / "stdout").read_text(errors="replace")

    def stderr(self) -> str:
        return (self.root / "stderr").read_text(errors="replace")

    # --- requests ----------------------------------------------------------------------------------------------------

    async def request(
        self, method: str, target: str, body: bytes | None = None, headers: list[list[str]] | None = None,
        version: str = "HTTP/1.1",
    ) -> Answer:  # fmt: skip
        chosen = headers if headers is not None else [["Host", "sidecar"], ["Connection", "close"]]
        if body is not None:
            chosen = [pair for pair in chosen if pair[0].lower() != "content-length"]
            chosen.append(["Content-Length", str(len(body))])
        head = f"{method} {target} {version}\r\n" + "".join(f"{key}: {value}\r\n" for key, value in chosen) + "\r\n"
        return await self.send(head.encode() + (body or b""), head_only=method == "HEAD")

    async def send(self, data: bytes, *, head_only: bool = False, half_close: bool = False) -> Answer:
        """Raw bytes on a fresh connection, and everything that comes back until it closes."""
        started = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT, limit=2**26)
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
                if half_close:
                    writer.write_eof()
            async with asyncio.timeout(60):
                answer = await read_answer(reader, head_only)
        finally:
            writer.close()
        answer.seconds = time.monotonic() - started
        return answer

    async def submit(self, body: str) -> Answer:
        return await self.request("POST", "/v0/tasks", self.real(body).encode())

    async def poll(self, task_id: str, until: str, seconds: float) -> Answer:
        """GETs a task until it is `until` (or terminal when something terminal is awaited); the last answer."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await self.request("GET", f"/v0/tasks/{task_id}")
            state = answer.json().get("status") if answer.status == 200 else None
            if state is None or state == until or state in ("completed", "failed"):
                return answer
            if time.monotonic() > deadline:
                return answer
            await asyncio.sleep(0.02)

    # --- files -------------------------------------------------------------------------------------------------------

    def place(self, root: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes recorded files. Raises NotPosableError for one whose content was left out of the record."""
        for name in sorted(files):
            entry = files[name]
            path = root / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            elif "link" in entry:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(self.real(entry["link"]))
                continue
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content(entry, name))
            if "mode" in entry:
                path.chmod(int(entry["mode"], 8))

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The home as the record shows it: path to mode, size and bytes; the store itself is left out."""
        found: dict[str, dict[str, Any]] = {}
        for path in sorted(self.home.rglob("*")):
            name = path.relative_to(self.home).as_posix()
            if name.startswith("sidecar.db"):
                continue
            information = path.lstat()
            mode = f"0{stat.S_IMODE(information.st_mode):o}"
            if path.is_symlink():
                found[name] = {"link": str(path.readlink())}
            elif path.is_dir():
                found[name + "/"] = {"mode": mode}
            else:
                found[name] = {"mode": mode, "bytes": path.read_bytes()}
        return found

    # --- seid --------------------------------------------------------------------------------------------------------

    async def fake_seid(
        self, arguments: tuple[str, ...], *, ignores_term: bool = False, argv0: str = "seid"
    ) -> FakeSeid:
        fake = await FakeSeid.start(self.root, arguments, ignores_term=ignores_term, argv0=argv0)
        self._fakes.append(fake)
        return fake


class FakeSeid:
    """A real process that looks like seid in `/proc` and writes down the signals it gets."""

    def __init__(self, process: asyncio.subprocess.Process, record: Path) -> None:
        self.process = process
        self._record = record

    @classmethod
    async def start(cls, root: Path, arguments: tuple[str, ...], *, ignores_term: bool, argv0: str) -> FakeSeid:
        folder = root / "seid-bin"
        folder.mkdir(exist_ok=True)
        record = folder / f"signals-{time.monotonic_ns()}"
        # A shell under the name of seid runs the script that its first argument names.
        shutil.copy2(_SHELL, folder / argv0)
        (folder / arguments[0]).write_text(_FAKE_SEID)
        process = await asyncio.create_subprocess_exec(
            str(folder / argv0), *arguments,
            env={"RECORD": str(record), "IGNORES": str(int(ignores_term)), "PATH": BASE_ENV["PATH"]},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        for _ in range(500):
            if record.exists():
                return cls(process, record)
            if process.returncode is not None:
                break
            await asyncio.sleep(0.02)
        raise RuntimeError("the stand-in for seid did not start")

    def observe(self) -> dict[str, Any]:
        return {"alive": self.process.returncode is None, "signals": self._record.read_text().splitlines()}

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


_FAKE_SEID = """
got() {
  echo "signal $1" >> "$RECORD"
  if [ "$IGNORES" = 0 ]; then kill "$!"; exit 0; fi
}
for number in 1 2 10 15; do trap "got $number" $number; done
touch "$RECORD"
while :; do sleep 1000 & wait $!; done
"""


async def read_answer(reader: asyncio.StreamReader, head_only: bool) -> Answer:
    interim: list[str] = []
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return Answer("", [], b"", interim=interim)
        lines = head.decode("latin-1").split("\r\n")
        if lines[0].split()[1] == "100":
            interim.append(lines[0])
            continue
        break
    headers: list[tuple[str, str]] = []
    for line in lines[1:]:
        if line:
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
    body = b""
    folded = {name.lower(): value for name, value in headers}
    if not head_only:
        if folded.get("transfer-encoding") == "chunked":
            body = await _chunks(reader)
        elif "content-length" in folded:
            body = await reader.readexactly(int(folded["content-length"]))
        elif lines[0].split()[1] != "204":
            with contextlib.suppress(ConnectionError):
                body = await reader.read()
    return Answer(lines[0], headers, body, interim=interim)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


def content(entry: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a recorded file, object or body."""
    if "text" in entry:
        return str(entry["text"]).encode()
    if "b64" in entry:
        return base64.b64decode(entry["b64"])
    if "gz_b64" in entry:
        return gzip.decompress(base64.b64decode(entry["gz_b64"]))
    if entry.get("size") == 0:
        return b""
    raise NotPosableError(f"the content of {name} was left out of the record")


@contextlib.asynccontextmanager
async def staged(scratch: Path, name: str) -> AsyncIterator[Stage]:
    async with Stage(scratch, name) as stage:
        yield stage
