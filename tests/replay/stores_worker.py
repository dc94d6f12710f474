"""Runs one `seiops digest` command line in a process of the pool: everything but starting the interpreter is real."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

from seiops.cli.digest import app


def run(folder: Path, argv: list[str]) -> tuple[int, str]:
    """Exit status and stdout of the command line with `folder` as working directory."""
    os.chdir(folder)
    out = io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            app(argv, prog_name="seiops digest")
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
    return status, out.getvalue()
