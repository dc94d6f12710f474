"""The runs of a folder as a report tells them: what their manifests say, or, without one, what the names of objects say.

A folder is where one comparison publishes; runs that were stopped and submitted again share it. Objects without a manifest,
as the Go sidecar leaves them, make one run without a seal (docs/contracts/shadow.md 5.1, 7.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from seiops.evidence.reader import BESIDE, Chain, Claim, Folder, Kind, claims, counting, folders, named, read_chain
from seiops.evidence.summary import RunInfo
from seiops.objectstore import Store
from seiops.shadow.manifest import Entry

_NAMES = {
    Kind.COMPARE: "comparison",
    Kind.EXPORT: "export",
    Kind.HASHLOG: "hash-log slice",
    Kind.DIGEST: "digest",
}
_ENTRIES = {"page": Kind.COMPARE, "export": Kind.EXPORT, "hashlog": Kind.HASHLOG, "digest": Kind.DIGEST}
Watch = Callable[[int, int], None]
"""Told how much is done and how much there is."""


@dataclass(frozen=True, slots=True)
class Item:
    """An object as its name tells it. `key` is relative to the store; `first` and `last` are heights (of a recheck: its number);
    `size` as stored."""

    key: str
    first: int
    last: int
    size: int
    recheck: bool = False

    @property
    def blocks(self) -> int:
        return self.last - self.first + 1


@dataclass(slots=True)
class Stock:
    """A folder with its runs. `seals`: what manifests promise, by key: one SHA-256, or those of runs that
    published the object within one second. `strange`: second looks that no manifest names beside runs that have one."""

    folder: Folder
    items: dict[Kind, list[Item]]
    runs: list[RunInfo] = field(default_factory=list)
    seals: dict[str, frozenset[str]] = field(default_factory=dict)
    strange: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.prefix

    def of(self, kind: Kind) -> list[Item]:
        """Items of a kind by height; of two pages that begin alike the longer one comes first."""
        return self.items.get(kind, [])


async def take_stock(store: Store) -> list[Stock]:
    """The folders below the store's prefix that hold evidence, by name; nothing is opened. Raises StoreError."""
    return [stock for folder in await folders(store) if (stock := _stock(folder)) is not None]


def _stock(folder: Folder) -> Stock | None:
    items: dict[Kind, list[Item]] = {}
    for name, size in folder.objects.items():
        if (found := named(name)) is not None and found.start <= found.end:
            item = Item(folder.prefix + name, found.start, found.end, size, found.kind is Kind.RECHECK)
            items.setdefault(found.kind, []).append(item)
    if not (items or folder.runs):
        return None
    for kept in items.values():
        kept.sort(key=lambda one: (one.first, -one.last, one.key))
    return Stock(folder, items)


async def read_runs(store: Store, stock: Stock, watch: Watch = lambda done, total: None) -> None:
    """Reads the folder's manifests and fills `runs`, `seals` and `problems`. Raises StoreError."""
    total = sum(map(len, stock.folder.runs.values()))
    done = 0
    chains: list[Chain] = []
    for run, numbers in sorted(stock.folder.runs.items()):
        chain = await read_chain(store, stock.folder, run)
        done += len(numbers)
        watch(done, total)
        chains.append(chain)
        stock.runs.append(_told(stock.name, chain))
    told = claims(chains)
    for name, entries in told.items():
        if seals := {claim.entry.sha256 for claim in counting(entries) if claim.entry.sha256}:
            stock.seals[stock.name + name] = frozenset(seals)
        _taken_back(stock, name, entries)
    _unclaimed(stock, {stock.name + name for name in told})
    stock.runs.sort(key=lambda one: (one.first is None, one.first, one.started))


def _taken_back(stock: Stock, name: str, told: Sequence[Claim]) -> None:
    """A divergence that was published once stays one, even where the page was published again without it."""
    seen = [(claim.entry.counts or {}).get("diverged", 0) for claim in told]
    now = min((claim.entry.counts or {}).get("diverged", 0) for claim in counting(told))
    if max(seen) > now:
        text = f"counts {now} diverged blocks, an earlier entry of the same page counted {max(seen)}"
        stock.problems.append(f"{stock.name}{name}: {text}")


