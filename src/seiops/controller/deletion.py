"""The end of a node: its own volume goes, an imported one stays, everything else goes by owner reference.

Works on the stored document, not on the model, so that an object nobody can decode can still be deleted
(docs/contracts/controller-behaviour.md 2.9; D3, D27).
"""

from __future__ import annotations

from typing import Any

from seiops.api.names import FieldOwner, Finalizer, data_claim_name
from seiops.api.status import NodePhase
from seiops.controller.kinds import SEI_NODE_TASK_WORKFLOWS, SEI_NODES
from seiops.controller.world import World
from seiops.kube import ApiError, Obj, Resource, key_of
from seiops.kube.client.resource import PERSISTENT_VOLUME_CLAIMS, controller_of

MANAGER = FieldOwner.MANAGER.value


async def finalize(raw: Obj, world: World) -> None:
    """Runs the deletion of a SeiNode whose deletion timestamp is set. Can be repeated from any point. Raises ApiError."""
    if Finalizer.NODE.value not in (raw["metadata"].get("finalizers") or ()):
        return
    namespace, name = key_of(raw)
    raw = await _mark_terminating(raw, world)
    if not _imports_volume(raw):
        await _delete_own_claim(raw, world)
    await _release_workflows(namespace, name, world)
    world.metrics.forget(namespace, name)
    world.memory.forget((namespace, name))
    await _drop_finalizer(SEI_NODES, raw, Finalizer.NODE.value, world)


async def _mark_terminating(raw: Obj, world: World) -> Obj:
    if (raw.get("status") or {}).get("phase") == NodePhase.TERMINATING.value:
        return raw
    namespace, name = key_of(raw)
    marked = await world.client.patch(
        SEI_NODES,
        name,
        namespace,
        {"status": {"phase": NodePhase.TERMINATING.value}},
        field_manager=MANAGER,
        subresource="status",
        resource_version=raw["metadata"]["resourceVersion"],
    )
    world.caches.nodes.record(marked)
    return marked


def _imports_volume(raw: Obj) -> bool:
    value: Any = raw
    for name in ("spec", "dataVolume", "import", "pvcName"):
        value = value.get(name) if isinstance(value, dict) else None
    return bool(value)


async def _delete_own_claim(raw: Obj, world: World) -> None:
    """Only a claim that this very node controls: another one of the same name is somebody's data (D3)."""
    namespace, name = key_of(raw)
    claim = world.caches.claims.get((namespace, data_claim_name(name)))
    owner = controller_of(claim) if claim is not None else None
    if claim is None or owner is None or owner["uid"] != raw["metadata"]["uid"]:
        return
    if claim["metadata"].get("deletionTimestamp"):
        return
    await _tolerating_absence(
        world.client.delete(
            PERSISTENT_VOLUME_CLAIMS, claim["metadata"]["name"], namespace, uid=claim["metadata"]["uid"]
        )
    )


async def _release_workflows(namespace: str, name: str, world: World) -> None:
    """Workflows aimed at the node would wait for ever for somebody to let them go."""
    for workflow in (await world.client.list(SEI_NODE_TASK_WORKFLOWS, namespace)).items:
        target = ((workflow.get("spec") or {}).get("target") or {}).get("nodeRef") or {}
        if target.get("name") == name and Finalizer.WORKFLOW.value in (workflow["metadata"].get("finalizers") or ()):
            await _drop_finalizer(SEI_NODE_TASK_WORKFLOWS, workflow, Finalizer.WORKFLOW.value, world)


async def _drop_finalizer(resource: Resource, obj: Obj, finalizer: str, world: World) -> None:
    metadata = obj["metadata"]
    kept = [name for name in metadata["finalizers"] if name != finalizer]
    await _tolerating_absence(
        world.client.patch(
            resource,
            metadata["name"],
            metadata["namespace"],
            {"metadata": {"finalizers": kept or None}},
            field_manager=MANAGER,
            resource_version=metadata["resourceVersion"],
        )
    )


async def _tolerating_absence(call: Any) -> None:
    try:
        await call
    except ApiError as error:
        if not error.not_found:
            raise
