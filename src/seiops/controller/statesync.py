"""The gate before state sync: no plan without two witnesses that somebody vouched for.

The witnesses come from the node's own spec or from the curated registry in the config file, never from peers. The gate
fails closed: an unreadable registry blocks like an empty one (docs/contracts/controller-behaviour.md 2.5).
"""

from __future__ import annotations

from typing import Protocol

from seiops.api.node import NodeCondition, SeiNode, StateSyncReason
from seiops.api.status import Condition, ConditionStatus, NodePhase
from seiops.controller.appconfig import SyncerSourceError
from seiops.controller.conditions import FALSE, TRUE, UNKNOWN, condition, set_condition
from seiops.controller.resources import snapshot

MINIMUM_WITNESSES = 2

BLOCKING_REASONS = (StateSyncReason.NO_SYNCERS_CONFIGURED, StateSyncReason.SYNCER_SOURCE_ERROR)


class SyncerSource(Protocol):
    def syncers(self, chain_id: str) -> list[str]:
        """Canonical syncers of a chain, sorted, each once. Raises SyncerSourceError."""


def resolve(node: SeiNode, source: SyncerSource) -> None:
    """Sets `StateSyncReady` and `resolvedStateSyncers` from what is known now."""
    bootstrap = snapshot(node)
    chain = node.spec.chain_id
    if bootstrap is None:
        _close(node, FALSE, StateSyncReason.NOT_APPLICABLE, "node does not bootstrap from a snapshot")
        return
    declared = sorted(set(bootstrap.rpc_servers))
    if len(declared) >= MINIMUM_WITNESSES:
        _open(node, declared, f'{len(declared)} rpc-servers declared on spec for chain "{chain}"')
        return
    try:
        registered = source.syncers(chain)
    except SyncerSourceError as error:
        message = f'reading canonical-syncer source for chain "{chain}": {error}'
        _close(node, UNKNOWN, StateSyncReason.SYNCER_SOURCE_ERROR, message)
        return
    if len(registered) < MINIMUM_WITNESSES:
        message = (
            f'state sync requires >=2 canonical syncers configured for chain "{chain}"; found {len(registered)} — '
            "register syncers for the chain in the controller config, or declare >=2 "
            "spec.fullNode.snapshot.rpcServers on the SeiNode"
        )
        _close(node, FALSE, StateSyncReason.NO_SYNCERS_CONFIGURED, message)
        return
    _open(node, registered, f'{len(registered)} canonical syncers configured for chain "{chain}"')


def blocks_plan(node: SeiNode) -> bool:
    """No plan may be built: the node has not run yet, needs witnesses, and does not have them."""
    if node.status.phase == NodePhase.RUNNING.value or snapshot(node) is None:
        return False
    found = condition(node, NodeCondition.STATE_SYNC_READY)
    return found is not None and found.status != TRUE.value


def is_blocked(found: Condition | None) -> bool:
    """The condition says that witnesses are missing."""
    return found is not None and found.status != TRUE.value and found.reason in BLOCKING_REASONS


def reads_registry(node: SeiNode) -> bool:
    """The node's witnesses depend on the config file."""
    bootstrap = snapshot(node)
    return bootstrap is not None and len(set(bootstrap.rpc_servers)) < MINIMUM_WITNESSES


def _open(node: SeiNode, witnesses: list[str], message: str) -> None:
    node.status.resolved_state_syncers = witnesses
    set_condition(node, NodeCondition.STATE_SYNC_READY, TRUE, StateSyncReason.READY, message)


def _close(node: SeiNode, status: ConditionStatus, reason: StateSyncReason, message: str) -> None:
    node.status.resolved_state_syncers = []
    set_condition(node, NodeCondition.STATE_SYNC_READY, status, reason, message)
