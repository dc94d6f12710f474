"""How a verification is shown: a progress bar on a terminal, tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from seiops.digest.published import CheckedRecord
from seiops.evidence.attestation import Attested
from seiops.evidence.findings import Finding
from seiops.evidence.render.text import printable
from seiops.evidence.runs import Run
from seiops.evidence.statement import Predicate
from seiops.evidence.verify import Verification

WIDTH = 140
SHOWN_FINDINGS = 200


class Bar:
    """The progress of a verification on a terminal's error stream; silent anywhere else."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("verifying"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[done]}/{task.fields[objects]} objects"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=None, done=0, objects=0)
        self._done = 0

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def total(self, objects: int, size: int) -> None:
        self._bar.update(self._task, total=size, objects=objects)

    def heard(self, size: int) -> None:
        self._bar.advance(self._task, size)

    def done(self) -> None:
        self._done += 1
        self._bar.update(self._task, done=self._done)


# --- tables ---------------------------------------------------------------------------------------------------------


def _console() -> Console:
    console = Console(highlight=False, markup=True)
    if not console.is_terminal:
        # nobody says how wide: a line stays a line
        console.width = WIDTH
    return console


def show_table(found: Verification) -> None:
    console = _console()
    if found.records:
        console.print(_records(found))
    # of a digest run the records say everything
    runs = [run for run in found.runs if run.kind != "digest"]
    if runs:
        console.print(_runs(found.url, runs))
    show_findings(console, found.findings, found.accepted, found.statements)
    console.print(_conclusion(found, runs))


def show_findings(console: Console, findings: list[Finding], accepted: list[Finding], statements: list[str]) -> None:
    for finding in findings[:SHOWN_FINDINGS]:
        console.print(f"[bold red]finding[/] {_plain(finding)}", soft_wrap=True)
    if len(findings) > SHOWN_FINDINGS:
        console.print(f"[bold red]and {len(findings) - SHOWN_FINDINGS} more findings[/] (all of them: --output json)")
    for finding in accepted:
        console.print(f"[yellow]accepted[/] {_plain(finding)}", soft_wrap=True)
    for text in statements:
        console.print(f"[yellow]note[/] {_escaped(text)}", soft_wrap=True)


def _many(counted: Sequence[object], name: str) -> str:
    return f"1 {name}" if len(counted) == 1 else f"{len(counted)} {name}s"


def _plain(finding: Finding) -> str:
    return _escaped(f"{finding} ({finding.name})")


def _escaped(text: str) -> str:
    """Keys and documents are written by others: no markup and no control sequence of theirs reaches a terminal."""
    return escape(printable(text))


def _conclusion(found: Verification, runs: list[Run]) -> str:
    verdict = "[bold green]fine" if not found.findings else f"[bold red]{_many(found.findings, 'finding')}"
    beside = f", {found.others} other object{'s' if found.others > 1 else ''} not looked at" if found.others else ""
    if not runs:
        manifests = sum(run.sealed for run in found.runs)
        chained = f", {manifests} manifest{'s' if manifests > 1 else ''} checked" if manifests else ""
        return (
            f"{verdict}[/]: {_many(found.records, 'record')}, each seal, digest and verdict recomputed{chained}{beside}"
        )
    payload = sum(one.payload_bytes for one in found.objects)
    sealed = sum(1 for one in found.objects if one.task.entry is not None)
    without = len(found.objects) - sealed
    seals = f"{sealed} by the seal of a manifest" + (f", {without} without seals" if without else "")
    return f"{verdict}[/]: {_many(found.objects, 'object')}, {payload:,} bytes of payload, {seals}; every verdict recomputed{beside}"


def _records(found: Verification) -> Table:
    table = Table(title=f"Digest records below {_escaped(found.url)}")
    for name in ("height", "normalization", "verdict", "FlatKV / memiavl digest", "seal", "engine"):
        table.add_column(name, justify="right" if name == "height" else "left", overflow="fold")
    for one in found.records:
        table.add_row(*_cells(one))
    return table


def _cells(one: CheckedRecord) -> tuple[str, ...]:
    record = one.record
    if one.problems:
        told = str(record.get("height", "?")), str(record.get("normalization", "?"))
        return *map(_escaped, told), "[red]invalid", _escaped(one.key), "", ""
    verdict = "[green]match" if one.match else "[red]mismatch"
    digests = _short(record["flatkv_digest"])
    if not one.match:
        digests += " / " + _short(record["memiavl_digest"])
    seal = f"{one.sha256[:16]}… {'as promised' if one.expected else 'recomputed'}"
    return (
        str(record["height"]),
        record["normalization"],
        verdict,
        digests,
        seal,
        _escaped(str(record.get("engine", "seidb"))),
    )


def _short(digest: str) -> str:
    return _escaped(f"{digest[:16]}…{digest[-8:]}")


