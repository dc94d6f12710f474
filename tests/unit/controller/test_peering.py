"""Peers: sources united, failures kept, strangers skipped (docs/contracts/controller-behaviour.md 6)."""

from collections.abc import Mapping
from typing import Any

import pytest

from seiops.api.node import SeiNode
from seiops.controller.caches import Caches
from seiops.controller.ec2 import Ec2Error, Instance
from seiops.controller.intervals import Intervals
from seiops.controller.node_ids import NodeIds
from seiops.controller.peering import PeerResolver
from seiops.controller.sidecar_client import SidecarClient, SidecarError
from seiops.kube import Key

ID = "a" * 40


class _Sidecars(SidecarClient):
    """Answers node ids from a table and counts the questions."""

    def __init__(self, ids: dict[str, str]) -> None:
        super().__init__("/nowhere")
        self.ids, self.asked = ids, 0

    async def node_id(self, node: Key) -> str:
        self.asked += 1
        if node[1] not in self.ids:
            raise SidecarError("no")
        return self.ids[node[1]]


class _Ec2:
    def __init__(self, found: list[Instance] | None) -> None:
        self.found = found

    async def instances(self, region: str, tags: Mapping[str, str]) -> list[Instance]:
        if self.found is None:
            raise Ec2Error("denied")
        return self.found


class _Fleet:
    def __init__(self, ids: dict[str, str] | None = None, ec2: list[Instance] | None = None) -> None:
        self.caches = Caches.empty()
        self.sidecars = _Sidecars(ids or {})
        self.version = 0
        node_ids = NodeIds(self.sidecars, Intervals())
        self.resolver = PeerResolver(self.caches.nodes, self.caches.pods, node_ids, _Ec2(ec2))

    def add(self, name: str, *, pod: str | None = "Running", namespace: str = "ns", **labels: str) -> None:
        self.version += 1
        metadata = {"name": name, "namespace": namespace, "resourceVersion": str(self.version), "labels": labels}
        self.caches.nodes.observe({"apiVersion": "a", "kind": "SeiNode", "metadata": metadata, "spec": {}})
        if pod is not None:
            self.set_pod(name, pod, f"uid-{name}", namespace)

    def set_pod(self, name: str, phase: str, uid: str, namespace: str = "ns") -> None:
        self.version += 1
        metadata = {
            "name": f"{name}-0",
            "namespace": namespace,
            "uid": uid,
            "resourceVersion": str(self.version),
            "labels": {"sei.io/node": name},
        }
        self.caches.pods.observe({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": phase}})

    async def peers(self, *sources: dict[str, Any], prior: tuple[str, ...] = (), name: str = "me") -> list[str]:
        spec = {"chainId": "c", "peers": list(sources)}
        node = SeiNode.decode({"metadata": {"name": name, "namespace": "ns"}, "spec": spec})
        node.status.resolved_peers = list(prior)
        return (await self.resolver.resolve(node)).sorted()


def _label(namespace: str = "", **selector: str) -> dict[str, Any]:
    return {"label": {"selector": selector, **({"namespace": namespace} if namespace else {})}}


STATIC = {"static": {"addresses": ["z@z:1", "a@a:1", "a@a:1"]}}
EC2 = {"ec2Tags": {"region": "r", "tags": {"a": "b"}}}


async def test_sources_are_united_sorted_and_each_peer_counts_once() -> None:
    fleet = _Fleet({"b": ID})
    fleet.add("b", ring="x")
    cluster_name = f"{ID}@b-0.b.ns.svc.cluster.local:26656"
    assert await fleet.peers(STATIC, _label(ring="x"), STATIC) == sorted(["a@a:1", "z@z:1", cluster_name])


async def test_all_labels_must_match_and_the_node_itself_is_left_out() -> None:
    fleet = _Fleet({"b": ID, "c": ID, "me": ID})
    fleet.add("b", ring="x", side="left")
    fleet.add("c", ring="x", side="right")
    fleet.add("me", ring="x", side="left")
    assert await fleet.peers(_label(ring="x", side="left")) == [f"{ID}@b-0.b.ns.svc.cluster.local:26656"]


async def test_another_namespace_is_looked_at_only_if_named() -> None:
    fleet = _Fleet({"b": ID})
    fleet.add("b", namespace="other", ring="x")
    assert await fleet.peers(_label(ring="x")) == []
    assert await fleet.peers(_label("other", ring="x")) == [f"{ID}@b-0.b.other.svc.cluster.local:26656"]


async def test_an_id_is_asked_for_once_per_pod_and_survives_failures() -> None:
    fleet = _Fleet({"b": ID})
    fleet.add("b", ring="x")
    first = await fleet.peers(_label(ring="x"))
    fleet.sidecars.ids.clear()
    assert await fleet.peers(_label(ring="x")) == first
    assert fleet.sidecars.asked == 1
    fleet.set_pod("b", "Running", "another-uid")
    assert await fleet.peers(_label(ring="x"), prior=tuple(first)) == first
    assert fleet.sidecars.asked == 2


async def test_a_silent_sidecar_is_not_asked_on_every_pass() -> None:
    fleet = _Fleet()
    fleet.add("b", ring="x")
    for _ in range(5):
        assert await fleet.peers(_label(ring="x")) == []
    assert fleet.sidecars.asked == 1


async def test_a_peer_without_a_running_pod_is_not_asked_and_keeps_its_entry() -> None:
    fleet = _Fleet({"b": ID})
    fleet.add("b", pod="Pending", ring="x")
    known = f"{ID}@b-0.b.ns.svc.cluster.local:26656"
    assert await fleet.peers(_label(ring="x")) == []
    assert await fleet.peers(_label(ring="x"), prior=(known, "x@elsewhere:1")) == [known]
    assert fleet.sidecars.asked == 0


def _instance(node_id: str = ID, port: str = "", hosts: tuple[str, str, str, str] = ("h", "", "", "")) -> Instance:
    return Instance({"sei.io/node-id": node_id, "sei.io/p2p-port": port}, hosts)


@pytest.mark.parametrize(
    ("instance", "peer"),
    [
        (_instance(), f"{ID}@h:26656"),
        (_instance(port="30000"), f"{ID}@h:30000"),
        (_instance(port="+0000000000030"), f"{ID}@h:30"),
        (_instance(port="0"), f"{ID}@h:26656"),
        (_instance(port="many"), f"{ID}@h:26656"),
        (_instance(port="99999999999"), f"{ID}@h:26656"),
        (_instance(hosts=("", "1.2.3.4", "p", "q")), f"{ID}@1.2.3.4:26656"),
        (_instance(hosts=("", "", "", "10.0.0.1")), f"{ID}@10.0.0.1:26656"),
        (_instance(hosts=("", "", "", "")), None),
        (_instance(hosts=("a,b", "", "", "")), None),
        (_instance(hosts=("a b", "", "", "")), None),
        (_instance(node_id="A" * 40), None),
        (_instance(node_id=""), None),
    ],
)
async def test_ec2_instances_become_peers_or_are_skipped(instance: Instance, peer: str | None) -> None:
    assert await _Fleet(ec2=[instance]).peers(EC2) == ([peer] if peer else [])


async def test_a_failed_ec2_call_shrinks_nothing() -> None:
    fleet = _Fleet(ec2=None)
    assert await fleet.peers(EC2, STATIC, prior=("old@old:1",)) == ["a@a:1", "old@old:1", "z@z:1"]
