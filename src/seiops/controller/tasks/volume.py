"""`ensure-data-pvc`: the node's data volume, made by us or brought by somebody else.

(docs/contracts/controller-behaviour.md 4.1, 4.2)
"""

from __future__ import annotations

from collections.abc import Iterator

from seiops.api.names import FieldOwner
from seiops.api.node import ImportPVCReason, NodeCondition, SeiNode
from seiops.controller import quantity
from seiops.controller.conditions import FALSE, TRUE, set_condition
from seiops.controller.resources import RenderError, claim_name, data_pvc, storage
from seiops.controller.tasks.outcome import Outcome, Params, TaskDelayedError, TaskFailedError
from seiops.controller.world import World
from seiops.kube import ApiError, Obj
from seiops.kube.client.resource import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, controller_of

SINGLE_WRITER = ("ReadWriteOnce", "ReadWriteOncePod")


async def ensure_data_pvc(node: SeiNode, _: Params, world: World) -> Outcome:
    volume = node.spec.data_volume
    if volume is not None and volume.import_ is not None and volume.import_.pvc_name:
        return await _check_imported(node, volume.import_.pvc_name, world)
    return await _create(node, world)


async def _create(node: SeiNode, world: World) -> Outcome:
    store = world.caches.claims
    name = claim_name(node)
    existing = store.get((node.namespace, name))
    if existing is None:
        try:
            wanted = data_pvc(node, world.settings.platform)
        except RenderError as error:
            raise TaskFailedError(str(error)) from error
        try:
            claim = await world.client.create(PERSISTENT_VOLUME_CLAIMS, wanted, field_manager=FieldOwner.MANAGER.value)
        except ApiError as error:
            if not error.already_exists:
                raise
            existing = await world.client.get(PERSISTENT_VOLUME_CLAIMS, name, node.namespace)
        else:
            store.record(claim)
            return Outcome.DONE
    owner = controller_of(existing)
    if owner is not None and owner["uid"] == node.metadata.uid:
        return Outcome.DONE
    if existing["metadata"].get("deletionTimestamp"):
        # The claim of a deleted node of the same name; it goes away once its Pod does.
        raise TaskDelayedError(f'data PVC "{name}" of an earlier object is still being deleted')
    raise TaskFailedError(
        f'data PVC "{name}" already exists and is not owned by SeiNode "{node.name}"; '
        "set spec.dataVolume.import.pvcName to adopt, or delete the PVC"
    )


async def _check_imported(node: SeiNode, name: str, world: World) -> Outcome:
    try:
        claim = await _get(world, name, node.namespace)
        for refusal in _claim_refusals(node, name, claim, world):
            raise refusal
        assert claim is not None
        volume = await _volume_of(world, claim)
        for refusal in _volume_refusals(name, claim, volume):
            raise refusal
    except TaskDelayedError as error:
        _set(node, False, ImportPVCReason.NOT_READY, str(error))
        return Outcome.WAITING
    except TaskFailedError as error:
        _set(node, False, ImportPVCReason.INVALID, str(error))
        raise
    _set(node, True, ImportPVCReason.VALIDATED, f'PVC "{name}" passes all import requirements')
    return Outcome.DONE


def _set(node: SeiNode, ready: bool, reason: ImportPVCReason, message: str) -> None:
    set_condition(node, NodeCondition.IMPORT_PVC_READY, TRUE if ready else FALSE, reason, message)


async def _get(world: World, name: str, namespace: str) -> Obj | None:
    try:
        return await world.client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace)
    except ApiError as error:
        if error.not_found:
            return None
        raise


async def _volume_of(world: World, claim: Obj) -> Obj | None:
    try:
        return await world.client.get(PERSISTENT_VOLUMES, claim["spec"]["volumeName"])
    except ApiError as error:
        if error.not_found:
            return None
        raise


def _claim_refusals(
    node: SeiNode, name: str, claim: Obj | None, world: World
) -> Iterator[TaskDelayedError | TaskFailedError]:
    """Checks 1 to 9 of 4.2, in order."""
    if claim is None:
        yield TaskDelayedError(f'PVC "{name}" not found in namespace "{node.namespace}"')
        return
    status, spec = claim.get("status") or {}, claim["spec"]
    phase = status.get("phase", "")
    deleted = claim["metadata"].get("deletionTimestamp")
    if deleted:
        yield TaskDelayedError(f'PVC "{name}" is being deleted (deletionTimestamp={deleted})')
    if phase == "Lost":
        yield TaskFailedError(f'PVC "{name}" phase is Lost; underlying PV is gone')
    if phase != "Bound":
        yield TaskDelayedError(f'PVC "{name}" phase is "{phase}", waiting for Bound')
    modes = spec.get("accessModes") or []
    if not any(mode in SINGLE_WRITER for mode in modes):
        yield TaskFailedError(
            f'PVC "{name}" accessModes [{" ".join(modes)}] must include ReadWriteOnce or ReadWriteOncePod'
        )
    try:
        required = quantity.parse(storage(node, world.settings.platform)[1])
    except (RenderError, quantity.QuantityError) as error:
        yield TaskFailedError(f"cannot parse required storage: {error}")
        return
    capacity = (status.get("capacity") or {}).get("storage")
    if capacity is None:
        yield TaskDelayedError(f'PVC "{name}" has no status.capacity.storage reported yet')
        return
    if quantity.parse(str(capacity)).amount < required.amount:
        yield TaskFailedError(f'PVC "{name}" capacity {capacity} is less than required {required}')
    if not spec.get("volumeName"):
        yield TaskDelayedError(f'PVC "{name}" is Bound but has no spec.volumeName')


def _volume_refusals(name: str, claim: Obj, volume: Obj | None) -> Iterator[TaskDelayedError | TaskFailedError]:
    """Checks 10 to 12 of 4.2, in order."""
    volume_name = claim["spec"]["volumeName"]
    if volume is None:
        yield TaskDelayedError(f'underlying PV "{volume_name}" for PVC "{name}" not found')
        return
    if (volume.get("status") or {}).get("phase") == "Failed":
        yield TaskFailedError(f'underlying PV "{volume_name}" for PVC "{name}" is in phase Failed')
    held = str((volume["spec"].get("capacity") or {}).get("storage", "0"))
    claimed = str(claim["status"]["capacity"]["storage"])
    if quantity.parse(held).amount != quantity.parse(claimed).amount:
        yield TaskFailedError(
            f'underlying PV "{volume_name}" capacity {held} does not match PVC "{name}" capacity {claimed}'
        )
