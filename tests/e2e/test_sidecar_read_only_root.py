"""The real process as a container runs it: no privileges, a root file system it cannot write, nothing but its home."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65532
# In a mount namespace of its own: the home at /mnt, everything else read-only, then away with all privileges.
ENTER = f"""
set -e
mount --bind "$1" /mnt
mount -o remount,bind,ro /
awk '$2 != "/" && $2 != "/mnt" {{print $2}}' /proc/self/mounts | while read -r mounted; do
    mount -o remount,bind,ro "$mounted" 2>/dev/null || true
done
shift
exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --no-new-privs --bounding-set=-all "$@"
"""
PROBE = """
import os, sys
refused = 0
for folder in ("/", "/tmp", "/var/tmp", "/dev/shm", "/run", os.getcwd()):
    try:
        open(folder + "/seiops-probe", "w").close()
    except OSError:
        refused += 1
open("/mnt/probe", "w").close()
import seiops.sidecar.entry
print(os.geteuid(), refused)
"""


def confined(home: Path, *command: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh", str(home), *command],
        env=environment,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def environment(port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("/src")),
        "SEI_HOME": "/mnt/node",
        "SEI_CHAIN_ID": "c-1",
        "SEI_GENESIS_BUCKET": "file:///mnt/genesis",
        "SEI_GENESIS_REGION": "r",
        "SEI_SNAPSHOT_BUCKET": "file:///mnt/snapshots",
        "SEI_SNAPSHOT_REGION": "r",
        "SEI_SIDECAR_PORT": str(port),
        "SEI_SIDECAR_BIND_HOST": "127.0.0.1",
        "SEI_SIDECAR_RPC_URL": "http://127.0.0.1:1",
    }


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume owned by the unprivileged user. Skips where this machine cannot confine a process."""
    if os.geteuid() != 0:
        pytest.skip("only root can take another user and remount the root file system")
    missing = [name for name in ("unshare", "setpriv", "awk") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (util-linux)")
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    probe = confined(folder, sys.executable, "-c", PROBE, environment=environment(1))
    out, problem = probe.communicate(timeout=60)
    if probe.returncode != 0:
        pytest.skip(f"this machine does not let a test confine a process: {problem.strip()[-200:]}")
    assert out.split() == [str(NOBODY), "6"]
    return folder


@dataclass
class Sidecar:
    port: int

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def run(self, kind: str, **params: Any) -> dict[str, Any]:
        task_id = self.call("POST", "/v0/tasks", {"type": kind, "params": params})["id"]
        deadline = time.monotonic() + 60
        while True:
            task: dict[str, Any] = self.call("GET", f"/v0/tasks/{task_id}")
            if task["status"] != "running":
                return task
            assert time.monotonic() < deadline, task
            time.sleep(0.02)  # between two looks at a task that reports to nobody


@pytest.fixture
def sidecar(volume: Path) -> Iterator[Sidecar]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = confined(volume, sys.executable, "-m", "seiops.sidecar", "serve", environment=environment(port))
    one = Sidecar(port)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                one.call("GET", "/v0/livez")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise AssertionError("".join(process.communicate())) from None
                time.sleep(0.02)  # until it listens
        yield one
    finally:
        process.send_signal(signal.SIGTERM)
        out, problem = process.communicate(timeout=40)
    assert (process.returncode, problem) == (0, ""), out


def archive(height: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in ((f"{height}/1/0", b"chunk" * 100_000), ("metadata.db", b"no database")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_a_sidecar_without_privileges_writes_its_home_and_nothing_else(volume: Path, sidecar: Sidecar) -> None:
    objects = {
        "snapshots/c-1/state-sync/1000.tar.gz": archive(1000),
        "genesis/c-1/genesis.json": b'{"chain_id":"c-1"}',
        "genesis/c-1/peers.json": b'["aa@n0:26656"]',
    }
    for name, content in objects.items():
        path = volume / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    ended = {
        kind: sidecar.run(kind, **params)
        for kind, params in {
            "generate-identity": {"chainId": "c-1", "moniker": "m"},
            "config-apply": {"mode": "full"},
            "config-patch": {"files": {"config.toml": {"p2p": {"external-address": "x:1"}}}},
            "config-validate": {},
            "configure-genesis": {},
            "set-genesis-peers": {},
            "snapshot-restore": {},
            "snapshot-upload-once": {},
            "stop-seid": {},
            "mark-ready": {},
        }.items()
    }
    assert {kind: task.get("error") for kind, task in ended.items() if task["status"] != "completed"} == {}
    assert (volume / "node" / "data" / "snapshots" / "1000" / "1" / "0").stat().st_uid == NOBODY
    assert len(sidecar.call("GET", "/v0/node-id")["nodeId"]) == 40
    assert sidecar.call("GET", "/v0/status") == {"status": "Ready"}
