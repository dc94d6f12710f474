"""The local Pod runner against the real API server, with a small stand-in for the sidecar."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from seidev.chain import Recording, Window
from seidev.cluster import CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE, Access
from seidev.podrunner import PodRunner, recorded_seid
from seiops.kube import KubeClient, from_kubeconfig
from support.kubectl import Kubectl

RECORDING = Path(__file__).resolve().parents[1] / "data" / "chain" / "rpc-flatkv.jsonl.zst"

# Answers /v0/healthz with 200 once <home>/ready exists, /v0/env with its environment and the caller, /v0/crash by dying.
_SIDECAR = """
import http.server, json, os, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/v0/crash":
            os._exit(3)
        ok = self.path != "/v0/healthz" or pathlib.Path(os.environ["SEI_HOME"], "ready").exists()
        body = json.dumps({"env": dict(os.environ), "user": self.headers.get("X-Remote-User")}).encode()
        self.send_response(200 if ok else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
address = (os.environ["SEI_SIDECAR_BIND_HOST"], int(os.environ["SEI_SIDECAR_PORT"]))
http.server.ThreadingHTTPServer(address, Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.load(RECORDING)


@pytest.fixture
async def runner(cluster: Access, namespace: str, tmp_path: Path, recording: Recording) -> AsyncIterator[PodRunner]:
    async with KubeClient(from_kubeconfig(cluster.kubeconfig())) as client:
        seid = recorded_seid(recording, Window(421, 2500))
        env = {"AWS_REGION": "us-east-1"}
        async with PodRunner(client, root=tmp_path, seid=seid, namespace=namespace, env=env, back_off=0.05) as runner:
            yield runner


def _pod(name: str, **spec: Any) -> str:
    data = {"name": "data", "mountPath": "/home/nonroot/.sei"}
    sidecar = {
        "name": "sei-sidecar",
        "image": "none",
        "restartPolicy": "Always",
        "command": [sys.executable, "-c", _SIDECAR],
        "volumeMounts": [{"name": "home", "mountPath": "/home/nonroot"}, data],
        "env": [
            {"name": "SEI_SIDECAR_PORT", "value": "17777"},
            {"name": "SEI_HOME", "value": "/home/nonroot/.sei"},
            {"name": "HOME", "value": "/home/nonroot"},
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "PASSPHRASE", "valueFrom": {"secretKeyRef": {"name": "keyring", "key": "passphrase"}}},
            {"name": "BOTH", "value": "$(POD)/$$(POD)"},
        ],
    }
    proxy = {
        "name": "kube-rbac-proxy",
        "image": "none",
        "restartPolicy": "Always",
        "args": ["--config-file=/etc/kube-rbac-proxy/config.yaml", "--ignore-paths=/v0/healthz,/v0/livez"],
        "volumeMounts": [{"name": "rbac-proxy-config", "mountPath": "/etc/kube-rbac-proxy"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "hostname": name,
            "subdomain": "node",
            "terminationGracePeriodSeconds": 5,
            "initContainers": [{"name": "seid-init", "image": "none"}, sidecar, proxy],
            "containers": [{"name": "seid", "image": "none"}, {"name": "cosmos-exporter", "image": "none"}],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "data-node"}},
                {"name": "home", "emptyDir": {}},
                {"name": "rbac-proxy-config", "configMap": {"name": "proxy"}},
            ],
            **spec,
        },
    }
    return json.dumps(pod)


def _proxy_config(namespace: str) -> str:
    attributes = f"apiGroup: sei.io\n    resource: seinodetasks\n    namespace: {namespace}\n    name: node\n"
    return f"authorization:\n  resourceAttributes:\n    {attributes}"


async def _kubectl(kubectl: Kubectl, *arguments: str, **options: Any) -> str:
    result = await asyncio.to_thread(kubectl, *arguments, **options)
    return result.stdout


async def _status(kubectl: Kubectl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await _kubectl(kubectl, "get", "pod", name, "-o", "json"))["status"]
    return found


