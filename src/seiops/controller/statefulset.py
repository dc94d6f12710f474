"""The node's StatefulSet, brought to what spec and configuration say on every pass (2.10 of controller-behaviour.md).

Pods follow only when a plan, an eviction or a person replaces them (OnDelete).
"""

from __future__ import annotations

from seiops.api.names import FieldOwner
from seiops.api.node import SeiNode, StatefulSetRef
from seiops.controller.resources import RenderError, statefulset
from seiops.controller.world import LeftOverError, World
from seiops.kube import ApiError, Obj
from seiops.kube.client.resource import STATEFUL_SETS
from seiops.kube.ownership import owned_part


class StatefulSetError(Exception):
    """The StatefulSet could not be rendered or stored; the message is the one of the Event. ``cause`` says which."""

    def __init__(self, message: str, cause: Exception) -> None:
        super().__init__(message)
        self.cause = cause


async def sync(node: SeiNode, world: World) -> bool:
    """Applies the StatefulSet and notes its identity in the status.

    False if an impostor had to be removed first: its end brings the next pass, which makes ours. Raises StatefulSetError.
    """
    try:
        wanted = statefulset(node, world.settings.platform)
    except RenderError as error:
        raise StatefulSetError(f"syncing statefulset: generating statefulset: {error}", error) from error
    try:
        if await _remove_impostor(node, world):
            return False
        live = await _apply(wanted, world)
    except ApiError as error:
        raise StatefulSetError(f"syncing statefulset: applying statefulset: {error}", error) from error
    reference = StatefulSetRef(name=live["metadata"]["name"], uid=live["metadata"]["uid"])
    if node.status.stateful_set != reference:
        node.status.stateful_set = reference
    return True


async def scale(node: SeiNode, replicas: int, world: World) -> None:
    """Changes nothing but the number of replicas: what we applied last is applied again with another number, so that no
    field changes hands. Raises ApiError."""
    live = await world.client.get(STATEFUL_SETS, node.name, node.namespace)
    owned = owned_part(live, FieldOwner.NODE.value)
    if owned is None:
        return
    identity = {"name": node.name, "namespace": node.namespace}
    wanted = {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": {**owned.get("metadata", {}), **identity},
        "spec": {**owned.get("spec", {}), "replicas": replicas},
    }
    scaled = await world.client.apply(STATEFUL_SETS, wanted, field_manager=FieldOwner.NODE.value)
    world.caches.stateful_sets.record(scaled)


async def _apply(wanted: Obj, world: World) -> Obj:
    """Makes ours; one that a deleted node of the same name left behind is removed first, with its Pod."""
    try:
        return await world.ensure(STATEFUL_SETS, wanted)
    except LeftOverError as error:
        await _delete(error.live, world)
        return await world.client.apply(STATEFUL_SETS, wanted, field_manager=FieldOwner.NODE.value)


async def _remove_impostor(node: SeiNode, world: World) -> bool:
    """Deletes a StatefulSet that has taken the name of the one we made; True if there was one."""
    known = node.status.stateful_set
    live = world.caches.stateful_sets.get((node.namespace, node.name))
    if known is None or live is None or live["metadata"]["uid"] == known.uid:
        return False
    await _delete(live, world)
    node.status.stateful_set = None
    return True


async def _delete(live: Obj, world: World) -> None:
    metadata = live["metadata"]
    try:
        await world.client.delete(
            STATEFUL_SETS, metadata["name"], metadata["namespace"], uid=metadata["uid"], propagation="Background"
        )
    except ApiError as error:
        if not error.not_found and not error.conflict:
            raise
