"""`seiops hashlog diff`: two hash logs compared block by block, without asking either node."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from seiops.shadow.hashlog import Difference, HashLogError, diff

app = typer.Typer(no_args_is_help=True, help="Compare the hash logs of two nodes.")
_SHOWN = 20
_COVERAGE = "covers every state write and the consensus fields of receipts; says nothing of `log` and `events`"


@app.callback()
def _group() -> None:
    """Hash logs are written by seid to <home>/data/hash.log."""


@app.command("diff")
def difference(
    left: Annotated[Path, typer.Argument(help="directory of .hlog files, or one file (.hlog, .csv, .csv.gz)")],
    right: Annotated[Path, typer.Argument(help="the other node's")],
    low: Annotated[int, typer.Option(help="first height; 0 takes all")] = 0,
    high: Annotated[int, typer.Option(help="last height; 0 takes all")] = 0,
    output: Annotated[str, typer.Option(help="text or json")] = "text",
) -> None:
    """Show at which heights two nodes wrote or returned something else.

    Exit status: 0 equal, 1 could not compare, 2 differences.
    """
    if output not in ("text", "json"):
        _fail(f"--output is {output!r}; use text or json")
    try:
        found = diff(left, right, low=low, high=high or None)
    except HashLogError as error:
        _fail(str(error))
    if not found.compared:
        _fail("the two hash logs have no block in common")
    if output == "json":
        sys.stdout.write(orjson.dumps(wire(found), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _show(found)
    raise typer.Exit(2 if found.found else 0)


def wire(found: Difference) -> dict[str, Any]:
    """The machine-readable form; lists of heights are cut at 10,000, counts are whole."""
    return {
        "compared": found.compared,
        "firstHeight": found.first,
        "lastHeight": found.last,
        "equal": not found.found,
        "columns": {name: {"count": found.counts.get(name, 0), "heights": at} for name, at in found.columns.items()},
        "onlyLeft": found.only_left,
        "onlyRight": found.only_right,
        "missing": found.missing,
        "covers": _COVERAGE,
    }


def _show(found: Difference) -> None:
    console = Console()
    console.print(f"{found.compared} blocks compared, {found.first} to {found.last}; {_COVERAGE}")
    table = Table("column", "blocks that differ", "heights")
    for name, heights in found.columns.items():
        shown = ", ".join(map(str, heights[:_SHOWN])) + (" ..." if len(heights) > _SHOWN else "")
        table.add_row(name, str(found.counts.get(name, 0)), shown or "none")
    console.print(table)
    if found.missing:
        console.print(
            f"{found.missing} blocks are in one log only, the first: {(found.only_left + found.only_right)[:5]}"
        )


def _fail(text: str) -> None:
    print(f"Error: {text}", file=sys.stderr)
    raise typer.Exit(1)


def register(root: typer.Typer) -> None:
    """Adds the `hashlog` group."""
    root.add_typer(app, name="hashlog")
