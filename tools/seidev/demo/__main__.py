"""Runs the demo, or takes down one that was kept.

python -m seidev.demo [--keep] [--svg FILE]
python -m seidev.demo --clean
"""

import argparse
import asyncio
import shutil
import signal
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from seidev import build
from seidev.demo import stage as stages
from seidev.demo.screen import Screen, default_console, last_panel
from seidev.demo.stage import Stage
from seidev.demo.story import tell
from seidev.processes import ToolError
from seiops.kube import ApiError, ConfigError


def _first_cause(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _play(console: Console, directory: Path, *, keep: bool, svg: Path | None) -> int:
    begun = time.monotonic()
    build.kubernetes_programs(console)
    build.versitygw(console)
    stage = Stage(directory)
    directory.mkdir(parents=True)
    stage.write_state()
    try:
        with Screen(console) as screen:
            lines = asyncio.run(tell(stage, screen))
            if keep:
                stage.keep()
                lines += ["", f"Everything is left running.  export KUBECONFIG={stage.kubeconfig}"]
                lines += [f"kubectl is {stage.kubectl_program}", "[bold]make clean-demo[/] takes it all down."]
            screen.close(last_panel(lines, seconds=time.monotonic() - begun))
        if svg is not None:
            screen.save_svg(svg)
    finally:
        if not stage.kept:
            stage.close()
    return 0


def _prepare(directory: Path) -> None:
    """A kept demo is not taken down behind its owner's back; the remains of a dead one are."""
    if alive := stages.still_running(directory):
        names = ", ".join(process["name"] for process in alive)
        raise ToolError(f"a demo is still running ({names}): `make clean-demo` takes it down, then run again")
    shutil.rmtree(directory, ignore_errors=True)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m seidev.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument("--svg", type=Path, help="keep the last screen as an SVG")
    parser.add_argument("--clean", action="store_true", help="take down a kept demo")
    parser.add_argument(
        "--directory", type=Path, default=stages.DIRECTORY, help="where everything is kept while it runs"
    )
    arguments = parser.parse_args()
    directory: Path = arguments.directory.resolve()
    console = default_console()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.clean:
            console.print(f"stopped {stages.clean(directory)} processes, removed {directory}")
            return 0
        _prepare(directory)
        return _play(console, directory, keep=arguments.keep, svg=arguments.svg)
    except KeyboardInterrupt:
        console.print("interrupted; everything was taken down, run again at any time")
        return 130
    except BaseExceptionGroup as group:
        return _failed(console, _first_cause(group))
    except (ToolError, ApiError, ConfigError, OSError) as error:
        return _failed(console, error)


def _failed(console: Console, error: BaseException) -> int:
    if not isinstance(error, ToolError | ApiError | ConfigError | OSError):
        raise error
    console.print(Text(f"The demo stopped: {error}", style="red"))
    return 1


if __name__ == "__main__":
    sys.exit(main())
