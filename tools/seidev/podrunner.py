"""Scheduler and kubelet in one, for this machine: one Node, every Pod bound to it, each Pod run by `seidev.pods`.

Names of Pods are written to a resolve file, which takes the place of the cluster's DNS for programs started with
`SEIOPS_RESOLVE_FILE`.

    python -m seidev.podrunner --kubeconfig FILE --root DIR --recording FILE [--head N] [--namespace NS]
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Self

from seidev.chain import COMET_PORT, EVM_PORT, ChainServer, Recording, Replay, Window, window_of
from seidev.pods.local import FIELD_MANAGER, Host, LocalPod
from seidev.processes import ToolError
from seiops.kube import ApiError, KubeClient, Obj, from_kubeconfig
from seiops.kube.client.resource import NODES, PODS
from seiops.kube.informer import Informer, Store

NODE = "seiops-local"


class PodRunner:
    """Runs the Pods of one namespace, or of all, until it is stopped. Pods it finds bound to its Node it takes over.

    `seid` makes the stand-in for seid at an address; `env` is added to every sidecar's environment.
    """

    def __init__(
        self,
        client: KubeClient,
        *,
        root: Path,
        seid: Callable[[str], ChainServer],
        namespace: str | None = None,
        env: Mapping[str, str] | None = None,
        back_off: float = 10.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.resolve_file = root / "resolve.json"
        self._host = Host(client, root, NODE, seid, env or {}, self.resolve_file, back_off=back_off, say=say)
        self._store = Store()
        self._informer = Informer(client, PODS, self._store, namespace=namespace)
        self._pods: dict[str, LocalPod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._binding: set[str] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pods(self) -> list[LocalPod]:
        """The Pods running here now."""
        return list(self._pods.values())

    async def start(self) -> None:
        self._host.root.mkdir(parents=True, exist_ok=True)
        self._write_resolve_file()
        await self._make_node()
        self._store.subscribe(self._on_change)
        self._watch = asyncio.create_task(self._informer.run())
        await self._informer.synced.wait()

    async def stop(self) -> None:
        """Ends every process. The Pods' objects stay, as they would when a machine goes."""
        tasks = [*self._tasks.values(), *self._background]
        if self._watch is not None:
            tasks.append(self._watch)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        self._pods.clear()

    async def _make_node(self) -> None:
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}},
        }
        try:
            await self._host.client.create(NODES, node, field_manager=FIELD_MANAGER)
        except ApiError as error:
            if not error.already_exists:
                raise
        status = {
            "conditions": [{"type": "Ready", "status": "True", "reason": "PodRunner", "message": "local processes"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        }
        await self._host.client.patch(
            NODES, NODE, None, {"status": status}, field_manager=FIELD_MANAGER, subresource="status"
        )

    def _on_change(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            self._forget(old)
            return
        metadata, spec = new["metadata"], new["spec"]
        uid: str = metadata["uid"]
        if old is not None and old["metadata"]["uid"] != uid:
            self._forget(old)
        if not spec.get("nodeName"):
            if not metadata.get("deletionTimestamp") and uid not in self._binding:
                self._binding.add(uid)
                self._later(self._bind(new))
        elif spec["nodeName"] == NODE:
            self._binding.discard(uid)
            self._keep(new)

    def _keep(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        uid = metadata["uid"]
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if uid not in self._pods and (not ended or metadata.get("deletionTimestamp")):
            try:
                local = LocalPod(self._host, pod)
            except ToolError as error:
                self._host.say(str(error))
                return
            self._pods[uid] = local
            self._tasks[uid] = asyncio.create_task(self._run(uid, local))
            self._write_resolve_file()
        if metadata.get("deletionTimestamp"):
            self._pods[uid].delete(metadata.get("deletionGracePeriodSeconds", 30))

    def _forget(self, pod: Obj | None) -> None:
        """Its object is gone, with or without us: so are its processes."""
        local = self._pods.get(pod["metadata"]["uid"]) if pod is not None else None
        if local is not None:
            local.delete(0)

    async def _run(self, uid: str, local: LocalPod) -> None:
        try:
            await local.run()
        except Exception as error:  # a Pod that cannot be run must not take the others with it
            self._host.say(f"Pod {local.namespace}/{local.name}: {error!r}")
            raise
        finally:
            self._pods.pop(uid, None)
            self._tasks.pop(uid, None)
            self._write_resolve_file()

    async def _bind(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "target": target,
        }
        try:
            await self._host.client.create(PODS, binding, field_manager=FIELD_MANAGER, subresource="binding")
        except ApiError as error:
            self._host.say(f"Pod {metadata['name']} was not bound: {error}")
            self._binding.discard(metadata["uid"])

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _write_resolve_file(self) -> None:
        names = {name: local.address for local in self._pods.values() for name in local.names}
        temporary = self.resolve_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(names, indent=1, sort_keys=True))
        temporary.replace(self.resolve_file)


def recorded_seid(recording: Recording, window: Window) -> Callable[[str], ChainServer]:
    """Stand-ins for seid that serve one recording on the usual ports of whatever address they get."""

    def at(address: str) -> ChainServer:
        return ChainServer(Replay(recording, window), host=address, comet_port=COMET_PORT, evm_port=EVM_PORT)

    return at


async def _serve(arguments: argparse.Namespace) -> None:
    recording = Recording.load(arguments.recording)
    seid = recorded_seid(recording, window_of(recording, first=None, last=None, head=arguments.head))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with KubeClient(from_kubeconfig(arguments.kubeconfig), user_agent="pod-runner") as client:
        runner = PodRunner(
            client,
            root=arguments.root,
            seid=seid,
            namespace=arguments.namespace,
            env=json.loads(arguments.env),
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
        async with runner:
            print(runner.resolve_file, flush=True)
            await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m seidev.podrunner", description="Runs Pods as local processes.")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True, help="directory for volumes, logs and the resolve file")
    parser.add_argument("--recording", type=Path, required=True, help="recorded node that stands in for seid")
    parser.add_argument("--head", type=int, help="head that the recorded node shows")
    parser.add_argument("--namespace", help="only Pods of this namespace")
    parser.add_argument("--env", default="{}", help="JSON object of variables for every sidecar")
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(parser.parse_args()))
    except (ToolError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
