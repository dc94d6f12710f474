"""Scheduler and kubelet in the harness: Pods of nodes run as soon as they exist, and go as soon as they are deleted.

The differences from "at once" are those of the recordings (golden flows README, "Kubelet, Job, storage, EC2"): a
bootstrap Pod ends a while after its sidecar became ready, and the StatefulSet's Pod of a node that bootstraps through
a Job stays Pending until that plan has torn the Job down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from replay.kubeapi import STANDIN, ApiError, KubeApi
from replay.sidecar_server import SidecarServer

NODE = "fake-node"
NODE_LABEL = "sei.io/node"
COMPONENT_LABEL = "sei.io/component"
REMOVE_AFTER = 0.2
BOOTSTRAP_ENDS_AFTER = 3.0
BOOTSTRAP_CHECK = 0.2
PENDING_CHECK = 0.5
_SNAPSHOT_MODES = ("fullNode", "validator", "replayer")


class Kubelet:
    """`sei_node` looks up the SeiNode (namespace, name) as the recorder last saw it."""

    def __init__(
        self,
        api: KubeApi,
        sidecars: SidecarServer,
        sei_node: Callable[[str, str], dict[str, Any] | None],
        scale: float = 1.0,
    ) -> None:
        self._api = api
        self._sidecars = sidecars
        self._sei_node = sei_node
        self._scale = scale
        self._outcomes: dict[tuple[str, str], str] = {}
        self._seen: set[str] = set()
        self._leaving: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        await self._api.create(node, None, manager=STANDIN)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def set_outcome(self, namespace: str, node: str, outcome: str) -> None:
        """`fail` or `hold` for the bootstrap Pod of a node; anything else lets it succeed."""
        self._outcomes[(namespace, node)] = outcome

    def forget(self, namespace: str) -> None:
        for key in [key for key in self._outcomes if key[0] == namespace]:
            del self._outcomes[key]

    def on_pod(self, event: str, pod: dict[str, Any]) -> None:
        """Handler of the Pod watch."""
        metadata = pod["metadata"]
        if NODE_LABEL not in metadata.get("labels", {}):
            return
        uid = metadata["uid"]
        if event == "DELETED":
            self._sidecars.pod_ended(metadata["namespace"], metadata["labels"][NODE_LABEL], uid)
        elif metadata.get("deletionTimestamp") is not None:
            self._sidecars.pod_ended(metadata["namespace"], metadata["labels"][NODE_LABEL], uid)
            if uid not in self._leaving:
                self._leaving.add(uid)
                self._spawn(self._remove(pod))
        elif uid not in self._seen:
            self._seen.add(uid)
            self._spawn(self._run(pod))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(_tolerant(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _remove(self, pod: dict[str, Any]) -> None:
        await asyncio.sleep(REMOVE_AFTER)
        metadata = pod["metadata"]
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        await self._api.delete("Pod", metadata["namespace"], metadata["name"], options)

    async def _run(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        namespace, name, node = metadata["namespace"], metadata["name"], metadata["labels"][NODE_LABEL]
        bootstrap = metadata["labels"].get(COMPONENT_LABEL) == "bootstrap"
        if not pod["spec"].get("nodeName"):
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": name, "namespace": namespace},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            }
            path = f"/api/v1/namespaces/{namespace}/pods/{name}/binding"
            await self._api.request("POST", path, binding, manager=STANDIN)
        while not bootstrap and self._held_back(namespace, node):  # noqa: ASYNC110 (the recordings poll)
            await asyncio.sleep(PENDING_CHECK * self._scale)
        # Whoever sees the Pod run may call its sidecar.
        self._sidecars.pod_started(namespace, node, metadata["uid"])
        await self._api.merge_patch(
            "Pod", namespace, name, {"status": running_status(pod)}, subresource="status", manager=STANDIN
        )
        if bootstrap:
            await self._finish_bootstrap(pod, namespace, node)

    def _held_back(self, namespace: str, node: str) -> bool:
        owner = self._sei_node(namespace, node)
        return owner is not None and waits_for_bootstrap(owner)

    def _goes_on(self, namespace: str, node: str) -> bool:
        held = self._outcomes.get((namespace, node)) == "hold"
        return held or not self._sidecars.settled(namespace, node).ready

    async def _finish_bootstrap(self, pod: dict[str, Any], namespace: str, node: str) -> None:
        while self._goes_on(namespace, node):  # noqa: ASYNC110 (the recordings poll)
            await asyncio.sleep(BOOTSTRAP_CHECK * self._scale)
        await asyncio.sleep(BOOTSTRAP_ENDS_AFTER * self._scale)
        code = 1 if self._outcomes.get((namespace, node)) == "fail" else 0
        self._sidecars.pod_ended(namespace, node, pod["metadata"]["uid"])
        await self._api.merge_patch(
            "Pod",
            namespace,
            pod["metadata"]["name"],
            {"status": ended_status(pod, code)},
            subresource="status",
            manager=STANDIN,
        )


async def _tolerant(work: Any) -> None:
    """A Pod that is gone or changed meanwhile is no fault: its next event says what to do."""
    try:
        await work
    except ApiError as failure:
        if failure.status not in (404, 409, 422):
            raise


def waits_for_bootstrap(sei_node: dict[str, Any]) -> bool:
    """Whether the recordings' kubelet keeps the StatefulSet's Pod of this node Pending."""
    spec, status = sei_node.get("spec") or {}, sei_node.get("status") or {}
    snapshots = [(spec.get(mode) or {}).get("snapshot") or {} for mode in _SNAPSHOT_MODES]
    if not any(snapshot.get("bootstrapImage") for snapshot in snapshots):
        return False
    if status.get("phase") not in (None, "", "Pending", "Initializing"):
        return False
    teardowns = [task for task in (status.get("plan") or {}).get("tasks", []) if task["type"] == "teardown-bootstrap"]
    return not teardowns or any(task["status"] != "Complete" for task in teardowns)


def running_status(pod: dict[str, Any]) -> dict[str, Any]:
    def running(container: dict[str, Any]) -> dict[str, Any]:
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }

    spec = pod["spec"]
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "conditions": [{"type": name, "status": "True"} for name in conditions],
        "containerStatuses": [running(container) for container in spec["containers"]],
        "initContainerStatuses": [running(container) for container in spec.get("initContainers", [])],
        "podIP": "10.9.9.9",
        "podIPs": [{"ip": "10.9.9.9"}],
        "startTime": "2026-01-01T00:00:00Z",
    }


def ended_status(pod: dict[str, Any], exit_code: int) -> dict[str, Any]:
    reason = "Completed" if exit_code == 0 else "Error"
    terminated = {
        "exitCode": exit_code,
        "reason": reason,
        "startedAt": "2026-01-01T00:00:00Z",
        "finishedAt": "2026-01-01T00:00:01Z",
    }
    statuses = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "ready": False,
            "started": False,
            "restartCount": 0,
            "state": {"terminated": terminated},
        }
        for container in pod["spec"]["containers"]
    ]
    conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
    phase = "Succeeded" if exit_code == 0 else "Failed"
    return {"phase": phase, "conditions": conditions, "containerStatuses": statuses}
