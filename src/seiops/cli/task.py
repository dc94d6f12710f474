"""`seiops task`: the tasks of one node's sidecar, from a terminal.

The sidecar is reached as operators already reach it: by the node's name through the proxy in its Pod, with the kubeconfig's
credentials (docs/contracts/seictl-cli.md 8.12), or by a URL, as a port-forward gives one.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import typer

from seiops.cli.clusters import CommandError, Context, Kubeconfig, Namespace, Output, connection, guarded, print_json

PROXY_PORT = 8443
CALL_SECONDS = 10.0
WATCH_SECONDS = 1.0
_ENDED = ("completed", "failed")

Node = Annotated[
    str, typer.Option("--node", help="Name of the SeiNode; its sidecar is asked through the proxy in its Pod.")
]
Port = Annotated[int, typer.Option("--port", help="Port of that proxy.")]
Url = Annotated[str, typer.Option("--url", help="Ask this sidecar instead, for example http://localhost:7777.")]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="table is for people.")]
TaskId = Annotated[str, typer.Argument(metavar="ID", help="UUID of the task.")]


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Where a sidecar answers, how errors call it, and the token its proxy wants."""

    url: str
    name: str
    token: str | None

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and decoded answer. Raises CommandError where nothing answers in time."""
        import aiohttp

        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        data = None if body is None else orjson.dumps(body)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, self.url + path, data=data, headers=headers) as answer,
            ):
                text = await answer.read()
                return answer.status, _decoded(text)
        except TimeoutError as error:
            raise CommandError(
                f"the sidecar of {self.name} ({self.url}) did not answer within {CALL_SECONDS:g} s"
            ) from error
        except aiohttp.ClientError as error:
            raise CommandError(f"the sidecar of {self.name} ({self.url}) cannot be reached: {error}") from error


def _decoded(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text.decode("utf-8", "replace").strip()


def _sidecar(
    node: str, namespace: str, port: int, url: str, kubeconfig: str, context: str
) -> Callable[[], Coroutine[Any, Any, Sidecar]]:
    async def found() -> Sidecar:
        if url:
            return Sidecar(url.rstrip("/"), node or url, None)
        if not node:
            raise CommandError("name the node with --node, or its sidecar with --url")
        cluster = connection(kubeconfig, context)
        place = namespace or cluster.namespace
        host = f"{node}-0.{node}.{place}.svc.cluster.local"
        return Sidecar(f"http://{host}:{port}", f"node {node}", await cluster.credentials.token())

    return found


def _run(
    target: Callable[[], Coroutine[Any, Any, Sidecar]], work: Callable[[Sidecar], Coroutine[Any, Any, None]]
) -> None:
    async def main() -> None:
        await work(await target())

    guarded(lambda: asyncio.run(main()))


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Submit, list, watch and cancel the tasks of a node's sidecar.")

    @group.command("submit")
    def submit(
        kind: Annotated[str, typer.Argument(metavar="TYPE", help="Type of the task, for example config-validate.")],
        params: Annotated[str, typer.Option("--params", help="Parameters as a JSON object.")] = "",
        task_id: Annotated[
            str, typer.Option("--id", help="UUID of the task; the sidecar chooses one if it is not given.")
        ] = "",
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay until the task has ended.")] = False,
        node: Node = "",
        namespace: Namespace = "",
        port: Port = PROXY_PORT,
        url: Url = "",
        kubeconfig: Kubeconfig = "",
        context: Context = "",
    ) -> None:
        """Submit a task and print its id."""

        async def work(sidecar: Sidecar) -> None:
            body: dict[str, Any] = {"type": kind}
            if params:
                body["params"] = _params(params)
            if task_id:
                body["id"] = _uuid(task_id)
            status, answer = await sidecar.call("POST", "/v0/tasks", body)
            _expect(status, (201, 202), answer, sidecar)
            print_json(answer)
            if watch:
                await _watch(sidecar, answer["id"])

        _run(_sidecar(node, namespace, port, url, kubeconfig, context), work)

    @group.command("list")
    def list_tasks(
        output: OutputOption = Output.TABLE,
        node: Node = "",
        namespace: Namespace = "",
        port: Port = PROXY_PORT,
        url: Url = "",
        kubeconfig: Kubeconfig = "",
        context: Context = "",
    ) -> None:
        """The newest tasks of a node."""

        async def work(sidecar: Sidecar) -> None:
            status, answer = await sidecar.call("GET", "/v0/tasks")
            _expect(status, (200,), answer, sidecar)
            if output is Output.JSON:
                print_json(answer)
            else:
                _print_table(answer)

        _run(_sidecar(node, namespace, port, url, kubeconfig, context), work)

    @group.command("get")
    def get(
        task_id: TaskId,
        node: Node = "",
        namespace: Namespace = "",
        port: Port = PROXY_PORT,
        url: Url = "",
        kubeconfig: Kubeconfig = "",
        context: Context = "",
    ) -> None:
        """One task with its parameters and result, as JSON."""

        async def work(sidecar: Sidecar) -> None:
            print_json(await _task(sidecar, _uuid(task_id)))

        _run(_sidecar(node, namespace, port, url, kubeconfig, context), work)

    @group.command("watch")
    def watch(
        task_id: TaskId,
        node: Node = "",
        namespace: Namespace = "",
        port: Port = PROXY_PORT,
        url: Url = "",
        kubeconfig: Kubeconfig = "",
        context: Context = "",
    ) -> None:
        """Follow a task with a progress bar until it has ended. Exit 0 completed, 1 failed."""
        _run(_sidecar(node, namespace, port, url, kubeconfig, context), lambda sidecar: _watch(sidecar, _uuid(task_id)))

    @group.command("cancel")
    def cancel(
        task_id: TaskId,
        node: Node = "",
        namespace: Namespace = "",
        port: Port = PROXY_PORT,
        url: Url = "",
        kubeconfig: Kubeconfig = "",
        context: Context = "",
    ) -> None:
        """Cancel a task if it runs, and remove it."""

        async def work(sidecar: Sidecar) -> None:
            wanted = _uuid(task_id)
            status, answer = await sidecar.call("DELETE", f"/v0/tasks/{wanted}")
            if status == 404:
                raise CommandError(f"task {wanted} not found on {sidecar.name}")
            _expect(status, (204,), answer, sidecar)
            sys.stdout.write(f"task {wanted} deleted\n")

        _run(_sidecar(node, namespace, port, url, kubeconfig, context), work)

    app.add_typer(group, name="task")


def _params(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise CommandError(f"--params must be a JSON object: {error}") from error
    if not isinstance(value, dict):
        raise CommandError(f"--params must be a JSON object, not {type(value).__name__}")
    return value


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise CommandError(f"id argument must be a task UUID: {text!r}") from error


def _expect(status: int, wanted: tuple[int, ...], answer: Any, sidecar: Sidecar) -> None:
    if status not in wanted:
        detail = answer.get("error", answer) if isinstance(answer, dict) else answer
        raise CommandError(f"the sidecar of {sidecar.name} answered {status}: {detail}")


async def _task(sidecar: Sidecar, task_id: str) -> dict[str, Any]:
    status, answer = await sidecar.call("GET", f"/v0/tasks/{task_id}")
    if status == 404:
        raise CommandError(f"task {task_id} not found on {sidecar.name}")
    _expect(status, (200,), answer, sidecar)
    found: dict[str, Any] = answer
    return found


def _print_table(tasks: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "type", "status", "run", "submitted", "result")
    for task in tasks:
        outcome = task.get("error") or _short(task.get("result"))
        colour = {"completed": "green", "failed": "red"}.get(task["status"], "yellow")
        table.add_row(
            task["id"], task["type"], f"[{colour}]{task['status']}[/]", str(task["run"]), task["submittedAt"], outcome
        )
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(table)


def _short(result: Any) -> str:
    return "" if result is None else orjson.dumps(result).decode()[:80]


async def _watch(sidecar: Sidecar, task_id: str) -> None:
    """Draw what the running task reports (`phase`, `done`, `total`, `unit`) and end as it ends."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        line = bar.add_task("waiting", total=None, amount="")
        while True:
            task = await _task(sidecar, task_id)
            if task["status"] in _ENDED:
                break
            reported = task.get("result")
            state = reported if isinstance(reported, dict) else {}
            bar.update(
                line,
                description=f"{task['type']} {state.get('phase', '')}".strip(),
                completed=state.get("done") or 0,
                total=state.get("total") or None,
                amount=_amount(state),
            )
            await asyncio.sleep(WATCH_SECONDS)
        bar.update(line, description=f"{task['type']} {task['status']}", total=1, completed=1, amount="")
    print_json(task)
    if task["status"] == "failed":
        raise CommandError(f"task {task_id} failed: {task.get('error') or 'no error detail'}")


def _amount(state: dict[str, Any]) -> str:
    done, total, unit = state.get("done"), state.get("total"), state.get("unit", "")
    if done is None:
        return ""
    if unit == "bytes":
        mib = 1 << 20
        return f"{done / mib:,.1f} MiB" + (f" of {total / mib:,.1f}" if total else "")
    return f"{done:,} {unit}" + (f" of {total:,}" if total else "")
