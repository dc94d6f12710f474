"""The bootstrap Job: an older image brings the volume to a height before the node's own Pod takes it over.

(docs/contracts/controller-behaviour.md 4.9, 5.10, 5.11)
"""

from __future__ import annotations

from seiops.api.names import FieldOwner, bootstrap_job_name
from seiops.api.node import SeiNode
from seiops.controller.resources import RenderError, bootstrap_job, bootstrap_service
from seiops.controller.tasks.outcome import Outcome, Params, TaskFailedError
from seiops.controller.world import World
from seiops.kube import ApiError, Obj, Resource
from seiops.kube.client.requests import Propagation
from seiops.kube.client.resource import JOBS, SERVICES


async def deploy_bootstrap_service(node: SeiNode, _: Params, world: World) -> Outcome:
    await _create(SERVICES, bootstrap_service(node), world)
    return Outcome.DONE


async def deploy_bootstrap_job(node: SeiNode, _: Params, world: World) -> Outcome:
    try:
        job = bootstrap_job(node, world.settings.platform)
    except RenderError as error:
        raise TaskFailedError(str(error)) from error
    await _create(JOBS, job, world)
    return Outcome.DONE


async def await_bootstrap_complete(node: SeiNode, _: Params, world: World) -> Outcome:
    name = bootstrap_job_name(node.name)
    job = world.caches.jobs.get((node.namespace, name))
    if job is None:
        job = await _live(JOBS, name, node.namespace, world)
        if job is None:
            raise TaskFailedError(f"bootstrap job {name} not found")
    conditions = {
        condition["type"]: condition
        for condition in (job.get("status") or {}).get("conditions") or ()
        if condition.get("status") == "True"
    }
    if "Complete" in conditions:
        return Outcome.DONE
    if "Failed" in conditions:
        raise TaskFailedError(f"bootstrap job failed: {conditions['Failed'].get('message') or 'bootstrap job failed'}")
    return Outcome.WAITING


async def teardown_bootstrap(node: SeiNode, _: Params, world: World) -> Outcome:
    """Removes both objects and does not wait: the production Service of the same name is applied over what is left."""
    await _remove(JOBS, bootstrap_job_name(node.name), node.namespace, "Foreground", world)
    await _remove(SERVICES, node.name, node.namespace, None, world)
    return Outcome.DONE


async def _create(resource: Resource, obj: Obj, world: World) -> None:
    try:
        created = await world.client.create(resource, obj, field_manager=FieldOwner.MANAGER.value)
    except ApiError as error:
        if not error.already_exists:
            raise
    else:
        world.caches.of(resource).record(created)


async def _live(resource: Resource, name: str, namespace: str, world: World) -> Obj | None:
    try:
        return await world.client.get(resource, name, namespace)
    except ApiError as error:
        if error.not_found:
            return None
        raise


async def _remove(resource: Resource, name: str, namespace: str, propagation: Propagation | None, world: World) -> None:
    try:
        await world.client.delete(resource, name, namespace, propagation=propagation)
    except ApiError as error:
        if not error.not_found:
            raise
