"""Reports on a terminal: the same content as the page, in tables that fit a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from seiops.evidence.advice import advice, headline, number
from seiops.evidence.advice import blocks as blocks_of
from seiops.evidence.blocks import LAYER_NAMES, LAYERS, SEVERITY, Difference
from seiops.evidence.ledger import Column
from seiops.evidence.oneblock import BlockView
from seiops.evidence.render.charts import STACK, percent
from seiops.evidence.render.markdown import counts, pair, span, verdict_line
from seiops.evidence.render.text import printable
from seiops.evidence.summary import Block, RunInfo, Summary, cut

STYLES = {"clean": "green", "diverged": "bold red", "indeterminate": "yellow", "gap": "magenta", "vacuous": "blue", "missing": "dim",
          "incomplete": "bold yellow", "empty": "bold yellow"}  # fmt: skip
LISTED = 15
TOP = 8
STRIP = 60


def plain(value: object) -> str:
    """Text from outside: no markup and no control sequences reach the terminal."""
    return escape(printable(value))


def summary(found: Summary) -> RenderableType:
    parts: list[RenderableType] = [_banner(found), _figures(found)]
    if columns := found.columns():
        parts += [_strip(columns), Text()]
    parts += _advice(found)
    parts += _tallies(found)
    spans, in_all = found.open_spans()
    if spans:
        rows = [
            (_verdict(span.verdict), str(span.start), str(span.end), number(span.blocks)) for span in spans[:LISTED]
        ]
        parts.append(table(f"Gaps and open ends ({number(in_all)})", ("what", "from", "to", "blocks"), rows))
    if listed := found.listed():
        grave = sorted(listed, key=lambda one: (-SEVERITY.index(one.verdict), one.height))
        parts.append(_blocks(f"Blocks that are not clean ({number(found.not_clean)}), gravest first", grave[:LISTED]))
    if found.problems:
        parts.append(Text(f"Problems with the published objects ({number(found.problem_count)})", style="bold"))
        parts += [Text.from_markup(f"  [red]•[/] {plain(problem)}") for problem in found.problems[:LISTED]]
    return Group(*parts)


def _banner(found: Summary) -> Panel:
    style = STYLES[found.verdict]
    lines = [f"[{style}]{found.verdict.upper()}[/]  {plain(headline(found))}", f"[dim]{plain(found.place)}[/]"]
    runs = [f"{run.run or 'no manifest'} ({run.mode}, {run.state})" for run in found.runs]
    if runs:
        lines.append(
            "[dim]" + plain("; ".join(runs[:4]) + (f" and {len(runs) - 4} more" if len(runs) > 4 else "")) + "[/]"
        )
    return Panel(Text.from_markup("\n".join(lines)), border_style=style.removeprefix("bold "), expand=False)


def _figures(found: Summary) -> Table:
    total = found.blocks + found.missing
    grid = Table(box=None, padding=(0, 2), show_edge=False)
    values = [("compared", found.blocks, ""), *((name, count, percent(count, total)) for name, count in found.counts.items()),
              ("missing", found.missing, percent(found.missing, total))]  # fmt: skip
    for name, count, _ in values:
        grid.add_column(name, style=STYLES.get(name, "bold") if count else "dim", justify="right")
    grid.add_row(*(number(count) for _, count, _ in values))
    grid.add_row(*(share for _, _, share in values), style="dim")
    return grid


def _strip(columns: Sequence[Column]) -> Text:
    """The range as one line: each cell is as grave as its worst height."""
    text = Text("  ")
    size = -(-len(columns) // STRIP)
    for start in range(0, len(columns), size):
        part = columns[start : start + size]
        worst = next(name for name in reversed(STACK) if any(column.counts[name] for column in part))
        text.append("░" if worst == "missing" else "█", style=STYLES[worst])
    text.append(
        f"\n  {number(columns[0].start)} to {number(columns[-1].end)}, the gravest verdict of each part", style="dim"
    )
    return text


def _advice(found: Summary) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for weight, heading in (("act", "What to do next"), ("know", "What to know")):
        told = [one for one in advice(found) if one.weight == weight]
        if told:
            parts.append(Text(heading, style="bold"))
            for one in told:
                command = f"\n    [cyan]{plain(one.command)}[/]" if one.command else ""
                parts.append(Text.from_markup(f"  • {plain(one.text)}{command}"))
    return parts


def _tallies(found: Summary) -> list[RenderableType]:
    parts: list[RenderableType] = []
    if any(found.layers.values()) or any(found.undecided.values()):
        rows = [(LAYER_NAMES[layer], number(found.layers[layer]), number(found.undecided[layer])) for layer in LAYERS]
        parts.append(table("Divergences by layer", ("layer", "diverged", "undecided"), rows))
    for heading, tally in (("kind", found.kinds), ("contract", found.contracts)):
        if tally.differences:
            top = [(plain(name), number(count), number(blocks)) for name, count, blocks in tally.top(TOP)]
            parts.append(table(f"Divergences by {heading}", (heading, "differences", "blocks"), top))
    if found.reasons:
        reasons = sorted(found.reasons.items(), key=lambda item: -item[1].blocks)[:TOP]
        rows = [(plain(name), number(one.blocks), plain(f"{one.height}: {cut(one.error)}")) for name, one in reasons]
        parts.append(table("Undecided, by reason", ("reason", "blocks", "for example"), rows))
    return parts


def blocks(found: Summary) -> RenderableType:
    return _blocks(blocks_of(found.blocks), found.listed())


def _blocks(title: str, shown: Sequence[Block]) -> Table:
    rows = [
        (str(one.height), _verdict(one.verdict), ",".join(one.layers),
         plain(", ".join(one.kinds) or one.reason or cut(one.error, 80)), plain(", ".join(one.contracts)), number(one.differences))
        for one in shown
    ]  # fmt: skip
    return table(title, ("height", "verdict", "layers", "what", "contracts", "differences"), rows)


def runs(found: Sequence[RunInfo]) -> RenderableType:
    rows = [
        (plain(one.folder or "."), plain(one.run or "no manifest"), one.mode, plain(one.chain or "–"),
         span(one), number(one.pages), plain(counts(one)),
         _state(one), "sealed" if one.sealed else "no seals")
        for one in found
    ]  # fmt: skip
    return table("Runs", ("folder", "run", "mode", "chain", "heights", "pages", "verdicts", "state", "evidence"), rows)


def _state(run: RunInfo) -> str:
    style = {"finished": "green", "broken": "bold red"}.get(run.state, "yellow")
    return f"[{style}]{run.state}[/]" + (f": {plain(run.reason)}" if run.reason else "")


def block(view: BlockView) -> RenderableType:
    style = STYLES.get(view.finding.verdict, "")
    head = f"[{style}]Block {view.height}[/]  {plain(verdict_line(view))}\n[dim]{plain(view.place)}  {plain(view.timestamp)}[/]"
    parts: list[RenderableType] = [Panel(Text.from_markup(head), expand=False)]
    if view.finding.differences:
        parts.append(_sides("Both sides", view.finding.differences))
    if view.finding.error:
        parts.append(Text.from_markup(f"[yellow]Not evaluated:[/] {plain(view.finding.error)}"))
    if (before := view.previous) is not None:
        parts.append(_sides(f"The block before: {before[0]}", before[1]))
    if view.report is not None and view.report.parted:
        parts.append(_sides("Where the traces part", view.report.parted))
    parts += [Text.from_markup(f"  • [bold]{name}[/]: {plain(text)}") for name, text in view.meanings()]
    sources = ", ".join(one.key for one in view.said)
    parts.append(
        Text(
            f"Said in {printable(sources) or 'no page'}; report: {view.report.key if view.report else 'none published'}",
            style="dim",
        )
    )
    return Group(*parts)


def _sides(title: str, differences: Sequence[Difference]) -> Table:
    rows = []
    for one in differences:
        ours, theirs = pair(one.shadow, one.canonical, 400)
        rows.append(
            (
                LAYER_NAMES[one.layer],
                plain(one.kind),
                plain("\n".join(filter(None, (one.place, one.slot)))),
                plain(ours),
                plain(theirs),
            )
        )
    return table(title, ("layer", "what", "where", "shadow", "canonical"), rows)


def _verdict(name: str) -> str:
    return f"[{STYLES[name]}]{name}[/]"


def table(title: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold")
    numbers = {"differences", "blocks", "pages", "from", "to", "height", "diverged", "undecided"}
    for name in names:
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def text_of(shown: RenderableType, console: Console) -> str:
    """What the console would print, without colours."""
    with console.capture() as captured:
        console.print(shown)
    return captured.get()
