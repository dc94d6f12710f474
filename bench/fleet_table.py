"""What `bench/fleet.py` measured beside what the Go controller took (1,000 nodes where it depends on that), and the targets."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def table(found: dict[str, Any]) -> Table:
    shown = Table(title=f"{found['nodes']} SeiNodes", title_justify="left")
    for title in ("", "seiops", "Go controller (1,000)", "target"):
        shown.add_column(title, justify="left" if not title else "right")

    def add(label: str, value: Any, go: str = "", target: str = "", form: str = "{:,.1f}") -> None:
        shown.add_row(label, form.format(value) if value is not None else "", go, target)

    first, calm, edit = found.get("settle", {}), found.get("idle", {}), found.get("syncer edit", {})
    add("create to settled, s", first.get("wall"), "233", "140")
    if first:
        # Dropping the finished plan is one patch after the image is stamped (ruling 12 counts up to there).
        add("API requests per node until the image is stamped", first["requests/node"] - 1, "", "12")
    add("API requests per node, all", first.get("requests/node"), "19.3")
    add("controller CPU per node, ms", first.get("cpu ms/node"), "35", "45")
    add("API server CPU, s", first.get("apiServerCpu"))
    for name, key in (("p50", "p50"), ("p99", "p99")):
        add(f"event to patch under load, {name}, s", first.get("event to patch under load", {}).get(key))
    for name in ("p50", "p99"):
        add(f"event to patch, quiet fleet, {name}, ms", 1000 * found.get("single edits", {}).get(name, 0))
    add("idle: API requests per second", calm.get("requests/s"), "34", "1", "{:,.2f}")
    add("idle: controller CPU, % of a core", calm.get("cpu %"), "12.6", "4", "{:,.2f}")
    add("image roll, s", found.get("roll", {}).get("wall"))
    add("image roll: API requests per node", found.get("roll", {}).get("requests/node"))
    add("syncer edit: first plan, s", edit.get("first plan s"), "", "1", "{:,.2f}")
    add("syncer edit: last plan, s", edit.get("last plan s"), "19 to 51 (200)", "", "{:,.2f}")
    add("syncer edit: all settled, s", edit.get("all settled s"))
    add("50 nodes behind 100 ms sidecars, s", found.get("slow sidecars", {}).get("wall"), "85", "10")
    add("50 nodes beside a hung sidecar, s", found.get("beside a hung one", {}).get("wall"), "never")
    add("50 nodes beside ten hung sidecars, s", found.get("beside ten hung ones", {}).get("wall"), "never")
    add("label peers: node-id lookups per node", found.get("label peers", {}).get("node-id lookups/node"), "195", "1")
    add("peak RSS, MiB", found.get("peak rss MiB"), "155", "200")
    if "bare" in found and first:
        ratio = first["cpu"] / found["bare"]["cpu"]
        add("the same writes bare: wall, s", found["bare"]["wall"])
        add("create to settled / bare wall", first["wall"] / found["bare"]["wall"], "", "", "{:,.2f}")
        add("controller CPU / bare CPU", ratio, "", "", "{:,.2f}")
    return shown
