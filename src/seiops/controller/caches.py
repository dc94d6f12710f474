"""What the controller keeps of the cluster: one informer a kind, cut down to what a pass reads.

Whole objects of a thousand nodes would be hundreds of megabytes. Of owned objects only identity, status and a
fingerprint of the fields we own stay; the fingerprint tells whether an apply would change anything (ruling 12).
Secrets are not kept at all: they are read by name when a task needs one (ruling 14).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from seiops.api.meta import GROUP
from seiops.api.names import FieldOwner, Label
from seiops.controller.kinds import SEI_NODES
from seiops.controller.peering import label_keys, pod_node_keys, wanted_label_keys
from seiops.kube import Key, KubeClient, Obj, Resource, owner_key
from seiops.kube.client.resource import (
    CONFIG_MAPS,
    JOBS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
)
from seiops.kube.informer import Informer, Store
from seiops.kube.ownership import owned_part

FINGERPRINT = "fingerprint"
"""Key under which a kept object carries the fingerprint of what we own of it."""


def fingerprint(part: Any) -> str:
    return hashlib.blake2b(orjson.dumps(part, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def rendered_fingerprint(rendered: Obj) -> str:
    """Of an object as we would apply it: all of it but what only names it."""
    metadata = {name: value for name, value in rendered["metadata"].items() if name not in ("name", "namespace")}
    body = {name: value for name, value in rendered.items() if name not in ("apiVersion", "kind", "metadata")}
    return fingerprint({**body, "metadata": metadata})


_IDENTITY = ("name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp", "ownerReferences")


def keep_owned(obj: Obj) -> Obj:
    """Of StatefulSets, Services, ConfigMaps, Jobs and claims."""
    kept = _head(obj)
    if obj["kind"] == STATEFUL_SETS.kind:
        spec = obj.get("spec") or {}
        kept["spec"] = {"replicas": spec.get("replicas"), "selector": spec.get("selector")}
    if "status" in obj and obj["kind"] != SERVICES.kind:
        kept["status"] = obj["status"]
    owned = owned_part(obj, FieldOwner.NODE.value)
    kept[FINGERPRINT] = fingerprint(owned) if owned is not None else ""
    return kept


def keep_node(obj: Obj) -> Obj:
    """All of a SeiNode but the bookkeeping of field managers."""
    metadata = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    return {**obj, "metadata": metadata}


def keep_pod(obj: Obj) -> Obj:
    kept = _head(obj)
    labels = obj["metadata"].get("labels") or {}
    wanted = (Label.NODE.value, Label.COMPONENT.value, "controller-revision-hash")
    kept["metadata"]["labels"] = {name: labels[name] for name in wanted if name in labels}
    status = obj.get("status") or {}
    ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    kept["status"] = {"phase": status.get("phase"), "ready": ready}
    return kept


def _head(obj: Obj) -> Obj:
    metadata = {name: obj["metadata"][name] for name in _IDENTITY if name in obj["metadata"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata}


def owning_node(obj: Obj) -> Key | None:
    """Key of the SeiNode that controls the object."""
    return owner_key(obj, SEI_NODES.kind, GROUP)


@dataclass(frozen=True, slots=True)
class Caches:
    """One store a kind. Objects in them are cut down (see the keepers above) and must not be changed."""

    nodes: Store
    stateful_sets: Store
    services: Store
    config_maps: Store
    claims: Store
    jobs: Store
    pods: Store

    @classmethod
    def empty(cls) -> Caches:
        return cls(
            nodes=Store(keep_node, {"label": label_keys, "wants": wanted_label_keys, "chain": _chain}),
            stateful_sets=Store(keep_owned),
            services=Store(keep_owned),
            config_maps=Store(keep_owned),
            claims=Store(keep_owned),
            jobs=Store(keep_owned),
            pods=Store(keep_pod, {"node": pod_node_keys}),
        )

    def of(self, resource: Resource) -> Store:
        """The store of an owned kind."""
        return dict(self.owned())[resource]

    def owned(self) -> tuple[tuple[Resource, Store], ...]:
        """Kinds whose objects a SeiNode controls."""
        return (
            (STATEFUL_SETS, self.stateful_sets),
            (SERVICES, self.services),
            (CONFIG_MAPS, self.config_maps),
            (PERSISTENT_VOLUME_CLAIMS, self.claims),
            (JOBS, self.jobs),
        )

    def informers(self, client: KubeClient, namespaces: Sequence[str]) -> list[Informer]:
        """Of every kind, in the given namespaces or, if there are none, in all."""
        ours = Label.NODE.value
        kinds = [(SEI_NODES, self.nodes, None), (PODS, self.pods, ours)]
        kinds += [(resource, store, ours) for resource, store in self.owned()]
        return [
            Informer(client, resource, store, namespace=namespace, label_selector=selector)
            for resource, store, selector in kinds
            for namespace in (namespaces or (None,))
        ]


def _chain(obj: Obj) -> list[str]:
    spec = obj.get("spec")
    chain = spec.get("chainId") if isinstance(spec, dict) else None
    return [chain] if isinstance(chain, str) else []
