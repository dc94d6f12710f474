"""core/v1 Events for people: equal ones raise a count, floods are cut, and a pass never waits for them."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import structlog

from seiops.kube.client import KubeClient
from seiops.kube.client.errors import ApiError
from seiops.kube.client.resource import EVENTS, Obj

LANES = 8
"""Events sent at once. All about one object go through one lane, so their order stays."""
QUEUE = 8192
"""Events waiting to be sent, over all lanes; beyond that the newest are dropped, with a line in the log. A fleet that is
created at once raises two a node while the API server is at its busiest."""
REMEMBERED = 4096
BURST, REFILL_SECONDS = 25, 300.0
"""An object may have this many Events at once, then one each REFILL_SECONDS: client-go's spam filter."""

log = structlog.get_logger("kube.events")


@dataclass(slots=True)
class _Sent:
    """What is needed to raise the count of an Event that is already stored."""

    name: str
    first: str
    count: int


@dataclass(frozen=True, slots=True)
class _Raised:
    """An Event on its way, with the time of what it tells, not of its sending."""

    event: Obj
    at: str


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float


class EventRecorder:
    """``component`` names the source. :meth:`event` returns at once; :meth:`run` sends until cancelled."""

    def __init__(self, client: KubeClient, component: str, *, field_manager: str) -> None:
        self._client = client
        self._component = component
        self._field_manager = field_manager
        self._lanes: list[asyncio.Queue[_Raised]] = [asyncio.Queue(QUEUE // LANES) for _ in range(LANES)]
        self._sent: OrderedDict[tuple[str, ...], _Sent] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    def event(self, about: Obj, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        metadata = about["metadata"]
        involved = {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        }
        if not self._may_send(f"{about['kind']}/{involved['uid']}"):
            return
        event = {"involvedObject": involved, "type": kind, "reason": reason, "message": message[:1024]}
        lane = self._lanes[hash((involved["kind"], involved["uid"])) % LANES]
        try:
            lane.put_nowait(_Raised(event, _now()))
        except asyncio.QueueFull:
            log.warning("event dropped, too many are waiting", reason=reason, object=involved["name"])

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for lane in self._lanes:
                group.create_task(self._drain(lane))

    async def _drain(self, lane: asyncio.Queue[_Raised]) -> None:
        while True:
            raised = await lane.get()
            try:
                await self._send(raised.event, raised.at)
            except ApiError as error:
                log.warning("event was not stored", reason=raised.event["reason"], error=str(error))
            finally:
                lane.task_done()

    async def flush(self, deadline: float) -> None:
        """Waits until everything raised so far has been sent, at most ``deadline`` seconds."""
        try:
            async with asyncio.timeout(deadline):
                for lane in self._lanes:
                    await lane.join()
        except TimeoutError:
            log.warning("events were left unsent", count=sum(lane.qsize() for lane in self._lanes))

    def _may_send(self, about: str) -> bool:
        now = time.monotonic()
        allowance = self._allowances.setdefault(about, _Allowance(BURST, now))
        self._allowances.move_to_end(about)
        if len(self._allowances) > REMEMBERED:
            self._allowances.popitem(last=False)
        allowance.left = min(BURST, allowance.left + (now - allowance.at) / REFILL_SECONDS)
        allowance.at = now
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True

    async def _send(self, event: Obj, now: str) -> None:
        involved = event["involvedObject"]
        same = (involved["kind"], involved["uid"], event["type"], event["reason"], event["message"])
        known = self._sent.get(same)
        if known is not None:
            raised = {"count": known.count + 1, "lastTimestamp": now}
            try:
                await self._client.patch(
                    EVENTS, known.name, involved["namespace"], raised, field_manager=self._field_manager
                )
            except ApiError as error:
                if not error.not_found:
                    raise
            else:
                known.count += 1
                self._sent.move_to_end(same)
                return
        name = f"{involved['name']}.{time.time_ns():x}"
        await self._client.create(EVENTS, self._stored(event, name, now), field_manager=self._field_manager)
        self._sent[same] = _Sent(name, now, 1)
        self._sent.move_to_end(same)
        if len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)

    def _stored(self, event: Obj, name: str, now: str) -> Obj:
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": event["involvedObject"]["namespace"] or "default"},
            **event,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
