"""`seiops controller`: the controller process under the one command, and a check of its config file for pull requests."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

CHECK = "check-config"
PASSED_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Adds `controller` with all the flags of the process, and `controller check-config FILE`."""

    @app.command("controller", context_settings=PASSED_THROUGH)
    def controller(context: typer.Context) -> None:
        """Run the controller; `controller check-config FILE` checks its configuration instead."""
        arguments = list(context.args)
        if arguments[:1] == [CHECK]:
            checker(arguments[1:], prog_name=f"seiops controller {CHECK}")
            return
        if arguments in (["--help"], ["-h"]):
            from seiops.controller.settings import usage

            sys.stdout.write(f"{usage()}\nseiops controller {CHECK} FILE checks a config file.\n")
            return
        from seiops.controller.process import main

        raise typer.Exit(main(arguments))


checker = typer.Typer(add_completion=False)


@checker.command()
def check_config(
    file: Annotated[Path, typer.Argument(help="the app-config file, as SEI_CONTROLLER_CONFIG names it")],
    output: Annotated[Output, typer.Option(help="how findings are printed")] = Output.TABLE,
) -> None:
    """Says everything that is wrong with a config file: path, value, what belongs there. Exit 1 if there is anything."""
    findings = findings_of(file)
    if output is Output.JSON:
        import orjson

        sys.stdout.buffer.write(orjson.dumps(findings, option=orjson.OPT_INDENT_2) + b"\n")
    elif findings:
        _print_table(file, findings)
    else:
        typer.echo(f"{file}: no problems")
    raise typer.Exit(1 if findings else 0)


def findings_of(file: Path) -> list[dict[str, Any]]:
    """`path`, `value`, `expected`, `message`, and `effect`: the controller does not start, or one chain is blocked."""
    from seiops.controller.settings import CONFIG_VARIABLE, SettingsError, load_environment

    if not file.exists():
        missing = {"path": str(file), "value": "", "expected": "a file", "message": f"{file}: no such file"}
        return [{**missing, "effect": "refuses to start"}]
    try:
        settings = load_environment({CONFIG_VARIABLE: str(file)})
    except SettingsError as error:
        fatal, harmless = error.problems, error.warnings
    else:
        fatal, harmless = [], list(settings.warnings)
    effects = [(problem, "refuses to start") for problem in fatal]
    effects += [(problem, "blocks the chain's nodes") for problem in harmless]
    return [
        {
            "path": problem.path,
            "value": problem.value,
            "expected": problem.expected,
            "message": str(problem),
            "effect": effect,
        }
        for problem, effect in effects
    ]


def _print_table(file: Path, findings: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{file}: {len(findings)} problem{'s' if len(findings) > 1 else ''}", title_justify="left")
    table.add_column("path", no_wrap=True)
    for column in ("value", "expected", "effect"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(*(str(finding[column]) for column in ("path", "value", "expected", "effect")))
    Console().print(table)
