"""The steps of the demo. Each acts, then reads back what the API server or the bucket holds, and fails with a sentence
where that is not what it should be."""

import asyncio
import contextlib
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import zstandard
from rich.text import Text

from seidev.demo.history import Change, History
from seidev.demo.screen import Screen, Step, plan_table
from seidev.demo.stage import CHAIN_ID, HEAD, NAMESPACE, OPERATOR, REPOSITORY, Stage, off_loop
from seidev.processes import ToolError
from seidev.s3 import REGION
from seiops.kube import KubeClient, Obj, Resource, from_kubeconfig
from seiops.kube.client.resource import CONFIG_MAPS, EVENTS, PERSISTENT_VOLUME_CLAIMS, PODS, SERVICES, STATEFUL_SETS

NODE_NAME = "node-a"
SEI_NODES = Resource("sei.io", "v1alpha1", "seinodes", "SeiNode")
TRUST_DISTANCE = 2000
DIGEST_HEIGHT = 6
NORMALIZATIONS = ("semantic", "translator")
STORE = REPOSITORY / "tests" / "data" / "stores"
PREFIX = "proofs/"
POLL = 0.1


class StepFailedError(ToolError):
    """A step was not reached: what was expected, what is there, and where to look."""


@dataclass
class Story:
    stage: Stage
    screen: Screen
    client: KubeClient
    histories: dict[str, History]
    step: Step

    @property
    def nodes(self) -> History:
        return self.histories["SeiNode"]

    def node(self) -> Obj:
        found = self.nodes.latest(NODE_NAME)
        return found if found is not None else {}

    async def until(self, history: History, holds: Callable[[Obj], object], seconds: float, expected: str) -> Change:
        """The first state for which `holds`, ever; StepFailedError says what was expected and what is there instead."""
        try:
            return await history.until(holds, seconds=seconds)
        except TimeoutError:
            raise StepFailedError(f"expected within {seconds:.0f} s: {expected}. {self.explain()}") from None

    async def answer(self, ask: Callable[[], Any], seconds: float, expected: str) -> Any:
        """Asks until the answer is neither None nor False."""
        deadline = time.monotonic() + seconds
        while True:
            found = await ask()
            if found is not None and found is not False:
                return found
            if time.monotonic() > deadline:
                raise StepFailedError(f"expected within {seconds:.0f} s: {expected}. {self.explain()}")
            await asyncio.sleep(POLL)

    def require(self, truth: object, expected: str) -> None:
        if not truth:
            raise StepFailedError(f"expected: {expected}. {self.explain()}")

    def explain(self) -> str:
        """What the node's object says now, and where the logs are."""
        status = self.node().get("status", {})
        conditions = [f"{c['type']}={c['status']}/{c['reason']}: {c['message']}" for c in status.get("conditions", ())]
        tasks = [t for t in status.get("plan", {}).get("tasks", ()) if t.get("error")]
        errors = [f"task {task['type']}: {task['error']}" for task in tasks]
        phase = f"phase {status.get('phase') or 'empty'}"
        shown = "; ".join([phase, *conditions, *errors])
        return f"The node: {shown}. Logs: {self.stage.directory}/*.log"


@asynccontextmanager
async def _step(story: Story, title: str) -> AsyncIterator[Step]:
    story.step = story.screen.begin(title)
    try:
        yield story.step
    except BaseException:
        story.screen.finish(story.step, failed=True)
        raise
    story.screen.finish(story.step)


async def tell(stage: Stage, screen: Screen) -> list[str]:
    """The whole story. Returns the lines of the last panel. Raises ToolError."""
    await _servers(stage, screen)
    async with (
        KubeClient(from_kubeconfig(stage.kubeconfig), user_agent="seiops-demo") as client,
        asyncio.TaskGroup() as group,
    ):
        kinds = (SEI_NODES, PERSISTENT_VOLUME_CLAIMS, STATEFUL_SETS, SERVICES, CONFIG_MAPS, PODS, EVENTS)
        histories = {kind.kind: History(client, kind, NAMESPACE) for kind in kinds}
        following = [group.create_task(history.follow()) for history in histories.values()]
        story = Story(stage, screen, client, histories, screen.steps[-1])
        try:
            await _controller(story)
            await _blocked(story)
            await _unblocked(story)
            await _pod(story)
            await _running(story)
            await _config_file(story)
            await _digest(story)
            verified = await _verify(story)
        finally:
            for task in following:
                task.cancel()
    return [
        f"[bold]{NODE_NAME}[/] is Running on a trust point that two witnesses agree on,",
        f"and {len(NORMALIZATIONS)} sealed records prove its state equal in memiavl and FlatKV.",
        *verified,
    ]


