"""`seiops explain NODE`: the story of one node and what to do next."""

from __future__ import annotations

from typing import Annotated

import typer

from seiops.cli.clusters import (
    Context,
    Kubeconfig,
    Namespace,
    Output,
    connection,
    guarded,
    print_json,
    run,
    scope,
)
from seiops.cli.fleet.heights import Route
from seiops.cli.fleet.story import Story, tell
from seiops.cli.nodes import default_route, rpc_of
from seiops.kube import KubeClient


def register(app: typer.Typer) -> None:
    @app.command("explain")
    def explain(
        node: Annotated[str, typer.Argument(help="Name of the SeiNode, or NAMESPACE/NAME.")],
        namespace: Namespace = "",
        output: Annotated[Output, typer.Option("--output", "-o", help="table is for people.")] = Output.TABLE,
        rpc: Annotated[
            Route | None, typer.Option(help="How the height is read; default: direct inside a Pod, else proxy.")
        ] = None,
        kubeconfig: Kubeconfig = "",
        context: Context = "",
    ) -> None:
        """The story of one node from its conditions, plan, tasks and Events, and what to do next."""

        def command() -> None:
            found = connection(kubeconfig, context)
            before, slash, after = node.partition("/")
            name = after if slash else node
            place = before if slash else scope(found, namespace, False) or found.namespace
            story = run(found, lambda client: _read(client, place, name, rpc or default_route()))
            if output is Output.JSON:
                print_json(story.wire())
                return
            from rich.console import Console

            from seiops.cli.fleet.page import print_story

            console = Console()
            print_story(story, console if console.is_terminal else Console(width=160))

        guarded(command)


async def _read(client: KubeClient, namespace: str, name: str, route: Route) -> Story:
    async with rpc_of(route, client) as rpc:
        return await tell(client, namespace, name, rpc)
