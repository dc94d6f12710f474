"""Leader election, events, and workers against the real API server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry

from seidev.cluster import Access
from seiops.kube import ApiError, Key, KubeClient, from_kubeconfig
from seiops.kube import events as events_module
from seiops.kube import leader as leader_module
from seiops.kube.client.resource import CONFIG_MAPS, EVENTS, LEASES, key_of
from seiops.kube.events import EventRecorder
from seiops.kube.informer import Informer, Store
from seiops.kube.leader import LeaderElector
from seiops.kube.manager import Controller, ExpectedError, Manager, RuntimeMetrics
from support.reaching import reach


@pytest.fixture
async def client(cluster: Access) -> AsyncIterator[KubeClient]:
    async with KubeClient(from_kubeconfig(cluster.kubeconfig())) as client:
        yield client


async def _holder(client: KubeClient, namespace: str) -> str:
    return str((await client.get(LEASES, "l", namespace))["spec"].get("holderIdentity") or "")


async def test_only_one_leads_and_a_release_lets_the_next_in_at_once(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "RETRY", 0.05)
    first = LeaderElector(client, namespace, "l", field_manager="test")
    second = LeaderElector(client, namespace, "l", field_manager="test")
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    holding = asyncio.create_task(first.hold())
    done, _ = await asyncio.wait([waiting, holding], timeout=1.0)
    assert not done
    assert await _holder(client, namespace) == first.identity
    holding.cancel()
    await first.release()
    await asyncio.wait_for(waiting, 10)
    lease = await client.get(LEASES, "l", namespace)
    assert lease["spec"]["holderIdentity"] == second.identity
    assert lease["spec"]["leaseTransitions"] == 1


async def test_a_lease_that_nobody_renews_is_taken_over_after_its_duration(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "RETRY", 0.05)
    monkeypatch.setattr(leader_module, "LEASE_DURATION", 1)
    crashed = LeaderElector(client, namespace, "l", field_manager="test")
    await crashed.acquire()
    heir = LeaderElector(client, namespace, "l", field_manager="test")
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(heir.acquire(), 20)
    assert asyncio.get_running_loop().time() - began >= 1.0
    assert await _holder(client, namespace) == heir.identity


async def test_a_leader_whose_lease_was_taken_steps_down(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leader_module, "RETRY", 0.05)
    elector = LeaderElector(client, namespace, "l", field_manager="test")
    await elector.acquire()
    holding = asyncio.create_task(elector.hold())
    await client.patch(LEASES, "l", namespace, {"spec": {"holderIdentity": "usurper"}}, field_manager="x")
    await asyncio.wait_for(holding, 10)
    await elector.release()
    assert await _holder(client, namespace) == "usurper"


async def test_equal_events_raise_a_count_and_different_ones_do_not(client: KubeClient, namespace: str) -> None:
    about = await client.create(
        CONFIG_MAPS,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}},
        field_manager="test",
    )
    recorder = EventRecorder(client, "test-controller", field_manager="test")
    running = asyncio.create_task(recorder.run())
    for message in ("one", "one", "two", "one"):
        recorder.event(about, "Warning", "Tested", message)
    await recorder.flush(20)
    running.cancel()
    found = {event["message"]: event for event in (await client.list(EVENTS, namespace)).items}
    assert {message: event["count"] for message, event in found.items()} == {"one": 3, "two": 1}
    assert found["one"]["source"] == {"component": "test-controller"}
    assert found["one"]["reportingComponent"] == "test-controller"
    assert found["one"]["involvedObject"]["uid"] == about["metadata"]["uid"]


async def test_a_flood_of_events_about_one_object_is_cut(client: KubeClient, namespace: str) -> None:
    about = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace, "uid": "u"}}
    recorder = EventRecorder(client, "test-controller", field_manager="test")
    running = asyncio.create_task(recorder.run())
    for number in range(100):
        recorder.event(about, "Normal", "Flood", f"message {number}")
    await recorder.flush(30)
    running.cancel()
    assert len((await client.list(EVENTS, namespace)).items) == 25


async def test_events_keep_order_and_an_event_deleted_meanwhile_is_made_anew(
    client: KubeClient, namespace: str
) -> None:
    about = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace, "uid": "u"}}
    recorder = EventRecorder(client, "test-controller", field_manager="test")
    running = asyncio.create_task(recorder.run())
    recorder.event(about, "Normal", "R", "m")
    await recorder.flush(20)
    (first,) = (await client.list(EVENTS, namespace)).items
    await client.delete(EVENTS, first["metadata"]["name"], namespace)
    recorder.event(about, "Normal", "R", "m")
    await recorder.flush(20)
    running.cancel()
    (second,) = (await client.list(EVENTS, namespace)).items
    assert second["count"] == 1


async def test_a_burst_about_many_objects_loses_nothing_and_tells_when_it_happened(
    client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = EventRecorder(client, "test-controller", field_manager="test")
    monkeypatch.setattr(events_module, "_now", lambda: "2026-01-01T00:00:00Z")
    objects = [{"name": f"o-{i}", "namespace": namespace, "uid": f"u-{i}"} for i in range(600)]
    for metadata in objects:
        about = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        recorder.event(about, "Normal", "First", "m")
        recorder.event(about, "Normal", "Second", "m")
    monkeypatch.setattr(events_module, "_now", lambda: "2026-01-01T01:00:00Z")
    running = asyncio.create_task(recorder.run())
    await recorder.flush(60)
    running.cancel()
    found = (await client.list(EVENTS, namespace)).items
    assert len(found) == 1200
    assert {(event["firstTimestamp"], event["lastTimestamp"]) for event in found} == {("2026-01-01T00:00:00Z",) * 2}
    by_object: dict[str, list[str]] = {}
    for event in sorted(found, key=lambda item: int(item["metadata"]["resourceVersion"])):
        by_object.setdefault(event["involvedObject"]["name"], []).append(event["reason"])
    assert all(reasons == ["First", "Second"] for reasons in by_object.values())


class _Passes:
    """A reconcile that counts and can be told to fail or to take its time."""

    def __init__(self) -> None:
        self.seen: list[Key] = []
        self.failing = 0
        self.at_once: dict[Key, int] = {}
        self.overlap = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, key: Key) -> float | None:
        self.at_once[key] = self.at_once.get(key, 0) + 1
        self.overlap = self.overlap or self.at_once[key] > 1
        try:
            self.seen.append(key)
            await self.gate.wait()
            if self.failing:
                self.failing -= 1
                raise ExpectedError("told to fail")
            return None
        finally:
            self.at_once[key] -= 1


async def test_changes_become_passes_failures_come_back_and_a_stop_waits_for_passes(
    client: KubeClient, namespace: str
) -> None:
    passes = _Passes()
    store = Store()
    metrics = RuntimeMetrics(CollectorRegistry())
    controller = Controller("test", passes, workers=4, metrics=metrics)
    store.subscribe(lambda old, new: controller.queue.add(key_of(new if new is not None else old or {})))
    manager = Manager([Informer(client, CONFIG_MAPS, store, namespace=namespace)], [controller])
    running = asyncio.create_task(manager.run())
    key = (namespace, "a")
    passes.failing = 3
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}
    await client.create(CONFIG_MAPS, body, field_manager="test")
    await reach(lambda: passes.seen.count(key) == 4)
    await reach(lambda: controller.queue.failures(key) == 0)
    passes.gate.clear()
    for number in range(5):
        await client.patch(CONFIG_MAPS, "a", namespace, {"data": {"x": str(number)}}, field_manager="test")
    await reach(lambda: passes.at_once.get(key) == 1)
    manager.stop()
    done, _ = await asyncio.wait([running], timeout=0.5)
    assert not done, "the stop must wait for the pass under way"
    passes.gate.set()
    await asyncio.wait_for(running, 20)
    assert not passes.overlap


async def test_a_forbidden_kind_keeps_the_workers_from_starting(
    cluster: Access, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seiops.kube.manager.SYNC_DEADLINE", 1.0)
    async with KubeClient(from_kubeconfig(cluster.kubeconfig("controller"))) as restricted:
        controller = Controller("test", _Passes(), workers=1, metrics=RuntimeMetrics(CollectorRegistry()))
        manager = Manager([Informer(restricted, CONFIG_MAPS, Store(), namespace=namespace)], [controller])
        with pytest.raises(ExpectedError, match="ConfigMap"):
            await manager.run()


async def test_deletions_with_a_wrong_version_are_refused(client: KubeClient, namespace: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}
    await client.create(CONFIG_MAPS, body, field_manager="test")
    with pytest.raises(ApiError) as refused:
        await client.delete(CONFIG_MAPS, "a", namespace, resource_version="1")
    assert refused.value.conflict


async def test_who_is_not_the_leader_any_more_stops_in_the_middle_of_a_pass(client: KubeClient, namespace: str) -> None:
    passes = _Passes()
    passes.gate.clear()
    controller = Controller("test", passes, workers=1, metrics=RuntimeMetrics(CollectorRegistry()))
    manager = Manager([Informer(client, CONFIG_MAPS, Store(), namespace=namespace)], [controller])
    running = asyncio.create_task(manager.run())
    controller.queue.add((namespace, "a"))
    await reach(lambda: passes.seen)
    manager.stop(drain=0.0)
    await asyncio.wait_for(running, 10)
