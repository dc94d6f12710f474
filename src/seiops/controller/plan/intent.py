"""What a plan says about seid's configuration: the intent at first start, the patch at every update.

(docs/contracts/controller-behaviour.md 3.10, 3.11)
"""

from __future__ import annotations

from typing import Any

from seiops.api.node import SeiNode
from seiops.controller.resources.identity import mode, snapshot_generation

PERSISTENT_PEERS = "network.p2p.persistent_peers"
EXTERNAL_ADDRESS = "network.p2p.external_address"

# A node that produces snapshots keeps enough history to serve them and answers many more peers than usual.
_SNAPSHOTTING_FULL_NODE = {
    "storage.pruning_keep_recent": "50000",
    "storage.pruning_keep_every": "0",
    "chain.min_retain_blocks": "50000",
    "network.p2p.max_connections": "500",
    "network.p2p.send_rate": "20971520",
    "network.p2p.recv_rate": "20971520",
}
_SNAPSHOT_INTERVAL = "2000"
_REPLAYER = {
    "storage.state_commit.async_commit_buffer": "100",
    "storage.state_commit.memiavl.snapshot_keep_recent": "2",
    "storage.state_commit.memiavl.snapshot_min_time_interval": "3600",
}


def config_intent(node: SeiNode) -> dict[str, Any]:
    """Parameters of `config-apply`: mode and overrides, of which the user's own win."""
    overrides = {**_common(node), **_by_mode(node), **node.spec.overrides}
    return {"mode": mode(node).value, "overrides": dict(sorted(overrides.items()))}


def config_patch(node: SeiNode) -> dict[str, Any]:
    """Parameters of `config-patch`. Empty texts are written too: that is how a removed peer or address leaves."""
    p2p = {"external-address": node.spec.external_address, "persistent-peers": _peers(node)}
    return {"files": {"config.toml": {"p2p": p2p}}}


def _common(node: SeiNode) -> dict[str, str]:
    address = {EXTERNAL_ADDRESS: node.spec.external_address} if node.spec.external_address else {}
    return {"logging.level": "error", PERSISTENT_PEERS: _peers(node), **address}


def _by_mode(node: SeiNode) -> dict[str, str]:
    if node.spec.replayer is not None:
        return _REPLAYER
    generation = snapshot_generation(node)
    if generation is None or generation.tendermint is None:
        return {}
    snapshots = {
        "storage.snapshot_interval": _SNAPSHOT_INTERVAL,
        "storage.snapshot_keep_recent": str(generation.tendermint.keep_recent),
    }
    return {**snapshots, **_SNAPSHOTTING_FULL_NODE} if node.spec.full_node is not None else snapshots


def _peers(node: SeiNode) -> str:
    return ",".join(node.status.resolved_peers)
