"""The story on the terminal: finished steps with what was found, the running one with a spinner and its details.

Where the output is no terminal, each step is printed once it is done. The last screen can be kept as an SVG.
"""

import io
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

SVG_WIDTH = 118
PLAIN_WIDTH = 110


@dataclass
class Step:
    """One step of the story. `facts` are what was found: a word for it, and the finding."""

    title: str
    facts: list[tuple[str, Text]] = field(default_factory=list)
    table: RenderableType | None = None
    begun: float = field(default_factory=time.monotonic)
    seconds: float | None = None
    failed: bool = False

    def fact(self, word: str, finding: str) -> None:
        self.facts.append((word, Text(finding)))


def default_console() -> Console:
    """As wide as the terminal; where there is none, as wide as a log is read."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


class Screen:
    def __init__(self, console: Console | None = None) -> None:
        self.console = console or default_console()
        self.steps: list[Step] = []
        self._begun = time.monotonic()
        self._live: Live | None = None
        self.last_words: RenderableType | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._running, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, title: str) -> Step:
        step = Step(title)
        self.steps.append(step)
        return step

    def finish(self, step: Step, *, failed: bool = False) -> None:
        step.seconds = time.monotonic() - step.begun
        step.failed = failed
        self.console.print(_finished(step))

    def say(self, line: str) -> None:
        self.console.print(Text(f"  {line}", style="dim"))

    def close(self, words: RenderableType) -> None:
        """The last words, after the last step."""
        self.last_words = words
        self.console.print(words)

    def _running(self) -> RenderableType:
        step = self.steps[-1] if self.steps else None
        if step is None or step.seconds is not None:
            return Text("")
        elapsed = time.monotonic() - step.begun
        head = Spinner("dots", Text.assemble((step.title, "bold"), (f"  {elapsed:.0f} s", "dim")))
        return Group(head, *_body(step))

    def save_svg(self, path: Path) -> None:
        recorder = Console(
            record=True, width=SVG_WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
        )
        for step in self.steps:
            recorder.print(_finished(step))
        if self.last_words is not None:
            recorder.print(self.last_words)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Fonts from elsewhere are not loaded where a README is shown, and nothing should be fetched to look at a picture.
        path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", recorder.export_svg(title="make demo"), flags=re.DOTALL))


def _finished(step: Step) -> RenderableType:
    mark = ("✗ ", "bold red") if step.failed else ("✓ ", "bold green")
    head = Text.assemble(mark, (step.title, "bold"), (f"  {step.seconds or 0:.1f} s", "dim"))
    return Group(head, *_body(step))


def _body(step: Step) -> list[RenderableType]:
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="dim", min_width=11, no_wrap=True)
    facts.add_column()
    for word, finding in step.facts:
        facts.add_row(word, finding)
    parts: list[RenderableType] = [facts] if step.facts else []
    parts += [step.table] if step.table is not None else []
    return [Padding(part, (0, 0, 0, 4), expand=False) for part in parts]


def plan_table(tasks: list[dict[str, str]]) -> Table:
    """A plan as the object's status holds it."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    colours = {"Complete": "green", "Running": "yellow", "Failed": "red"}
    for number, task in enumerate(tasks, 1):
        status = task["status"]
        table.add_row(f"[dim]{number}[/]", task["type"], f"[{colours.get(status, 'dim')}]{status}[/]")
    return table


def last_panel(lines: list[str], *, seconds: float) -> Panel:
    return Panel(
        Text.from_markup("\n".join(lines)), title=f"done in {seconds:.0f} s", border_style="green", expand=False
    )
