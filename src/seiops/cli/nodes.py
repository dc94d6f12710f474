"""`seiops nodes`: the fleet as a table, once or live."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import typer

from seiops.cli.clusters import (
    AllNamespaces,
    Context,
    Kubeconfig,
    Namespace,
    Output,
    connection,
    guarded,
    print_json,
    print_json_line,
    run,
    scope,
)
from seiops.cli.fleet.heights import DirectRpc, Height, ProxyRpc, Route, Rpc, direct_session, heights
from seiops.cli.fleet.table import ROOMY, Row, as_json, changed, drawn, row, sort_rows, summary
from seiops.cli.fleet.view import view
from seiops.controller.kinds import SEI_NODES
from seiops.kube import Key, KubeClient, Obj
from seiops.kube.informer import Informer, Store

HEIGHTS_EVERY = 5.0
PIPED_WIDTH = 200
"""Columns where nobody says how many there are."""
REDRAW = 0.25
RESOLVE_VARIABLE = "SEIOPS_RESOLVE_FILE"


def register(app: typer.Typer) -> None:
    @app.command("nodes")
    def nodes(
        namespace: Namespace = "",
        all_namespaces: AllNamespaces = False,
        selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector, as kubectl takes it.")] = "",
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep the table current until Ctrl-C.")] = False,
        output: Annotated[Output, typer.Option("--output", "-o", help="With -w, json prints a line a change.")] = (
            Output.TABLE
        ),
        rpc: Annotated[
            Route | None, typer.Option(help="How heights are read; default: direct inside a Pod, else proxy.")
        ] = None,
        kubeconfig: Kubeconfig = "",
        context: Context = "",
    ) -> None:
        """The fleet: phase, plan step, height and lag, syncers, and why a node does not go on."""

        def command() -> None:
            found = connection(kubeconfig, context)
            wanted = scope(found, namespace, all_namespaces)
            route = rpc or default_route()
            show = _watch if watch else _once
            run(found, lambda client: show(client, wanted, selector, route, output))

        guarded(command)


def default_route() -> Route:
    inside = "KUBERNETES_SERVICE_HOST" in os.environ or RESOLVE_VARIABLE in os.environ
    return Route.DIRECT if inside else Route.PROXY


@contextlib.asynccontextmanager
async def rpc_of(route: Route, client: KubeClient) -> AsyncIterator[Rpc | None]:
    if route is Route.DIRECT:
        async with direct_session(os.environ.get(RESOLVE_VARIABLE, "")) as session:
            yield DirectRpc(session)
    else:
        yield ProxyRpc(client) if route is Route.PROXY else None


async def _once(client: KubeClient, namespace: str | None, selector: str, route: Route, output: Output) -> None:
    listing = await client.list(SEI_NODES, namespace, label_selector=selector or None)
    views = [view(raw) for raw in listing.items]
    async with rpc_of(route, client) as rpc:
        known = await heights(rpc, views) if rpc is not None else {}
    rows = sort_rows([row(item, known.get(item.key)) for item in views])
    if output is Output.JSON:
        print_json([as_json(item) for item in rows])
        return
    from rich.console import Console

    if not rows:
        sys.stderr.write(f"No SeiNodes in {'any namespace' if namespace is None else f'namespace {namespace}'}.\n")
        return
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    console.print(drawn(rows, width=console.width, namespaces=namespace is None, heights=route is not Route.OFF))
    console.print(summary(rows))


class _Fleet:
    """The nodes as the watch last told of them, with the heights last read."""

    def __init__(self) -> None:
        self.store = Store(transform=_without_managed_fields)
        self.known: dict[Key, Height] = {}
        self.touched = asyncio.Event()
        self.store.subscribe(lambda old, new: self.touched.set())

    def rows(self) -> list[Row]:
        views = (view(raw) for raw in self.store.all())
        return sort_rows([row(item, self.known.get(item.key)) for item in views])

    async def follow_heights(self, rpc: Rpc) -> None:
        while True:
            self.known = await heights(rpc, [view(raw) for raw in self.store.all()])
            self.touched.set()
            await asyncio.sleep(HEIGHTS_EVERY)


async def _watch(client: KubeClient, namespace: str | None, selector: str, route: Route, output: Output) -> None:
    # A first list by hand: what cannot be read at all is an error now, not something to be tried for ever.
    await client.request("GET", SEI_NODES.path(namespace), params={"limit": "1"})
    fleet = _Fleet()
    informer = Informer(client, SEI_NODES, fleet.store, namespace=namespace, label_selector=selector or None)
    async with rpc_of(route, client) as rpc, asyncio.TaskGroup() as group:
        tasks = [group.create_task(informer.run())]
        await informer.synced.wait()
        if rpc is not None:
            tasks.append(group.create_task(fleet.follow_heights(rpc)))
        try:
            if output is Output.JSON or not sys.stdout.isatty():
                await _print_changes(fleet, print_json_line if output is Output.JSON else _print_line)
            else:
                await _draw(fleet, namespace is None, route is not Route.OFF)
        finally:
            for task in tasks:
                task.cancel()


async def _print_changes(fleet: _Fleet, show: Callable[[dict[str, Any]], None]) -> None:
    before: dict[Key, dict[str, Any]] = {}
    while True:
        after = {item.view.key: as_json(item) for item in fleet.rows()}
        for item in changed(before, after):
            show(item)
        before = after
        await fleet.touched.wait()
        fleet.touched.clear()
        await asyncio.sleep(REDRAW)


def _print_line(item: dict[str, Any]) -> None:
    name = f"{item['namespace']}/{item['name']}"
    if item.get("deleted"):
        print(name, "deleted", flush=True)
        return
    plan, concern = item["plan"] or {}, item["concern"] or {}
    step = f"{plan['type']} {plan['done']}/{plan['total']} {plan.get('task', '')}".strip() if plan else "-"
    why = f"{concern['reason']}: {concern['what']}" if concern else ""
    print(name, item["phase"] or "-", step, item["height"] if item["height"] is not None else "-", why, flush=True)


async def _draw(fleet: _Fleet, namespaces: bool, with_heights: bool) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            rows = fleet.rows()
            lines = console.size.height - 3
            room = max(1, lines if console.width >= ROOMY else lines // 2)
            shown = _worst_first(rows)[:room]
            table = drawn(shown, width=console.width, namespaces=namespaces, heights=with_heights)
            live.update(Group(summary(rows), table), refresh=True)
            # Not wait_for: before Python 3.12 it loses a Ctrl-C that comes together with a change.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await fleet.touched.wait()
            fleet.touched.clear()
            await asyncio.sleep(REDRAW)


def _worst_first(rows: list[Row]) -> list[Row]:
    """On one screen the nodes that need somebody come first, then those that change, then the quiet ones."""
    quiet = 99

    def rank(item: Row) -> int:
        if item.worst is not None:
            return int(item.worst.severity)
        return quiet - 1 if item.view.step is not None else quiet

    return sorted(rows, key=rank)


def _without_managed_fields(raw: Obj) -> Obj:
    raw["metadata"].pop("managedFields", None)
    return raw