async def _until(ask: Any, seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            found = await ask()
            if found:
                return found
            await asyncio.sleep(0.1)


def _condition(status: dict[str, Any], kind: str) -> str:
    return next((c["status"] for c in status.get("conditions", ()) if c["type"] == kind), "")


def _container(status: dict[str, Any], name: str) -> dict[str, Any]:
    both = [*status["initContainerStatuses"], *status["containerStatuses"]]
    return next(c for c in both if c["name"] == name)


async def _running_pod(kubectl: Kubectl, namespace: str) -> dict[str, Any]:
    await _kubectl(kubectl, "create", "secret", "generic", "keyring", "--from-literal=passphrase=geheim")
    await _kubectl(kubectl, "create", "configmap", "proxy", f"--from-literal=config.yaml={_proxy_config(namespace)}")
    await _kubectl(kubectl, "apply", "-f", "-", stdin=_pod("node-0"))

    async def running() -> dict[str, Any] | None:
        status = await _status(kubectl, "node-0")
        if status["phase"] == "Running" and "running" in _container(status, "sei-sidecar")["state"]:
            return status
        return None

    found: dict[str, Any] = await _until(running)
    return found


async def test_pod_lives_as_under_a_kubelet(
    runner: PodRunner, kubectl: Kubectl, namespace: str, tmp_path: Path, cluster: Access
) -> None:
    status = await _running_pod(kubectl, namespace)
    address = status["podIP"]
    names = json.loads(runner.resolve_file.read_text())
    assert names == {f"node-0.node.{namespace}.svc.cluster.local": address}
    assert _condition(status, "Ready") == "False"
    assert _container(status, "seid")["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert _container(status, "seid-init")["state"]["terminated"]["exitCode"] == 0

    async with aiohttp.ClientSession() as session:
        await _check_proxy(session, kubectl, address, cluster)
        await _check_environment(session, address, tmp_path / "claims" / namespace / "data-node")
        (tmp_path / "claims" / namespace / "data-node" / "ready").touch()
        status = await _until(lambda: _when_ready(kubectl))
        assert "running" in _container(status, "seid")["state"]
        async with session.get(f"http://{address}:26657/status") as answer:
            assert (await answer.json())["sync_info"]["latest_block_height"] == "2500"
        await _check_restart(session, kubectl, address)
    await _kubectl(kubectl, "delete", "pod", "node-0", "--wait=true", "--timeout=20s")
    await _until(lambda: _gone(runner))
    assert json.loads(runner.resolve_file.read_text()) == {}


async def _gone(runner: PodRunner) -> bool:
    return not runner.pods


async def _when_ready(kubectl: Kubectl) -> dict[str, Any] | None:
    status = await _status(kubectl, "node-0")
    return status if _condition(status, "Ready") == "True" else None


async def _check_proxy(session: aiohttp.ClientSession, kubectl: Kubectl, address: str, cluster: Access) -> None:
    async def ask(path: str, **headers: str) -> tuple[int, Any]:
        async with session.get(f"http://{address}:8443{path}", headers=headers) as answer:
            return answer.status, await answer.json(content_type=None) if answer.status == 200 else None

    controller = {"Authorization": f"Bearer {cluster.token('controller')}", "X-Remote-User": "root"}

    async def listening() -> bool:
        return (await ask("/v0/healthz"))[0] == 503

    await _until(listening)
    assert (await ask("/v0/livez", **{"X-Remote-User": "root"}))[1]["user"] is None
    assert (await ask("/v0/env"))[0] == 401
    assert (await ask("/v0/env", Authorization="Bearer wrong"))[0] == 401
    assert (await ask("/v0/env", **controller))[0] == 403
    await _kubectl(kubectl, "create", "role", "tasks", "--verb=get,create", "--resource=seinodetasks.sei.io")
    binding = ("create", "rolebinding", "tasks", "--role=tasks")
    await _kubectl(kubectl, *binding, f"--serviceaccount={CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}")

    async def allowed() -> Any:
        status, body = await ask("/v0/env", **controller)
        return body if status == 200 else None

    assert (await _until(allowed))["user"] == f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}"


async def _check_environment(session: aiohttp.ClientSession, address: str, data: Path) -> None:
    async with session.get(f"http://{address}:17777/v0/env") as answer:
        env = (await answer.json(content_type=None))["env"]
    assert (env["POD"], env["BOTH"], env["PASSPHRASE"]) == ("node-0", "node-0/$(POD)", "geheim")
    assert (env["HOSTNAME"], env["AWS_REGION"]) == ("node-0", "us-east-1")
    assert env["SEI_HOME"] == str(data)
    assert env["HOME"].endswith("/volumes/home")
    assert env["SEI_SIDECAR_RPC_URL"] == f"http://{address}:26657"


async def _check_restart(session: aiohttp.ClientSession, kubectl: Kubectl, address: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await session.get(f"http://{address}:17777/v0/crash")

    async def restarted() -> dict[str, Any] | None:
        container = _container(await _status(kubectl, "node-0"), "sei-sidecar")
        return container if container["restartCount"] == 1 and "running" in container["state"] else None

    container = await _until(restarted)
    assert container["lastState"]["terminated"]["exitCode"] == 3


async def test_pod_waits_for_what_it_refers_to(runner: PodRunner, kubectl: Kubectl, namespace: str) -> None:
    await _kubectl(kubectl, "apply", "-f", "-", stdin=_pod("node-0"))

    async def waiting() -> str | None:
        status = await _status(kubectl, "node-0")
        if "containerStatuses" not in status:
            return None
        message: str | None = _container(status, "seid")["state"].get("waiting", {}).get("message")
        return message

    assert await _until(waiting) == "ConfigMap 'proxy' not found"
    await _running_pod_parts(kubectl, namespace)

    async def running() -> bool:
        return bool((await _status(kubectl, "node-0"))["phase"] == "Running")

    await _until(running)


async def _running_pod_parts(kubectl: Kubectl, namespace: str) -> None:
    await _kubectl(kubectl, "create", "secret", "generic", "keyring", "--from-literal=passphrase=geheim")
    await _kubectl(kubectl, "create", "configmap", "proxy", f"--from-literal=config.yaml={_proxy_config(namespace)}")


async def test_pod_of_a_job_ends_when_its_sidecar_is_ready(
    runner: PodRunner, kubectl: Kubectl, namespace: str, tmp_path: Path
) -> None:
    data = tmp_path / "claims" / namespace / "data-node"
    data.mkdir(parents=True)
    (data / "ready").touch()
    await _running_pod_parts(kubectl, namespace)
    await _kubectl(kubectl, "apply", "-f", "-", stdin=_pod("node-0", restartPolicy="Never"))

    async def succeeded() -> dict[str, Any] | None:
        status = await _status(kubectl, "node-0")
        return status if status["phase"] == "Succeeded" else None

    status = await _until(succeeded)
    assert _container(status, "seid")["state"]["terminated"]["exitCode"] == 0
    await _until(lambda: _sidecar_ended(runner))


async def _sidecar_ended(runner: PodRunner) -> bool:
    return all(pod.sidecar_pid is None for pod in runner.pods)
