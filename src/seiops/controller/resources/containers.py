"""The five containers of a node's Pod: init, sidecar, proxy, seid and exporter (docs/contracts/controller-behaviour.md 5.3, 5.4).

The proxy is the only way in from outside: it checks the caller, the sidecar behind it believes what the proxy says.
"""

from __future__ import annotations

from typing import Any

from seiops.api.names import SIDECAR_PROXY_PORT, Role
from seiops.api.node import SeiNode
from seiops.controller.appconfig import AppConfig
from seiops.controller.resources import compute, scripts
from seiops.controller.resources.errors import RenderError
from seiops.controller.resources.identity import (
    node_key_secret,
    operator_keyring,
    role,
    sidecar_port,
    signing_key_secret,
)
from seiops.controller.resources.scripts import DATA, HOME

Container = dict[str, Any]

SEID_PORTS = (
    ("evm-rpc", 8545),
    ("evm-ws", 8546),
    ("grpc", 9090),
    ("rest", 1317),
    ("p2p", 26656),
    ("rpc", 26657),
    ("metrics", 26660),
)
"""seid's ports in wire order, the same for every mode."""

EXPORTER_PORT = 9300
USER = 65532
KEYRING_DIR = f"{DATA}/keyring-file"
PROXY_CONFIG_DIR = "/etc/kube-rbac-proxy"

SIGNING_KEY_FILE = "priv_validator_key.json"
NODE_KEY_FILE = "node_key.json"

# Must equal the sidecar's own paths without authentication: kubelet and Prometheus carry no token for it.
_OPEN_PATHS = "/v0/healthz,/v0/startupz,/v0/livez,/v0/metrics"

SEID_SECURITY: dict[str, Any] = {
    "capabilities": {"drop": ["ALL"]},
    "runAsUser": USER,
    "runAsGroup": USER,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "seccompProfile": {"type": "RuntimeDefault"},
}
HARDENED_SECURITY: dict[str, Any] = {**SEID_SECURITY, "readOnlyRootFilesystem": True}

DATA_MOUNT = {"name": "data", "mountPath": DATA}
HOME_MOUNT = {"name": "home", "mountPath": HOME}
TMP_MOUNT = {"name": "sidecar-tmp", "mountPath": "/tmp"}
_KEYRING_MOUNT = {"name": "operator-keyring", "readOnly": True, "mountPath": KEYRING_DIR}
_PROXY_MOUNT = {"name": "rbac-proxy-config", "readOnly": True, "mountPath": PROXY_CONFIG_DIR}


def seid_init(node: SeiNode) -> Container:
    """Creates seid's home on the data volume, once."""
    backend = _keyring_backend(node) if node.spec.validator is not None else ""
    return {
        "name": "seid-init",
        "image": node.spec.image,
        "command": ["/bin/sh", "-c", scripts.seid_init(node.spec.chain_id, backend)],
        "env": [_variable("HOME", HOME)],
        "resources": {},
        "volumeMounts": [DATA_MOUNT, HOME_MOUNT],
        "securityContext": SEID_SECURITY,
    }


def sidecar(node: SeiNode, platform: AppConfig) -> Container:
    """The task engine. It runs with the tokenless trust of a process behind the proxy."""
    keyring = [_KEYRING_MOUNT] if operator_keyring(node) is not None else []
    return {
        "name": "sei-sidecar",
        "image": sidecar_image(node, platform),
        "command": ["seictl", "serve"],
        "ports": [_port("sidecar", sidecar_port(node))],
        "env": [*sidecar_environment(node, platform, [_variable("HOME", HOME)]), *_signing_environment(node)],
        "resources": compute.sidecar_resources(node),
        "restartPolicy": "Always",
        "volumeMounts": [HOME_MOUNT, DATA_MOUNT, TMP_MOUNT, *keyring],
        "securityContext": HARDENED_SECURITY,
    }


def sidecar_image(node: SeiNode, platform: AppConfig) -> str:
    """Image the node's sidecar should run: its own choice or the platform's."""
    return (node.spec.sidecar.image if node.spec.sidecar is not None else "") or platform.images.sidecar


def sidecar_environment(node: SeiNode, platform: AppConfig, home: list[dict[str, str]]) -> list[dict[str, str]]:
    """Variables every sidecar gets, in wire order; `home` stands where production has HOME."""
    return [
        _variable("SEI_CHAIN_ID", node.spec.chain_id),
        _variable("SEI_SIDECAR_PORT", str(sidecar_port(node))),
        _variable("SEI_HOME", DATA),
        *home,
        _variable("SEI_GENESIS_BUCKET", platform.genesis.bucket),
        _variable("SEI_GENESIS_REGION", platform.genesis.region),
        _variable("SEI_SNAPSHOT_BUCKET", platform.snapshot.bucket),
        _variable("SEI_SNAPSHOT_REGION", platform.snapshot.region),
        _variable("SEI_SIDECAR_AUTHN_MODE", "trusted-header"),
    ]


def rbac_proxy(node: SeiNode, platform: AppConfig) -> Container:
    """Plain HTTP in front of the sidecar: authenticates the token, asks the API server whether it may."""
    return {
        **proxy_base(node, platform, [f"--ignore-paths={_OPEN_PATHS}"]),
        "livenessProbe": _probe(_http("/v0/livez", SIDECAR_PROXY_PORT), delay=5, period=10, failures=3),
        "readinessProbe": _probe(_http("/v0/healthz", SIDECAR_PROXY_PORT), delay=2, period=5, failures=6),
        "startupProbe": _probe(_tcp(SIDECAR_PROXY_PORT), delay=5, period=5, failures=60),
        "securityContext": HARDENED_SECURITY,
    }


