"""`seictl serve` and `python -m seiops.sidecar`: flags, environment, exit status (docs/contracts/sidecar.md 1.1).

Every fatal error is one line on stderr with a time in front, and exit status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence

from seiops.sidecar import logs
from seiops.sidecar.serve import StartError, serve
from seiops.sidecar.settings import SettingsError, load


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sidecar; returns the exit status."""
    flags = _parse(sys.argv[1:] if arguments is None else list(arguments))
    logs.configure(os.environ)
    try:
        settings = load(os.environ, home=flags.home, port=flags.port)
        asyncio.run(serve(settings))
    except (SettingsError, StartError) as error:
        print(f"{time.strftime('%Y/%m/%d %H:%M:%S')} {error}", file=sys.stderr)
        return 1
    if "obstore" in sys.modules:
        # its threads may still be letting go of a last answer; one that finds the interpreter gone aborts the process
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="seictl", description="The per-node task engine of a Sei node.")
    parser.add_argument("--home", metavar="DIR", help="home directory of the node (default: $SEI_HOME, else /sei)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("serve", help="run the sidecar's HTTP server")
    command.add_argument("--home", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    command.add_argument("--port", metavar="PORT", help="port to listen on (default: $SEI_SIDECAR_PORT, else 7777)")
    command.add_argument("ignored", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