async def _servers(stage: Stage, screen: Screen) -> None:
    step = screen.begin("A Kubernetes API, an S3 server and two nodes of a recorded chain")
    try:
        step.fact("kubernetes", await off_loop(stage.open_cluster))
        step.fact("s3", await off_loop(stage.open_s3))
        kinds = await off_loop(stage.install)
        step.fact("crds", ", ".join(name.removesuffix(".sei.io") for name in kinds))
        step.fact("witnesses", await off_loop(stage.open_chain))
    except BaseException:
        screen.finish(step, failed=True)
        raise
    screen.finish(step)


async def _controller(story: Story) -> None:
    async with _step(
        story, "The controller starts, with the rights of its ServiceAccount and no syncers configured"
    ) as step:
        story.stage.write_config([])
        await off_loop(story.stage.open_pod_runner)
        await off_loop(story.stage.open_controller)
        lease = await story.answer(lambda: _lease_holder(story), 30, "the controller holds its Lease")
        step.fact("lease", f"held by {lease}")


async def _lease_holder(story: Story) -> str | None:
    leases = Resource("coordination.k8s.io", "v1", "leases", "Lease")
    listing = await story.client.list(leases, "sei-k8s-controller-system")
    return next(
        (lease["spec"]["holderIdentity"] for lease in listing.items if lease["spec"].get("holderIdentity")), None
    )


def _manifest() -> Obj:
    return {
        "apiVersion": "sei.io/v1alpha1",
        "kind": "SeiNode",
        "metadata": {"name": NODE_NAME, "namespace": NAMESPACE},
        "spec": {
            "chainId": CHAIN_ID,
            "image": "seid:recorded",
            "fullNode": {"snapshot": {"stateSync": {}}},
        },
    }


def condition(node: Obj, kind: str) -> Obj:
    found = (c for c in node.get("status", {}).get("conditions", ()) if c["type"] == kind)
    return next(found, {"status": "", "reason": "", "message": ""})


def _gate_is(reason: str, text: str = "") -> Callable[[Obj], bool]:
    def holds(node: Obj) -> bool:
        gate = condition(node, "StateSyncReady")
        return gate["reason"] == reason and text in gate["message"]

    return holds


async def _blocked(story: Story) -> None:
    async with _step(story, "A state-sync SeiNode without syncers stays closed") as step:
        await off_loop(story.stage.apply, [_manifest()])
        await story.until(
            story.nodes, _gate_is("NoSyncersConfigured", "found 0"), 20, "StateSyncReady=False/NoSyncersConfigured"
        )
        # Another pass, for another reason: one syncer is still no quorum. It must not raise a second Event.
        story.stage.write_config(story.stage.witnesses[:1])
        await story.until(
            story.nodes, _gate_is("NoSyncersConfigured", "found 1"), 20, "one syncer is noticed, and refused"
        )
        gate = condition(story.node(), "StateSyncReady")
        step.fact("condition", f"StateSyncReady={gate['status']}/{gate['reason']}")
        step.fact("", gate["message"])
        await story.answer(lambda: _async(bool(_blocked_events(story))), 10, "a Warning Event StateSyncBlocked")
        events = _blocked_events(story)
        total = sum(event.get("count") or 1 for event in events)
        story.require(len(events) == 1 and total == 1, f"exactly one Event StateSyncBlocked (there are {total})")
        step.fact("events", f"one {events[0]['type']} StateSyncBlocked after two passes")
        changed = [change.object for change in story.nodes.changes]
        story.require(not any(node.get("status", {}).get("plan") for node in changed), "no plan was ever stored")
        story.require(story.histories["StatefulSet"].latest(NODE_NAME) is None, "no StatefulSet exists")
        step.fact("plan", "none, and no StatefulSet: nothing runs before the trust roots are known")


async def _async(value: Any) -> Any:
    return value


def _blocked_events(story: Story) -> list[Obj]:
    names = {change.name for change in story.histories["Event"].changes}
    events = [event for name in names if (event := story.histories["Event"].latest(name)) is not None]
    about = [event for event in events if event["involvedObject"]["name"] == NODE_NAME]
    return [event for event in about if event["reason"] == "StateSyncBlocked"]


async def _unblocked(story: Story) -> None:
    async with _step(story, "The config file gets its two syncers, by a swap of one link") as step:
        swapped = story.stage.write_config(story.stage.witnesses)
        opened = await story.until(story.nodes, _gate_is("Ready"), 20, "StateSyncReady=True/Ready after the swap")
        took = opened.at - swapped
        story.require(took < 5, f"the swap is noticed at once, not at the next poll (it took {took:.1f} s)")
        step.fact("unblocked", f"{took * 1000:.0f} ms after the swap")
        story.require(
            opened.object["status"]["resolvedStateSyncers"] == sorted(story.stage.witnesses),
            "both syncers are resolved",
        )
        stored = await story.until(story.nodes, lambda node: node.get("status", {}).get("plan"), 20, "a plan is stored")
        tasks: list[dict[str, str]] = stored.object["status"]["plan"]["tasks"]
        story.require(all(task["status"] == "Pending" for task in tasks), "the plan is stored before any task has run")
        made = await story.until(
            story.histories["PersistentVolumeClaim"], lambda claim: True, 20, "the first task makes the data volume"
        )
        story.require(stored.version < made.version, "the plan is older than the first object a task made")
        step.fact(
            "plan",
            f"{len(tasks)} tasks, stored whole at resource version {stored.version}; "
            f"the first object a task made has {made.version}",
        )


