"""`seiops shadow preflight`: the traps of a comparison, checked from wherever both nodes can be reached."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any, NoReturn

import aiohttp
import orjson
import typer
from rich.console import Console
from rich.table import Table

from seiops.shadow import assemble, preflight
from seiops.shadow.preflight import Preflight
from seiops.shadow.request import Request, RequestError
from seiops.shadow.traps import Check, Plan
from seiops.sidecar.tasks.export_migration import migration_facts

app = typer.Typer(no_args_is_help=True, help="Compare two nodes.")
_COLOURS = {"held": "green", "failed": "red", "note": "cyan", "not checked": "yellow"}


@app.callback()
def _group() -> None:
    """Comparisons themselves are tasks of the sidecar (`result-export`)."""


@app.command("preflight")
def check(
    canonical_rpc: Annotated[str, typer.Option(help="CometBFT RPC of the reference node")],
    rpc: Annotated[str, typer.Option(help="CometBFT RPC of the shadow node")] = "http://localhost:26657",
    start_height: Annotated[int, typer.Option(help="first height to compare")] = 1,
    end_height: Annotated[int, typer.Option(help="last height; 0 follows the chain")] = 0,
    shadow_evm_rpc: Annotated[str, typer.Option(help="EVM JSON-RPC of the shadow node")] = "",
    canonical_evm_rpc: Annotated[str, typer.Option(help="EVM JSON-RPC of the reference node")] = "",
    trace_rpc: Annotated[str, typer.Option(help="where to trace; the reference node's EVM RPC by default")] = "",
    shadow_metrics: Annotated[str, typer.Option(help="URL of the shadow's /metrics")] = "",
    canonical_metrics: Annotated[str, typer.Option(help="URL of the reference node's /metrics")] = "",
    flatkv_dir: Annotated[str, typer.Option(help="FlatKV store directory, for the state of the migration")] = "",
    chain_id: Annotated[str, typer.Option(help="chain both nodes have to be on")] = "",
    migration: Annotated[bool, typer.Option(help="the run will use migrationMode")] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="exit 2 when a check failed or a configured probe gave no answer")
    ] = False,
    output: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Check the traps T1 to T27 before a comparison starts.

    Exit status: 0, or with --strict 2 where something stops the run; 1 could not check at all.
    """
    request = Request(
        bucket="none", region="none", rpc_endpoint=rpc, canonical_rpc=canonical_rpc, migration=migration,
        shadow_evm_rpc=shadow_evm_rpc, canonical_evm_rpc=canonical_evm_rpc, trace_rpc=trace_rpc,
        start_height=start_height, end_height=end_height, shadow_metrics=shadow_metrics,
        canonical_metrics=canonical_metrics, flatkv_dir=flatkv_dir,
    )  # fmt: skip
    if output not in ("text", "json"):
        _fail(f"--output is {output!r}; use text or json")
    try:
        request.check()
        found = asyncio.run(_run(request, chain_id))
    except RequestError as error:
        _fail(str(error).removeprefix("result-export: "))
    stops = found.stopping
    if output == "json":
        document: dict[str, Any] = {
            "checks": [one.wire() for one in found.checks],
            "stops": [one.name for one in stops],
            "nodes": found.nodes,
        }
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _show(found.checks)
    raise typer.Exit(2 if strict and stops else 0)


async def _run(request: Request, chain_id: str) -> Preflight:
    async with aiohttp.ClientSession() as session:
        start = request.start_height or 1
        comparator = assemble.comparator(request, session, start)
        plan = Plan(request, start, chain_id, migration=migration_facts)
        return await preflight.run(plan, comparator, session)


def _show(checks: list[Check]) -> None:
    table = Table("check", "traps", "state", "finding", "what to do")
    for one in checks:
        advice = one.advice if one.state != "held" else ""
        table.add_row(one.name, one.traps, f"[{_COLOURS[one.state]}]{one.state}[/]", one.finding, advice)
    Console().print(table)


def _fail(text: str) -> NoReturn:
    print(f"Error: {text}", file=sys.stderr)
    raise typer.Exit(1)


def register(root: typer.Typer) -> None:
    """Adds the `shadow` group."""
    root.add_typer(app, name="shadow")
