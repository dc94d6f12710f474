"""The verdict of a run in numbers, gathered from its lines one by one.

Whatever the length of the run, what is kept is bounded: a byte a height, counters with a limit on their names, and the
first blocks of each kind of finding. What was left out is always counted and said.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from seiops.evidence.blocks import LAYERS, Difference, Finding
from seiops.evidence.ledger import Column, Ledger, Span

COLUMNS = 120
KEPT_BLOCKS = 3_000
KEPT_SPANS = 200
KEPT_PROBLEMS = 50
KEPT_NAMES = 20_000
KEPT_REASONS = 40
SAMPLES = 3
SAMPLE_CHARS = 160
NOT_CLEAN = ("diverged", "indeterminate", "gap", "vacuous")


@dataclass(slots=True)
class Tally:
    """Differences counted by a name; names beyond the limit are counted together. `blocks`: in how many blocks."""

    differences: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)
    beyond: int = 0
    kinds: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, counts: Counter[str], kinds: dict[str, Counter[str]] | None = None) -> None:
        for name, number in counts.items():
            if name not in self.differences and len(self.differences) >= KEPT_NAMES:
                self.beyond += number
                continue
            self.differences[name] += number
            self.blocks[name] += 1
            if kinds is not None:
                self.kinds.setdefault(name, Counter()).update(kinds[name])

    def top(self, number: int) -> list[tuple[str, int, int]]:
        """Name, differences, blocks: the most frequent ones; ties in the order of their names."""
        ordered = sorted(self.differences.items(), key=lambda item: (-item[1], item[0]))
        return [(name, count, self.blocks[name]) for name, count in ordered[:number]]


@dataclass(slots=True)
class Block:
    """One block that is not clean, cut to what a table shows. `samples` are its first differences, values shortened."""

    height: int
    verdict: str
    layers: list[str]
    kinds: list[str]
    contracts: list[str]
    differences: int
    reason: str
    error: str
    txs: int
    consensus: bool
    samples: list[Difference]

    @property
    def rank(self) -> int:
        """Which blocks are kept first when there are too many: what the chain itself disagrees on."""
        return 0 if self.verdict == "diverged" and self.consensus else 1


@dataclass(slots=True)
class Reason:
    """Why blocks could not be decided: how many, and one of them as an example."""

    blocks: int
    height: int
    error: str


@dataclass(slots=True)
class Digest:
    """A published digest record: `match` is None where it does not hold together, and `problem` says why."""

    key: str
    height: int
    normalization: str
    match: bool | None
    differing: list[str]
    problem: str = ""


@dataclass(slots=True)
class RunInfo:
    """One run as its manifest tells it, or, without a manifest, as its object names do (`sealed` is then False).

    `state`: `finished`, `open` or `broken` (its chain does not hold), `unknown` where only a manifest could tell.
    `counts` is None where no manifest counted. `folder` ends in a slash or is empty. `bytes` are as stored.
    """

    folder: str
    run: str = ""
    kind: str = "comparison"
    sealed: bool = False
    state: str = "unknown"
    reason: str = ""
    chain: str = ""
    first: int | None = None
    last: int | None = None
    pages: int = 0
    reports: int = 0
    blocks: int = 0
    bytes: int = 0
    counts: dict[str, int] | None = None
    started: str = ""
    ended: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    preflight: list[dict[str, Any]] = field(default_factory=list)
    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def tripped(self) -> bool:
        """Ended at a block that is no match, as a tripwire does."""
        return self.reason in ("divergence", "indeterminate")

    @property
    def mode(self) -> str:
        if self.kind != "comparison" or not self.params:
            return self.kind
        return ", ".join(
            name
            for name, there in (
                (self.kind, True),
                ("migration", self.params.get("migration")),
                ("survey" if self.params.get("survey") else "tripwire", True),
                ("state", self.params.get("shadow_evm_rpc")),
                ("hash log", self.params.get("hash_log", "off") != "off"),
            )
            if there
        )


@dataclass(slots=True)
class Summary:
    """Everything a report shows of one folder of runs; JSON-ready through `wire` in render/machine.py."""

    place: str
    runs: list[RunInfo]
    ledger: Ledger = field(default_factory=Ledger)
    wanted: tuple[int, int] | None = None
    layers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LAYERS, 0))
    undecided: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LAYERS, 0))
    kinds: Tally = field(default_factory=Tally)
    contracts: Tally = field(default_factory=Tally)
    reasons: dict[str, Reason] = field(default_factory=dict)
    grave: list[Block] = field(default_factory=list)
    others: list[Block] = field(default_factory=list)
    digests: list[Digest] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    pages: int = 0
    seals_held: int = 0
    lines: int = 0
    repeated: int = 0
    conflicts: int = 0
    contradictions: int = 0
    rechecked: int = 0
    descriptive: int = 0
    headers_only: int = 0
    hash_log_settled: int = 0
    app_hash_expected: int = 0
    migration: int = 0
    strange: Counter[str] = field(default_factory=Counter)
    txs: int = 0
    accounts: int = 0
    keys: int = 0
    earliest: str = ""
    latest: str = ""

    # --- gathering --------------------------------------------------------------------------------------------------

    def problem(self, text: str) -> None:
        self.problem_count += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(text)

    def add(self, finding: Finding) -> None:
        """Counts a block once, however often a line speaks of it; of two verdicts the graver counts."""
        self.lines += 1
        before = self.ledger.enter(finding.height, finding.verdict)
        if before != "missing":
            self._again(finding, before)
            return
        self._count(finding)

    def _again(self, finding: Finding, before: str) -> None:
        self.repeated += 1
        if before != finding.verdict:
            self.conflicts += 1
            self.problem(
                f"block {finding.height}: one page says {before}, another {finding.verdict}; the graver counts"
            )
            if finding.verdict == "diverged":
                self._count(finding)

    def _count(self, finding: Finding) -> None:
        self.txs += finding.txs
        self.accounts += finding.accounts
        self.keys += finding.keys
        self.headers_only += finding.headers_only
        self.hash_log_settled += finding.settled_by_hash_log
        self.app_hash_expected += finding.app_hash_expected
        self.migration += finding.migration
        self.strange.update(side for side in finding.strange if side in ("shadow", "canonical"))
        self.earliest = min(filter(None, (self.earliest, finding.timestamp)), default="")
        self.latest = max(self.latest, finding.timestamp)
        if finding.contradiction:
            self.contradictions += 1
            self.problem(f"block {finding.height}: {finding.contradiction}; the graver counts")
        if finding.verdict != "clean" or finding.undecided:
            self._unclean(finding)

    def _unclean(self, finding: Finding) -> None:
        for layer in finding.layers:
            self.layers[layer] += 1
        for layer in finding.undecided:
            self.undecided[layer] += 1
        self.kinds.add(Counter(one.name for one in finding.differences))
        contracts = Counter(one.place for one in finding.differences if one.layer == "2")
        kinds: dict[str, Counter[str]] = {}
        for one in finding.differences:
            if one.layer == "2":
                kinds.setdefault(one.place, Counter())[one.kind] += 1
        self.contracts.add(contracts, kinds)
        if finding.verdict == "diverged" and not finding.consensus and finding.differences:
            self.descriptive += 1
        if finding.verdict in ("indeterminate", "gap"):
            name = finding.reason[:40] or "not-told"
            if name not in self.reasons and len(self.reasons) >= KEPT_REASONS:
                name = "other"
            kept = self.reasons.setdefault(name, Reason(0, finding.height, finding.error[:400]))
            kept.blocks += 1
        self._keep(finding, contracts)

    def _keep(self, finding: Finding, contracts: Counter[str]) -> None:
        kinds = list(dict.fromkeys(one.name for one in finding.differences))
        block = Block(finding.height, finding.verdict, finding.layers, kinds[:8], list(contracts)[:4],
                      len(finding.differences), finding.reason[:80], finding.error[:400], finding.txs, finding.consensus,
                      [shortened(one) for one in finding.differences[:SAMPLES]])  # fmt: skip
        kept = self.others if block.rank else self.grave
        if len(kept) < KEPT_BLOCKS:
            kept.append(block)

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> dict[str, int]:
        return self.ledger.counts()

    @property
    def blocks(self) -> int:
        return self.ledger.blocks

    @property
    def missing(self) -> int:
        """Heights inside the range, or inside what was asked for, that no line speaks of."""
        return sum(span.blocks for span in self._missing())

    def _missing(self) -> list[Span]:
        holes = [span for span in self.ledger.spans() if span.verdict == "missing"]
        if self.wanted is None:
            return holes
        first, last = self.wanted
        if not self.blocks:
            return [Span(first, last, "missing")]
        if first < self.ledger.first:
            holes.insert(0, Span(first, self.ledger.first - 1, "missing"))
        if last > self.ledger.last:
            holes.append(Span(self.ledger.last + 1, last, "missing"))
        return holes

    def open_spans(self) -> tuple[list[Span], int]:
        """Where the proof has no answer: holes, gaps, indeterminate and vacuous blocks. Cut; with how many there are."""
        undecided = [span for span in self.ledger.spans() if span.verdict in ("gap", "indeterminate", "vacuous")]
        found = sorted([*self._missing(), *undecided], key=lambda span: span.start)
        return found[:KEPT_SPANS], len(found)

    def columns(self) -> list[Column]:
        return self.ledger.columns(COLUMNS)

    @property
    def not_clean(self) -> int:
        return sum(count for name, count in self.counts.items() if name in NOT_CLEAN)

    def listed(self) -> list[Block]:
        """The blocks that are not clean, as far as they are kept: the gravest first chosen, then in order of height."""
        chosen = self.grave + self.others[: max(KEPT_BLOCKS - len(self.grave), 0)]
        return sorted(chosen, key=lambda block: block.height)

    @property
    def verdict(self) -> str:
        """`diverged`, else `empty` where nothing was compared or digested, else `incomplete` while anything is open, else `clean`."""
        counts = self.counts
        if counts["diverged"] or any(one.match is False for one in self.digests):
            return "diverged"
        if not self.blocks and not self.digests:
            return "empty"
        open_ends = self.not_clean or self.missing or self.problem_count or self.unfinished
        return "incomplete" if open_ends else "clean"

    @property
    def unfinished(self) -> bool:
        return any(run.state in ("open", "broken") for run in self.runs)


def shortened(one: Difference) -> Difference:
    return Difference(
        one.layer, one.kind[:40], one.place[:80], one.slot[:80], cut(one.shadow), cut(one.canonical), one.consensus
    )


def cut(text: str, limit: int = SAMPLE_CHARS) -> str:
    """Both ends stay, since two long values often differ only at one of them; the length is said."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … {text[-half:]} ({len(text)} characters)"
