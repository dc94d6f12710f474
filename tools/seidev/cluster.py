"""A Kubernetes API on loopback: etcd, the API server and the controllers we need, as ordinary processes.

What is missing without a kubelet and a scheduler is `seidev.podrunner`'s part. `Cluster` owns the processes; `Access`
is what a client needs and can be handed to another process (the workers of a test run share one cluster that way).

    python -m seidev.cluster                              start one and print its kubeconfig, until Ctrl-C
    python -m seidev.cluster --state FILE --owner PID     the same for a test run: FILE names it once it is ready
"""

import argparse
import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from seidev import build, processes
from seidev.processes import PortTakenError, Server, ToolError

CONTROLLERS = (
    "statefulset-controller",
    "job-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "pod-garbage-collector-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "ttl-after-finished-controller",
)
# As deploy/default names them.
CONTROLLER_NAMESPACE = "sei-k8s-controller-system"
CONTROLLER_ACCOUNT = "sei-k8s-controller-manager"
START_ATTEMPTS = 5
DRAIN_SECONDS = 2.0
CRD_DIRECTORY = Path(__file__).resolve().parents[2] / "deploy" / "crd"


@dataclass(frozen=True)
class Identity:
    """A bearer token the API server knows, and who it stands for. `name` is ours, `user` is what RBAC sees."""

    name: str
    user: str
    groups: tuple[str, ...] = ()
    token: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)


def service_account(name: str, namespace: str, account: str) -> Identity:
    """Identity under the rights (RBAC, flow control) that a Pod's own token would have."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return Identity(name, f"system:serviceaccount:{namespace}:{account}", groups)


@dataclass(frozen=True)
class Access:
    """How to reach a cluster: plain values, so that it can be written to a file and read by another process."""

    url: str
    ca_file: str
    directory: str
    kubectl_program: str
    tokens: dict[str, str]

    def token(self, identity: str = "admin") -> str:
        return self.tokens[identity]

    def ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)

    def kubeconfig(self, identity: str = "admin", namespace: str = "default") -> Path:
        """File with a context for this identity; written once for each identity and namespace."""
        path = Path(self.directory) / f"kubeconfig-{identity}-{namespace}.yaml"
        if not path.exists():
            temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            temporary.write_text(self._kubeconfig_text(identity, namespace))
            temporary.replace(path)
        return path

    def _kubeconfig_text(self, identity: str, namespace: str) -> str:
        authority = base64.b64encode(Path(self.ca_file).read_bytes()).decode()
        context = {"cluster": "local", "user": identity, "namespace": namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": identity, "user": {"token": self.token(identity)}}],
            "contexts": [{"name": "local", "context": context}],
            "current-context": "local",
        }
        return json.dumps(document, indent=1)

    def kubectl(
        self,
        *arguments: str | Path,
        stdin: str | None = None,
        identity: str = "admin",
        namespace: str = "default",
        check: bool = True,
        timeout: float = 60.0,
    ) -> "subprocess.CompletedProcess[str]":
        """Runs the real kubectl. With `check`, a failure raises ToolError with kubectl's own words."""
        command = [
            self.kubectl_program,
            "--kubeconfig",
            str(self.kubeconfig(identity, namespace)),
            *map(str, arguments),
        ]
        cache = {"KUBECACHEDIR": str(Path(self.directory) / "kubectl-cache"), "KUBERC": "off"}
        result = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout, env={**os.environ, **cache}
        )
        if check and result.returncode != 0:
            raise ToolError(f"kubectl {' '.join(map(str, arguments))}: {(result.stderr or result.stdout).strip()}")
        return result

    def install_crds(self, directory: Path = CRD_DIRECTORY) -> list[str]:
        """Applies the CRDs of a directory and waits until the API serves them. Returns their names."""
        files = [
            path for path in sorted(directory.glob("*.yaml")) if "kind: CustomResourceDefinition" in path.read_text()
        ]
        if not files:
            return []
        arguments = [part for path in files for part in ("-f", str(path))]
        applied = self.kubectl("apply", "--server-side", "--force-conflicts", "-o", "name", *arguments).stdout.split()
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *applied, timeout=90)
        return [name.partition("/")[2] for name in applied]

    @classmethod
    def load(cls, state_file: Path) -> Self:
        return cls(**json.loads(state_file.read_text())["access"])


