"""Every alert asks for series and labels that the controller really has, and leads to a page that says what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from seiops.controller.metrics import ControllerMetrics
from seiops.kube.manager import RuntimeMetrics

ROOT = Path(__file__).parents[2]
RULE = yaml.safe_load((ROOT / "deploy/monitoring/prometheus_rule.yaml").read_text())
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in RULE["spec"]["groups"] for rule in group["rules"]}
CONTRACT = (ROOT / "docs/contracts/controller-api.md").read_text()

# Series of kinds whose controllers come later. The day they exist this list has to shrink.
LATER = {"sei_controller_seinetwork_phase": {"namespace", "name", "phase"}}
# Made by Prometheus itself; added to every scraped series by the ServiceMonitor.
SCRAPED = {"up": {"job", "instance"}}
TARGET_LABELS = {"job", "instance"}
WORDS = {"sum", "max", "rate", "increase", "absent", "histogram_quantile", "by", "on", "or", "and", "unless", "le"}


def series() -> dict[str, set[str]]:
    """Every series the controller exposes, by name, with its labels."""
    registry = CollectorRegistry()
    ControllerMetrics(registry)
    RuntimeMetrics(registry)
    found: dict[str, set[str]] = {}
    for collector in registry._collector_to_names:
        labels = set(getattr(collector, "_labelnames", ()))
        for name in registry._collector_to_names[collector]:
            found[name] = labels | TARGET_LABELS | ({"le"} if name.endswith("_bucket") else set())
    return found


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """(series, labels it is selected by) of each selector in a PromQL expression."""
    bare = re.sub(r"\b(?:by|on)\s*\([^)]*\)", "", expression)
    found = []
    for match in re.finditer(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?", re.sub(r"\[\d+[smh]\]", "", bare)):
        name, matchers = match.groups()
        if (
            name not in WORDS
            and not re.match(r"\s*\(", bare[match.end() :])
            and not _inside_matchers(bare, match.start())
        ):
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers or ""))))
    return found


def _inside_matchers(text: str, position: int) -> bool:
    return text.rfind("{", 0, position) > text.rfind("}", 0, position)


def result_labels(expression: str, known: dict[str, set[str]]) -> set[str]:
    """Labels the alert can carry: those it is summed by, or all of its only series."""
    grouped = re.findall(r"\bby\s*\(([^)]*)\)", expression)
    if grouped:
        return set.intersection(*({label.strip() for label in group.split(",")} for group in grouped))
    return set.intersection(*(known[name] for name, _ in selectors(expression)))


@pytest.mark.parametrize("alert", ALERTS)
def test_the_series_and_labels_of_an_alert_exist(alert: str) -> None:
    known = {**series(), **LATER, **SCRAPED}
    used = selectors(ALERTS[alert]["expr"])
    assert used
    for name, labels in used:
        assert name in known, f"no such series: {name}"
        assert labels <= known[name], f"{name} has no label {labels - known[name]}"
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", ALERTS[alert]["expr"]):
        wanted = {label.strip() for label in group.split(",")}
        assert any(wanted <= known[name] for name, _ in used), f"no series has all of {wanted}"


@pytest.mark.parametrize("alert", ALERTS)
def test_the_text_of_an_alert_names_labels_it_has(alert: str) -> None:
    known = {**series(), **LATER, **SCRAPED}
    text = " ".join(ALERTS[alert]["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= result_labels(ALERTS[alert]["expr"], known)


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_has_a_section_for_the_alert(alert: str) -> None:
    page, _, anchor = ALERTS[alert]["annotations"]["runbook"].partition("#")
    assert anchor == alert.lower()
    assert f"\n## {alert}\n" in (ROOT / page).read_text()


def test_names_severities_and_times_are_those_of_the_contract() -> None:
    rows = re.findall(r"\| (?:[\w ]*)\| (\w+) \| (\w+) \| (warning|critical) \|", CONTRACT)
    assert {name: (lasting, severity) for name, lasting, severity in rows} == {
        name: (rule["for"], rule["labels"]["severity"]) for name, rule in ALERTS.items()
    }
    assert all(rule["labels"]["team"] == "platform" for rule in ALERTS.values())


def test_what_is_still_to_come_is_in_the_contract_and_not_there_yet() -> None:
    for name in LATER:
        assert f"`{name}`" in CONTRACT
        assert name not in series()


def test_the_check_itself_sees_a_wrong_name() -> None:
    assert selectors('sum by (a) (rate(no_such_total{b="c"}[5m])) > 1 unless on (x) other == 1') == [
        ("no_such_total", {"b"}),
        ("other", set()),
    ]
