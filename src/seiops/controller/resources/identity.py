"""What ties a generated object to its node: mode, role, labels, owner.

Labels stand in selectors of live clusters and in other people's dashboards; the owner reference is what garbage
collection and our own watches go by (docs/contracts/controller-behaviour.md 5.1, 8).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from seiops.api.meta import API_VERSION
from seiops.api.names import COMPONENT_BOOTSTRAP, Annotation, Label, Role, data_claim_name
from seiops.api.node import (
    DEFAULT_SIDECAR_PORT,
    NodeKeySource,
    OperatorKeyringSecret,
    SeiNode,
    SnapshotGeneration,
    SnapshotSource,
)


class Mode(StrEnum):
    """seid's configuration mode (docs/contracts/controller-behaviour.md 3.10)."""

    FULL = "full"
    ARCHIVE = "archive"
    VALIDATOR = "validator"
    SEED = "seed"


def role(node: SeiNode) -> Role:
    """Role of the node; an object without any mode counts as a full node until the planner refuses it."""
    spec = node.spec
    by_mode = (
        (spec.validator, Role.VALIDATOR),
        (spec.archive, Role.ARCHIVE),
        (spec.replayer, Role.REPLAYER),
        (spec.seed, Role.SEED),
    )
    return next((role for sub_spec, role in by_mode if sub_spec is not None), Role.NODE)


def mode(node: SeiNode) -> Mode:
    """seid mode of the node: full nodes and replayers share one."""
    return {Role.VALIDATOR: Mode.VALIDATOR, Role.ARCHIVE: Mode.ARCHIVE, Role.SEED: Mode.SEED}.get(role(node), Mode.FULL)


def snapshot(node: SeiNode) -> SnapshotSource | None:
    """Where the node's first state comes from; None for block sync (docs/contracts/controller-behaviour.md 2.5)."""
    spec = node.spec
    for sub_spec in (spec.full_node, spec.validator, spec.replayer):
        if sub_spec is not None and sub_spec.snapshot is not None:
            return sub_spec.snapshot
    return None


def snapshot_generation(node: SeiNode) -> SnapshotGeneration | None:
    for sub_spec in (node.spec.full_node, node.spec.archive):
        if sub_spec is not None and sub_spec.snapshot_generation is not None:
            return sub_spec.snapshot_generation
    return None


def signing_key_secret(node: SeiNode) -> str:
    """Name of the Secret with the consensus key, empty if the node has none."""
    validator = node.spec.validator
    if validator is None or validator.signing_key is None or validator.signing_key.secret is None:
        return ""
    return validator.signing_key.secret.secret_name


def node_key_secret(node: SeiNode) -> str:
    """Name of the Secret with the P2P identity of a validator or seed, empty if the node has none."""
    source: NodeKeySource | None = None
    if node.spec.validator is not None:
        source = node.spec.validator.node_key
    elif node.spec.seed is not None:
        source = node.spec.seed.node_key
    return source.secret.secret_name if source is not None and source.secret is not None else ""


def operator_keyring(node: SeiNode) -> OperatorKeyringSecret | None:
    """The operator's keyring, None if the node uses the test keyring."""
    validator = node.spec.validator
    if validator is None or validator.operator_keyring is None:
        return None
    secret = validator.operator_keyring.secret
    return secret if secret is not None and secret.secret_name else None


def sidecar_port(node: SeiNode) -> int:
    return (node.spec.sidecar.port if node.spec.sidecar is not None else 0) or DEFAULT_SIDECAR_PORT


def claim_name(node: SeiNode) -> str:
    """Claim with the chain's data: the imported one or our own."""
    volume = node.spec.data_volume
    imported = volume.import_.pvc_name if volume is not None and volume.import_ is not None else ""
    return imported or data_claim_name(node.name)


def is_dedicated(node: SeiNode) -> bool:
    return node.metadata.annotations.get(Annotation.DEDICATED_NODE) == "true"


def labels(node: SeiNode) -> dict[str, str]:
    """Labels of every production object and of the Pod; the system's own win over `spec.podLabels`."""
    generation = snapshot_generation(node)
    publishes = (
        generation is not None and generation.tendermint is not None and generation.tendermint.publish is not None
    )
    return {
        **node.spec.pod_labels,
        Label.NODE.value: node.name,
        **({Label.CHAIN.value: node.spec.chain_id} if node.spec.chain_id else {}),
        Label.ROLE.value: role(node).value,
        **({Label.DEDICATED_NODE.value: "true"} if is_dedicated(node) else {}),
        **({Label.SNAPSHOT_PUBLISH.value: "true"} if publishes else {}),
    }


def selector(node: SeiNode) -> dict[str, str]:
    """The one label that never changes in a node's life."""
    return {Label.NODE.value: node.name}


def bootstrap_labels(node: SeiNode) -> dict[str, str]:
    return {Label.NODE.value: node.name, Label.COMPONENT.value: COMPONENT_BOOTSTRAP}


def metadata(node: SeiNode, name: str, object_labels: dict[str, str]) -> dict[str, Any]:
    """`metadata` of a generated object, controlled by the node."""
    return {
        "name": name,
        "namespace": node.namespace,
        "labels": object_labels,
        "ownerReferences": [owner_reference(node)],
    }


def owner_reference(node: SeiNode) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "SeiNode",
        "name": node.name,
        "uid": node.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
