"""Persistent peers of a node: from labels of other SeiNodes, from a fixed list, from EC2 tags.

Peers find each other here and nowhere else; nothing in this list is ever trusted as a state-sync witness. What cannot
be resolved now keeps the place it had before (docs/contracts/controller-behaviour.md 6).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from seiops.api.names import EC2_TAG_NODE_ID, EC2_TAG_P2P_PORT, Label, pod_name
from seiops.api.node import Ec2TagsPeers, LabelPeers, SeiNode
from seiops.controller.ec2 import Ec2Error, Instance
from seiops.controller.node_ids import NodeIds
from seiops.kube import Key, Obj, key_of
from seiops.kube.informer import Store

P2P_PORT = 26656
_NODE_ID = re.compile(r"[0-9a-f]{40}")
_MOST_PORT = 2**31 - 1
_PEER = re.compile(r"(?:[a-z]+://)?[0-9a-fA-F]{40}@[^@,/\s]+")


class InstanceSource(Protocol):
    async def instances(self, region: str, tags: Mapping[str, str]) -> list[Instance]:
        """Running instances with all the tags. Raises Ec2Error."""


@dataclass(slots=True)
class Peering:
    """What a node's sources gave. ``unresolved``: something is missing that may be there later without any event."""

    peers: set[str] = field(default_factory=set)
    unresolved: bool = False

    def sorted(self) -> list[str]:
        return sorted(self.peers)


class PeerResolver:
    """Reads other nodes and their Pods from the caches, node ids through :class:`NodeIds`, instances from EC2."""

    def __init__(self, nodes: Store, pods: Store, node_ids: NodeIds, ec2: InstanceSource) -> None:
        self._nodes = nodes
        self._pods = pods
        self._node_ids = node_ids
        self._ec2 = ec2

    async def resolve(self, node: SeiNode) -> Peering:
        """All peers of the node: sorted, each once. Never raises; what fails keeps its prior entry."""
        prior = node.status.resolved_peers
        by_address = {peer.partition("@")[2]: peer for peer in prior if "@" in peer}
        found = Peering()
        for source in node.spec.peers:
            if source.label is not None:
                await self._add_labelled(node, source.label, by_address, found)
            elif source.static is not None:
                found.peers.update(source.static.addresses)
            elif source.ec2_tags is not None:
                await self._add_instances(source.ec2_tags, prior, found)
        return found

    async def _add_labelled(
        self, node: SeiNode, source: LabelPeers, by_address: Mapping[str, str], found: Peering
    ) -> None:
        others = [
            other
            for other in matching(self._nodes, source.namespace or node.namespace, source.selector)
            if key_of(other) != (node.namespace, node.name)
        ]
        ids = await asyncio.gather(*(self._node_ids.of(key_of(other), self._pod_of(other)) for other in others))
        for other, node_id in zip(others, ids, strict=True):
            address = address_of(other)
            if node_id is not None:
                found.peers.add(f"{node_id}@{address}")
                continue
            found.unresolved = True
            if address in by_address:
                found.peers.add(by_address[address])

    def _pod_of(self, other: Obj) -> Obj | None:
        """The Pod that answers for the node: its StatefulSet's, or the bootstrap Job's."""
        namespace, name = key_of(other)
        pod = self._pods.get((namespace, pod_name(name)))
        if pod is not None:
            return pod
        by_label = self._pods.by_index("node", f"{namespace}/{name}")
        return by_label[-1] if by_label else None

    async def _add_instances(self, source: Ec2TagsPeers, prior: list[str], found: Peering) -> None:
        # Instances come and go without any event here, so a node with this source is looked at regularly.
        found.unresolved = True
        try:
            instances = await self._ec2.instances(source.region, source.tags)
        except Ec2Error:
            found.peers.update(prior)
            return
        found.peers.update(peer for peer in map(_instance_peer, instances) if peer is not None)


def static_problems(node: SeiNode) -> list[str]:
    """Addresses of the fixed lists that seid cannot read, each with its path. They are handed on all the same, as written:
    the node's owner decides (docs/contracts/controller-api.md, condition SpecValid)."""
    return [
        f"spec.peers[{i}].static.addresses[{j}]: {address!r} is not NODE_ID@HOST:PORT with a node id of 40 hex digits"
        for i, source in enumerate(node.spec.peers)
        if source.static is not None
        for j, address in enumerate(source.static.addresses)
        if _PEER.fullmatch(address) is None
    ]


def matching(nodes: Store, namespace: str, selector: Mapping[str, str]) -> list[Obj]:
    """SeiNodes of the namespace that carry all labels of the selector."""
    if not selector:
        return []
    first = next(iter(sorted(selector.items())))
    return [
        other
        for other in nodes.by_index("label", label_key(namespace, *first))
        if all((other["metadata"].get("labels") or {}).get(name) == value for name, value in selector.items())
    ]


def label_key(namespace: str, name: str, value: str) -> str:
    """How the index ``label`` of the nodes' store names one label pair in one namespace."""
    return f"{namespace}/{name}={value}"


def label_keys(obj: Obj) -> list[str]:
    """Indexer of SeiNodes by their labels."""
    namespace, _ = key_of(obj)
    return [label_key(namespace, name, str(value)) for name, value in (obj["metadata"].get("labels") or {}).items()]


def wanted_label_keys(obj: Obj) -> list[str]:
    """Indexer of SeiNodes by the label pairs their peer sources ask for: who must look again when such a node changes."""
    spec = obj.get("spec")
    sources = spec.get("peers") if isinstance(spec, dict) else None
    keys = []
    for source in sources if isinstance(sources, list) else ():
        label = source.get("label") if isinstance(source, dict) else None
        if isinstance(label, dict) and isinstance(label.get("selector"), dict) and label["selector"]:
            first = next(iter(sorted(label["selector"].items())))
            keys.append(label_key(label.get("namespace") or key_of(obj)[0], *first))
    return keys


def node_of_pod(pod: Obj) -> Key | None:
    """The node a Pod belongs to, by its label."""
    namespace, _ = key_of(pod)
    name = (pod["metadata"].get("labels") or {}).get(Label.NODE.value)
    return (namespace, name) if name else None


def pod_node_keys(pod: Obj) -> list[str]:
    """Indexer of Pods by node."""
    node = node_of_pod(pod)
    return [f"{node[0]}/{node[1]}"] if node else []


def address_of(other: Obj) -> str:
    """host:port under which others reach a node: what it advertises, else its name inside the cluster."""
    spec = other.get("spec")
    external = spec.get("externalAddress") if isinstance(spec, dict) else None
    if external:
        return str(external)
    namespace, name = key_of(other)
    return f"{pod_name(name)}.{name}.{namespace}.svc.cluster.local:{P2P_PORT}"


def _instance_peer(instance: Instance) -> str | None:
    """The peer an instance tells about itself, None if its tags or addresses cannot be used (6.2)."""
    node_id = instance.tags.get(EC2_TAG_NODE_ID, "")
    host = next((name for name in instance.hosts if name), "")
    if _NODE_ID.fullmatch(node_id) is None or not host or "," in host or any(c <= " " or c == "\x7f" for c in host):
        return None
    given = instance.tags.get(EC2_TAG_P2P_PORT, "")
    port = int(given) if re.fullmatch(r"\+?0*[0-9]{1,10}", given) and 0 < int(given) <= _MOST_PORT else P2P_PORT
    return f"{node_id}@{host}:{port}"
