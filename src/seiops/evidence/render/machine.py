"""Reports as JSON: stable names, nothing rounded, lists that were cut say so."""

from __future__ import annotations

from typing import Any

import orjson

from seiops.evidence.advice import advice, headline
from seiops.evidence.blocks import Difference
from seiops.evidence.ledger import Column
from seiops.evidence.oneblock import BlockView
from seiops.evidence.summary import Block, RunInfo, Summary

FORMAT = "seiops-report/1"
TOP = 50


def run_wire(run: RunInfo) -> dict[str, Any]:
    return {
        "folder": run.folder,
        "run": run.run or None,
        "mode": run.mode,
        "sealed": run.sealed,
        "state": run.state,
        "reason": run.reason or None,
        "chain": run.chain or None,
        "firstHeight": run.first,
        "lastHeight": run.last,
        "pages": run.pages,
        "reports": run.reports,
        "blocks": run.blocks,
        "storedBytes": run.bytes,
        "counts": run.counts,
        "startedAt": run.started or None,
        "lastEntryAt": run.ended or None,
        "params": run.params,
        "preflight": run.preflight,
        "nodes": run.nodes,
        "problems": run.problems,
    }


def summary_wire(summary: Summary) -> dict[str, Any]:
    spans, open_count = summary.open_spans()
    listed = summary.listed()
    return {
        "format": FORMAT,
        "place": summary.place,
        "verdict": summary.verdict,
        "headline": headline(summary),
        "firstHeight": summary.ledger.first if summary.blocks else None,
        "lastHeight": summary.ledger.last if summary.blocks else None,
        "blocks": summary.blocks,
        "counts": summary.counts,
        "missing": summary.missing,
        "descriptiveOnly": summary.descriptive,
        "headersOnly": summary.headers_only,
        "ownResultsDiffer": dict(summary.strange),
        "settledByHashLog": summary.hash_log_settled,
        "decidedBySecondLook": summary.rechecked,
        "repeatedBlocks": summary.repeated,
        "conflicts": summary.conflicts,
        "contradictions": summary.contradictions,
        "transactions": summary.txs,
        "accountsChecked": summary.accounts,
        "keysChecked": summary.keys,
        "pages": summary.pages,
        "sealsHeld": summary.seals_held,
        "runs": [run_wire(run) for run in summary.runs],
        "layers": {layer: {"diverged": count, "indeterminate": summary.undecided[layer]}
                   for layer, count in summary.layers.items()},
        "kinds": [{"kind": name, "differences": count, "blocks": blocks} for name, count, blocks in summary.kinds.top(TOP)],
        "contracts": [
            {"address": name, "differences": count, "blocks": blocks, "kinds": dict(summary.contracts.kinds.get(name, {}))}
            for name, count, blocks in summary.contracts.top(TOP)
        ],
        "contractsInAll": len(summary.contracts.differences),
        "reasons": [
            {"reason": name, "blocks": one.blocks, "example": {"height": one.height, "error": one.error}}
            for name, one in sorted(summary.reasons.items(), key=lambda item: -item[1].blocks)
        ],
        "open": [{"firstHeight": span.start, "lastHeight": span.end, "what": span.verdict} for span in spans],
        "openInAll": open_count,
        "matchRate": [_column(column) for column in summary.columns()],
        "digests": [
            {"key": one.key, "height": one.height, "normalization": one.normalization, "match": one.match,
             "differing": one.differing, "problem": one.problem or None}
            for one in summary.digests
        ],
        "problems": summary.problems,
        "problemsInAll": summary.problem_count,
        "advice": [{"weight": one.weight, "text": one.text, "command": one.command or None} for one in advice(summary)],
        "divergentBlocks": [block_wire(block) for block in listed],
        "divergentBlocksInAll": summary.not_clean,
    }  # fmt: skip


def _column(column: Column) -> dict[str, Any]:
    counts = {name: count for name, count in column.counts.items() if count}
    return {"firstHeight": column.start, "lastHeight": column.end, "counts": counts}


def block_wire(block: Block) -> dict[str, Any]:
    return {
        "height": block.height,
        "verdict": block.verdict,
        "layers": block.layers,
        "kinds": block.kinds,
        "contracts": block.contracts,
        "differences": block.differences,
        "consensus": block.consensus,
        "reason": block.reason or None,
        "error": block.error or None,
        "transactions": block.txs,
        "samples": [difference_wire(one) for one in block.samples],
    }


def difference_wire(one: Difference) -> dict[str, Any]:
    found = {"layer": one.layer, "kind": one.kind, "place": one.place or None, "slot": one.slot or None}
    return found | {"shadow": one.shadow, "canonical": one.canonical, "consensus": one.consensus}


def view_wire(view: BlockView) -> dict[str, Any]:
    """One block with every difference in full; the record itself is under `comparison`."""
    before = view.previous
    return {
        "format": FORMAT,
        "place": view.place,
        "height": view.height,
        "timestamp": view.timestamp,
        "verdict": view.finding.verdict,
        "reason": view.finding.reason or None,
        "error": view.finding.error or None,
        "contradiction": view.finding.contradiction or None,
        "differences": [difference_wire(one) for one in view.finding.differences],
        "meanings": [{"what": name, "means": text} for name, text in view.meanings()],
        "previous": {"height": before[0], "differences": [difference_wire(one) for one in before[1]]}
        if before
        else None,
        "tracesPart": [difference_wire(one) for one in view.report.parted] if view.report is not None else [],
        "pages": [{"key": one.key, "verdict": one.finding.verdict} for one in view.said],
        "report": view.report.key if view.report is not None else None,
        "comparison": orjson.Fragment(view.comparison),
    }
