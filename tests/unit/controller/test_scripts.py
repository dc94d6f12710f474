"""The containers' shell scripts, run with stand-ins for seid, the exporter and the sidecar."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seiops.controller.resources import scripts

DEADLINE = 60


def executable(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A PATH of its own in front: `sleep` returns at once, `seid` says how it was called."""
    found = tmp_path / "bin"
    found.mkdir()
    executable(found / "sleep", "exit 0")
    executable(found / "seid", 'echo "seid $*"')
    return found


def run(shell: str, script: str, bin_dir: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    return subprocess.run(
        [shell, "-c", script], env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def seid_init(bin_dir: Path, data: Path, backend: str = "", chain: str = "gold-1") -> subprocess.CompletedProcess[str]:
    return run("/bin/sh", scripts.seid_init(chain, backend, data=str(data)), bin_dir)


def test_init_creates_the_home_once(bin_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    executable(bin_dir / "seid", f'echo "seid $*"; mkdir -p {data}/config; echo {{}} >{data}/config/genesis.json')
    first = seid_init(bin_dir, data)
    assert first.stdout == f"seid init gold-1 --chain-id gold-1 --home {data} --overwrite\n"
    assert (data / "tmp").is_dir()
    second = seid_init(bin_dir, data)
    assert second.stdout == "data directory already initialized, skipping seid init\n"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_failing_init_fails_the_container(bin_dir: Path, tmp_path: Path) -> None:
    executable(bin_dir / "seid", "exit 7")
    done = seid_init(bin_dir, tmp_path / "data", "test")
    assert done.returncode == 7
    assert not (tmp_path / "data").exists()


def test_a_chain_id_is_never_a_command(bin_dir: Path, tmp_path: Path) -> None:
    done = seid_init(bin_dir, tmp_path / "data", chain="a; touch owned")
    assert done.stdout.startswith("seid init a; touch owned --chain-id a; touch owned ")
    assert not Path("owned").exists()


def client_toml(tmp_path: Path, text: str | None) -> Path:
    path = tmp_path / "data" / "config" / "client.toml"
    path.parent.mkdir(parents=True)
    if text is not None:
        path.write_text(text)
        path.chmod(0o640)
    return path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, 'keyring-backend = "file"\n'),
        ("", 'keyring-backend = "file"\n'),
        ('a = 1\nkeyring-backend = "os"\nb = 2\n', 'a = 1\nkeyring-backend = "file"\nb = 2\n'),
        ('keyring-backend="os" # why\n', 'keyring-backend = "file"\n'),
        ('keyring-backend\t = "os"', 'keyring-backend = "file"'),
        ("a = 1\n", 'a = 1\nkeyring-backend = "file"\n'),
        ("a = 1", 'a = 1\nkeyring-backend = "file"\n'),
        ("keyring-backend-dir = 1\n", 'keyring-backend-dir = 1\nkeyring-backend = "file"\n'),
        (' keyring-backend = "os"\n', ' keyring-backend = "os"\nkeyring-backend = "file"\n'),
    ],
)
def test_a_validators_keyring_backend_is_one_line(
    before: str | None, after: str, bin_dir: Path, tmp_path: Path
) -> None:
    path = client_toml(tmp_path, before)
    done = seid_init(bin_dir, tmp_path / "data", "file")
    assert done.returncode == 0, done.stderr
    assert path.read_text() == after
    if before:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(item.name for item in path.parent.iterdir()) == ["client.toml"]


def test_the_keyring_backend_is_set_on_every_boot(bin_dir: Path, tmp_path: Path) -> None:
    path = client_toml(tmp_path, 'keyring-backend = "test"\n')
    (path.parent / "genesis.json").write_text("{}")
    done = seid_init(bin_dir, tmp_path / "data", "file")
    assert "skipping seid init" in done.stdout
    assert path.read_text() == 'keyring-backend = "file"\n'


def test_only_validators_get_a_client_toml(bin_dir: Path, tmp_path: Path) -> None:
    seid_init(bin_dir, tmp_path / "data")
    assert not (tmp_path / "data" / "config").exists()