async def _pod(story: Story) -> None:
    async with _step(story, "The StatefulSet controller makes the Pod; the Pod runner runs its sidecar") as step:
        name = f"{NODE_NAME}-0"
        pods = story.histories["Pod"]
        made = await story.until(pods, lambda pod: pod["metadata"]["name"] == name, 30, f"Pod {name}")
        owner = made.object["metadata"]["ownerReferences"][0]
        story.require(owner["kind"] == "StatefulSet", "the Pod belongs to the StatefulSet")
        running = await story.until(pods, _sidecar_runs, 30, "the sidecar's container runs")
        status = running.object["status"]
        command = next(c["command"] for c in running.object["spec"]["initContainers"] if c["name"] == "sei-sidecar")
        step.fact("pod", f"{name} on node {running.object['spec']['nodeName']}, address {status['podIP']}")
        step.fact("sidecar", f"a local process, `{' '.join(command)}`, behind its proxy on port 8443")


def _sidecar_runs(pod: Obj) -> bool:
    statuses = pod.get("status", {}).get("initContainerStatuses", ())
    return any(s["name"] == "sei-sidecar" and "running" in s["state"] for s in statuses)


async def _running(story: Story) -> None:
    async with _step(story, "The plan runs through the sidecar's API") as step:
        phases = {"Running": True, "Failed": True}
        watching = asyncio.create_task(_show_plan(story, step))
        try:
            ended = await story.until(
                story.nodes, lambda node: node.get("status", {}).get("phase") in phases, 150, "phase Running"
            )
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        story.require(ended.object["status"]["phase"] == "Running", "phase Running")
        plan = next(c.object["status"]["plan"] for c in reversed(story.nodes.changes) if c.object["status"].get("plan"))
        step.table = plan_table([{**task, "status": "Complete"} for task in plan["tasks"]])
        submitted = await _sidecar_tasks(story)
        story.require(all(task["status"] == "completed" for task in submitted), "every sidecar task is completed")
        story.require(all(task["run"] == 1 for task in submitted), "every sidecar task ran once")
        pod = await story.until(story.histories["Pod"], _is_ready, 60, "the Pod is Ready: seid's stand-in was let go")
        step.fact("phase", f"Running; {len(submitted)} sidecar tasks, each ran once")
        step.fact("pod", f"Ready; seid's place is taken by the recorded node, {pod.object['status']['podIP']}:26657")


async def _show_plan(story: Story, step: Step) -> None:
    while True:
        plan = story.node().get("status", {}).get("plan")
        if plan:
            step.table = plan_table(plan["tasks"])
        await asyncio.sleep(POLL)


def _is_ready(pod: Obj) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))


# The sidecar, as a person with a token reaches it


@asynccontextmanager
async def _sidecar(story: Story) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    token = await off_loop(story.stage.token, OPERATOR, NAMESPACE)
    pod = story.histories["Pod"].latest(f"{NODE_NAME}-0") or {}
    headers = {"Authorization": f"Bearer {token}"}
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield session, f"http://{pod['status']['podIP']}:8443/v0"


async def _sidecar_tasks(story: Story) -> list[dict[str, Any]]:
    async with _sidecar(story) as (session, url), session.get(f"{url}/tasks") as answer:
        found: list[dict[str, Any]] = await answer.json()
        return found


def _home(story: Story) -> Path:
    """The node's data directory: where the Pod runner keeps the claim."""
    return story.stage.pods_directory / "claims" / NAMESPACE / f"data-{NODE_NAME}"


