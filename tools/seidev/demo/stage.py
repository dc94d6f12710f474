"""The real things behind the demo: servers, identities, buckets, the controller, the Pod runner and two recorded witnesses.

Everything is a process of its own under one directory, `.demo`, whose state file says what runs; so a demo that was kept
(`KEEP=1`) can be taken down later, and one that was interrupted leaves nothing that the next one stumbles over.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from obstore.store import S3Store

from seidev import build, guard, processes
from seidev.chain import COMET_PORT, Recording
from seidev.cluster import CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE, CRD_DIRECTORY, Cluster
from seidev.podrunner import NODE
from seidev.processes import Server, ToolError
from seidev.s3 import REGION, Bucket, S3Server

REPOSITORY = Path(__file__).resolve().parents[3]
DIRECTORY = REPOSITORY / ".demo"
STATE = "state.json"
DEPLOY = CRD_DIRECTORY.parent
RECORDINGS = REPOSITORY / "tests" / "data" / "chain"

NAMESPACE = "sei-demo"
CHAIN_ID = "seiops-local-1"
# The trust point lies 2000 blocks behind the head: with this head, in the middle of what was recorded.
HEAD = 2500
OPERATOR = "operator"
TOKEN_LIFETIME = "12h"
LEAVE_SECONDS = 60
STOP_ORDER = (
    "demo",
    "controller",
    "pod-runner",
    "witness-",
    "versitygw",
    "kube-controller-manager",
    "kube-apiserver",
    "etcd",
)


@dataclass
class Stage:
    """Use `open` and `close`; `keep` instead of `close` leaves it running."""

    directory: Path
    cluster: Cluster | None = None
    s3: S3Server | None = None
    buckets: dict[str, Bucket] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)
    witnesses: list[str] = field(default_factory=list)
    kubeconfig: Path = Path()
    kubectl_program: Path = Path()
    recording: Recording = field(default_factory=Recording)
    kept: bool = False

    # Servers

    def open_cluster(self) -> str:
        """The cluster of `KUBECONFIG` if it names one, else our own. Returns a line about it."""
        self.kubectl_program = build.kubernetes_programs().kubectl
        given = os.environ.get("KUBECONFIG", "")
        if given:
            self.kubeconfig = Path(given.split(os.pathsep)[0]).resolve()
            return self._check_given_cluster()
        self.cluster = Cluster(directory=self.directory / "cluster")
        self.cluster.start()
        access = self.cluster.access
        self.kubeconfig = self.directory / "kubeconfig.yaml"
        shutil.copy(access.kubeconfig(namespace=NAMESPACE), self.kubeconfig)
        self.write_state()
        return f"{access.url}, {', '.join(self.cluster.pids)}"

    def _check_given_cluster(self) -> str:
        """Refuses a cluster with machines of its own: their kubelets would run the Pods that are meant for ours."""
        try:
            nodes = self.kubectl("get", "nodes", "-o", "name", "--request-timeout=10s").split()
        except ToolError as error:
            raise ToolError(
                f"KUBECONFIG={self.kubeconfig} does not lead to a cluster ({error}): start it, or unset KUBECONFIG"
            ) from None
        foreign = [name for name in nodes if name != f"node/{NODE}"]
        if foreign:
            raise ToolError(
                f"KUBECONFIG={self.kubeconfig} has {len(foreign)} nodes of its own, and the demo needs a bare API server "
                "(`make cluster` starts one): unset KUBECONFIG to have one started"
            )
        self.write_state()
        return f"the cluster of KUBECONFIG={self.kubeconfig}"

    def kubectl(self, *arguments: str | Path, stdin: str | None = None) -> str:
        """Output of the real kubectl as administrator. Raises ToolError with its words."""
        command = [str(self.kubectl_program), "--kubeconfig", str(self.kubeconfig), *map(str, arguments)]
        env = {**os.environ, "KUBECACHEDIR": str(self.directory / "kubectl-cache"), "KUBERC": "off"}
        result = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, env=env)
        if result.returncode != 0:
            raise ToolError(f"kubectl {' '.join(map(str, arguments))}: {(result.stderr or result.stdout).strip()}")
        return result.stdout

    def open_s3(self) -> str:
        self.s3 = S3Server(directory=self.directory / "s3")
        self.s3.start()
        for name in ("genesis", "snapshots", "evidence"):
            self.buckets[name] = self.s3.make_bucket(f"demo-{name}")
        self.write_state()
        return f"{self.s3.endpoint}, buckets {', '.join(bucket.name for bucket in self.buckets.values())}"

    @property
    def aws(self) -> dict[str, str]:
        return self.buckets["evidence"].env

    def install(self) -> list[str]:
        """CRDs, the controller's rights, the namespace for nodes. The Deployment stays out: the controller runs here."""
        manifests = self.kubectl("kustomize", DEPLOY / "default")
        wanted = [
            doc for doc in yaml.safe_load_all(manifests) if doc and doc["kind"] not in ("Deployment", "NetworkPolicy")
        ]
        kinds = [doc["metadata"]["name"] for doc in wanted if doc["kind"] == "CustomResourceDefinition"]
        self.apply(wanted)
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in kinds))
        self.apply(list(yaml.safe_load_all(self._node_namespace())))
        self.apply(_operator())
        return kinds

    def _node_namespace(self) -> str:
        """The namespace and what `deploy/node-namespace` grants in it, put together by the real kustomize."""
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            overlay = Path(scratch)
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
            component = os.path.relpath(DEPLOY / "node-namespace", overlay)
            (overlay / "namespace.yaml").write_text(yaml.safe_dump(namespace))
            (overlay / "kustomization.yaml").write_text(
                yaml.safe_dump({"resources": ["namespace.yaml"], "components": [component]})
            )
            return self.kubectl("kustomize", overlay)

    def apply(self, documents: list[dict[str, Any]]) -> None:
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def token(self, account: str, namespace: str) -> str:
        """A token of a ServiceAccount, from the API server itself."""
        return self.kubectl("create", "token", account, "-n", namespace, f"--duration={TOKEN_LIFETIME}").strip()

    # The chain

    def open_chain(self) -> str:
        """Two recorded nodes as witnesses; the genesis document they show goes where the sidecar fetches it."""
        self.recording = Recording.load(RECORDINGS / "rpc-memiavl.jsonl.zst")
        for number, engine in enumerate(("memiavl", "flatkv"), 1):
            address = _witness_address()
            command = [
                *(sys.executable, "-m", "seidev.chain", RECORDINGS / f"rpc-{engine}.jsonl.zst"),
                *("--head", str(HEAD), "--host", address),
            ]
            url = f"http://{address}:{COMET_PORT}/health"
            self._start(f"witness-{number}", command, ready=_answering(url))
            self.witnesses.append(f"{address}:{COMET_PORT}")
        genesis = self.recording.genesis()
        store = S3Store(
            self.buckets["genesis"].name,
            endpoint=self.buckets["genesis"].endpoint,
            region=REGION,
            access_key_id=self.buckets["genesis"].access_key,
            secret_access_key=self.buckets["genesis"].secret_key,
            client_options={"allow_http": True},
        )
        store.put(f"{CHAIN_ID}/genesis.json", genesis)
        return f"{' and '.join(self.witnesses)}, genesis of {len(genesis)} bytes in the bucket"

    # Our own programs

    def open_controller(self) -> None:
        token_file = self.directory / "controller-token"
        token_file.write_text(self.token(CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE))
        token_file.chmod(0o600)
        probe, metrics = processes.free_port(), processes.free_port()
        env = {
            **processes.module_environment(),
            "SEI_CONTROLLER_CONFIG": str(self.config_file),
            "SEIOPS_TOKEN_FILE": str(token_file),
            "SEIOPS_RESOLVE_FILE": str(self.pods_directory / "resolve.json"),
            "SEI_GATEWAY_NAME": "unused",
            "SEI_GATEWAY_NAMESPACE": "unused",
            "SEI_GATEWAY_DOMAIN": "unused",
        }
        command = [
            *(sys.executable, "-m", "seiops.controller", f"--kubeconfig={self._controller_kubeconfig(token_file)}"),
            *(f"--namespaces={NAMESPACE}", f"--lease-namespace={CONTROLLER_NAMESPACE}", "--leader-elect"),
            *(f"--metrics-bind-address=127.0.0.1:{metrics}", f"--health-probe-bind-address=127.0.0.1:{probe}"),
        ]
        self._start("controller", command, env=env, ready=_answering(f"http://127.0.0.1:{probe}/readyz"))

    def _controller_kubeconfig(self, token_file: Path) -> Path:
        """The administrator's cluster, with the rights of the controller's own ServiceAccount."""
        flags = ("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
        document = json.loads(self.kubectl(*flags))
        document["users"] = [{"name": "controller", "user": {"tokenFile": str(token_file)}}]
        document["contexts"][0]["context"]["user"] = "controller"
        path = self.directory / "kubeconfig-controller.yaml"
        path.write_text(json.dumps(document))
        path.chmod(0o600)
        return path

    @property
    def pods_directory(self) -> Path:
        return self.directory / "pods"

    def open_pod_runner(self) -> None:
        env = {**self.aws, "SEI_LOG_FORMAT": "json"}
        command = [
            *(sys.executable, "-m", "seidev.podrunner", "--kubeconfig", self.kubeconfig, "--namespace", NAMESPACE),
            *("--root", self.pods_directory, "--recording", RECORDINGS / "rpc-memiavl.jsonl.zst"),
            *("--head", str(HEAD), "--env", json.dumps(env)),
        ]
        log = self.directory / "pod-runner.log"
        resolve_file = str(self.pods_directory / "resolve.json")
        self._start("pod-runner", command, ready=lambda: log.exists() and resolve_file in log.read_text())

    def _start(self, name: str, command: list[Any], *, ready: Any, env: dict[str, str] | None = None) -> None:
        log = self.directory / f"{name}.log"
        environment = env or processes.module_environment()
        server = Server(name, command, log=log, ready=ready, env=environment, cwd=self.directory, ready_seconds=60)
        self.servers.append(server)
        server.start()
        self.write_state()

    # The config file, laid out as a mounted ConfigMap is: a link that is exchanged in one step

    @property
    def config_file(self) -> Path:
        return self.directory / "config" / "config.yaml"

    def write_config(self, syncers: list[str]) -> float:
        """Publishes a config file with these syncers for the chain. Returns when, on the monotonic clock."""
        mount = self.config_file.parent
        mount.mkdir(exist_ok=True)
        version = mount / f"..{time.time_ns()}"
        version.mkdir()
        (version / "config.yaml").write_text(yaml.safe_dump(_app_config(self.buckets, syncers), sort_keys=False))
        swap = mount / "..data_tmp"
        swap.symlink_to(version.name)
        swap.replace(mount / "..data")
        done = time.monotonic()
        if not self.config_file.is_symlink():
            self.config_file.symlink_to(Path("..data") / "config.yaml")
        return done

    # The end

    def write_state(self) -> None:
        """What runs now, ourselves included unless the rest is to outlive us."""
        pids = [(server.name, server.pid) for server in self.servers]
        pids += [] if self.kept else [("demo", os.getpid())]
        pids += [("versitygw", self.s3.pid)] if self.s3 is not None else []
        pids += list(self.cluster.pids.items()) if self.cluster is not None else []
        running = [
            {"name": name, "pid": pid, "started": guard.start_time(pid)} for name, pid in pids if pid is not None
        ]
        state = {"kubeconfig": str(self.kubeconfig), "own_cluster": self.cluster is not None, "processes": running}
        path = self.directory / STATE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(state, indent=1))
        temporary.replace(path)

    def keep(self) -> None:
        self.kept = True
        self.write_state()
        processes.the_guard().keep_running()

    def close(self) -> None:
        if self.cluster is None and self.kubeconfig.is_file():
            leave_given_cluster(self)
        for server in reversed(self.servers):
            server.stop()
        if self.s3 is not None:
            self.s3.stop()
        if self.cluster is not None:
            self.cluster.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def leave_given_cluster(stage: Stage) -> None:
    """Takes back what is the demo's alone, while the controller and the Pod runner are there to do their part.

    CRDs and the controller's rights stay: others may use them.
    """
    with contextlib.suppress(ToolError, subprocess.TimeoutExpired):
        stage.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", f"--timeout={LEAVE_SECONDS}s")
        stage.kubectl("delete", "node", NODE, "--ignore-not-found")


