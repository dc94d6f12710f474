"""The thin client against the real API server: verbs, conflicts, apply, errors, and a restart in the middle of watches."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from seidev.cluster import Access, Cluster
from seiops.kube import ApiError, KubeClient, from_kubeconfig
from seiops.kube.client.requests import JSON_PATCH
from seiops.kube.client.resource import CONFIG_MAPS, NAMESPACES, PODS
from seiops.kube.informer import Informer, Store
from seiops.kube.ownership import owned_part
from support.reaching import reach


@pytest.fixture
async def client(cluster: Access) -> AsyncIterator[KubeClient]:
    async with KubeClient(from_kubeconfig(cluster.kubeconfig())) as client:
        yield client


def _config_map(name: str, namespace: str, **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"set": "a"}},
        "data": data,
    }


async def test_create_read_replace_delete(client: KubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, _config_map("a", namespace, x="1"), field_manager="test")
    assert made["metadata"]["managedFields"][0]["manager"] == "test"
    with pytest.raises(ApiError) as second:
        await client.create(CONFIG_MAPS, _config_map("a", namespace), field_manager="test")
    assert second.value.already_exists and not second.value.conflict
    changed = await client.replace(CONFIG_MAPS, {**made, "data": {"x": "2"}}, field_manager="test")
    assert changed["data"] == {"x": "2"}
    with pytest.raises(ApiError) as stale:
        await client.replace(CONFIG_MAPS, {**made, "data": {"x": "3"}}, field_manager="test")
    assert stale.value.conflict and stale.value.reason == "Conflict"
    with pytest.raises(ApiError) as other:
        await client.delete(CONFIG_MAPS, "a", namespace, uid="00000000-0000-0000-0000-000000000000")
    assert other.value.conflict
    await client.delete(CONFIG_MAPS, "a", namespace, uid=made["metadata"]["uid"])
    with pytest.raises(ApiError) as gone:
        await client.get(CONFIG_MAPS, "a", namespace)
    assert gone.value.not_found and gone.value.reason == "NotFound"


async def test_a_merge_patch_with_a_version_fails_when_somebody_was_faster(client: KubeClient, namespace: str) -> None:
    made = await client.create(CONFIG_MAPS, _config_map("a", namespace, x="1"), field_manager="test")
    version = made["metadata"]["resourceVersion"]
    await client.patch(
        CONFIG_MAPS, "a", namespace, {"data": {"x": "2"}}, field_manager="test", resource_version=version
    )
    with pytest.raises(ApiError) as stale:
        await client.patch(
            CONFIG_MAPS, "a", namespace, {"data": {"x": "3"}}, field_manager="test", resource_version=version
        )
    assert stale.value.conflict
    patch = [{"op": "replace", "path": "/data/x", "value": "9"}]
    patched = await client.patch(CONFIG_MAPS, "a", namespace, patch, field_manager="test", content_type=JSON_PATCH)
    assert patched["data"]["x"] == "9"


async def test_apply_takes_ownership_and_what_we_own_can_be_read_back(client: KubeClient, namespace: str) -> None:
    await client.create(CONFIG_MAPS, _config_map("a", namespace, x="1", y="1"), field_manager="somebody")
    wanted = _config_map("a", namespace, x="2")
    live = await client.apply(CONFIG_MAPS, wanted, field_manager="us")
    assert live["data"] == {"x": "2", "y": "1"}
    assert owned_part(live, "us") == {"metadata": {"labels": {"set": "a"}}, "data": {"x": "2"}}
    again = await client.apply(CONFIG_MAPS, wanted, field_manager="us")
    assert again["metadata"]["resourceVersion"] == live["metadata"]["resourceVersion"]


async def test_refusals_carry_the_server_s_words(client: KubeClient, cluster: Access, namespace: str) -> None:
    with pytest.raises(ApiError, match="a lowercase RFC 1123") as invalid:
        await client.create(CONFIG_MAPS, _config_map("Not A Name", namespace), field_manager="test")
    assert (invalid.value.status, invalid.value.reason) == (422, "Invalid")
    async with KubeClient(from_kubeconfig(cluster.kubeconfig("controller"))) as restricted:
        with pytest.raises(ApiError) as forbidden:
            await restricted.list(PODS, namespace)
    assert forbidden.value.reason == "Forbidden"


async def test_nobody_there_is_an_api_error(cluster: Access) -> None:
    from dataclasses import replace

    connection = replace(from_kubeconfig(cluster.kubeconfig()), server="https://127.0.0.1:9")
    async with KubeClient(connection) as lost:
        with pytest.raises(ApiError) as error:
            await lost.get(NAMESPACES, "default")
    assert (error.value.status, error.value.reason) == (0, "Unreachable")


async def test_lists_come_in_pages(client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seiops.kube.client.requests.PAGE", 3)
    for number in range(8):
        await client.create(CONFIG_MAPS, _config_map(f"c{number}", namespace), field_manager="test")
    pages = [len(page.items) async for page in client.pages(CONFIG_MAPS, namespace, label_selector="set=a")]
    assert pages == [3, 3, 2]
    listing = await client.list(CONFIG_MAPS, namespace, label_selector="set=a")
    assert {item["kind"] for item in listing.items} == {"ConfigMap"}


async def test_an_informer_follows_its_selection_and_lists_again_after_410(client: KubeClient, namespace: str) -> None:
    store = Store()
    informer = Informer(client, CONFIG_MAPS, store, namespace=namespace, label_selector="set=a")
    running = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        await client.create(CONFIG_MAPS, _config_map("a", namespace), field_manager="test")
        other = _config_map("b", namespace)
        other["metadata"]["labels"] = {"set": "b"}
        await client.create(CONFIG_MAPS, other, field_manager="test")
        await reach(lambda: store.get((namespace, "a")) is not None)
        assert store.get((namespace, "b")) is None
        unlabel = {"metadata": {"labels": {"set": "none"}}}
        await client.patch(CONFIG_MAPS, "a", namespace, unlabel, field_manager="test")
        await reach(lambda: store.get((namespace, "a")) is None)
        running.cancel()
        # A version that etcd has long forgotten, as after a night without connection.
        informer._version = "1"
        running = asyncio.create_task(informer.run())
        await client.patch(CONFIG_MAPS, "b", namespace, {"metadata": {"labels": {"set": "a"}}}, field_manager="test")
        await reach(lambda: store.get((namespace, "b")) is not None)
    finally:
        running.cancel()


async def test_an_informer_survives_a_restart_of_the_api_server(own_cluster: Cluster) -> None:
    async with KubeClient(from_kubeconfig(own_cluster.access.kubeconfig())) as client:
        store = Store()
        informer = Informer(client, CONFIG_MAPS, store, namespace="default", label_selector="set=a")
        running = asyncio.create_task(informer.run())
        try:
            await informer.synced.wait()
            await client.create(CONFIG_MAPS, _config_map("before", "default"), field_manager="test")
            await reach(lambda: store.get(("default", "before")) is not None)
            await asyncio.to_thread(own_cluster.kill_api_server)
            await asyncio.to_thread(own_cluster.start_api_server)
            await client.delete(CONFIG_MAPS, "before", "default")
            await client.create(CONFIG_MAPS, _config_map("after", "default"), field_manager="test")
            await reach(lambda: store.get(("default", "after")) is not None)
            await reach(lambda: store.get(("default", "before")) is None)
        finally:
            running.cancel()
