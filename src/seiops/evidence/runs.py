"""What a run says of itself, held against what its objects say: heights without holes, and the verdict once more.

A run is a chain of a manifest; objects in a folder without any manifest are taken together as one run without seals
(docs/contracts/shadow.md 4.5 to 4.7, 5; docs/verify.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seiops.digest.record import tree_key
from seiops.evidence.blocks import settled
from seiops.evidence.checks import Checked
from seiops.evidence.findings import Finding, Name
from seiops.evidence.reader import BESIDE, Chain, Kind, beside, named
from seiops.shadow.manifest import STOPPED, Entry
from seiops.shadow.verdicts import overall

PAGES = (Kind.COMPARE, Kind.EXPORT)
_BREAKS = {"missing": Name.ENTRY_MISSING, "broken": Name.CHAIN_BROKEN, "unreadable": Name.ENTRY_UNREADABLE}
_ENTRY_KINDS: dict[str, Kind] = {
    "page": Kind.COMPARE,
    "recheck": Kind.RECHECK,
    "export": Kind.EXPORT,
    "report": Kind.REPORT,
    "digest": Kind.DIGEST,
    "tree": Kind.TREE,
    "hashlog": Kind.HASHLOG,
}
NOT_CLEAN = ("diverged", "indeterminate", "gap", "vacuous")


@dataclass(slots=True)
class Run:
    """One run as checked. `run` is empty for objects without a manifest. `kind`: `compare`, `export`, `digest`, `hashlog`.

    `finished`: it says itself that it ended. `counts`: blocks on its pages by verdict; `after`: with those that were compared
    again and settled. `verdict`: recomputed, the worst of its blocks. `first_bad`: the first height
    that is not a match. `superseded`: objects another run published again.
    """

    folder: str
    run: str
    kind: str
    chain: Chain | None = None
    objects: list[Checked] = field(default_factory=list)
    start: int | None = None
    end: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    verdict: str = ""
    finished: bool = False
    superseded: int = 0
    first_bad: int | None = None

    @property
    def sealed(self) -> bool:
        return self.chain is not None

    @property
    def place(self) -> str:
        return f"run {self.run}" if self.run else f"{self.folder}{self.kind} objects without seals"

    @property
    def info(self) -> Mapping[str, Any]:
        """What its first entry tells: params, preflight, chain."""
        opening = self.chain.opening if self.chain is not None else None
        return (opening.info if opening is not None else None) or {}

    @property
    def reason(self) -> str:
        ending = self.chain.ending if self.chain is not None else None
        return str((ending.info or {}).get("reason", "")) if ending is not None else ""


def describe(folder: str, chain: Chain | None, objects: list[Checked], again: Sequence[Checked], kind: str = "") -> Run:
    """A run with what follows from its objects, and from those of the folder that looked at its blocks again."""
    run = Run(folder, chain.run if chain is not None else "", kind or _kind(chain, objects), chain, objects)
    names = [one.task.name for one in objects if one.task.name is not None and one.task.name.kind not in BESIDE]
    if names:
        run.start, run.end = min(name.start for name in names), max(name.end for name in names)
    counts: Counter[str] = Counter()
    for one in objects:
        if one.task.name is not None and one.task.name.kind not in BESIDE:
            counts.update(one.counts)
    run.counts = dict(counts)
    run.after = _after_rechecks(run, again)
    run.first_bad = min((one.unmatched for one in _pages(run) if one.unmatched is not None), default=None)
    run.verdict = _verdict(run)
    run.finished = chain is not None and (chain.ending is not None or _published_whole(run, chain))
    return run


def _published_whole(run: Run, chain: Chain) -> bool:
    """Hash log slices were once entered alone: one object, with nothing that could be unfinished."""
    return run.kind == Kind.HASHLOG and chain.opening is None


def rechecks(objects: Iterable[Checked]) -> list[Checked]:
    """The second looks among objects, in their order."""
    found = [one for one in objects if one.task.name is not None and one.task.name.kind is Kind.RECHECK]
    return sorted(found, key=_start_of)


def _after_rechecks(run: Run, again: Sequence[Checked]) -> dict[str, int]:
    current = {height: verdict for one in _pages(run) for height, verdict in one.verdicts.items()}
    total = Counter(run.counts)
    for recheck in again:
        for height, verdict in recheck.verdicts.items():
            if (before := current.get(height)) is not None:
                current[height] = settled(before, verdict)
                total[before] -= 1
                total[current[height]] += 1
    return {verdict: number for verdict, number in total.items() if number}


def _pages(run: Run) -> list[Checked]:
    return [one for one in run.objects if one.task.name is not None and one.task.name.kind in PAGES]


def _kind(chain: Chain | None, objects: Sequence[Checked]) -> str:
    told = [_ENTRY_KINDS[entry.kind] for entry in (chain.entries if chain else ()) if entry.kind in _ENTRY_KINDS]
    kinds: list[Kind] = [kind for kind in told if kind not in BESIDE] or [
        one.task.name.kind for one in objects if one.task.name
    ]
    if kinds:
        return str(kinds[0])
    params = ((chain.opening.info or {}).get("params") or {}) if chain and chain.opening else {}
    return str(Kind.COMPARE if params.get("canonical_rpc") else Kind.EXPORT)


def _verdict(run: Run) -> str:
    if run.kind == Kind.COMPARE:
        return overall(run.after)
    if run.kind == Kind.DIGEST:
        records = [one.record for one in run.objects if one.record is not None]
        if not records or any(record.problems for record in records):
            return ""
        return "match" if all(record.match for record in records) else "mismatch"
    return "exported" if run.objects else ""


def chain_findings(folder: str, chain: Chain) -> list[Finding]:
    """What is wrong with the chain itself, and with entries that contradict the names they speak of."""
    found = [Finding(_BREAKS[one.why], one.key, one.text) for one in chain.breaks]
    ended = False
    for entry in chain.entries:
        where = f"{folder}manifest/{chain.run}/{entry.seq:08d}.json"
        # a task that was killed right behind its end does its work again, and says so
        ended = ended and entry.kind != "run"
        if ended and entry.kind != "end":
            found.append(Finding(Name.AFTER_END, where, f"a {entry.kind} entry stands behind the end of the run"))
        ended = ended or (entry.kind == "end" and (entry.info or {}).get("reason") != STOPPED)
        if text := _contradiction(entry):
            found.append(Finding(Name.ENTRY_CONTRADICTS, where, text))
    return found


def _contradiction(entry: Entry) -> str:
    if entry.key is None:
        return f"a {entry.kind} entry that names no object" if entry.kind in _ENTRY_KINDS else ""
    if not beside(entry.key):
        return f"names {entry.key!r}, which is no object beside its manifest"
    if entry.sha256 is None:
        return f"names {entry.key} without a seal"
    name = named(entry.key)
    if entry.kind not in _ENTRY_KINDS:
        return ""
    if name is None:
        return f"calls {entry.key} a {entry.kind}, whose name is none of such an object"
    if name.kind is not _ENTRY_KINDS[entry.kind]:
        return f"calls {entry.key} a {entry.kind}"
    if name.kind is Kind.RECHECK:
        return ""
    if entry.start_height is not None and (entry.start_height, entry.end_height) != (name.start, name.end):
        return f"gives {entry.key} the heights {entry.start_height} to {entry.end_height}"
    if entry.counts is not None and sum(entry.counts.values()) != name.end - name.start + 1:
        return f"counts {sum(entry.counts.values())} blocks for {entry.key}"
    return ""


def run_findings(run: Run, others: Sequence[Run]) -> list[Finding]:
    """Heights, ending and verdict of one run. `others`: the other runs of its folder, of which one may have gone on with it."""
    found = list(_holes(run)) if run.kind in PAGES else []
    if run.sealed:
        found += _ending(run, others)
        if run.finished and not run.objects and not run.superseded:
            text = "ended without a single object: nothing was compared, exported or digested"
            found.append(Finding(Name.NOT_CLEAN, run.place, text, "vacuous"))
        if run.kind == Kind.COMPARE:
            found += _conclusion(run, others)
    if run.kind == Kind.COMPARE:
        found += _not_clean(run)
    if run.kind == Kind.DIGEST:
        found += _digest_conclusion(run)
    return found


def _digest_conclusion(run: Run) -> Iterable[Finding]:
    ending = run.chain.ending if run.chain is not None else None
    told = (ending.info or {}).get("match") if ending is not None else None
    if isinstance(told, bool) and run.verdict and told is not (run.verdict == "match"):
        text = f"its end entry says {'match' if told else 'mismatch'}, its records say {run.verdict}"
        yield Finding(Name.VERDICT_CONTRADICTS, run.place, text)


def _holes(run: Run) -> Iterable[Finding]:
    before: Checked | None = None
    for one in sorted(_pages(run), key=_start_of):
        if before is not None:
            yield from _between(_end_of(before), before.task.full_key, _start_of(one), one.task.full_key)
        if before is None or _end_of(one) > _end_of(before):
            before = one


def _between(end: int, one: str, start: int, other: str) -> Iterable[Finding]:
    if start > end + 1:
        yield Finding(Name.HEIGHT_GAP, _span(end + 1, start - 1), f"nothing between {one} and {other}")
    elif start <= end:
        yield Finding(Name.HEIGHT_OVERLAP, _span(start, end), f"both in {one} and in {other}")


def _span(start: int, end: int) -> str:
    return f"height {start}" if start == end else f"heights {start} to {end}"


def _start_of(one: Checked) -> int:
    assert one.task.name is not None
    return one.task.name.start


def _end_of(one: Checked) -> int:
    assert one.task.name is not None
    return one.task.name.end


def between_runs(runs: Sequence[Run]) -> list[Finding]:
    """Gaps and overlaps between the runs of one folder that publish pages of one kind."""
    found: list[Finding] = []
    for kind in PAGES:
        spans = sorted(
            (run.start, run.end, run.place)
            for run in runs
            if run.kind == kind and run.start is not None and run.end is not None
        )
        reach: tuple[int, str] | None = None
        for start, end, place in spans:
            if reach is not None:
                found += _between(reach[0], reach[1], start, place)
            if reach is None or end > reach[0]:
                reach = (end, place)
    return found


def _ending(run: Run, others: Iterable[Run]) -> Iterable[Finding]:
    if run.finished or (not run.objects and run.superseded):
        return
    if run.end is not None and any(other.kind == run.kind and other.start == run.end + 1 for other in others):
        return
    proven = f"up to {run.end}" if run.end is not None else "of nothing"
    text = f"has no end entry: it still runs, was stopped, or its last entries are gone; it speaks {proven}"
    yield Finding(Name.RUN_OPEN, run.place, text, "open")


def _totals(run: Run, others: Sequence[Run]) -> Iterable[dict[str, int]]:
    """What an end may count: this run alone, or also those it went on behind, since totals survive a resubmission."""
    total = Counter(run.counts)
    yield dict(total)
    start = run.start
    for other in sorted(others, key=lambda other: other.end or 0, reverse=True):
        if other.kind == run.kind and start is not None and other.end == start - 1:
            start = other.start
            total.update(other.counts)
            yield dict(total)


def _conclusion(run: Run, others: Sequence[Run]) -> Iterable[Finding]:
    if run.chain is None or run.superseded:
        # what a later run published again cannot be counted for this one any more
        return
    begin = run.info.get("startHeight")
    if isinstance(begin, int) and run.start is not None and run.start > begin:
        yield Finding(Name.RANGE_SHORT, run.place, f"was to start at {begin}, its first page starts at {run.start}")
    ending = run.chain.ending
    if ending is None:
        return
    told = ending.counts or {}
    if told not in _totals(run, others):
        text = f"its end entry counts {_text(told)}, its pages hold {_text(run.counts)}"
        yield Finding(Name.COUNTS_DIFFER, run.place, text)
    elif told == run.counts:
        yield from _told_verdict(run, ending.info or {})
    wanted = (run.info.get("params") or {}).get("end_height")
    if run.reason == "end-height" and isinstance(wanted, int) and run.end != wanted:
        yield Finding(Name.RANGE_SHORT, run.place, f"says it reached {wanted}, its last page ends at {run.end}")
    if run.reason in ("divergence", "indeterminate"):
        yield from _halt(run)


def _told_verdict(run: Run, info: Mapping[str, Any]) -> Iterable[Finding]:
    """What the end says beyond its counts. A resubmitted run's totals cover earlier runs and are left to its counts."""
    own = _after_rechecks(run, rechecks(run.objects))
    if (told := info.get("verdict")) is not None and told != overall(own):
        text = f"its end entry says {told}, its blocks say {overall(own)}"
        yield Finding(Name.VERDICT_CONTRADICTS, run.place, text)
    after = info.get("afterRechecks")
    if isinstance(after, dict) and {name: number for name, number in after.items() if number} != own:
        text = f"its end entry counts {_text(after)} after rechecks, its objects say {_text(own)}"
        yield Finding(Name.COUNTS_DIFFER, run.place, text)


