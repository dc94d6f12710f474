"""What is wrong with a node: each rule by the status that triggers it, the worst first."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from seiops.api.meta import rfc3339
from seiops.cli.fleet import concerns as module
from seiops.cli.fleet.concerns import Concern, Severity, Surroundings, concerns
from seiops.cli.fleet.heights import Height
from seiops.cli.fleet.table import height_cells, plan_cell, row, why_cell
from seiops.cli.fleet.view import elapsed, view

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DOCS = Path(__file__).parents[3] / "docs"


def condition(kind: str, status: str, reason: str, message: str = "why", **more: Any) -> dict[str, Any]:
    moment = rfc3339(NOW - timedelta(minutes=5))
    found = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": moment}
    return {**found, "observedGeneration": 1, **more}


def node(*conditions: dict[str, Any], spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "sei.io/v1alpha1",
        "kind": "SeiNode",
        "metadata": {
            "name": "n",
            "namespace": "ns",
            "generation": 1,
            "creationTimestamp": rfc3339(NOW - timedelta(hours=1)),
        },
        "spec": {"chainId": "c-1", "image": "seid:2", "fullNode": {}, **(spec or {})},
        "status": {"conditions": list(conditions), **status},
    }


def of(raw: dict[str, Any], around: Surroundings | None = None) -> list[Concern]:
    return concerns(view(raw), around or Surroundings(), NOW)


def task(kind: str, status: str = "Complete", **more: Any) -> dict[str, Any]:
    return {"type": kind, "id": "0", "status": status, **more}


READY = condition("StateSyncReady", "True", "Ready")
NO_SYNCERS = condition("StateSyncReady", "False", "NoSyncersConfigured")
PLAN_INVALID = condition("SpecValid", "False", "PlanInvalid")
REPLAN = {"id": "p", "phase": "Active", "tasks": [task("ensure-data-pvc")]}

CASES: dict[str, tuple[dict[str, Any], str, Severity]] = {
    "no syncers": (node(NO_SYNCERS), "NoSyncersConfigured", Severity.BLOCKED),
    "no syncers, but running": (node(NO_SYNCERS, phase="Running"), "NoSyncersConfigured", Severity.NOTE),
    "unreadable syncers": (
        node(condition("StateSyncReady", "Unknown", "SyncerSourceError")),
        "SyncerSourceError",
        Severity.BLOCKED,
    ),
    "spec": (node(PLAN_INVALID), "PlanInvalid", Severity.STOPPED),
    "paused": (node(READY, spec={"paused": True}), "Paused", Severity.STOPPED),
    "nobody looked": (node(), "Unseen", Severity.STOPPED),
    "secret missing": (
        node(condition("SigningKeyReady", "False", "SigningKeyNotReady")),
        "SigningKeyNotReady",
        Severity.BLOCKED,
    ),
    "secret wrong": (
        node(condition("NodeKeyReady", "False", "NodeKeyInvalid")),
        "NodeKeyInvalid",
        Severity.STOPPED,
    ),
    "sidecar silent": (
        node(condition("SidecarReady", "Unknown", "Unreachable"), phase="Running"),
        "Unreachable",
        Severity.FAILING,
    ),
    "sidecar restarted": (
        node(condition("SidecarReady", "False", "NotReady"), phase="Running"),
        "NotReady",
        Severity.FAILING,
    ),
    "update failed": (
        node(condition("NodeUpdateInProgress", "False", "UpdateFailed"), phase="Running", currentImage="seid:1"),
        "UpdateFailed",
        Severity.FAILING,
    ),
    "workflow held": (
        node(
            condition("WorkflowInProgress", "True", "WorkflowFailedHeld"),
            phase="Running",
            adoptedWorkflow={"name": "w", "uid": "u", "adoptedAt": rfc3339(NOW)},
        ),
        "WorkflowFailedHeld",
        Severity.STOPPED,
    ),
    "old status": (
        node(condition("Paused", "False", "NotPaused", observedGeneration=7)),
        "StaleStatus",
        Severity.NOTE,
    ),
    "retried task": (
        node(
            READY,
            phase="Initializing",
            plan={**REPLAN, "tasks": [task("configure-state-sync", "Pending", error="no witness", retryCount=2)]},
        ),
        "TaskError",
        Severity.FAILING,
    ),
    "failed": (
        node(
            READY,
            phase="Failed",
            plan={
                "id": "p",
                "phase": "Failed",
                "tasks": [task("config-apply", "Failed", error="bad key")],
                "failedTaskIndex": 0,
                "failedTaskDetail": {
                    "type": "config-apply",
                    "id": "0",
                    "error": "bad key",
                    "retryCount": 0,
                    "maxRetries": 0,
                },
            },
        ),
        "Failed",
        Severity.STOPPED,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_status_is_told_as_the_concern_it_is(case: str) -> None:
    raw, reason, severity = CASES[case]
    found = of(raw)
    assert [(concern.reason, concern.severity) for concern in found] == [(reason, severity)]


def test_a_node_that_is_as_it_should_be_has_no_concern() -> None:
    fine = node(
        READY,
        condition("Paused", "False", "NotPaused"),
        condition("SidecarReady", "True", "Ready"),
        condition("SpecValid", "True", "Valid"),
        condition("NodeUpdateInProgress", "False", "UpdateComplete"),
        phase="Running",
        currentImage="seid:2",
    )
    assert of(fine) == []


def test_the_worst_comes_first() -> None:
    raw = node(NO_SYNCERS, PLAN_INVALID, condition("SidecarReady", "Unknown", "Unreachable"), phase="Running")
    assert [concern.reason for concern in of(raw)] == ["PlanInvalid", "Unreachable", "NoSyncersConfigured"]


def test_a_refused_submit_is_not_called_an_attempt() -> None:
    plan = {**REPLAN, "tasks": [task("config-apply", "Pending", error="HTTP 400")]}
    (found,) = of(node(READY, phase="Initializing", plan=plan))
    assert found.what == "the sidecar refuses task config-apply: HTTP 400"


def test_deletion_is_a_concern_only_when_it_lasts() -> None:
    raw = node(READY)
    raw["metadata"]["deletionTimestamp"] = rfc3339(NOW - timedelta(seconds=5))
    assert [concern.severity for concern in of(raw)] == [Severity.NOTE]
    raw["metadata"]["deletionTimestamp"] = rfc3339(NOW - timedelta(minutes=5))
    assert [concern.severity for concern in of(raw)] == [Severity.STOPPED]


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n-0", "labels": {"controller-revision-hash": "old"}}, "status": status}


def test_the_pod_s_troubles_are_the_node_s() -> None:
    stateful_set = {"metadata": {"name": "n"}, "status": {"updateRevision": "new"}}
    unscheduled = pod(
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]
    )
    claim = {"metadata": {"name": "data-n"}, "spec": {"storageClassName": "fast"}, "status": {"phase": "Pending"}}
    raw = node(READY, phase="Initializing")
    found = of(raw, Surroundings(True, unscheduled, claim, stateful_set))
    assert [concern.reason for concern in found] == ["Unschedulable", "ClaimPending", "OlderTemplate"]
    assert [concern.reason for concern in of(raw, Surroundings(True, None, None, stateful_set))] == ["NoPod"]
    starting = pod(containerStatuses=[{"name": "seid", "state": {"waiting": {"reason": "ContainerCreating"}}}])
    assert of(raw, Surroundings(True, starting, None, None)) == []


def test_every_page_a_concern_leads_to_exists() -> None:
    source = Path(module.__file__).read_text()
    pages = set(re.findall(r'"([a-z-]+\.md)#([a-z0-9-]+)"', source))
    assert len(pages) > 10
    for page, anchor in pages:
        headings = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), re.MULTILINE)
        slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"docs/{page} has no heading for #{anchor}"


def test_cells() -> None:
    plan = {**REPLAN, "tasks": [task("ensure-data-pvc"), task("snapshot-restore", "Running", retryCount=2)]}
    shown = row(view(node(READY, phase="Initializing", plan=plan)), None, NOW)
    assert plan_cell(shown.view.step) == "init 1/2 snapshot-restore (3 of 11)"
    assert height_cells(Height(1234567, True, 12)) == ("1,234,567", "12 catching up")
    assert height_cells(Height(5, False)) == ("5", "")
    assert height_cells(None) == ("", "")
    assert why_cell(Concern(Severity.NOTE, "R", "x" * 400)).endswith("x...")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (10799, "179m"), (10800, "3h"), (13200, "3h40m"), (172800, "2d")],
)
def test_ages_are_written_as_kubectl_writes_them(seconds: int, text: str) -> None:
    assert elapsed(NOW - timedelta(seconds=seconds), NOW) == text


def test_what_cannot_be_decoded_is_still_named() -> None:
    raw = node(condition("SpecValid", "False", "Undecodable"), spec={"sidecar": {"port": 2**40}})
    found = view(raw)
    assert found.key == ("ns", "n")
    assert found.chain == "c-1"
    assert [concern.reason for concern in of(raw)] == ["Undecodable"]
    for broken in ({"spec": None}, {"spec": 5}, {"status": {"phase": 5}}, {"status": {"conditions": [5]}}):
        assert view({**raw, **broken}).key == ("ns", "n")
