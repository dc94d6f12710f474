"""The fleet as rows: the same cells for the table, the live table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from seiops.api.meta import rfc3339
from seiops.api.status import PlanPhase
from seiops.cli.fleet.concerns import Concern, Severity, Surroundings, concerns
from seiops.cli.fleet.heights import Height
from seiops.cli.fleet.view import NodeView, PlanStep, elapsed
from seiops.kube import Key

PHASE_STYLES = {"Running": "green", "Initializing": "cyan", "Failed": "bold red", "Terminating": "dim"}
SEVERITY_STYLES = {
    Severity.STOPPED: "bold red",
    Severity.BLOCKED: "yellow",
    Severity.FAILING: "yellow",
    Severity.NOTE: "dim",
}
NOT_STARTED = "-"
WHY_LENGTH = 160
ROOMY = 120
"""Columns of a terminal from which on reasons have a column of their own."""


COLUMNS: Mapping[str, dict[str, Any]] = {
    "NAMESPACE": {"no_wrap": True},
    "NAME": {"no_wrap": True},
    "CHAIN": {"no_wrap": True},
    "ROLE": {"no_wrap": True},
    "PHASE": {"no_wrap": True},
    "FOR": {"no_wrap": True, "justify": "right"},
    "PLAN": {"min_width": 12},
    "HEIGHT": {"no_wrap": True, "justify": "right"},
    "LAG": {"justify": "right"},
    "SYNC": {"no_wrap": True, "justify": "right"},
    "WHY": {"min_width": 20, "ratio": 1},
}


@dataclass(frozen=True, slots=True)
class Row:
    view: NodeView
    height: Height | None
    worst: Concern | None


def row(view: NodeView, height: Height | None, now: datetime | None = None) -> Row:
    found = concerns(view, Surroundings(), now)
    return Row(view, height, found[0] if found else None)


def sort_rows(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda item: item.view.key)


def as_json(item: Row) -> dict[str, Any]:
    view, status = item.view, item.view.node.status
    found: dict[str, Any] = {
        "namespace": view.node.namespace,
        "name": view.node.name,
        "chainId": view.chain,
        "role": view.role,
        "phase": view.phase,
        "paused": view.node.spec.paused,
        "image": view.node.spec.image,
        "currentImage": status.current_image,
        "syncers": status.resolved_state_syncers,
        "peers": len(status.resolved_peers),
        "plan": view.step.wire() if view.step is not None else None,
        "height": item.height.latest if item.height is not None else None,
        "behind": item.height.behind if item.height is not None else None,
        "catchingUp": item.height.catching_up if item.height is not None else None,
        "concern": item.worst.wire() if item.worst is not None else None,
    }
    if view.since is not None:
        found["since"] = rfc3339(view.since)
    return found


def plan_cell(step: PlanStep | None) -> str:
    """`init 7/10 configure-state-sync (3 of 11)`."""
    if step is None:
        return ""
    text = f"{step.plan} {step.done}/{step.total}"
    if step.phase != PlanPhase.ACTIVE.value:
        return f"{text} {step.phase.lower()}"
    text += f" {step.task}" if step.task else ""
    return f"{text} ({step.attempt} of {step.attempts})" if step.attempt > 1 else text


def height_cells(height: Height | None) -> tuple[str, str]:
    if height is None:
        return "", ""
    behind = "" if height.behind is None else f"{height.behind:,}"
    return f"{height.latest:,}", f"{behind} catching up".strip() if height.catching_up else behind


def why_cell(concern: Concern | None) -> str:
    if concern is None:
        return ""
    what = concern.what.splitlines()[0] if concern.what else ""
    what = what if len(what) <= WHY_LENGTH else f"{what[:WHY_LENGTH]}..."
    return f"{concern.reason}: {what}"


def drawn(rows: Sequence[Row], *, width: int, namespaces: bool, heights: bool) -> Group:
    """The table. Where the terminal is narrow, reasons stand below it and only the telling columns are left."""
    roomy = width >= ROOMY
    told = [item for item in rows if item.worst is not None and not roomy]
    return Group(
        _table(rows, _titles(rows, roomy, namespaces, heights)),
        *(Text(f"{item.view.node.name}: {why_cell(item.worst)}", style=_style(item.worst)) for item in told),
    )


def _titles(rows: Sequence[Row], roomy: bool, namespaces: bool, heights: bool) -> list[str]:
    known = any(item.height is not None for item in rows)
    left_out = {
        "NAMESPACE": not namespaces,
        "ROLE": not roomy,
        "HEIGHT": not heights or not (roomy or known),
        "LAG": not heights or not (roomy or known),
        "SYNC": not roomy,
        "WHY": not roomy,
    }
    return [title for title in COLUMNS if not left_out.get(title, False)]


def _table(rows: Sequence[Row], titles: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, **COLUMNS[title])
    for item in rows:
        cells = _cells(item)
        table.add_row(*(cells[title] for title in titles))
    return table


def _cells(item: Row) -> dict[str, Text]:
    """By column."""
    view = item.view
    syncers = len(view.node.status.resolved_state_syncers)
    height, lag = height_cells(item.height)
    return {
        "NAMESPACE": Text(view.node.namespace),
        "NAME": Text(view.node.name),
        "CHAIN": Text(view.chain),
        "ROLE": Text(view.role),
        "PHASE": Text(view.phase or NOT_STARTED, style=PHASE_STYLES.get(view.phase, "yellow")),
        "FOR": Text(elapsed(view.since)),
        "PLAN": Text(plan_cell(view.step)),
        "HEIGHT": Text(height),
        "LAG": Text(lag),
        "SYNC": Text(str(syncers) if syncers else ""),
        "WHY": Text(why_cell(item.worst), style=_style(item.worst)),
    }


def _style(concern: Concern | None) -> str:
    return SEVERITY_STYLES[concern.severity] if concern is not None else ""


def summary(rows: Sequence[Row]) -> Text:
    """`12 nodes: 9 Running, 2 Initializing, 1 blocked`."""
    counts: dict[str, int] = {}
    for item in rows:
        phase = item.view.phase or "without a phase"
        counts[phase] = counts.get(phase, 0) + 1
    held = sum(item.worst is not None and item.worst.severity <= Severity.BLOCKED for item in rows)
    parts = [f"{count} {phase}" for phase, count in sorted(counts.items())]
    text = Text(f"{len(rows)} nodes: " if len(rows) != 1 else "1 node: ", style="bold")
    text.append(", ".join(parts) or "none", style="not bold")
    if held:
        text.append(f"; {held} need somebody", style="bold yellow")
    return text


def changed(before: Mapping[Key, dict[str, Any]], after: Mapping[Key, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that are new or different, and `{"namespace", "name", "deleted": true}` for those that are gone."""
    found = [item for key, item in sorted(after.items()) if before.get(key) != item]
    gone = sorted(before.keys() - after.keys())
    return found + [{"namespace": namespace, "name": name, "deleted": True} for namespace, name in gone]
