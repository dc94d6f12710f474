"""`seiops syncers check`: is a syncer list fit for nodes to trust? For the curator, and for a pull-request check."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from seiops.api import UndecodableError
from seiops.api.meta import rfc3339
from seiops.api.node import SeiNode
from seiops.cli.clusters import (
    CommandError,
    Context,
    Kubeconfig,
    Namespace,
    Output,
    connection,
    print_json,
    run,
)
from seiops.controller.appconfig import AppConfig, AppConfigError, SyncerSourceError, decode
from seiops.controller.kinds import SEI_NODES
from seiops.controller.resources import snapshot
from seiops.controller.settings import CONFIG_VARIABLE
from seiops.kube import KubeClient
from seiops.kube.client.resource import CONFIG_MAPS
from seiops.seid.witnesses import Chain, Endpoint, Finding, Problem, Rules, check_chain

FINE, NOT_CHECKED, FINDINGS = 0, 1, 2
USUAL = Rules()
CONFIG_NAMESPACE, CONFIG_NAME, CONFIG_KEY = "sei-k8s-controller-system", "sei-controller-config", "config.yaml"


@dataclass(frozen=True, slots=True)
class Source:
    """Lists to check by chain, and what is wrong with a list before anybody is asked."""

    name: str
    chains: Mapping[str, list[str]]
    malformed: Mapping[str, str]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="Curate the syncer lists that nodes trust.")
    group.command("check")(check)
    group.callback()(_group)
    app.add_typer(group, name="syncers")


def _group() -> None:
    """Curate the syncer lists that nodes trust."""


def check(
    file: Annotated[
        Path | None,
        typer.Argument(help="The controller's config file; default: SEI_CONTROLLER_CONFIG, then the cluster."),
    ] = None,
    chain: Annotated[list[str] | None, typer.Option("--chain", help="Only this chain; may be repeated.")] = None,
    node: Annotated[str, typer.Option("--node", help="The witnesses of this SeiNode instead of a list.")] = "",
    namespace: Namespace = "",
    output: Annotated[Output, typer.Option("--output", "-o", help="How the result is printed.")] = Output.TABLE,
    deadline: Annotated[float, typer.Option(min=0.1, help="Seconds for each question.")] = USUAL.deadline,
    most_behind: Annotated[int, typer.Option(min=0, help="Blocks an endpoint may be behind.")] = USUAL.most_behind,
    longest_age: Annotated[
        float, typer.Option(min=0, help="Seconds the newest block may be old; 0: any age.")
    ] = USUAL.longest_age,
    trust_distance: Annotated[
        int, typer.Option(min=1, help="Blocks between head and trust height, as nodes choose it.")
    ] = USUAL.trust_distance,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
) -> None:
    """Ask every syncer what a node will ask it. Exit 0: fine; 1: could not be checked; 2: findings."""
    rules = Rules(deadline=deadline, most_behind=most_behind, longest_age=longest_age, trust_distance=trust_distance)
    try:
        source = _source(file, node, namespace, kubeconfig, context)
        wanted = _wanted(source, chain or [])
        found = _check_all(source, wanted, rules, quiet=output is Output.JSON)
    except CommandError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise typer.Exit(NOT_CHECKED) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if output is Output.JSON:
        print_json({"source": source.name, "fine": all(item.fine for item in found), "chains": list(map(_wire, found))})
    else:
        _print(source, found)
    raise typer.Exit(_status(found))


def _status(found: list[Chain]) -> int:
    if all(item.fine for item in found):
        return FINE
    silent = [item for item in found if not any(finding.problem is Problem.MALFORMED for finding in item.findings)]
    if len(silent) == len(found) and not any(item.answered for item in found):
        sys.stderr.write("Error: not one endpoint answered: is there a way from here to any of them?\n")
        return NOT_CHECKED
    return FINDINGS


# Where the lists come from


def _source(file: Path | None, node: str, namespace: str, kubeconfig: str, context: str) -> Source:
    if node:
        return _of_node(node, namespace, kubeconfig, context)
    named = str(file) if file is not None else os.environ.get(CONFIG_VARIABLE, "").strip()
    if named:
        try:
            return _of_config(named, Path(named).read_bytes())
        except OSError as error:
            raise CommandError(f"{named}: {error.strerror}") from error
    found = connection(kubeconfig, context)

    async def read(client: KubeClient) -> dict[str, Any]:
        return await client.get(CONFIG_MAPS, CONFIG_NAME, CONFIG_NAMESPACE)

    data = run(found, read).get("data") or {}
    name = f"ConfigMap {CONFIG_NAMESPACE}/{CONFIG_NAME}"
    if CONFIG_KEY not in data:
        raise CommandError(f"{name} has no key {CONFIG_KEY}")
    return _of_config(name, str(data[CONFIG_KEY]).encode())


def _of_config(name: str, content: bytes) -> Source:
    try:
        config = decode(name, content)
    except AppConfigError as error:
        raise CommandError(str(error)) from error
    chains: dict[str, list[str]] = {}
    malformed: dict[str, str] = {}
    for chain_id in sorted(config.state_sync.syncers):
        try:
            chains[chain_id] = config.syncers(chain_id)
        except SyncerSourceError as error:
            chains[chain_id], malformed[chain_id] = _well_formed(config, chain_id), str(error)
    return Source(name, chains, malformed)


def _well_formed(config: AppConfig, chain_id: str) -> list[str]:
    """The items of a list with a bad item that can be asked nevertheless."""
    listed = config.state_sync.syncers[chain_id]
    found = []
    for item in listed if isinstance(listed, list) else ():
        alone = AppConfig.model_validate({"stateSync": {"syncers": {chain_id: [item]}}})
        try:
            found += alone.syncers(chain_id)
        except SyncerSourceError:
            continue
    return sorted(set(found))


def _of_node(name: str, namespace: str, kubeconfig: str, context: str) -> Source:
    found = connection(kubeconfig, context)
    place, slash, after = name.partition("/")
    where, which = (place, after) if slash else (namespace or found.namespace, name)

    async def read(client: KubeClient) -> dict[str, Any]:
        return await client.get(SEI_NODES, which, where)

    try:
        node = SeiNode.decode(run(found, read))
    except UndecodableError as error:
        raise CommandError(str(error)) from error
    source = snapshot(node)
    declared = sorted(set(source.rpc_servers)) if source is not None else []
    witnesses = node.status.resolved_state_syncers or declared
    if not witnesses:
        raise CommandError(f"SeiNode {where}/{which} has no witnesses: `seiops explain {which} -n {where}` says why")
    return Source(f"SeiNode {where}/{which}", {node.spec.chain_id: witnesses}, {})


def _wanted(source: Source, chains: list[str]) -> list[str]:
    missing = [chain for chain in chains if chain not in source.chains]
    if missing:
        known = ", ".join(source.chains) or "none"
        raise CommandError(f"{source.name} lists no syncers for {', '.join(missing)}; chains it lists: {known}")
    if not source.chains:
        raise CommandError(f"{source.name} lists no syncers: nothing stands under stateSync.syncers")
    return chains or list(source.chains)


# Asking


def _check_all(source: Source, wanted: list[str], rules: Rules, *, quiet: bool) -> list[Chain]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    total = sum(len(source.chains[chain]) for chain in wanted)
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        asked = bar.add_task("asking syncers", total=total)

        async def all_chains() -> list[Chain]:
            trust = ssl.create_default_context()
            checks = (
                check_chain(chain, source.chains[chain], rules, trust, lambda: bar.advance(asked)) for chain in wanted
            )
            return list(await asyncio.gather(*checks))

        found = asyncio.run(all_chains())
    for item in found:
        if item.chain_id in source.malformed:
            item.findings.insert(0, Finding(Problem.MALFORMED, source.malformed[item.chain_id]))
    return found


# Telling


def _wire(chain: Chain) -> dict[str, Any]:
    return {
        "chainId": chain.chain_id,
        "fine": chain.fine,
        "trustHeight": chain.trust_height,
        "findings": [_wire_finding(finding) for finding in chain.findings],
        "endpoints": [_wire_endpoint(endpoint) for endpoint in chain.endpoints],
    }


def _wire_finding(finding: Finding) -> dict[str, str]:
    return {"problem": finding.problem.value, "detail": finding.detail}


def _wire_endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "endpoint": endpoint.address,
        "usable": endpoint.usable,
        "tls": endpoint.tls,
        "milliseconds": endpoint.milliseconds,
        "network": endpoint.network,
        "nodeId": endpoint.node_id,
        "height": endpoint.height,
        "behind": endpoint.behind,
        "earliest": endpoint.earliest,
        "catchingUp": endpoint.catching_up,
        "newestBlock": rfc3339(endpoint.newest_block) if endpoint.newest_block else None,
        "certificateEnds": rfc3339(endpoint.certificate_ends) if endpoint.certificate_ends else None,
        "trustHash": endpoint.trust_hash,
        "findings": [_wire_finding(finding) for finding in endpoint.findings],
    }


def _print(source: Source, found: list[Chain]) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    for chain in found:
        console.print(_table(chain))
        for finding in chain.findings:
            console.print(f"[bold red]{finding.problem.value}[/]: ", end="")
            console.print(finding.detail, markup=False)
        console.print()
    bad = sum(len(chain.findings) + sum(len(item.findings) for item in chain.endpoints) for chain in found)
    asked = sum(len(chain.endpoints) for chain in found)
    console.print(f"{source.name}: {asked} endpoints of {len(found)} chains, {bad or 'no'} findings", markup=False)


def _table(chain: Chain) -> Any:
    from rich.table import Table
    from rich.text import Text

    height = f", trust height {chain.trust_height:,}" if chain.trust_height is not None else ""
    table = Table(
        title=f"{chain.chain_id}{height}", title_justify="left", box=None, header_style="bold", pad_edge=False
    )
    table.add_column("ENDPOINT", no_wrap=True)
    for title in ("MS", "HEIGHT", "LAG", "EARLIEST"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("TLS", "HASH"):
        table.add_column(title, no_wrap=True)
    table.add_column("FINDINGS", ratio=1)
    for item in chain.endpoints:
        mark = Text("ok", style="green")
        if item.findings:
            mark = Text("; ".join(f"{found.problem.value}: {found.detail}" for found in item.findings), style="yellow")
        numbers = (
            f"{n:,}" if n is not None else "" for n in (item.milliseconds, item.height, item.behind, item.earliest)
        )
        until = f"until {item.certificate_ends:%Y-%m-%d}" if item.certificate_ends else ("yes" if item.tls else "no")
        table.add_row(Text(item.address), *numbers, until, (item.trust_hash or "")[:8], mark)
    return table
