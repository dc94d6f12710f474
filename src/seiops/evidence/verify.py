"""Verification of everything below a prefix: every chain, every object, every height, every verdict (ruling: manifest).

Objects are streamed many at once with bounded memory. What cannot be asked raises; whatever is wrong with the evidence is
a finding, and what an operator should know besides is a statement.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from seiops.digest.published import CheckedRecord, pair_problems
from seiops.evidence.checks import Checked, Task, check_object
from seiops.evidence.findings import Finding, Name, split
from seiops.evidence.reader import BESIDE, Chain, Claim, Folder, Kind, claims, counting, folders, named, read_chain
from seiops.evidence.runs import (
    Run,
    between_runs,
    chain_findings,
    describe,
    rechecks,
    report_findings,
    run_findings,
    tree_findings,
)
from seiops.objectstore import Store
from seiops.shadow.pipeline import in_order

CONCURRENT = 16


class UnknownSealError(ValueError):
    """A seal was given for an object that is not there; names it."""


class Progress(Protocol):
    """Who hears how far a verification is: the whole first, then bytes as they arrive and objects as they are done."""

    def total(self, objects: int, size: int) -> None: ...
    def heard(self, size: int) -> None: ...
    def done(self) -> None: ...


@dataclass(slots=True)
class Verification:
    """The outcome. `findings` stand; `accepted` are those the caller takes as what the evidence says. `others`: objects
    whose names are none of ours and that no manifest names; they were not looked at.
    """

    url: str
    runs: list[Run] = field(default_factory=list)
    objects: list[Checked] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    accepted: list[Finding] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    others: int = 0

    @property
    def records(self) -> list[CheckedRecord]:
        """The digest records among the objects."""
        return [one.record for one in self.objects if one.record is not None]

    @property
    def empty(self) -> bool:
        return not self.objects and not self.runs


@dataclass(slots=True)
class _Plan:
    """A folder before its objects are read: chains, and what each object will be held against."""

    folder: Folder
    chains: list[Chain]
    tasks: list[Task]
    claims: dict[str, list[Claim]]
    others: int


async def verify(
    store: Store,
    url: str,
    progress: Progress,
    *,
    seals: Mapping[str, str] | None = None,
    accept: frozenset[str] = frozenset(),
) -> Verification:
    """Verify everything below the store's prefix. `seals`: promised SHA-256 by key, below the prefix or in the bucket.

    Raises StoreError when the store cannot be asked, UnknownSealError for a seal of an object that is not there.
    """
    plans = [await _plan(store, folder) for folder in await folders(store)]
    tasks = [task for plan in plans for task in plan.tasks]
    _promise(tasks, seals or {}, store.prefix, url)
    found = Verification(url, others=sum(plan.others for plan in plans))
    found.objects = await _check_rechecks_first(store, tasks, progress)
    by_folder: dict[str, list[Checked]] = defaultdict(list)
    for one in found.objects:
        by_folder[one.task.folder].append(one)
    findings: list[Finding] = []
    for plan in plans:
        findings += _conclude(plan, by_folder[plan.folder.prefix], found)
    findings += [Finding(Name.RECORDS_DISAGREE, "", text) for text in pair_problems(found.records)]
    found.findings, found.accepted = split(findings, accept)
    return found


async def verify_object(
    store: Store,
    key: str,
    url: str,
    progress: Progress,
    *,
    seals: Mapping[str, str] | None = None,
    accept: frozenset[str] = frozenset(),
) -> Verification:
    """Verify one object by itself: content and verdict, and its seal where one was promised. Raises as `verify` does."""
    task = Task("", key, (await store.head(key)).size, named(key))
    _promise([task], seals or {}, store.prefix, url)
    found = Verification(url, objects=await _check_rechecks_first(store, [task], progress))
    findings = [finding for one in found.objects for finding in one.findings]
    if task.name is not None and task.name.kind not in BESIDE:
        run = describe("", None, found.objects, [], task.name.kind)
        found.runs.append(run)
        findings += run_findings(run, [])
    if task.name is not None and task.name.kind is not Kind.DIGEST:
        found.statements.append("one object by itself: no manifest was looked at, no neighbour, no report")
    found.findings, found.accepted = split(findings, accept)
    return found


def unsealed(found: Verification) -> list[Finding]:
    """Objects that neither a manifest nor the caller gives a seal for: fit for their reader, but anybody may have written them."""
    return [
        Finding(
            Name.UNSEALED, one.task.full_key, "no manifest names it and no seal was given: --seal or --result give one"
        )
        for one in found.objects
        if one.task.entry is None and not one.task.promised
    ]


def _promise(tasks: Sequence[Task], seals: Mapping[str, str], prefix: str, url: str) -> None:
    known = {task.full_key: task for task in tasks} | {prefix + task.full_key: task for task in tasks}
    for key, seal in seals.items():
        if key not in known:
            raise UnknownSealError(f"no object {key} below {url}, although a seal for it was given")
        known[key].promised = seal


async def _check_rechecks_first(store: Store, tasks: list[Task], progress: Progress) -> list[Checked]:
    """Rechecks name the heights whose first verdict has to be kept while the pages stream by; there are few of them."""
    progress.total(len(tasks), sum(task.size for task in tasks))
    again = [task for task in tasks if task.name is not None and task.name.kind is Kind.RECHECK]
    checked = await _check_all(store, again, progress)
    heights: dict[str, frozenset[int]] = {}
    for one in checked:
        known = heights.get(one.task.folder, one.task.looked_at)
        heights[one.task.folder] = known.union(one.verdicts)
    rest = [task for task in tasks if task.name is None or task.name.kind is not Kind.RECHECK]
    for task in rest:
        task.looked_at = heights.get(task.folder, task.looked_at)
    return checked + await _check_all(store, rest, progress)


async def _check_all(store: Store, tasks: list[Task], progress: Progress) -> list[Checked]:
    async def check(task: Task) -> Checked:
        checked = await check_object(store, task, progress.heard)
        progress.done()
        return checked

    return [checked async for _, checked in in_order(tasks, check, width=CONCURRENT)]


# --- before reading -------------------------------------------------------------------------------------------------


async def _plan(store: Store, folder: Folder) -> _Plan:
    chains = [await read_chain(store, folder, run) for run in sorted(folder.runs)]
    told = claims(chains)
    reported = frozenset(
        name.start for key in folder.objects if (name := named(key)) is not None and name.kind is Kind.REPORT
    )
    tasks, others = [], 0
    for key in sorted({*folder.objects, *told}, key=_by_height):
        name = named(key)
        if name is None and key not in told:
            others += 1
            continue
        task = Task(folder.prefix, key, folder.objects.get(key, 0), name, looked_at=reported)
        if key in told:
            task.rivals = tuple(counting(told[key]))
            task.run, task.entry = task.rivals[-1].run, task.rivals[-1].entry
        tasks.append(task)
    return _Plan(folder, chains, tasks, told, others)


def _by_height(key: str) -> tuple[int, str]:
    name = named(key)
    return (name.start if name is not None else 0), key


# --- after reading --------------------------------------------------------------------------------------------------


def _conclude(plan: _Plan, objects: list[Checked], found: Verification) -> list[Finding]:
    """The findings of one folder; its runs and statements go into `found`."""
    prefix = plan.folder.prefix
    findings = [finding for chain in plan.chains for finding in chain_findings(prefix, chain)]
    findings += [finding for one in objects for finding in one.findings]
    runs = _sealed_runs(plan, objects)
    strangers, loose = _without_entry(runs, objects)
    findings += _strangers(runs, strangers)
    findings += [finding for one in objects for finding in _taken_back(one, plan.claims.get(one.task.key, ()))]
    runs += [describe(prefix, None, group, rechecks(group), kind) for kind, group in loose.items()]
    for run in runs:
        findings += run_findings(run, [other for other in runs if other is not run])
    findings += between_runs(runs) + tree_findings(objects)
    findings += report_findings(one for run in runs for one in run.objects)
    found.runs += runs
    found.statements += _statements(runs)
    return findings


def _sealed_runs(plan: _Plan, objects: list[Checked]) -> list[Run]:
    by_run: dict[str, list[Checked]] = defaultdict(list)
    for one in objects:
        if one.task.run:
            by_run[one.task.run].append(one)
    # a run that went on where another stopped also looks again at what that one left undecided
    again = rechecks([one for one in objects if one.task.run])
    runs = [describe(plan.folder.prefix, chain, by_run[chain.run], again) for chain in plan.chains]
    for run in runs:
        assert run.chain is not None
        run.superseded = len(run.chain.objects()) - len(run.objects)
    return runs


def _taken_back(one: Checked, told: Sequence[Claim]) -> list[Finding]:
    """A divergence that was published once stays one, even where the same page was published again without it."""
    before = max(((claim.entry.counts or {}).get("diverged", 0) for claim in told), default=0)
    if one.task.entry is None or not one.whole or before <= one.counts.get("diverged", 0):
        return []
    text = f"holds {one.counts.get('diverged', 0)} diverged blocks, an earlier entry of the same page counted {before}"
    return [Finding(Name.NOT_CLEAN, one.task.full_key, text, "diverged")]


def _family(kind: Kind) -> Kind:
    """Reports belong to the run whose pages they explain, trees to that of their records."""
    return BESIDE.get(kind, kind)


def _without_entry(runs: list[Run], objects: list[Checked]) -> tuple[list[Checked], dict[str, list[Checked]]]:
    """Objects no manifest names: strangers where a run of their kind has a manifest, else a group without seals."""
    sealed = {run.kind for run in runs}
    strangers: list[Checked] = []
    loose: dict[str, list[Checked]] = defaultdict(list)
    for one in objects:
        if one.task.entry is None and one.task.name is not None:
            kind = _family(one.task.name.kind)
            if kind in sealed:
                strangers.append(one)
            else:
                loose[kind].append(one)
    return strangers, loose


def _strangers(runs: list[Run], strangers: list[Checked]) -> list[Finding]:
    found = []
    for one in strangers:
        name = one.task.name
        assert name is not None
        start = None if name.kind is Kind.RECHECK else name.start
        owner = next((run for run in runs if _unfinished(run, _family(name.kind), start)), None)
        if owner is not None:
            text = f"stored, but {owner.place} was interrupted before it entered it in its manifest"
            found.append(Finding(Name.UNFINISHED_OBJECT, one.task.full_key, text, "open"))
        else:
            text = "no manifest names it: another program published it, or somebody put it there"
            found.append(Finding(Name.FOREIGN_OBJECT, one.task.full_key, text))
        if number := one.counts.get("diverged"):
            text = f"{number} of its blocks are diverged, the first block that is no match is {one.unmatched}"
            found.append(Finding(Name.NOT_CLEAN, one.task.full_key, text, "diverged"))
    return found


def _unfinished(run: Run, kind: Kind, start: int | None) -> bool:
    """Whether an object from `start` on is what this run would have entered next."""
    begin = run.info.get("startHeight")
    following = run.end + 1 if run.end is not None else begin
    if run.finished or run.kind != kind:
        return False
    return following is None or start is None or start == following or (kind == Kind.COMPARE and start > following)


def _statements(runs: Sequence[Run]) -> list[str]:
    said = []
    for run in runs:
        # a digest record proves its verdict by itself, and says so where it is shown
        if not run.sealed and run.kind != Kind.DIGEST:
            text = "no manifest: names, shapes, heights and verdicts were checked, but nothing shows whether they were changed"
            said.append(f"{run.folder or './'}: {len(run.objects)} {run.kind} objects without seals ({text})")
        if run.superseded:
            said.append(
                f"{run.place}: {run.superseded} of its objects were published again by a later run, whose entry counts"
            )
    return said
