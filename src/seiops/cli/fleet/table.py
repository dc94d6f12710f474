"""The fleet as rows: the same cells for the table, the live table and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

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


def fleet_table(rows: Sequence[Row], *, namespaces: bool, heights: bool, now: datetime | None = None) -> Table:
    """``namespaces`` and ``heights`` say which columns there are."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    if namespaces:
        table.add_column("NAMESPACE", no_wrap=True)
    for title in ("NAME", "CHAIN", "ROLE", "PHASE"):
        table.add_column(title, no_wrap=True)
    table.add_column("FOR", justify="right", no_wrap=True)
    table.add_column("PLAN", min_width=12)
    if heights:
        table.add_column("HEIGHT", justify="right", no_wrap=True)
        table.add_column("LAG", justify="right")
    table.add_column("SYNC", justify="right", no_wrap=True)
    table.add_column("WHY", min_width=20, ratio=1)
    for item in rows:
        table.add_row(*_cells(item, namespaces, heights, now))
    return table


def _cells(item: Row, namespaces: bool, heights: bool, now: datetime | None) -> list[Text]:
    view = item.view
    phase = Text(view.phase or NOT_STARTED, style=PHASE_STYLES.get(view.phase, "yellow"))
    syncers = len(view.node.status.resolved_state_syncers)
    cells = [Text(view.node.namespace)] if namespaces else []
    cells += [Text(view.node.name), Text(view.chain), Text(view.role), phase, Text(elapsed(view.since, now))]
    cells.append(Text(plan_cell(view.step)))
    if heights:
        cells += [Text(cell) for cell in height_cells(item.height)]
    cells.append(Text(str(syncers) if syncers else ""))
    style = SEVERITY_STYLES[item.worst.severity] if item.worst is not None else ""
    cells.append(Text(why_cell(item.worst), style=style))
    return cells


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