def _operator() -> list[dict[str, Any]]:
    """A person who may submit tasks to sidecars in the demo's namespace."""
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": OPERATOR, "namespace": NAMESPACE},
    }
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": OPERATOR, "namespace": NAMESPACE},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "sei-k8s-validator-task-submitter",
        },
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": NAMESPACE}],
    }
    return [account, binding]


def _app_config(buckets: dict[str, Bucket], syncers: list[str]) -> dict[str, Any]:
    return {
        "stateSync": {"syncers": {CHAIN_ID: syncers} if syncers else {}},
        "scheduling": {
            "nodepoolName": "nodes",
            "nodepoolArchive": "archives",
            "nodepoolValidator": "validators",
            "nodepoolSeed": "seeds",
            "tolerationKey": "sei.io/workload",
            "serviceAccount": "seid-node",
        },
        "storage": {
            "classPerf": "perf",
            "classDefault": "standard",
            "classArchive": "archive",
            "sizeDefault": "1Ti",
            "sizeArchive": "4Ti",
        },
        "snapshot": {"bucket": buckets["snapshots"].name, "region": REGION},
        "resultExport": {"bucket": buckets["evidence"].name, "region": REGION, "prefix": "shadow/"},
        "genesis": {"bucket": buckets["genesis"].name, "region": REGION},
        "images": {
            "sidecar": "seiops:demo",
            "kubeRBACProxy": "kube-rbac-proxy:demo",
            "cosmosExporter": "exporter:demo",
        },
    }


