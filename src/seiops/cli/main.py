"""The one command line: `seiops COMMAND`, and the same as a kubectl plugin.

A command's module is imported when the command is asked for, so `seiops digest` does not wait for the operator's
libraries. Each module exposes `register(app)` and adds one command or group of the name it has here.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group


@dataclass(frozen=True, slots=True)
class Entry:
    module: str
    panel: str


OBJECT_STORE = "obstore"
OPERATE, PROVE, PROCESSES = "Operate nodes", "Prove", "Processes"

COMMANDS: dict[str, Entry] = {
    "nodes": Entry("seiops.cli.nodes", OPERATE),
    "explain": Entry("seiops.cli.explain", OPERATE),
    "syncers": Entry("seiops.cli.syncers", OPERATE),
    "task": Entry("seiops.cli.task", OPERATE),
    "digest": Entry("seiops.cli.digest", PROVE),
    "verify": Entry("seiops.cli.verify", PROVE),
    "attest": Entry("seiops.cli.attest", PROVE),
    "report": Entry("seiops.cli.report", PROVE),
    "shadow": Entry("seiops.cli.shadow", PROVE),
    "hashlog": Entry("seiops.cli.hashlog", PROVE),
    "controller": Entry("seiops.cli.controller", PROCESSES),
}


class LazyGroup(TyperGroup):
    """Finds commands by name in COMMANDS and loads them one by one."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        holder = typer.Typer()
        import_module(entry.module).register(holder)
        command = get_group(holder).commands[cmd_name]
        command.rich_help_panel = entry.panel  # type: ignore[attr-defined]
        return command


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Operates Sei blockchain nodes on Kubernetes and proves that a storage migration changed nothing.",
)


@app.callback()
def seiops() -> None:
    """Every command takes --help."""


def main() -> None:
    """Console script `seiops`."""
    _run("seiops")


def kubectl() -> None:
    """Console script `kubectl-sei`: kubectl finds it on PATH and runs it as `kubectl sei`."""
    _run("kubectl sei")


def _run(name: str) -> None:
    try:
        app(prog_name=name)
    finally:
        if OBJECT_STORE in sys.modules:
            _leave(sys.exc_info()[1])


def _leave(ending: BaseException | None) -> None:
    """End the process without taking the interpreter down: the object store's threads may still be letting go of their
    last answer, and one that needs the interpreter while it is being torn down aborts the process instead of its status."""
    if not isinstance(ending, SystemExit):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(ending.code if isinstance(ending.code, int) else int(ending.code is not None))
