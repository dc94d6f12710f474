"""The story of one node: everything that is stored about it, in the order in which it happened, and what to do next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from seiops.api.meta import rfc3339
from seiops.api.names import bootstrap_job_name, pod_name
from seiops.api.status import Condition, ConditionStatus, PlannedTask
from seiops.cli.fleet.concerns import Concern, Surroundings, concerns
from seiops.cli.fleet.heights import Height, Rpc, heights
from seiops.cli.fleet.view import NodeView, view
from seiops.controller.kinds import SEI_NODES
from seiops.controller.resources import claim_name
from seiops.kube import ApiError, KubeClient, Obj, Resource
from seiops.kube.client.resource import EVENTS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS

MOST_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the story. ``about`` is the object, ``kind`` is created, condition, task or an Event's type."""

    at: datetime
    kind: str
    about: str
    what: str
    count: int = 1

    def wire(self) -> dict[str, Any]:
        found = {"at": rfc3339(self.at), "kind": self.kind, "about": self.about, "what": self.what}
        return {**found, "count": self.count} if self.count > 1 else found


@dataclass(frozen=True, slots=True)
class Story:
    view: NodeView
    height: Height | None
    timeline: list[Moment]
    concerns: list[Concern]

    def wire(self) -> dict[str, Any]:
        status = self.view.node.status
        plan = status.plan
        return {
            "node": {
                "namespace": self.view.node.namespace,
                "name": self.view.node.name,
                "chainId": self.view.chain,
                "role": self.view.role,
                "phase": self.view.phase,
                "image": self.view.node.spec.image,
                "currentImage": status.current_image,
                "syncers": status.resolved_state_syncers,
                "peers": status.resolved_peers,
                "height": self.height.latest if self.height is not None else None,
                "catchingUp": self.height.catching_up if self.height is not None else None,
            },
            "plan": self.view.step.wire() if self.view.step is not None else None,
            "tasks": [_task(task) for task in plan.tasks] if plan is not None else [],
            "conditions": [condition.wire() for condition in status.conditions],
            "timeline": [moment.wire() for moment in self.timeline],
            "concerns": [concern.wire() for concern in self.concerns],
        }


async def tell(client: KubeClient, namespace: str, name: str, rpc: Rpc | None) -> Story:
    """Reads the node and what belongs to it. Raises ApiError for the node itself; what else cannot be read is a concern."""
    found = view(await client.get(SEI_NODES, name, namespace))
    reader = _Reader(client, namespace)
    pod, claim, stateful_set, events, known = await asyncio.gather(
        reader.find(PODS, pod_name(name)),
        reader.find(PERSISTENT_VOLUME_CLAIMS, claim_name(found.node)),
        reader.find(STATEFUL_SETS, name),
        reader.events({name, pod_name(name), claim_name(found.node), bootstrap_job_name(name)}),
        heights(rpc, [found]) if rpc is not None else _nothing(),
    )
    around = Surroundings(not reader.refused, pod, claim, stateful_set, tuple(reader.refused))
    timeline = sorted(_moments(found, events), key=lambda moment: moment.at)
    return Story(found, known.get(found.key), timeline, concerns(found, around))


async def _nothing() -> dict[Any, Height]:
    return {}


class _Reader:
    """Reads that may be refused: a person may be allowed to see SeiNodes and nothing else."""

    def __init__(self, client: KubeClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.refused: list[str] = []

    async def find(self, resource: Resource, name: str) -> Obj | None:
        try:
            return await self._client.get(resource, name, self._namespace)
        except ApiError as error:
            if not error.not_found:
                self.refused.append(error.message)
            return None

    async def events(self, names: set[str]) -> list[Obj]:
        """Events about any object of these names, the newest of them if there are very many."""
        try:
            pages = [
                self._client.list(EVENTS, self._namespace, field_selector=f"involvedObject.name={name}")
                for name in sorted(names)
            ]
            found = [event for listing in await asyncio.gather(*pages) for event in listing.items]
        except ApiError as error:
            self.refused.append(error.message)
            return []
        return sorted(found, key=lambda event: _last(event) or _EPOCH)[-MOST_EVENTS:]


def _moments(found: NodeView, events: list[Obj]) -> Iterator[Moment]:
    node = found.node
    if node.metadata.creation_timestamp is not None:
        yield Moment(node.metadata.creation_timestamp, "created", node.name, f"SeiNode created, role {found.role}")
    for condition in node.status.conditions:
        if condition.last_transition_time is not None:
            yield Moment(condition.last_transition_time, "condition", condition.type, condition_text(condition))
    for task in node.status.plan.tasks if node.status.plan is not None else ():
        if task.submitted_at is not None:
            yield Moment(task.submitted_at, "task", task.type, task_text(task))
    for event in events:
        at = _last(event)
        if at is not None:
            about = f"{event['involvedObject'].get('kind', '')}/{event['involvedObject'].get('name', '')}"
            what = f"{event.get('reason', '')}: {event.get('message', '')}"
            yield Moment(at, str(event.get("type", "Normal")), about, what, int(event.get("count") or 1))


_EPOCH = datetime.fromtimestamp(0, UTC)


def _last(event: Obj) -> datetime | None:
    """When the Event last happened, in either of the two spellings of Events."""
    series = event.get("series") or {}
    text = (
        series.get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or event["metadata"].get("creationTimestamp")
    )
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")) if text else None
    except ValueError:
        return None


def condition_text(condition: Condition) -> str:
    status = "" if condition.status == ConditionStatus.TRUE.value else f" ({condition.status})"
    return f"{condition.reason}{status}: {condition.message}"


def task_text(task: PlannedTask) -> str:
    text = task.status.lower()
    if task.retry_count:
        text += f", retry {task.retry_count}"
    return f"{text}: {task.error}" if task.error else text


def _task(task: PlannedTask) -> dict[str, Any]:
    found: dict[str, Any] = {"type": task.type, "id": task.id, "status": task.status}
    if task.submitted_at is not None:
        found["submittedAt"] = rfc3339(task.submitted_at)
    if task.retry_count:
        found["retryCount"] = task.retry_count
    if task.error:
        found["error"] = task.error
    return found