async def _config_file(story: Story) -> None:
    async with _step(story, "config.toml holds the trust point") as step:
        document = tomllib.loads((_home(story) / "config" / "config.toml").read_text())
        written = document["statesync"]
        height = HEAD - TRUST_DISTANCE
        block = json.loads(story.stage.recording.comet[f"/block?height={height}"].body)
        recorded: str = block["block_id"]["hash"]
        servers = written["rpc-servers"].split(",")
        story.require(written["enable"] is True, "statesync.enable is true")
        story.require(int(written["trust-height"]) == height, f"trust-height is {height} ({written['trust-height']})")
        story.require(
            written["trust-hash"] == recorded, f"trust-hash is the recorded block's ({written['trust-hash']})"
        )
        story.require(servers == sorted(story.stage.witnesses), f"rpc-servers are both witnesses ({servers})")
        step.fact("trust", f"height {height}, {TRUST_DISTANCE} behind the head; hash {recorded[:16]}…, as recorded")
        step.fact("witnesses", ", ".join(servers))
        genesis = (_home(story) / "config" / "genesis.json").read_bytes()
        story.require(genesis == story.stage.recording.genesis(), "genesis.json is the bucket's object, byte for byte")
        step.fact("genesis", f"{len(genesis)} bytes, as in the bucket")


async def _digest(story: Story) -> None:
    async with _step(story, "evm-logical-digest over a real memiavl snapshot and a real FlatKV store") as step:
        stores = _home(story) / "data" / "state_commit"
        await off_loop(_unpack, STORE / "tiny.tar.zst", stores)
        bucket = story.stage.buckets["evidence"]
        params = {
            "flatkvDir": str(stores / "flatkv"),
            "memiavlDir": str(stores / "memiavl"),
            "height": DIGEST_HEIGHT,
            "bucket": bucket.name,
            "region": REGION,
            "prefix": PREFIX,
            "engine": "native",
        }
        task = await _run_task(story, "evm-logical-digest", params)
        story.require(task["status"] == "completed", f"the digest task is completed ({task.get('error')})")
        keys = [f"{PREFIX}endpoint-digest-{DIGEST_HEIGHT}-{name}.json.gz" for name in NORMALIZATIONS]
        stored = bucket.keys()
        trees = [f"{PREFIX}endpoint-digest-{DIGEST_HEIGHT}-{store}.tree.json.gz" for store in ("flatkv", "memiavl")]
        published = [key for key in stored if "endpoint-digest" in key]
        story.require(
            published == sorted(keys + trees),
            f"one record per normalization and one shard tree per store in the bucket ({published})",
        )
        expected = _expected_digest()
        for name, key in zip(NORMALIZATIONS, keys, strict=True):
            payload = gzip.decompress(bucket.read(key))
            record = json.loads(payload)
            digests = {record["flatkv_digest"], record["memiavl_digest"]}
            story.require(
                digests == {expected}, f"both digests of {name} are what seidb prints, {expected} ({digests})"
            )
            seal = hashlib.sha256(payload).hexdigest()
            story.require(seal in json.dumps(task["result"]), f"the task's result holds the seal of {key}")
            step.fact(name, f"memiavl = FlatKV = {expected[:16]}…, seal {seal[:16]}…")
        step.fact("records", f"s3://{bucket.name}/{PREFIX}")


async def _run_task(story: Story, kind: str, params: dict[str, Any]) -> dict[str, Any]:
    async with _sidecar(story) as (session, url):
        async with session.post(f"{url}/tasks", json={"type": kind, "params": params}) as answer:
            body = await answer.json(content_type=None)
            story.require(answer.status == 201, f"the sidecar takes the {kind} task ({answer.status}: {body})")

        async def ended() -> dict[str, Any] | None:
            async with session.get(f"{url}/tasks/{body['id']}") as answer:
                found: dict[str, Any] = await answer.json()
                return found if found["status"] != "running" else None

        task: dict[str, Any] = await story.answer(ended, 60, f"the {kind} task ends")
        return task


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    plain = zstandard.ZstdDecompressor().stream_reader(archive.open("rb"), closefd=True)
    with plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        tar.extractall(target, filter="data")


def _expected_digest() -> str:
    """What the original seidb printed for this store (tests/data/stores/README.md)."""
    rows = json.loads((STORE / "tiny.expected.json").read_text())
    digests = {row["digest"] for row in rows if row["height"] == DIGEST_HEIGHT}
    (digest,) = digests
    return str(digest)


async def _verify(story: Story) -> list[str]:
    async with _step(story, "seiops verify: the records again, by someone who has only the bucket") as step:
        bucket = story.stage.buckets["evidence"]
        url = f"{bucket.url}/{PREFIX}"
        program = Path(sys.executable).with_name("seiops")
        process = await asyncio.create_subprocess_exec(
            *(str(program), "verify", url),
            env={
                "PATH": "/usr/bin:/bin",
                "LANG": "C.UTF-8",
                "COLUMNS": "110",
                "HOME": str(story.stage.directory),
                **bucket.env,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), 60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        said = (output.decode() + errors.decode()).strip()
        story.require(process.returncode == 0, f"`seiops verify {url}` exits 0 (it is {process.returncode}): {said}")
        step.table = Text.from_ansi(output.decode().rstrip())
        step.fact("$", f"seiops verify {url}")
    return [f"[dim]verified with[/] seiops verify {url}"]