def proxy_base(node: SeiNode, platform: AppConfig, open_paths: list[str]) -> Container:
    """What the proxies of Pod and bootstrap Job share. Raises RenderError if no proxy image is configured."""
    if not platform.images.kube_rbac_proxy.strip():
        raise RenderError("images.kubeRBACProxy is not configured in the app-config file")
    return {
        "name": "kube-rbac-proxy",
        "image": platform.images.kube_rbac_proxy,
        "args": [
            f"--insecure-listen-address=0.0.0.0:{SIDECAR_PROXY_PORT}",
            f"--upstream=http://127.0.0.1:{sidecar_port(node)}/",
            f"--config-file={PROXY_CONFIG_DIR}/config.yaml",
            *open_paths,
            "--auth-header-fields-enabled=true",
            "--v=0",
        ],
        "ports": [_port("api", SIDECAR_PROXY_PORT)],
        "resources": {},
        "restartPolicy": "Always",
        "volumeMounts": [_PROXY_MOUNT],
    }


def seid(node: SeiNode, platform: AppConfig) -> Container:
    """The node itself, held back until its sidecar is ready.

    It has no liveness probe on purpose: a node that halts for an upgrade or catches up for days is alive.
    """
    readiness = _tcp(26656) if role(node) is Role.SEED else _http("/lag_status", 26657)
    return {
        "name": "seid",
        "image": node.spec.image,
        "command": ["/bin/bash", "-c"],
        "args": [scripts.start_seid(sidecar_port(node))],
        "ports": [_port(name, number) for name, number in SEID_PORTS],
        "env": _seid_environment(node, platform),
        "resources": compute.seid_resources(node, platform),
        "volumeMounts": [DATA_MOUNT, HOME_MOUNT, *_key_mounts(node)],
        "readinessProbe": {**_probe(readiness, delay=30, period=10, failures=3), "timeoutSeconds": 5},
        "startupProbe": _probe(_http("/v0/healthz", SIDECAR_PROXY_PORT), delay=5, period=5, failures=86400),
        "securityContext": SEID_SECURITY,
    }


def seid_base_environment() -> list[dict[str, Any]]:
    return [_variable("HOME", HOME), _variable("TMPDIR", f"{DATA}/tmp")]


def exporter(platform: AppConfig) -> Container:
    """Chain metrics next to seid's own. Raises RenderError if no image is configured."""
    if not platform.images.cosmos_exporter.strip():
        raise RenderError("images.cosmosExporter is required in the app-config file")
    return {
        "name": "cosmos-exporter",
        "image": platform.images.cosmos_exporter,
        "command": ["/bin/bash", "-c"],
        "args": [scripts.start_exporter(EXPORTER_PORT)],
        "ports": [_port("cosmos-metrics", EXPORTER_PORT)],
        "resources": {"limits": {"memory": "384Mi"}, "requests": {"cpu": "50m", "memory": "64Mi"}},
        "volumeMounts": [TMP_MOUNT],
        "livenessProbe": _probe(_tcp(EXPORTER_PORT), delay=600, period=10, failures=3),
        "readinessProbe": _probe(_tcp(EXPORTER_PORT), delay=0, period=10, failures=6),
        "securityContext": HARDENED_SECURITY,
    }


def _keyring_backend(node: SeiNode) -> str:
    return "file" if operator_keyring(node) is not None else "test"


def _signing_environment(node: SeiNode) -> list[dict[str, Any]]:
    """Where a validator finds its operator key; nothing for other modes."""
    if node.spec.validator is None:
        return []
    variables: list[dict[str, Any]] = [
        _variable("SEI_KEYRING_BACKEND", _keyring_backend(node)),
        _variable("SEI_KEYRING_DIR", DATA),
    ]
    keyring = operator_keyring(node)
    if keyring is not None:
        passphrase = {"name": keyring.passphrase_secret_ref.secret_name, "key": keyring.passphrase_secret_ref.key}
        variables.append({"name": "SEI_KEYRING_PASSPHRASE", "valueFrom": {"secretKeyRef": passphrase}})
    return variables


def _seid_environment(node: SeiNode, platform: AppConfig) -> list[dict[str, Any]]:
    keyring = operator_keyring(node)
    signing = _signing_environment(node) if keyring is not None and keyring.seid_mount else []
    heap = compute.seed_heap_limit(node, platform)
    return [*seid_base_environment(), *signing, *([_variable("GOMEMLIMIT", heap)] if heap else [])]


def _key_mounts(node: SeiNode) -> list[dict[str, Any]]:
    """Keys by subPath, deliberately: an edited Secret must not swap a key under a running process."""
    mounts = []
    if signing_key_secret(node):
        mounts.append(_file_mount("signing-key", SIGNING_KEY_FILE))
    if node_key_secret(node):
        mounts.append(_file_mount("node-key", NODE_KEY_FILE))
    keyring = operator_keyring(node)
    if keyring is not None and keyring.seid_mount:
        mounts.append(_KEYRING_MOUNT)
    return mounts


def _file_mount(volume: str, file: str) -> dict[str, Any]:
    return {"name": volume, "readOnly": True, "mountPath": f"{DATA}/config/{file}", "subPath": file}


def _variable(name: str, value: str) -> dict[str, str]:
    # An empty value is left out, as Go's encoder does: server-side apply would own the field otherwise.
    return {"name": name, "value": value} if value else {"name": name}


def _port(name: str, number: int) -> dict[str, Any]:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _http(path: str, port: int) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": port}}


def _tcp(port: int) -> dict[str, Any]:
    return {"tcpSocket": {"port": port}}


def _probe(check: dict[str, Any], *, delay: int, period: int, failures: int) -> dict[str, Any]:
    started = {"initialDelaySeconds": delay} if delay else {}
    return {**check, **started, "periodSeconds": period, "failureThreshold": failures}
