"""A real S3 server on loopback (versitygw over a directory), for tests and the demo.

Fault injection is not its business: put a proxy in front for slow or broken answers.
"""

import os
import secrets
import shutil
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from seidev import build, processes
from seidev.processes import PortTakenError, Server, ToolError

REGION = "us-east-1"
START_ATTEMPTS = 5


@dataclass(frozen=True)
class Bucket:
    """One bucket and how to reach it. `directory` holds its objects as files."""

    name: str
    endpoint: str
    access_key: str
    secret_key: str
    directory: Path

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    @property
    def env(self) -> dict[str, str]:
        """What an AWS SDK needs in its environment to reach this server and no other."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def keys(self) -> list[str]:
        """Keys of the objects that exist now, sorted."""
        files = (path for path in self.directory.rglob("*") if path.is_file())
        relative = (path.relative_to(self.directory) for path in files)
        return sorted(str(path) for path in relative if not any(part.startswith(".") for part in path.parts))

    def read(self, key: str) -> bytes:
        return (self.directory / key).read_bytes()


class S3Server:
    """versitygw over a scratch directory. Use as a context manager, or `start` and `stop`."""

    def __init__(self, *, directory: Path | None = None) -> None:
        self._given_directory = directory
        self._directory: Path | None = None
        self._server: Server | None = None
        self.endpoint = ""
        self.access_key = "seiops"
        self.secret_key = secrets.token_hex(16)

    @property
    def pid(self) -> int | None:
        return self._server.pid if self._server else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        program = build.versitygw()
        self._directory = self._scratch()
        for name in ("buckets", "attributes"):
            (self._directory / name).mkdir(exist_ok=True)
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_on_new_port(program, self._directory)
                return
            except PortTakenError:
                if attempt == START_ATTEMPTS:
                    raise

    def _scratch(self) -> Path:
        if self._given_directory is not None:
            self._given_directory.mkdir(parents=True, exist_ok=True)
            return self._given_directory
        directory = Path(tempfile.mkdtemp(prefix="seiops-s3-"))
        processes.the_guard().remove_afterwards(directory)
        return directory

    def _start_on_new_port(self, program: Path, directory: Path) -> None:
        port = processes.free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        # --sidecar keeps object attributes in files of their own: not every file system has extended attributes.
        command: list[str | Path] = [
            program,
            *("--port", f"127.0.0.1:{port}", "--quiet", "--keep-alive", "--region", REGION),
            *("posix", "--sidecar", directory / "attributes", directory / "buckets"),
        ]
        env = {**os.environ, "ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        self._server = Server(
            "versitygw", command, log=directory / "versitygw.log", ready=lambda: _answers(self.endpoint), env=env
        )
        self._server.start()

    def make_bucket(self, name: str) -> Bucket:
        if self._directory is None:
            raise ToolError("the S3 server is not started")
        directory = self._directory / "buckets" / name
        directory.mkdir()
        return Bucket(name, self.endpoint, self.access_key, self.secret_key, directory)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._directory is not None and self._given_directory is None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except (urllib.error.URLError, OSError):
        return False
    return True
