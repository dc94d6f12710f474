"""The node's StatefulSet, brought to what spec and configuration say on every pass (2.10 of controller-behaviour.md).

Pods follow only when a plan, an eviction or a person replaces them (OnDelete).
"""

from __future__ import annotations

from seiops.api.node import SeiNode, StatefulSetRef
from seiops.controller.resources import RenderError, statefulset
from seiops.controller.world import World
from seiops.kube import ApiError, Obj
from seiops.kube.resource import STATEFUL_SETS, controller_of


class StatefulSetError(Exception):
    """The StatefulSet could not be rendered or stored; the message is the one of the Event. ``cause`` says which."""

    def __init__(self, message: str, cause: Exception) -> None:
        super().__init__(message)
        self.cause = cause


async def sync(node: SeiNode, world: World) -> bool:
    """Applies the StatefulSet and notes its identity in the status.

    False if one of that name that is not this node's had to be removed first: its end brings the next pass, which makes
    ours. Raises StatefulSetError.
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
    """Deletes a StatefulSet that has taken the name of ours, or that a deleted node of the same name left behind.

    True if there was one. Adopting the latter would keep a Pod alive that holds on to the old node's volume.
    """
    live = world.caches.stateful_sets.get((node.namespace, node.name))
    if live is None or not _is_impostor(node, live):
        return False
    uid = live["metadata"]["uid"]
    try:
        await world.client.delete(STATEFUL_SETS, node.name, node.namespace, uid=uid, propagation="Background")
    except ApiError as error:
        if not error.not_found and not error.conflict:
            raise
    node.status.stateful_set = None
    return True


def _is_impostor(node: SeiNode, live: Obj) -> bool:
    known = node.status.stateful_set
    if known is not None and live["metadata"]["uid"] != known.uid:
        return True
    owner = controller_of(live)
    return owner is not None and owner["kind"] == node.kind and owner["uid"] != node.metadata.uid
