"""Charts as plain SVG, drawn here and not in the browser: they print, need no script, and every figure also stands in a table."""

from __future__ import annotations

from collections.abc import Sequence

from seiops.evidence.ledger import Column
from seiops.evidence.render.html import Html, join, tag

STACK = ("clean", "vacuous", "indeterminate", "gap", "missing", "diverged")
"""From the bottom to the top of a column."""
HEIGHT, WIDTH = 200.0, 1000.0
VISIBLE = 5.0
"""Units a verdict has at least where it occurs at all: one block in a thousand must not vanish."""


def number(value: int) -> str:
    return f"{value:,}"


def percent(part: int, whole: int) -> str:
    """Never rounds up to all or down to nothing."""
    if not whole or part in (0, whole):
        return "0 %" if not part else "100 %"
    share = 100 * part / whole
    return f"{min(max(share, 0.01), 99.99):.2f} %"


def match_rate(columns: Sequence[Column]) -> Html:
    """One column a range of heights, shares of verdicts stacked; `data-` attributes let the page filter by a click."""
    slot = WIDTH / max(len(columns), 1)
    bars = [_column(column, index * slot, slot) for index, column in enumerate(columns)]
    grid = [tag("line", x1=0, x2=int(WIDTH), y1=y, y2=y, class_="grid") for y in (0, 50, 100, 150, 200)]
    label = "Share of verdicts by height; the table below has the figures"
    svg = tag("svg", *grid, *bars, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", preserveAspectRatio="none", role="img",
              aria_label=label, class_="rate")  # fmt: skip
    scale = tag("div", *(tag("span", text) for text in ("100 %", "50 %", "0 %")), class_="scale", aria_hidden="true")
    ends: list[Html] = []
    if columns:
        marks = (columns[0].start, (columns[0].start + columns[-1].end) // 2, columns[-1].end)
        ends = [tag("span", number(height)) for height in dict.fromkeys(marks)]
    axis = tag("div", *ends, class_="axis", aria_hidden="true")
    return tag("div", scale, svg, axis, class_="plot")


def _column(column: Column, x: float, slot: float) -> Html:
    gap = min(slot * 0.12, 2.0)
    heights = shares(column)
    rects, y = [], HEIGHT
    for verdict in STACK:
        if height := heights.get(verdict, 0.0):
            y -= height
            rects.append(tag("rect", x=f"{x + gap / 2:.2f}", y=f"{y:.2f}", width=f"{slot - gap:.2f}", height=f"{height:.2f}",
                             class_=f"v-{verdict}"))  # fmt: skip
    said = ", ".join(f"{number(count)} {verdict}" for verdict in STACK if (count := column.counts[verdict]))
    title = tag("title", f"{number(column.start)} to {number(column.end)}: {said}")
    return tag("g", title, *rects, class_="column", data_from=column.start, data_to=column.end)


def shares(column: Column) -> dict[str, float]:
    """Heights of a column's parts in units of the chart; they add up to HEIGHT, and none that occurs is invisible."""
    there = {verdict: count for verdict in STACK if (count := column.counts[verdict])}
    raised = {verdict: max(HEIGHT * count / column.blocks, VISIBLE) for verdict, count in there.items()}
    largest = max(raised, key=lambda verdict: raised[verdict])
    raised[largest] -= sum(raised.values()) - HEIGHT
    return raised


def legend(verdicts: Sequence[str]) -> Html:
    items = [tag("li", tag("span", class_=f"key b-{verdict}"), verdict) for verdict in verdicts]
    return tag("ul", *items, class_="legend")


def bar(value: int, largest: int, style: str) -> Html:
    """A horizontal bar for a cell of a table; the number stands in the cell beside it."""
    width = 100.0 * value / largest if largest else 0.0
    shown = max(width, 0.8) if value else 0.0
    return tag(
        "svg",
        tag("rect", x=0, y=0, width=f"{shown:.2f}", height=10, class_=f"v-{style}"),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
        class_="bar",
    )


def stacked(parts: Sequence[tuple[str, int]], largest: int) -> Html:
    """A horizontal bar of several verdicts."""
    widths = {style: max(100.0 * value / largest, 0.8) for style, value in parts if value and largest}
    if widths:
        widest = max(widths, key=lambda style: widths[style])
        widths[widest] -= max(sum(widths.values()) - 100.0, 0.0)
    rects, x = [], 0.0
    for style, width in widths.items():
        rects.append(tag("rect", x=f"{x:.2f}", y=0, width=f"{width:.2f}", height=10, class_=f"v-{style}"))
        x += width
    return tag("svg", join(*rects), viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true", class_="bar")