def _witness_address() -> str:
    """A loopback address of its own for each witness, so that both can use the port a node uses."""
    for last in range(2, 250):
        address = f"127.200.{os.getpid() % 250}.{last}"
        if processes.port_is_free(COMET_PORT, address) and processes.port_is_free(8545, address):
            return address
    raise ToolError(f"no loopback address with port {COMET_PORT} free: stop what listens on it on all addresses")


def _answering(url: str) -> Any:
    def ready() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError, ValueError):
            return False

    return ready


def still_running(directory: Path) -> list[dict[str, Any]]:
    """Processes of an earlier demo that are alive, first to stop first."""
    try:
        state = json.loads((directory / STATE).read_text())
    except (OSError, ValueError):
        return []
    alive = [p for p in state["processes"] if p["started"] and guard.start_time(p["pid"]) == p["started"]]
    return sorted(alive, key=lambda p: next(i for i, name in enumerate(STOP_ORDER) if p["name"].startswith(name)))


def clean(directory: Path) -> int:
    """Stops whatever an earlier demo left running and removes its files. Returns how many processes were stopped."""
    alive = still_running(directory)
    _clean_given_cluster(directory)
    for process in alive:
        _end(process["pid"], process["started"])
    shutil.rmtree(directory, ignore_errors=True)
    return len(alive)


def _clean_given_cluster(directory: Path) -> None:
    try:
        state = json.loads((directory / STATE).read_text())
    except (OSError, ValueError):
        return
    if not state["own_cluster"] and Path(state["kubeconfig"]).is_file():
        stage = Stage(directory, kubeconfig=Path(state["kubeconfig"]))
        stage.kubectl_program = build.kubernetes_programs().kubectl
        leave_given_cluster(stage)


def _end(pid: int, started: str) -> None:
    guard.signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + processes.STOP_SECONDS
    while guard.start_time(pid) == started:
        if time.monotonic() > deadline:
            guard.signal_group(pid, signal.SIGKILL)
        time.sleep(0.05)


async def off_loop(work: Any, *arguments: Any) -> Any:
    """Runs blocking work beside the event loop, so that watches and the screen go on."""
    return await asyncio.to_thread(work, *arguments)
