"""Bringing rendered objects to the cluster, and the Pod to its latest template.

(docs/contracts/controller-behaviour.md 4.6 to 4.8)
"""

from __future__ import annotations

from seiops.api.node import SeiNode
from seiops.controller import statefulset
from seiops.controller.resources import proxy_config, service, sidecar_image
from seiops.controller.statefulset import StatefulSetError
from seiops.controller.tasks.outcome import Outcome, Params, TaskDelayedError, TaskFailedError
from seiops.controller.world import LeftOverError, World
from seiops.kube import ApiError, Obj, Resource
from seiops.kube.client.resource import CONFIG_MAPS, PODS, SERVICES, controller_of

REVISION_LABEL = "controller-revision-hash"


async def apply_rbac_proxy_config(node: SeiNode, _: Params, world: World) -> Outcome:
    await _ensure(CONFIG_MAPS, proxy_config(node), world)
    return Outcome.DONE


async def apply_service(node: SeiNode, _: Params, world: World) -> Outcome:
    await _ensure(SERVICES, service(node), world)
    return Outcome.DONE


async def _ensure(resource: Resource, rendered: Obj, world: World) -> None:
    try:
        await world.ensure(resource, rendered)
    except LeftOverError as error:
        raise TaskDelayedError(str(error)) from error


async def apply_statefulset(node: SeiNode, _: Params, world: World) -> Outcome:
    try:
        applied = await statefulset.sync(node, world)
    except StatefulSetError as error:
        raise TaskDelayedError(str(error)) from error
    return Outcome.DONE if applied else Outcome.WAITING


async def replace_pod(node: SeiNode, _: Params, world: World) -> Outcome:
    """Deletes the Pod if it runs an older template. Blind to readiness: a node may stand halted at an upgrade height."""
    found = _observed(node, world)
    if found is None:
        return Outcome.WAITING
    status = found["status"]
    if not status.get("updateRevision"):
        return Outcome.WAITING
    if status.get("currentRevision") == status["updateRevision"]:
        return Outcome.DONE
    spec = found["spec"]
    if not (spec.get("selector") or {}).get("matchLabels"):
        raise TaskFailedError(f'statefulset "{node.name}" has no selector; cannot identify owned pods')
    if (spec.get("replicas") or 0) > 1:
        raise TaskFailedError(
            f"replace-pod does not support multi-replica StatefulSets (got replicas={spec['replicas']}); "
            "add ordinal-aware deletion before scaling up"
        )
    for pod in _pods_of(node, found, world):
        if _is_outdated(pod, status["updateRevision"]):
            await _delete(pod, world)
    return Outcome.DONE


async def observe_image(node: SeiNode, _: Params, world: World) -> Outcome:
    """Stamps the images once a Pod of the latest template exists.

    A template that changed after `replace-pod` leaves an outdated Pod behind; it is replaced here, else the plan would
    wait for ever (D22).
    """
    found = _observed(node, world)
    if found is None or found["spec"].get("replicas") is None:
        return Outcome.WAITING
    status = found["status"]
    if (status.get("updatedReplicas") or 0) < found["spec"]["replicas"]:
        for pod in _pods_of(node, found, world):
            if status.get("updateRevision") and _is_outdated(pod, status["updateRevision"]):
                await _delete(pod, world)
        return Outcome.WAITING
    node.status.current_image = node.spec.image
    node.status.current_sidecar_image = sidecar_image(node, world.settings.platform)
    return Outcome.DONE


def _observed(node: SeiNode, world: World) -> Obj | None:
    """The StatefulSet, if its controller has looked at the latest template. The cache is never older than our own apply."""
    found = world.caches.stateful_sets.get((node.namespace, node.name))
    if found is None:
        return None
    if (found.get("status") or {}).get("observedGeneration", 0) < found["metadata"]["generation"]:
        return None
    return found


def _pods_of(node: SeiNode, stateful_set: Obj, world: World) -> list[Obj]:
    uid = stateful_set["metadata"]["uid"]
    pods = world.caches.pods.by_index("node", f"{node.namespace}/{node.name}")
    return [pod for pod in pods if (owner := controller_of(pod)) is not None and owner["uid"] == uid]


def _is_outdated(pod: Obj, revision: str) -> bool:
    """A Pod of a known other revision that nobody is deleting yet."""
    of_pod = pod["metadata"]["labels"].get(REVISION_LABEL)
    return bool(of_pod) and of_pod != revision and not pod["metadata"].get("deletionTimestamp")


async def _delete(pod: Obj, world: World) -> None:
    metadata = pod["metadata"]
    try:
        await world.client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
    except ApiError as error:
        if not error.not_found and not error.conflict:
            raise
