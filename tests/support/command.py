"""Our own command line as a user runs it: a process of its own."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src"
SECONDS = 60.0


@dataclass(frozen=True)
class Finished:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def command_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "SEI"))}
    return {**kept, "PYTHONPATH": str(SOURCE), "COLUMNS": "200", **(changes or {})}


async def seiops(*arguments: str | Path, environment: Mapping[str, str] | None = None) -> Finished:
    """Runs `seiops ARGUMENTS` to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "seiops.cli",
        *map(str, arguments),
        env=command_environment(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())