def test_a_client_toml_that_cannot_be_written_fails_the_container(bin_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "config" / "client.toml").mkdir(parents=True)
    assert seid_init(bin_dir, tmp_path / "data", "file").returncode != 0


Answer = Callable[[int], bytes]


def read_request(connection: socket.socket) -> bytes:
    """All of it: bash sends line by line, and closing on unread bytes resets the connection."""
    request = b""
    while not request.endswith(b"\r\n\r\n") and (part := connection.recv(4096)):
        request += part
    return request


@contextmanager
def sidecar(answer: Answer) -> Iterator[tuple[int, list[bytes]]]:
    """A TCP server on a free port; `answer(n)` is what the n-th connection gets."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(DEADLINE)
                    requests.append(read_request(connection))
                    connection.sendall(answer(len(requests)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], requests


READY = b"HTTP/1.0 200 OK\r\n\r\n"
NOT_READY = b"HTTP/1.0 503 Service Unavailable\r\n\r\n200"


def test_seid_waits_for_its_sidecar_and_becomes_the_process(bin_dir: Path) -> None:
    executable(bin_dir / "seid", 'echo "seid $* pid=$$"')
    with sidecar(lambda number: READY if number > 2 else NOT_READY if number == 2 else b"") as (port, requests):
        script = f"echo pid=$$; {scripts.start_seid(port)}"
        done = run("/bin/bash", script, bin_dir)
    said = done.stdout.splitlines()
    assert said[1:3] == ["waiting for sidecar to become ready...", "sidecar ready, starting seid"]
    assert said[3] == f"seid start --home /home/nonroot/.sei {said[0]}"
    assert len(requests) == 3
    assert requests[0] == b"GET /v0/healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"
    assert done.stderr == ""


def test_seid_waits_while_nothing_listens(bin_dir: Path, tmp_path: Path) -> None:
    # Bound but not listening: refused, and nobody else's meanwhile.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        counting = f'echo "$1" >>{tmp_path}/waits; [ $(wc -l <{tmp_path}/waits) -lt 3 ] || kill -9 $PPID'
        executable(bin_dir / "sleep", counting)
        done = run("/bin/bash", scripts.start_seid(port), bin_dir)
    assert (tmp_path / "waits").read_text() == "5\n5\n5\n"
    assert done.stdout == "waiting for sidecar to become ready...\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("code", "wanted", "last"),
    [
        (0, 0, "seid start --home /home/nonroot/.sei --halt-height 4200"),
        (130, 0, "seid halted at target height (exit 130), treating as success"),
        (1, 1, "seid start --home /home/nonroot/.sei --halt-height 4200"),
        (137, 137, "seid start --home /home/nonroot/.sei --halt-height 4200"),
    ],
)
def test_the_bootstrap_run_ends_at_its_height(code: int, wanted: int, last: str, bin_dir: Path) -> None:
    executable(bin_dir / "seid", f'echo "seid $*"; exit {code}')
    with sidecar(lambda _: READY) as (port, _):
        done = run("/bin/bash", scripts.run_seid_to_height(port, 4200), bin_dir)
    assert done.stdout.splitlines()[:2] == [
        "waiting for sidecar bootstrap tasks to complete...",
        "sidecar healthy, starting seid with halt-height 4200",
    ]
    assert (done.returncode, done.stdout.splitlines()[-1]) == (wanted, last)


def test_the_exporter_waits_for_grpc_and_gets_its_arguments(bin_dir: Path, tmp_path: Path) -> None:
    """Port and binary are fixed by the contract; here both are replaced by free ones."""
    executable(bin_dir / "exporter", 'echo "exporter $*"')
    with socket.create_server(("127.0.0.1", 0)) as server:
        script = scripts.start_exporter(9300)
        script = script.replace("localhost/9090", f"localhost/{server.getsockname()[1]}")
        script = script.replace("/usr/local/bin/sei-cosmos-exporter", str(bin_dir / "exporter"))
        done = run("/bin/bash", script, bin_dir)
    assert done.stdout.splitlines() == [
        "waiting for gRPC :9090 to be available...",
        "gRPC available, starting cosmos-exporter",
        "exporter --denom usei --denom-coefficient 1000000 --bech-prefix sei --listen-address :9300",
    ]
