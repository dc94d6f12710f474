"""The dashboard asks for series and labels that the controller really has, as the alerts do."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from contract.test_alerts import TARGET_LABELS, selectors, series
from seidev import build
from support.deployed import DEPLOY, kustomize

FILE = DEPLOY / "monitoring" / "dashboard" / "fleet.json"
DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str, str]]:
    """Panel, expression as Prometheus gets it, legend."""
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$namespace", ".*")
            yield panel["title"], expression, target["legendFormat"]


def known_series() -> dict[str, set[str]]:
    registry = CollectorRegistry()
    process = {metric.name for metric in ProcessCollector(registry=registry).collect()}
    samples = {sample.name for metric in registry.collect() for sample in metric.samples}
    return {**series(), **dict.fromkeys(process | samples, TARGET_LABELS)}


def grouped_by(expression: str) -> list[set[str]]:
    return [{label.strip() for label in group.split(",")} for group in re.findall(r"\bby\s*\(([^)]*)\)", expression)]


@pytest.mark.parametrize(("panel", "expression", "legend"), list(expressions()))
def test_a_panel_asks_for_what_there_is(panel: str, expression: str, legend: str) -> None:
    known = known_series()
    used = [found for found in selectors(expression) if not found[0].replace(".", "").isdigit()]
    assert used, panel
    for name, labels in used:
        assert name in known, f"{panel}: no such series: {name}"
        assert labels <= known[name], f"{panel}: {name} has no label {labels - known[name]}"
    for group in grouped_by(expression):
        assert any(group <= known[name] for name, _ in used), f"{panel}: no series has all of {group}"
    shown = set(re.findall(r"{{(\w+)}}", legend))
    carried = set.union(*grouped_by(expression)) if grouped_by(expression) else set.union(*(known[n] for n, _ in used))
    assert shown <= carried, f"{panel}: the legend names {shown - carried}"


def test_the_check_itself_sees_a_wrong_name() -> None:
    assert "sei_controller_no_such_total" not in known_series()
    assert selectors('topk(10, sum by (a) (increase(sei_controller_no_such_total{b=~".*"}[10m])) > 0)') == [
        ("sei_controller_no_such_total", {"b"})
    ]


def test_every_family_of_ours_is_on_it() -> None:
    text = " ".join(expression for _, expression, _ in expressions())
    families = {re.sub(r"_(bucket|count|sum|total|created)$", "", name) for name in series()}
    ours = {name for name in families if name.startswith("sei_controller_")}
    assert len(ours) >= 9
    assert {name for name in ours if name not in text} == set()


def test_the_layout_holds_no_two_panels_in_one_place() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_it_reaches_grafana_as_a_config_map() -> None:
    (found,) = yaml.safe_load_all(kustomize(build.kubernetes_programs().kubectl, FILE.parent))
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["fleet.json"]) == DASHBOARD
