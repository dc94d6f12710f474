"""Which cluster and which namespaces a command is about, in the words kubectl users know."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import orjson
import typer

from seiops.kube import ApiError, ConfigError, Connection, KubeClient, connect

T = TypeVar("T")

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace; default: that of the context.")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Every namespace.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="Kubeconfig file; default: KUBECONFIG, ~/.kube/config.")]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig; default: its current one.")]


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


class CommandError(Exception):
    """What a command could not do, in one line for the person at the terminal."""


def connection(kubeconfig: str, context: str) -> Connection:
    """Raises CommandError."""
    try:
        return connect(kubeconfig or None, context=context or None)
    except ConfigError as error:
        raise CommandError(str(error)) from error


def scope(found: Connection, namespace: str, all_namespaces: bool) -> str | None:
    """The namespace to look into, None for all."""
    return None if all_namespaces else namespace or found.namespace


def run(found: Connection, work: Callable[[KubeClient], Coroutine[Any, Any, T]]) -> T:
    """Runs the work with a client of its own. Raises CommandError where the API server refuses or does not answer."""
    import asyncio

    async def main() -> T:
        async with KubeClient(found, user_agent="seiops-cli") as client:
            return await work(client)

    try:
        return asyncio.run(main())
    except ApiError as error:
        raise CommandError(_explained(error, found)) from error


def guarded(command: Callable[[], None]) -> None:
    """Ends with status 1 and one line on stderr where the command could not be carried out, quietly on Ctrl-C."""
    try:
        command()
    except CommandError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def print_json(document: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def print_json_line(document: Any) -> None:
    sys.stdout.buffer.write(orjson.dumps(document) + b"\n")
    sys.stdout.buffer.flush()


def _explained(error: ApiError, found: Connection) -> str:
    if error.status == 0:
        return f"{error.message} ({found.server})"
    if error.status == 404 and error.reason == "HTTP404":
        return f"{found.server} does not know SeiNodes: apply deploy/crd first"
    if error.status == 403:
        return f"{error.message}; docs/kubectl-plugin.md lists the rights these commands need"
    return error.message
