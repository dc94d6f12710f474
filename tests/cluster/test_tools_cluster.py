"""The development tools themselves, against the real servers they start."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from seidev import processes
from seidev.cluster import CONTROLLER_ACCOUNT, CONTROLLER_NAMESPACE, Access, Cluster, Identity
from seidev.processes import ToolError
from seidev.s3 import Bucket
from support.kubectl import Kubectl
from support.waiting import until


def test_namespace_is_fresh_and_kubectl_works_in_it(kubectl: Kubectl, namespace: str) -> None:
    kubectl("create", "configmap", "here", "--from-literal=a=b")
    found = json.loads(kubectl("get", "configmap", "here", "-o", "json").stdout)
    assert found["metadata"]["namespace"] == namespace
    assert found["data"] == {"a": "b"}


def test_controller_identity_is_subject_to_rbac(cluster: Access, namespace: str, kubectl: Kubectl) -> None:
    refused = kubectl("get", "pods", identity="controller", check=False)
    assert f"system:serviceaccount:{CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}" in refused.stderr
    kubectl("create", "role", "pods", "--verb=list", "--resource=pods")
    kubectl(
        "create", "rolebinding", "pods", "--role=pods", f"--serviceaccount={CONTROLLER_NAMESPACE}:{CONTROLLER_ACCOUNT}"
    )
    until(lambda: kubectl("get", "pods", identity="controller", check=False).returncode == 0)


def test_stateful_set_controller_makes_pods(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=_STATEFUL_SET)
    until(lambda: "web-0" in kubectl("get", "pods", "-o", "name").stdout)


def test_clusters_run_side_by_side_with_identities_of_their_own(cluster: Access) -> None:
    extra = Identity("reader", "someone", ("readers",))
    with Cluster(identities=[extra], controllers=(), audit_user="someone") as second:
        assert second.access.url != cluster.url
        second.access.kubectl("create", "namespace", "only-here")
        assert cluster.kubectl("get", "namespace", "only-here", check=False).returncode == 1
        who = second.access.kubectl("auth", "whoami", "-o", "json", identity="reader").stdout
        assert json.loads(who)["status"]["userInfo"]["username"] == "someone"
        until(lambda: second.audit_log.exists() and '"username":"someone"' in second.audit_log.read_text())
        _restart_keeps_everything(second)


def _restart_keeps_everything(cluster: Cluster) -> None:
    cluster.kill_api_server()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(cluster.access.url, timeout=2, context=cluster.access.ssl_context())
    cluster.start_api_server()
    assert "only-here" in cluster.access.kubectl("get", "namespaces", "-o", "name").stdout


def test_taken_port_is_told_in_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ToolError, match=f"port {port} is in use"), Cluster(port=port, controllers=()):
            pass


def test_servers_end_when_their_owner_is_killed(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    command = [sys.executable, "-m", "seidev.cluster", "--state", str(state)]
    owner = subprocess.Popen(command, env=processes.module_environment(), start_new_session=True)
    try:
        until(state.exists, seconds=120)
        told = json.loads(state.read_text())
        scratch, pids = Path(told["access"]["directory"]), list(told["servers"].values())
        assert [processes.exists(pid) for pid in pids] == [True, True, True]
    finally:
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
    until(lambda: not any(processes.exists(pid) for pid in pids) and not scratch.exists())


def test_bucket_is_fresh_and_speaks_s3(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    from obstore.store import S3Store

    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    store = S3Store(s3.name, endpoint=s3.endpoint, client_options={"allow_http": True})
    assert s3.keys() == []
    store.put("a/b.txt", b"hello")
    assert (s3.keys(), s3.read("a/b.txt")) == (["a/b.txt"], b"hello")


def test_server_that_ends_early_is_reported_with_its_own_words(tmp_path: Path) -> None:
    never: Callable[[], bool] = lambda: False  # noqa: E731
    server = processes.Server("sad", ["sh", "-c", "echo no coffee; exit 3"], log=tmp_path / "log", ready=never)
    with pytest.raises(ToolError, match=r"sad ended with status 3 .*\n  \| no coffee"):
        server.start()


_STATEFUL_SET = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: none}]}
"""
