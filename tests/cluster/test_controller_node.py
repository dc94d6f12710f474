"""A SeiNode against the real API server: what the controller promises, one test a promise."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from seidev.cluster import Access
from seiops.controller.kinds import SEI_NODES
from seiops.kube import Resource
from seiops.kube.client.resource import CONFIG_MAPS, JOBS, PERSISTENT_VOLUME_CLAIMS, SERVICES, STATEFUL_SETS
from support.controlled import CHAIN, IMAGE, LATEST, Controlled, condition_of, controlled, is_steady, task_of
from support.reaching import reach


@pytest.fixture
async def world(
    cluster: Access, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Controlled]:
    async with controlled(cluster, namespace, tmp_path, monkeypatch) as world:
        yield world


async def test_a_node_comes_up_with_at_most_twelve_requests(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    about = world.requests_about("seinodes/n0", "/n0", "data-n0", "n0-rbac", "persistentvolumeclaims", "/events")
    listed = [made for made in about if made[0] == "GET"]
    assert listed.count(("GET", f"/api/v1/namespaces/{world.namespace}/persistentvolumeclaims")) <= 1
    until_stamped = [made for made in about if made[0] != "GET"]
    # One patch more than the budget: dropping the finished plan comes after the images are stamped.
    assert len(until_stamped) <= 13, until_stamped


async def test_an_update_waiting_for_the_statefulsets_controller_is_not_stored_and_does_nothing_twice(
    world: Controlled,
) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    await world.stop()
    world.scale = 1.0
    patched, stored = world.posts("config-patch"), len(world.history)
    world.start()
    await world.patch_node(image="registry.example/seid:v2")
    await world.until(lambda node: is_steady(node) and node["status"]["currentImage"].endswith("v2"))
    on_the_way = [one for one in world.history[stored:] if task_of(one, "config-patch").get("status") == "Complete"]
    assert on_the_way
    assert all(task_of(one, "replace-pod")["status"] == "Complete" for one in on_the_way)
    assert world.posts("config-patch") == patched + 1


async def test_an_idle_fleet_costs_the_api_server_nothing(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    await reach(lambda: LATEST[-1].made[-1][0] != "GET")
    before, probed = len(LATEST[-1].made), world.asked("/v0/healthz")
    await reach(lambda: world.asked("/v0/healthz") >= probed + 5)
    assert len(LATEST[-1].made) == before


async def test_d1_a_submitted_task_is_running_and_only_polled(world: Controlled) -> None:
    world.rule(on="task", type="config-apply", ms=600)
    world.start()
    await world.create_node()
    running = await world.until(lambda node: task_of(node, "config-apply").get("status") == "Running")
    assert task_of(running, "config-apply")["submittedAt"]
    await world.steady()
    assert world.posts("config-apply") == 1
    assert world.asked("/v0/tasks/") > 4


async def test_d1_a_task_the_sidecar_has_forgotten_is_posted_again(world: Controlled) -> None:
    world.rule(on="task", type="config-apply", ms=400)
    world.rule(on="get", do="http", status=404, body={"error": "task not found"}, times=3)
    world.start()
    await world.create_node()
    await world.steady()
    assert world.posts("configure-genesis") >= 2


async def test_d1_a_slow_failure_is_seen_retried_within_its_budget_and_then_final(world: Controlled) -> None:
    world.rule(on="task", type="snapshot-restore", ms=60, error="download broke")
    world.start()
    await world.create_node(mode={"fullNode": {"snapshot": {"s3": {"targetHeight": 5}}}})
    retried = await world.until(lambda node: task_of(node, "snapshot-restore").get("retryCount", 0) >= 2)
    assert task_of(retried, "snapshot-restore")["error"] == "download broke"
    failed = await world.until(lambda node: node["status"].get("phase") == "Failed")
    assert failed["status"]["plan"]["failedTaskDetail"]["retryCount"] == 10
    assert world.posts("snapshot-restore") == 11


async def test_d2_the_statefulset_waits_for_the_bootstrap_job(world: Controlled) -> None:
    world.sidecars.node(world.namespace, "n0")
    snapshot = {"s3": {"targetHeight": 9}, "bootstrapImage": "registry.example/seid:v0"}
    world.rule(on="task", type="snapshot-restore", ms=500)
    world.start()
    await world.create_node(mode={"fullNode": {"snapshot": snapshot}})
    await world.until_there(JOBS, "n0-bootstrap")
    await world.until(lambda node: task_of(node, "snapshot-restore").get("status") == "Running")
    assert await world.find(STATEFUL_SETS, "n0") is None
    await world.steady()
    assert await world.find(STATEFUL_SETS, "n0") is not None


async def test_d3_deletion_leaves_a_claim_that_the_node_does_not_own(world: Controlled) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data-n0", "namespace": world.namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await world.client.create(PERSISTENT_VOLUME_CLAIMS, claim, field_manager="somebody")
    world.start()
    await world.create_node()
    failed = await world.until(lambda node: node["status"].get("phase") == "Failed")
    assert "is not owned by SeiNode" in failed["status"]["plan"]["failedTaskDetail"]["error"]
    await world.delete_node()
    await world.until_absent(SEI_NODES, "n0")
    kept = await world.find(PERSISTENT_VOLUME_CLAIMS, "data-n0")
    assert kept is not None and "deletionTimestamp" not in kept["metadata"]


async def test_d4_a_hung_sidecar_delays_no_other_node(world: Controlled) -> None:
    for number in range(3):
        world.rule(f"hung{number}", on="post", do="hang")
    world.start()
    for number in range(3):
        await world.create_node(f"hung{number}")
    await reach(lambda: all(world.posts("configure-genesis", f"hung{number}") for number in range(3)))
    began = asyncio.get_running_loop().time()
    await world.create_node("fine")
    await world.steady("fine")
    assert asyncio.get_running_loop().time() - began < 10, "less than one deadline of a hung submit"


async def test_d5_a_refused_spec_is_told_in_a_condition(world: Controlled) -> None:
    generation = {"tendermint": {"keepRecent": 1, "publish": {}}}
    world.start()
    await world.create_node(mode={"fullNode": {"snapshotGeneration": generation}})
    refused = await world.until(lambda node: condition_of(node, "SpecValid").get("status") == "False")
    assert condition_of(refused, "SpecValid")["reason"] == "PlanInvalid"
    assert "keepRecent must be >= 2" in condition_of(refused, "SpecValid")["message"]
    assert condition_of(refused, "Paused")["status"] == "False"
    await world.patch_node(fullNode={"snapshotGeneration": {"tendermint": {"keepRecent": 2}}})
    assert condition_of(await world.steady(), "SpecValid")["reason"] == "Valid"


async def test_d5_an_invalid_edit_is_told_while_the_node_is_paused(world: Controlled) -> None:
    world.start()
    await world.create_node(mode={"fullNode": {"snapshotGeneration": {}}}, paused=True)
    paused = await world.until(lambda node: condition_of(node, "Paused").get("status") == "True")
    assert condition_of(paused, "SpecValid")["reason"] == "PlanInvalid"
    assert "phase" not in paused["status"]
    await world.patch_node(fullNode={"snapshotGeneration": None})
    await world.until(lambda node: condition_of(node, "SpecValid")["reason"] == "Valid")


async def test_d5_a_static_peer_nobody_can_read_is_named_and_the_node_runs(world: Controlled) -> None:
    good = f"{'a' * 40}@peer.example:26656"
    world.start()
    await world.create_node(peers=[{"static": {"addresses": [good, "peer.example:26656"]}}])
    told = condition_of(await world.steady(), "SpecValid")
    assert (told["status"], told["reason"]) == ("False", "PeersInvalid")
    assert told["message"].startswith("spec.peers[0].static.addresses[1]: 'peer.example:26656'")
    await world.patch_node(peers=[{"static": {"addresses": [good, f"tcp://{good}"]}}])
    await world.until(lambda node: condition_of(node, "SpecValid")["reason"] == "Valid")


async def test_d5_a_refused_statefulset_is_told_in_condition_and_event(world: Controlled) -> None:
    world.start()
    await world.create_node(podLabels={"x": "not a label value!"})
    refused = await world.until(lambda node: condition_of(node, "SpecValid").get("reason") == "RenderFailed")
    assert "a valid label must be" in condition_of(refused, "SpecValid")["message"]
    await world.until_event("StatefulSetRenderFailed")


async def test_d6_a_refused_submit_shows_and_is_tried_again(world: Controlled) -> None:
    world.rule(on="post", type="config-apply", do="http", status=400, body={"error": "no such mode"}, times=6)
    world.start()
    await world.create_node()
    refused = await world.until(lambda node: task_of(node, "config-apply").get("error"))
    assert task_of(refused, "config-apply")["error"] == "sidecar rejected config-apply task: no such mode"
    assert refused["status"]["phase"] == "Initializing"
    await world.steady()


async def test_d6_a_parameter_nobody_would_accept_is_not_even_sent(world: Controlled) -> None:
    world.start()
    await world.create_node(overrides={"no.such.key": "1"})
    refused = await world.until(lambda node: task_of(node, "config-apply").get("error"))
    assert "no.such.key" in task_of(refused, "config-apply")["error"]
    assert world.posts("config-apply") == 0


async def test_d7_an_invalid_config_is_not_released(world: Controlled) -> None:
    world.rule(on="task", type="config-validate", error="app.toml: unknown key")
    world.start()
    await world.create_node()
    failed = await world.until(lambda node: node["status"].get("phase") == "Failed")
    assert failed["status"]["plan"]["failedTaskDetail"]["error"] == "app.toml: unknown key"
    assert world.posts("mark-ready") == 0


async def test_d11_the_plan_after_a_plan_starts_at_once(world: Controlled) -> None:
    world.scale = 1.0
    world.start()
    began = asyncio.get_running_loop().time()
    await world.create_node()
    await world.steady()
    assert asyncio.get_running_loop().time() - began < 25, "less than one steady poll of 30 s"


async def test_d18_a_failure_is_told_once_and_a_paused_failed_node_frees_its_machine(world: Controlled) -> None:
    world.rule(on="task", type="config-apply", error="disk full")
    world.start()
    created = await world.create_node()
    first = await world.until(lambda node: condition_of(node, "NodeUpdateInProgress"))
    assert condition_of(first, "NodeUpdateInProgress")["reason"] == "NoUpdate"
    await world.until(lambda node: node["status"].get("phase") == "Failed")
    template = (await world.client.get(STATEFUL_SETS, "n0", world.namespace))["spec"]["template"]
    await world.patch_node(image="registry.example/seid:v2")
    await world.patch_node(paused=True)
    await world.until(lambda node: condition_of(node, "Paused").get("status") == "True")
    scaled = await world.until_live(STATEFUL_SETS, "n0", lambda live: live["spec"]["replicas"] == 0)
    assert scaled["spec"]["template"] == template
    await world.until_event("NodeFailed")
    assert await world.events("NodeFailed") == 1
    assert created["metadata"]["name"] == "n0"


async def test_d22_a_template_that_changes_during_an_update_does_not_wedge_it(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    world.rule(on="task", type="config-patch", ms=300)
    await world.patch_node(image="registry.example/seid:v2")
    await world.until(lambda node: task_of(node, "replace-pod").get("status") == "Complete")
    await world.patch_node(image="registry.example/seid:v3")
    await world.until(lambda node: is_steady(node) and node["status"]["currentImage"].endswith("v3"))


async def test_d23_a_failed_update_is_seen_and_tried_again(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    world.rule(on="task", type="config-patch", error="permission denied", times=2)
    await world.patch_node(image="registry.example/seid:v2")
    seen = await world.until(lambda node: condition_of(node, "NodeUpdateInProgress").get("reason") == "UpdateFailed")
    assert "task config-patch: permission denied" in condition_of(seen, "NodeUpdateInProgress")["message"]
    done = await world.until(lambda node: is_steady(node) and node["status"]["currentImage"].endswith("v2"))
    assert condition_of(done, "NodeUpdateInProgress")["reason"] == "UpdateComplete"


async def test_d26_events_come_with_every_change_into_the_state(world: Controlled) -> None:
    world.configure(stateSync={"syncers": {}})
    world.start()
    await world.create_node(mode={"fullNode": {"snapshot": {"stateSync": {}}}})
    await world.until_event("StateSyncBlocked", 1)
    world.configure(stateSync={"syncers": {CHAIN: ["a.example:1", "b.example:1"]}})
    await world.steady()
    world.sidecars.set_unready(world.namespace, "n0")
    await world.until_event("SidecarReadinessLost", 1)
    await world.until_event("SidecarReadinessRestored", 1)
    world.configure(stateSync={"syncers": {CHAIN: ["a.example:1"]}})
    await world.until_event("StateSyncBlocked", 2)


async def test_d27_an_object_nobody_can_decode_is_marked_and_stops_nobody(world: Controlled) -> None:
    world.start()
    generation = {"tendermint": {"keepRecent": 2**31}}
    await world.create_node("poison", mode={"fullNode": {"snapshotGeneration": generation}})
    await world.create_node("fine")
    marked = await world.until(lambda node: condition_of(node, "SpecValid"), "poison")
    assert condition_of(marked, "SpecValid")["reason"] == "Undecodable"
    assert "spec.fullNode.snapshotGeneration.tendermint.keepRecent" in condition_of(marked, "SpecValid")["message"]
    await world.steady("fine")
    await world.delete_node("poison")
    await world.until_absent(SEI_NODES, "poison")


async def test_d28_the_finalizer_changes_nothing_else(world: Controlled) -> None:
    world.start()
    resources = {"requests": {"cpu": 2}}
    created = await world.create_node(sidecar={"resources": resources})
    node = await world.until(lambda node: node["metadata"].get("finalizers"))
    assert node["metadata"]["generation"] == created["metadata"]["generation"] == 1
    assert node["spec"]["sidecar"]["resources"] == resources
    ours = [entry for entry in node["metadata"]["managedFields"] if entry["manager"] == "manager"]
    assert all("f:spec" not in entry["fieldsV1"] for entry in ours)


async def test_d28_an_object_without_spec_can_be_deleted(world: Controlled) -> None:
    world.start()
    body = {
        "apiVersion": SEI_NODES.api_version,
        "kind": SEI_NODES.kind,
        "metadata": {"name": "n0", "namespace": world.namespace},
    }
    await world.client.create(SEI_NODES, body, field_manager="test-user")
    marked = await world.until(lambda node: condition_of(node, "SpecValid"))
    assert condition_of(marked, "SpecValid")["reason"] == "Undecodable"
    await world.delete_node()
    await world.until_absent(SEI_NODES, "n0")


async def test_d29_owned_objects_deleted_by_hand_come_back(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    for resource, name in ((SERVICES, "n0"), (CONFIG_MAPS, "n0-rbac-proxy-config"), (STATEFUL_SETS, "n0")):
        gone = await world.client.get(resource, name, world.namespace)
        await world.client.delete(resource, name, world.namespace)
        uid = gone["metadata"]["uid"]
        await world.until_live(resource, name, lambda live, uid=uid: live["metadata"]["uid"] != uid)  # type: ignore[misc]


async def test_d30_a_wake_does_not_use_up_the_retry_budget(world: Controlled) -> None:
    world.scale = 0.1
    world.rule(on="task", type="configure-genesis", error="not there yet", times=2)
    world.start()
    await world.create_node()
    await world.until(lambda node: task_of(node, "configure-genesis").get("retryCount") == 1)
    for number in range(5):
        await world.patch_node(podLabels={"n": str(number)})
    node = await world.node()
    assert task_of(node, "configure-genesis")["retryCount"] == 1
    await world.steady()


async def test_a_hand_edited_statefulset_is_put_back_and_foreign_fields_stay(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    edit = {"metadata": {"labels": {"mine": "yes"}}, "spec": {"replicas": 3}}
    await world.client.patch(STATEFUL_SETS, "n0", world.namespace, edit, field_manager="kubectl-edit")
    live = await world.until_live(STATEFUL_SETS, "n0", lambda live: live["spec"]["replicas"] == 1)
    assert live["metadata"]["labels"]["mine"] == "yes"


async def test_a_syncer_edit_wakes_the_chain_s_nodes_within_a_second_and_no_others(world: Controlled) -> None:
    world.scale = 1.0
    world.configure(stateSync={"syncers": {}})
    world.start()
    state_sync: dict[str, Any] = {"fullNode": {"snapshot": {"stateSync": {}}}}
    await world.create_node("one", mode=state_sync, chainId="chain-1")
    await world.create_node("two", mode=state_sync, chainId="chain-2")
    for name in ("one", "two"):
        await world.until(lambda node: condition_of(node, "StateSyncReady").get("reason"), name)
    before = len(world.requests_about("seinodes/two"))
    world.configure(stateSync={"syncers": {"chain-1": ["a.example:1", "b.example:1"]}})
    began = asyncio.get_running_loop().time()
    await world.until(lambda node: node["status"].get("plan"), "one", seconds=20)
    assert asyncio.get_running_loop().time() - began < 5
    assert len(world.requests_about("seinodes/two")) == before


async def test_a_plan_in_mid_flight_of_the_go_controller_is_continued(world: Controlled) -> None:
    world.rule(on="task", type="config-apply", ms=400)
    world.start()
    await world.create_node()
    await world.until(lambda node: task_of(node, "config-apply").get("status") == "Running")
    await world.stop()
    node = await world.node()
    tasks = node["status"]["plan"]["tasks"]
    for task in tasks:
        if task["status"] == "Running":
            # So the Go controller leaves a task that it has submitted.
            task["status"] = "Pending"
    patch = {"status": {"plan": {"tasks": tasks}}}
    await world.client.patch(SEI_NODES, "n0", world.namespace, patch, field_manager="manager", subresource="status")
    world.start()
    done = await world.steady()
    assert world.posts("config-apply") == 1
    assert done["status"]["currentImage"] == IMAGE


async def test_the_plan_is_stored_before_anything_of_it_happens(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    plans = [state["status"]["plan"] for state in world.history if (state.get("status") or {}).get("plan")]
    assert all(task["status"] == "Pending" for task in plans[0]["tasks"])
    assert len({plan["id"] for plan in plans}) == 2


async def test_label_peers_are_asked_once_for_each_pod(world: Controlled) -> None:
    world.start()
    for name in ("a", "b", "c"):
        body = {
            "apiVersion": SEI_NODES.api_version,
            "kind": SEI_NODES.kind,
            "metadata": {"name": name, "namespace": world.namespace, "labels": {"ring": "r"}},
            "spec": {
                "chainId": CHAIN,
                "image": IMAGE,
                "fullNode": {},
                "peers": [{"label": {"selector": {"ring": "r"}}}],
            },
        }
        await world.client.create(SEI_NODES, body, field_manager="test-user")
    for name in ("a", "b", "c"):
        node = await world.until(lambda node: len(node["status"].get("resolvedPeers") or ()) == 2, name)
        assert all(f"@{name}-0." not in peer for peer in node["status"]["resolvedPeers"])
        await world.steady(name)
    assert [world.asked("/v0/node-id", name) for name in ("a", "b", "c")] == [1, 1, 1]


async def test_a_node_created_again_under_its_name_gets_objects_of_its_own(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    first = await world.client.get(STATEFUL_SETS, "n0", world.namespace)
    await world.delete_node()
    await world.until_absent(SEI_NODES, "n0")
    await world.create_node()
    await world.until(lambda node: (node.get("status") or {}).get("statefulSet"))
    second = await world.client.get(STATEFUL_SETS, "n0", world.namespace)
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_no_secret_is_listed_or_watched(world: Controlled) -> None:
    world.start()
    await world.create_node()
    await world.steady()
    assert not [made for made in LATEST[-1].made if "/secrets" in made[1]]


async def test_a_rollout_goes_on_when_its_pod_appears_not_at_the_next_poll(world: Controlled) -> None:
    world.scale = 1.0
    world.start()
    await world.create_node()
    await world.steady()
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "no-pods", "namespace": world.namespace},
        "spec": {"hard": {"pods": "0"}},
    }
    quotas = Resource("", "v1", "resourcequotas", "ResourceQuota")
    await world.client.create(quotas, quota, field_manager="test")
    await world.patch_node(image="registry.example/seid:v2")
    await world.until(lambda node: task_of(node, "replace-pod").get("status") == "Complete")
    began = asyncio.get_running_loop().time()
    await world.client.delete(quotas, "no-pods", world.namespace)
    await world.until(lambda node: node["status"].get("currentImage") == "registry.example/seid:v2")
    # A look that nothing but time brings about comes after 30 s.
    assert asyncio.get_running_loop().time() - began < 25