def _halt(run: Run) -> Iterable[Finding]:
    """A tripwire run ends with a block that is no match, and with a report of it."""
    last = max(_pages(run), key=_end_of, default=None)
    if last is None or not last.whole:
        return
    if not last.halted:
        text = f"says it ended with {run.reason}, its last block, {run.end}, is a match"
        yield Finding(Name.VERDICT_CONTRADICTS, run.place, text)
    elif not any(
        one.task.name and one.task.name.kind is Kind.REPORT and _start_of(one) == run.end for one in run.objects
    ):
        yield Finding(
            Name.REPORT_MISSING, f"{run.folder}divergence-{run.end}.report.json.gz", f"{run.place} has no report"
        )


def _not_clean(run: Run) -> Iterable[Finding]:
    total = sum(run.after.values())
    for verdict in NOT_CLEAN:
        if number := run.after.get(verdict):
            first = f", the first block that is no match is {run.first_bad}" if run.first_bad is not None else ""
            yield Finding(Name.NOT_CLEAN, run.place, f"{number} of {total} blocks are {verdict}{first}", verdict)


def _text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items())) or "nothing"


def tree_findings(objects: Sequence[Checked]) -> list[Finding]:
    """Shard trees held against the seals that the records beside them name."""
    seals = {one.task.full_key: one.sha256 for one in objects}
    found = []
    for one in objects:
        trees = one.record.record.get("shard_trees") if one.record is not None and not one.record.problems else None
        for side, seal in (trees if isinstance(trees, dict) else {}).items():
            key = tree_key(one.task.folder, _start_of(one), str(side))
            if key not in seals:
                found.append(Finding(Name.OBJECT_MISSING, key, f"{one.task.full_key} names it, but it is not there"))
            elif seals[key] and seals[key] != str(seal).lower():
                text = f"seal is {seals[key]}, {one.task.full_key} says {seal}"
                found.append(Finding(Name.SEAL_DIFFERS, key, text))
    return found


def report_findings(objects: Iterable[Checked]) -> list[Finding]:
    """Reports held against the pages that speak of the same heights."""
    outlines: dict[int, Any] = {}
    reports: list[Checked] = []
    for one in objects:
        kind = one.task.name.kind if one.task.name is not None else None
        if kind is Kind.COMPARE:
            outlines |= one.outlines
        elif kind is Kind.REPORT:
            reports.append(one)
    found = []
    for report in reports:
        if report.outline is None:
            continue
        height = _start_of(report)
        if height not in outlines:
            text = f"no page speaks of height {height}"
        elif outlines[height] != report.outline:
            text = f"its comparison is not the one the page holds for height {height}"
        else:
            continue
        found.append(Finding(Name.REPORT_CONTRADICTS, report.task.full_key, text))
    return found
