"""The node's StatefulSet, brought to what spec and configuration say on every pass (2.10 of controller-behaviour.md).

Pods follow only when a plan, an eviction or a person replaces them (OnDelete).
"""

from __future__ import annotations

from seiops.api.node import SeiNode, StatefulSetRef
from seiops.controller.resources import RenderError, statefulset
from seiops.controller.world import World
from seiops.kube import ApiError
from seiops.kube.resource import STATEFUL_SETS


class StatefulSetError(Exception):
    """The StatefulSet could not be rendered or stored; the message is the one of the Event. ``cause`` says which."""

    def __init__(self, message: str, cause: Exception) -> None:
        super().__init__(message)
        self.cause = cause


async def sync(node: SeiNode, world: World) -> bool:
    """Applies the StatefulSet and notes its identity in the status.

    False if one of that name with another UID had to be removed first: the next pass makes ours. Raises StatefulSetError.
    """
    try:
        wanted = statefulset(node, world.settings.platform)
    except RenderError as error:
        raise StatefulSetError(f"syncing statefulset: generating statefulset: {error}", error) from error
    try:
        if await _remove_impostor(node, world):
            return False
        live = await world.ensure(STATEFUL_SETS, wanted)
    except ApiError as error:
        raise StatefulSetError(f"syncing statefulset: applying statefulset: {error}", error) from error
    reference = StatefulSetRef(name=live["metadata"]["name"], uid=live["metadata"]["uid"])
    if node.status.stateful_set != reference:
        node.status.stateful_set = reference
    return True


async def _remove_impostor(node: SeiNode, world: World) -> bool:
    """Deletes a StatefulSet that has taken the name of the one we made; True if there was one."""
    known = node.status.stateful_set
    live = world.caches.stateful_sets.get((node.namespace, node.name))
    if known is None or live is None or live["metadata"]["uid"] == known.uid:
        return False
    uid = live["metadata"]["uid"]
    try:
        await world.client.delete(STATEFUL_SETS, node.name, node.namespace, uid=uid, propagation="Background")
    except ApiError as error:
        if not error.not_found:
            raise
    node.status.stateful_set = None
    return True