def _told(folder: str, chain: Chain) -> RunInfo:
    """The run its manifest tells; a chain that does not hold is told as far as it can be read."""
    info = RunInfo(folder, chain.run, sealed=True, state="open")
    if chain.opening is not None:
        _open(info, chain.opening.info or {})
    for entry in chain.entries:
        info.started = info.started or entry.at
        info.ended = entry.at
        info.reports += entry.kind == "report"
    for entry in chain.objects().values():
        _object(info, entry)
    if chain.opening is None and info.kind == _NAMES[Kind.HASHLOG]:
        # slices were once entered alone: one object, with nothing that could be unfinished
        info.state = "finished"
    if chain.ending is not None:
        info.state, info.reason = "finished", str((chain.ending.info or {}).get("reason", ""))
    if chain.breaks:
        info.state = "broken"
        info.problems = [f"{one.key}: {one.text}" for one in chain.breaks]
    return info


def _open(info: RunInfo, details: dict[str, Any]) -> None:
    params, checks = details.get("params"), details.get("preflight")
    info.params = params if isinstance(params, dict) else {}
    info.preflight = [check for check in checks if isinstance(check, dict)] if isinstance(checks, list) else []
    info.kind = "comparison" if info.params.get("canonical_rpc") else "export"
    nodes = details.get("nodes")
    if isinstance(nodes, dict):
        info.nodes = {str(side): node for side, node in nodes.items() if isinstance(node, dict)}
    networks = {str(node["network"]) for node in info.nodes.values() if node.get("network")}
    info.chain = ", ".join(sorted(networks)) or str(details.get("chain") or "")


def _object(info: RunInfo, entry: Entry) -> None:
    """One published object; of a key published twice only the entry that counts comes here."""
    if kind := _ENTRIES.get(entry.kind):
        # what was published tells more than what was asked for
        info.kind = _NAMES[kind]
    if (
        entry.kind in ("page", "export", "hashlog", "digest")
        and entry.start_height is not None
        and entry.end_height is not None
    ):
        info.pages += 1
        info.blocks += 0 if entry.kind == "digest" else entry.end_height - entry.start_height + 1
        info.bytes += entry.stored_bytes or 0
        info.first = min(info.first if info.first is not None else entry.start_height, entry.start_height)
        info.last = max(info.last or 0, entry.end_height)
    if entry.kind == "page" and entry.counts:
        kept = info.counts = info.counts or {}
        for verdict, number in entry.counts.items():
            kept[verdict] = kept.get(verdict, 0) + number


def _unclaimed(stock: Stock, claimed: set[str]) -> None:
    """Objects no manifest speaks of: a run without a seal, or, beside sealed runs of its kind, a finding."""
    there = {stock.name + name for name in stock.folder.objects}
    stock.problems += [f"{key} is in a manifest and not in the store" for key in sorted(claimed - there)]
    sealed = {run.kind for run in stock.runs}
    for kind, name in _NAMES.items():
        left = [one for one in stock.of(kind) if one.key not in claimed]
        if not left:
            continue
        stock.runs.append(_untold(stock, kind, left, claimed))
        if name in sealed:
            stock.problems.append(f"{len(left)} objects are in no manifest, the first: {left[0].key}")
    for kind, owner in BESIDE.items():
        left = [one for one in stock.of(kind) if one.key not in claimed]
        if left and _NAMES[owner] in sealed:
            stock.problems.append(f"{len(left)} {kind} objects are in no manifest, the first: {left[0].key}")
            stock.strange |= {one.key for one in left if kind is Kind.RECHECK}


def _untold(stock: Stock, kind: Kind, left: list[Item], claimed: set[str]) -> RunInfo:
    info = RunInfo(
        stock.name, kind=_NAMES[kind], first=left[0].first, last=max(one.last for one in left), pages=len(left)
    )
    info.bytes = sum(one.size for one in left)
    if kind is not Kind.DIGEST:
        info.blocks = sum(one.blocks for one in left)
    if kind is Kind.COMPARE:
        info.reports = sum(one.key not in claimed for one in stock.of(Kind.REPORT))
    return info
