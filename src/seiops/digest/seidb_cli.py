"""`--format seidb`: the command line seidb's scripts know, down to exit status and where an error is printed.

Errors go to stdout as the last line and to stderr behind `Error: `, as the original does (docs/contracts/digest.md 1.13).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TextIO

from seiops.digest import arguments as flags
from seiops.digest.command import migration_status, run_digest, run_inspect
from seiops.digest.engines import with_engine
from seiops.digest.errors import DigestError
from seiops.digest.report import SeidbReport

STATUS_COMMANDS = frozenset(("status", "migrate-evm-status"))
_USAGE = "Usage:\n  seiops digest [status] [flags] --format seidb\n\nFlags are seidb's; see `seiops digest --help`."


def main(argv: Sequence[str], out: TextIO | None = None, err: TextIO | None = None) -> int:
    """Run one command line (`argv` without program and group name); the exit status."""
    stdout, stderr = out or sys.stdout, err or sys.stderr
    try:
        _run(argv, SeidbReport(stdout))
    except DigestError as error:
        print(error, file=stdout, flush=True)
        print(f"Error: {error}\n{_USAGE}", file=stderr, flush=True)
        return 1
    return 0


def _run(argv: Sequence[str], report: SeidbReport) -> None:
    command = next((word for word in argv[:1] if word in STATUS_COMMANDS), None)
    arguments = flags.parse_flags(argv)
    if command is not None:
        report.status(*with_engine(arguments.engine, arguments.roots, partial(migration_status, arguments)))
    elif arguments.inspect_bucket:
        with_engine(arguments.engine, arguments.roots, lambda engine: run_inspect(arguments, engine, report))
    else:
        with_engine(arguments.engine, arguments.roots, lambda engine: run_digest(arguments, engine, report))