class Cluster:
    """The three processes and their scratch directory. Use as a context manager, or `start` and `stop`.

    `identities` adds bearer tokens beside `admin` (system:masters) and `controller` (the operator's service account,
    which has only the rights RBAC objects give it). `audit_user` logs each request of that user at level Metadata to
    `audit_log`. `controllers=()` leaves the controller manager out; `api_server_flags` are appended as they are.
    """

    def __init__(
        self,
        *,
        directory: Path | None = None,
        identities: Sequence[Identity] = (),
        controllers: Sequence[str] = CONTROLLERS,
        audit_user: str | None = None,
        api_server_flags: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        self._given_directory = directory
        self._controllers = tuple(controllers)
        self._audit_user = audit_user
        self._api_server_flags = tuple(api_server_flags)
        self._given_port = port
        self._programs: build.KubernetesPrograms | None = None
        self._etcd: Server | None = None
        self._api_server: Server | None = None
        self._manager: Server | None = None
        self._access: Access | None = None
        self.identities = (
            Identity("admin", "admin", ("system:masters",)),
            Identity("controller-manager", "system:kube-controller-manager", ("system:masters",)),
            service_account("controller", CONTROLLER_NAMESPACE, CONTROLLER_ACCOUNT),
            *identities,
        )

    @property
    def access(self) -> Access:
        if self._access is None:
            raise ToolError("the cluster is not started")
        return self._access

    @property
    def directory(self) -> Path:
        return Path(self.access.directory)

    @property
    def audit_log(self) -> Path:
        return self.directory / "audit.log"

    @property
    def pids(self) -> dict[str, int]:
        servers = (self._api_server, self._manager, self._etcd)
        return {server.name: server.pid for server in servers if server is not None and server.pid is not None}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._programs = build.kubernetes_programs()
        for attempt in range(1, START_ATTEMPTS + 1):
            try:
                self._start_on_new_ports()
                return
            except PortTakenError as error:
                self.stop()
                if self._given_port is not None:
                    raise ToolError(
                        f"port {self._given_port} is in use: stop what listens there or choose another"
                    ) from None
                if attempt == START_ATTEMPTS:
                    raise ToolError(
                        f"{error}\ntried {START_ATTEMPTS} sets of ports: stop some servers and run again"
                    ) from None
            except BaseException:
                self.stop()
                raise

    def _start_on_new_ports(self) -> None:
        directory = self._scratch()
        self._write_files(directory)
        etcd_url = self._start_etcd(directory)
        port = self._given_port or processes.free_port()
        if self._given_port is not None and not processes.port_is_free(port):
            raise PortTakenError(str(port))
        self._access = Access(
            url=f"https://127.0.0.1:{port}",
            ca_file=str(directory / "certs" / "apiserver.crt"),
            directory=str(directory),
            kubectl_program=str(self._need_programs().kubectl),
            tokens={identity.name: identity.token for identity in self.identities},
        )
        self._api_server = self._make_api_server(directory, etcd_url, port)
        self._api_server.start()
        if self._controllers:
            self._manager = self._make_manager(directory)
            self._manager.start()

    def _need_programs(self) -> build.KubernetesPrograms:
        assert self._programs is not None
        return self._programs

    def _scratch(self) -> Path:
        if self._given_directory is not None:
            self._given_directory.mkdir(parents=True, exist_ok=True)
            return self._given_directory.resolve()
        directory = Path(tempfile.mkdtemp(prefix="seiops-cluster-"))
        processes.the_guard().remove_afterwards(directory)
        return directory

    def _write_files(self, directory: Path) -> None:
        (directory / "certs").mkdir(exist_ok=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write_private(directory / "sa.key", private)
        _write_private(directory / "sa.pub", public)
        rows = [f'{i.token},{i.user},{i.name},"{",".join(i.groups)}"' for i in self.identities]
        _write_private(directory / "tokens.csv", ("\n".join(rows) + "\n").encode())
        if self._audit_user is not None:
            _write_private(directory / "audit-policy.json", json.dumps(_audit_policy(self._audit_user)).encode())

    def _start_etcd(self, directory: Path) -> str:
        client, peer = processes.free_port(), processes.free_port()
        url, peer_url = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
        shutil.rmtree(directory / "etcd", ignore_errors=True)
        command: list[str | Path] = [
            self._need_programs().etcd,
            *("--data-dir", directory / "etcd", "--listen-client-urls", url, "--advertise-client-urls", url),
            *("--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url),
            *("--initial-cluster", f"default={peer_url}", "--unsafe-no-fsync", "--log-level", "warn"),
            *("--quota-backend-bytes", str(2 << 30)),
        ]
        self._etcd = Server(
            "etcd", command, log=directory / "etcd.log", ready=lambda: _answers_ok(f"{url}/readyz", None)
        )
        self._etcd.start()
        return url

    def _make_api_server(self, directory: Path, etcd_url: str, port: int) -> Server:
        access = self.access
        command: list[str | Path] = [
            self._need_programs().api_server,
            *("--etcd-servers", etcd_url, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
            *("--secure-port", str(port), "--cert-dir", directory / "certs"),
            *("--service-account-issuer", "https://kubernetes.default.svc"),
            *("--service-account-key-file", directory / "sa.pub"),
            *("--service-account-signing-key-file", directory / "sa.key"),
            *("--token-auth-file", directory / "tokens.csv", "--authorization-mode", "RBAC"),
            *("--service-cluster-ip-range", "10.96.0.0/16", "--allow-privileged=true"),
            # Nothing here creates the ServiceAccounts that this plugin would demand for each Pod.
            "--disable-admission-plugins=ServiceAccount",
            *self._audit_flags(directory),
            *self._api_server_flags,
        ]

        def ready() -> bool:
            return Path(access.ca_file).exists() and _answers_ok(f"{access.url}/readyz", access.ca_file)

        return Server("kube-apiserver", command, log=directory / "kube-apiserver.log", ready=ready)

    def _audit_flags(self, directory: Path) -> tuple[str, ...]:
        if self._audit_user is None:
            return ()
        policy = f"--audit-policy-file={directory / 'audit-policy.json'}"
        return policy, f"--audit-log-path={directory / 'audit.log'}", "--audit-log-mode=batch"

    def _make_manager(self, directory: Path) -> Server:
        port = processes.free_port()
        command: list[str | Path] = [
            self._need_programs().controller_manager,
            *("--kubeconfig", self.access.kubeconfig("controller-manager"), "--bind-address", "127.0.0.1"),
            *("--secure-port", str(port), "--cert-dir", directory / "certs-manager"),
            *("--leader-elect=false", "--use-service-account-credentials=false"),
            *("--service-account-private-key-file", directory / "sa.key"),
            *("--kube-api-qps", "500", "--kube-api-burst", "1000", "--concurrent-statefulset-syncs", "10"),
            f"--controllers={','.join(self._controllers)}",
        ]
        certificate = directory / "certs-manager" / "kube-controller-manager.crt"

        def ready() -> bool:
            return certificate.exists() and _answers_ok(f"https://127.0.0.1:{port}/healthz", str(certificate))

        return Server("kube-controller-manager", command, log=directory / "kube-controller-manager.log", ready=ready)

    def restart_controllers(self) -> None:
        """The garbage collector looks for new kinds every 30 s only: after installing CRDs a restart makes it know them."""
        assert self._manager is not None
        self._manager.stop()
        self._manager.start()

    def stop_api_server(self) -> None:
        if self._api_server is not None:
            # Open watches keep it draining for as long as we let it.
            self._api_server.stop(DRAIN_SECONDS)

    def kill_api_server(self) -> None:
        """SIGKILL: connections break without a word, as when the machine goes."""
        if self._api_server is not None:
            self._api_server.kill()

    def start_api_server(self) -> None:
        """Starts a stopped API server again: same port, same data, same tokens."""
        assert self._api_server is not None
        self._api_server.start()

    def restart_api_server(self) -> None:
        self.stop_api_server()
        self.start_api_server()

    def stop(self) -> None:
        """Controllers and API server before etcd: without etcd the API server hangs in its shutdown."""
        for server in (self._manager, self._api_server, self._etcd):
            if server is not None:
                server.stop()
        self._manager = self._api_server = self._etcd = None
        if self._access is not None and self._given_directory is None:
            shutil.rmtree(self._access.directory, ignore_errors=True)
        self._access = None

    def write_state(self, path: Path) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        _write_private(
            temporary, json.dumps({"access": asdict(self.access), "pid": os.getpid(), "servers": self.pids}).encode()
        )
        temporary.replace(path)


def _write_private(path: Path, content: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)


def _audit_policy(user: str) -> dict[str, object]:
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata", "users": [user]}, {"level": "None"}],
    }


def _answers_ok(url: str, ca_file: str | None) -> bool:
    try:
        context = ssl.create_default_context(cafile=ca_file) if ca_file else None
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ssl.SSLError, ValueError):
        return False


def _wait_for_end(owner: int | None) -> None:
    """Until a signal asks us to stop or the owner is gone."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(0.5):
        if owner is not None and not processes.exists(owner):
            return


def _serve(arguments: argparse.Namespace) -> None:
    with Cluster(port=arguments.port) as cluster:
        installed = cluster.access.install_crds()
        if arguments.state is not None:
            cluster.write_state(arguments.state)
        else:
            print(f"installed {len(installed)} CRDs; Ctrl-C stops the cluster and removes its data\n")
            print(f"export KUBECONFIG={cluster.access.kubeconfig()}")
            print(f"alias kubectl={cluster.access.kubectl_program}", flush=True)
        _wait_for_end(arguments.owner)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m seidev.cluster", description="A Kubernetes API on loopback.")
    parser.add_argument("--state", type=Path, help="write how to reach the cluster to this file, once it is ready")
    parser.add_argument("--owner", type=int, help="stop when the process with this id is gone")
    parser.add_argument("--port", type=int, help="port of the API server (default: any free one)")
    arguments = parser.parse_args()
    begun = time.monotonic()
    try:
        _serve(arguments)
    except ToolError as error:
        print(f"error after {time.monotonic() - begun:.1f} s: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
