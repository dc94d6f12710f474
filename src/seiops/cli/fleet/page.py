"""`seiops explain` on a terminal: where the node stands, how it came there, what to do."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from seiops.api.status import PlannedTask, PlanPhase, TaskStatus
from seiops.cli.fleet.concerns import Concern, Severity
from seiops.cli.fleet.story import Moment, Story, task_text
from seiops.cli.fleet.table import PHASE_STYLES, SEVERITY_STYLES
from seiops.cli.fleet.view import current_task, elapsed

MARKS = {
    TaskStatus.COMPLETE.value: ("✓", "green"),
    TaskStatus.RUNNING.value: ("▶", "cyan"),
    TaskStatus.FAILED.value: ("✗", "bold red"),
}
DOCS = "docs/"


def print_story(story: Story, console: Console) -> None:
    parts: list[RenderableType] = [_headline(story), _facts(story)]
    if story.view.node.status.plan is not None:
        parts += [_title("Plan"), _plan(story)]
    parts += [_title("What happened"), _timeline(story.timeline)]
    parts += [_title("What to do"), _advice(story)]
    console.print(Group(*parts))


def _title(text: str) -> RenderableType:
    return Padding(Text(text, style="bold underline"), (1, 0, 0, 0))


def _headline(story: Story) -> Text:
    view = story.view
    text = Text(f"{view.node.namespace}/{view.node.name}", style="bold")
    text.append(f"  {view.role} of {view.chain or 'an unknown chain'}  ", style="not bold")
    text.append(view.phase or "not started", style=PHASE_STYLES.get(view.phase, "yellow"))
    since = elapsed(view.since)
    return text.append(f" for {since}" if since else "", style="not bold")


def _facts(story: Story) -> Table:
    node, status = story.view.node, story.view.node.status
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("image", node.spec.image)
    if status.current_image != node.spec.image:
        table.add_row("runs", status.current_image or "not known before the first rollout")
    if story.height is not None:
        table.add_row("height", f"{story.height.latest:,}{', catching up' if story.height.catching_up else ''}")
    if status.resolved_state_syncers:
        table.add_row("syncers", ", ".join(status.resolved_state_syncers))
    table.add_row("peers", str(len(status.resolved_peers)))
    return table


def _plan(story: Story) -> Table:
    plan = story.view.node.status.plan
    assert plan is not None
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column()
    now = current_task(plan)
    for task in plan.tasks:
        mark, style = MARKS.get(task.status, ("·", "dim"))
        if task is now and plan.phase == PlanPhase.ACTIVE.value and task.status == TaskStatus.PENDING.value:
            mark, style = "▶", "yellow"
        table.add_row(Text(mark, style=style), Text(task.type), Text(_progress(task, task is now), style="dim"))
    return table


def _progress(task: PlannedTask, current: bool) -> str:
    if task.status == TaskStatus.COMPLETE.value:
        return ""
    if not current:
        return ""
    since = f", since {elapsed(task.submitted_at, datetime.now(UTC))}" if task.submitted_at is not None else ""
    return task_text(task) + since


def _timeline(timeline: list[Moment]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column()
    day = None
    for moment in timeline:
        local = moment.at.astimezone()
        stamp = local.strftime("%H:%M:%S") if local.date() == day else local.strftime("%Y-%m-%d %H:%M:%S")
        day = local.date()
        style = "yellow" if moment.kind == "Warning" else ""
        times = f" (x{moment.count})" if moment.count > 1 else ""
        table.add_row(f"{stamp:>19}", Text(moment.about, style=style), Text(moment.what + times, style=style))
    return table


def _advice(story: Story) -> RenderableType:
    if not story.concerns:
        return Text("Nothing: the node is as it should be." if _settled(story) else "Nothing: it is being worked on.")
    return Group(*(_concern(concern) for concern in story.concerns))


def _settled(story: Story) -> bool:
    return story.view.phase == "Running" and story.view.step is None


def _concern(concern: Concern) -> RenderableType:
    words = {
        Severity.STOPPED: "stopped",
        Severity.BLOCKED: "waits",
        Severity.FAILING: "keeps failing",
        Severity.NOTE: "note",
    }
    head = Text(f"{words[concern.severity]}: {concern.reason}: ", style=SEVERITY_STYLES[concern.severity])
    lines: list[RenderableType] = [head.append(concern.what, style="default not bold")]
    lines += [Padding(Text(f"- {step}"), (0, 0, 0, 2)) for step in concern.do]
    if concern.page:
        lines.append(Padding(Text(f"{DOCS}{concern.page}", style="dim"), (0, 0, 0, 2)))
    return Group(*lines)