def _runs(url: str, runs: list[Run]) -> Table:
    table = Table(title=f"Runs below {_escaped(url)}")
    for name in ("run", "kind", "heights", "objects", "verdict", "ended", "manifest"):
        numbers = name in ("heights", "objects")
        table.add_column(name, justify="right" if numbers else "left", no_wrap=numbers, overflow="fold")
    for run in runs:
        heights = f"{run.start}-{run.end}" if run.start is not None else "none"
        colour = "green" if run.verdict in ("clean", "match", "exported") else "red"
        manifest = "none: without seals"
        if run.chain is not None:
            manifest = f"{len(run.chain.entries)} entries, " + ("[red]broken" if run.chain.breaks else "whole")
        ended = run.reason or ("yes" if run.finished else "open" if run.sealed else "not told")
        name = _escaped(run.run or run.folder or "./")
        cells = name, run.kind, heights, str(len(run.objects)), f"[{colour}]{run.verdict}[/]"
        table.add_row(*cells, _escaped(ended), manifest)
    return table


# --- JSON -----------------------------------------------------------------------------------------------------------


def show_json(found: Verification, attested: Attested | None = None) -> None:
    members: dict[str, Any] = {
        "url": found.url,
        "records": [_record(one) for one in found.records],
        "findings": [str(finding) for finding in found.findings],
        "otherObjects": found.others,
        "runs": [_run(run) for run in found.runs],
        "objects": len(found.objects),
        "payloadBytes": sum(one.payload_bytes for one in found.objects),
        "storedBytes": sum(one.stored_bytes for one in found.objects),
        "named": [wire(finding) for finding in found.findings],
        "accepted": [wire(finding) for finding in found.accepted],
        "statements": found.statements,
    }
    if attested is not None:
        members["attestation"] = attestation(attested)
    print(json.dumps(members, indent=2))


def wire(finding: Finding) -> dict[str, str]:
    return {"name": finding.name, "where": finding.where, "text": finding.text}


def _record(one: CheckedRecord) -> dict[str, Any]:
    return {
        "key": one.key,
        "sha256": one.sha256,
        "sealPromised": bool(one.expected),
        "height": one.record.get("height"),
        "normalization": one.record.get("normalization"),
        "match": one.match,
        "flatkvDigest": one.record.get("flatkv_digest"),
        "memiavlDigest": one.record.get("memiavl_digest"),
        "engine": one.record.get("engine"),
        "problems": one.problems,
    }


def _run(run: Run) -> dict[str, Any]:
    head = run.chain.head if run.chain is not None else None
    return {
        "run": run.run,
        "folder": run.folder,
        "kind": run.kind,
        "sealed": run.sealed,
        "finished": run.finished,
        "reason": run.reason,
        "startHeight": run.start,
        "endHeight": run.end,
        "objects": len(run.objects),
        "counts": run.counts,
        "afterRechecks": run.after,
        "verdict": run.verdict,
        "manifest": {"entries": head.seq, "head": head.sha256} if head is not None else None,
    }


# --- attestations ---------------------------------------------------------------------------------------------------


def attestation(attested: Attested) -> dict[str, Any]:
    return {
        "holds": not attested.findings,
        "findings": [wire(finding) for finding in attested.findings],
        "subjects": len(attested.statement.subject) if attested.statement is not None else 0,
        "predicate": msgspec.to_builtins(attested.predicate) if attested.predicate is not None else None,
    }


def show_attestation_json(attested: Attested) -> None:
    print(json.dumps({"attestation": attestation(attested)}, indent=2))


def show_attestation(file: str, attested: Attested) -> None:
    console = _console()
    show_findings(console, attested.findings, [], [])
    if attested.predicate is not None and attested.statement is not None:
        _show_predicate(console, attested.predicate, len(attested.statement.subject))
    holds = "[bold green]signature holds" if not attested.findings else "[bold red]not believed"
    console.print(f"{holds}[/]: {_escaped(file)}")


def _show_predicate(console: Console, said: Predicate, subjects: int) -> None:
    heights = f", heights {said.heights.start} to {said.heights.end}" if said.heights is not None else ""
    counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(said.counts.items()))
    taken = f" (accepted: {', '.join(said.accepted)})" if said.accepted else ""
    console.print(
        f"chain {_escaped(said.chain)}{heights}: [bold]{said.verdict}[/]{taken}{'; ' + counts if counts else ''}"
    )
    for run in said.runs:
        head = f"manifest head {run.manifest.sha256[:16]}…" if run.manifest is not None else "without seals"
        told = f"{run.run or run.folder or './'}: {run.kind}, {run.objects} objects, {run.verdict}, {head}"
        console.print(f"  {_escaped(told)}")
    for one in said.digests:
        verdict = "match" if one.match else "mismatch"
        console.print(f"  digest {one.height} {one.normalization}: {verdict}, {_short(one.flatkv_digest)}")
    for text in said.statements:
        console.print(f"  [yellow]note[/] {_escaped(text)}")
    by = f"{said.verifier.get('name', '?')} {said.verifier.get('version', '?')}"
    console.print(f"  {subjects} subjects of {_escaped(said.source)}, verified {said.verified_at} by {by}")


def show_refusal(found: Verification) -> None:
    """Why nothing was signed, on the error stream: standard output belongs to the attestation."""
    console = Console(stderr=True, highlight=False)
    show_findings(console, found.findings, found.accepted, found.statements)
    console.print(f"[bold red]nothing was attested[/]: {_many(found.findings, 'finding')}")


def fail(error: object) -> None:
    print(f"Error: {printable(error)}", file=sys.stderr)
