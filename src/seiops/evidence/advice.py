"""What a summary means in words, and what to do next: the same sentences for every form a report takes.

A report is read by someone who has to sign it or act on it; so every open end is named with its remedy, and what a clean
run does not prove is said as plainly (docs/contracts/shadow.md 1.1, 1.4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from seiops.evidence.summary import Summary

Weight = Literal["act", "know"]

_REMEDIES = {
    "pruned": "keep more history on both nodes: pruning nothing, state store keep-recent 0, evm.max_trace_lookback_blocks -1 (T9)",
    "trace-limit": "raise the limit of concurrent traces and the trace timeout of the tracing nodes (T10)",
    "incomplete-trace": "the tracing node lacks receipts of this block: keep receipts on both nodes (T9)",
    "incomplete-results": "a node serves results without transactions: Autobahn or pruned results (T9, T11)",
    "not-ready": "the node was behind: compare again when both are beyond this height (T7)",
    "timeout": "the node answers too slowly: compare again with less load on it",
    "rpc": "the node refused or failed to answer: see the error, then compare again",
    "unreadable": "the height could not be read for too long: see the error, then compare it again",
    "not-told": "see the error of the block, then compare again",
}


@dataclass(frozen=True, slots=True)
class Advice:
    """`command` can be pasted; it is about this very place."""

    weight: Weight
    text: str
    command: str = ""


def number(value: int) -> str:
    return f"{value:,}"


def blocks(count: int) -> str:
    return "1 block" if count == 1 else f"{count:,} blocks"


def headline(summary: Summary) -> str:
    """The verdict in one sentence."""
    counts, total = summary.counts, summary.blocks
    if summary.verdict == "empty":
        return "Nothing was compared here"
    if counts["diverged"]:
        share = f"{blocks(counts['diverged'])} of {number(total)} {_differ(counts['diverged'])}"
        if not summary.descriptive:
            return share
        settled = counts["diverged"] - summary.descriptive
        where = f"{number(settled)} of them in what the chain settles" if settled else "all in descriptive fields only"
        return f"{share}, {where}"
    if summary.verdict == "diverged":
        return f"No block differs, but a digest of the whole state does ({blocks(total)} compared)"
    if not total:
        return f"No block was compared; {len(summary.digests)} digests of the whole state were published"
    if summary.verdict == "incomplete":
        return f"No difference found, but the proof has open ends ({blocks(total)} compared)"
    return f"Every one of {blocks(total)} is clean" if total > 1 else "The one block is clean"


def _differ(count: int) -> str:
    return "differs" if count == 1 else "differ"


def advice(summary: Summary) -> list[Advice]:
    """What to do, gravest first, then what to know."""
    found = [*_trust(summary), *_divergences(summary), *_open_ends(summary), *_limits(summary)]
    return sorted(found, key=lambda one: one.weight != "act")


def _divergences(summary: Summary) -> Iterator[Advice]:
    diverged = summary.counts["diverged"]
    if summary.grave:
        first = summary.grave[0].height
        yield Advice(
            "act",
            f"Begin with block {first}, the first in which the nodes disagree on what the chain settles; later blocks may follow from it.",
            f"seiops report divergence {summary.place} --height {first}",
        )
    if summary.descriptive:
        yield Advice(
            "act" if summary.descriptive == diverged else "know",
            f"{blocks(summary.descriptive)} {_differ(summary.descriptive)} in log, events or codespace only, which the chain does not "
            "agree on: executor or event settings of the nodes are the usual cause (T12, T27).",
            "seiops shadow preflight --strict",
        )
    for side, count in sorted(summary.strange.items()):
        yield Advice(
            "know",
            f"In {blocks(count)} the {side} node's own receipts do not hash to what the chain's header says of them: it executed "
            "otherwise than the network did. Another binary explains that (T1); the same binary does not.",
        )
    for digest in summary.digests:
        if digest.match is False:
            yield Advice(
                "act",
                f"The whole-state digests at height {digest.height} ({digest.normalization}) differ in {', '.join(digest.differing)}: "
                "find the keys in the stores.",
                f"seiops digest diff flatkv:DIR@{digest.height} memiavl:DIR@{digest.height}",
            )


def _open_ends(summary: Summary) -> Iterator[Advice]:
    counts = summary.counts
    if summary.missing:
        spans, _ = summary.open_spans()
        first = next((span for span in spans if span.verdict == "missing"), None)
        where = f", the first from {first.start} to {first.end}" if first is not None else ""
        again = f"startHeight {first.start}, endHeight {first.end}" if first is not None else "their heights"
        yield Advice(
            "act",
            f"No page speaks of {blocks(summary.missing)}{where}: submit result-export again with the same prefix, {again}.",
        )
    for name, reason in sorted(summary.reasons.items(), key=lambda item: -item[1].blocks):
        remedy = _REMEDIES.get(name, _REMEDIES["not-told"])
        yield Advice(
            "act", f"{blocks(reason.blocks)} could not be decided ({name}), for example {reason.height}: {remedy}."
        )
    if counts["vacuous"]:
        yield Advice("act", f"{blocks(counts['vacuous'])} are vacuous: only headers were compared, and both nodes served the same "
                     "ones. Run again with migrationMode, so that receipts are compared (T8).")  # fmt: skip
    if summary.unfinished:
        runs = ", ".join(run.run for run in summary.runs if run.state == "open")
        if runs:
            yield Advice(
                "act",
                f"Not finished: {runs}. The figures hold for what is published so far; take the report again at the end.",
            )
    if summary.verdict == "empty":
        yield Advice("act", "No compare page lies here: see what does.", f"seiops report list {summary.place}")


def _trust(summary: Summary) -> Iterator[Advice]:
    if summary.problem_count:
        yield Advice("act", f"{number(summary.problem_count)} problems with the published objects themselves: check every seal.",
                     f"seiops verify {summary.place}")  # fmt: skip
    failed = [
        str(check.get("check")) for run in summary.runs for check in run.preflight if check.get("state") == "failed"
    ]
    if failed:
        names = ", ".join(dict.fromkeys(failed))
        yield Advice(
            "act",
            f"Preflight checks failed before the run: {names}. Settle them first; a trap can make any verdict worthless.",
        )
    if any(not run.sealed and run.kind == "comparison" for run in summary.runs):
        yield Advice(
            "know",
            "Pages without a manifest (as the Go sidecar publishes them): nothing promises that they are all there, or unchanged.",
        )


def _limits(summary: Summary) -> Iterator[Advice]:
    if not summary.blocks:
        return
    if summary.headers_only:
        yield Advice("know", f"Of {blocks(summary.headers_only)} only headers were compared. Nodes that follow the network serve the "
                     "proposer's headers, so that this says nothing of their own execution (T8).")  # fmt: skip
    for run in summary.runs:
        if run.tripped:
            yield Advice("know", f"Run {run.run} is a tripwire and ended at block {run.last}: nothing behind it was compared. "
                         "With continueOnDivergence a run goes on.")  # fmt: skip
    if not summary.keys:
        yield Advice(
            "know", "State was not compared (layer 2 was off): the verdict rests on headers, receipts and hash logs."
        )
    if summary.hash_log_settled:
        yield Advice(
            "know",
            f"{blocks(summary.hash_log_settled)} were settled by hash logs, which say nothing of log and events.",
        )
    if summary.app_hash_expected:
        yield Advice(
            "know",
            f"The app hash differs in {blocks(summary.app_hash_expected)}: expected in a migration, and no divergence.",
        )
    if not summary.digests:
        yield Advice("know", "A comparison sees what blocks touched. For what they did not, take the digest of the whole state "
                     f"at height {summary.ledger.last} (task evm-logical-digest) and publish it under the same prefix.")  # fmt: skip
