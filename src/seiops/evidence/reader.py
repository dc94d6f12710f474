"""Reading what a run published: which runs lie below a prefix, their manifests, and their objects, streamed and hashed.

A reader of evidence trusts nothing it has not recomputed and holds no object as a whole, whatever its size. Keys and
shapes are those of docs/contracts/shadow.md 5; objects of programs that write no manifest are found by their names.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from seiops.objectstore import Store, StoreError, gunzip
from seiops.shadow.manifest import ChainHead, Entry, ManifestError, decode, entry_key, follows
from seiops.shadow.pipeline import in_order

ENTRIES_IN_FLIGHT = 16
LONGEST_LINE = 256 << 20
"""A node's answer may be that large (seid.comet); whatever is longer is no line of ours."""
_KEY = re.compile(r"(?P<folder>(?:.*?/)??)(?P<name>manifest/(?P<run>[^/]+)/(?P<seq>[0-9]{8})\.json|[^/]+)", re.DOTALL)
_NAMES = (
    ("compare", re.compile(r"([0-9]+)-([0-9]+)\.compare\.ndjson\.gz")),
    ("recheck", re.compile(r"recheck-([0-9]+)()\.compare\.ndjson\.gz")),
    ("export", re.compile(r"([0-9]+)-([0-9]+)\.ndjson\.gz")),
    ("report", re.compile(r"divergence-([0-9]+)()\.report\.json\.gz")),
    ("digest", re.compile(r"endpoint-digest-([0-9]+)()-(?:semantic|translator)\.json\.gz")),
    ("tree", re.compile(r"endpoint-digest-([0-9]+)()-(?:flatkv|memiavl)\.tree\.json\.gz")),
    ("hashlog", re.compile(r"hashlog-([0-9]+)-([0-9]+)\.csv\.gz")),
)


class Kind(StrEnum):
    """What an object is, by its name."""

    COMPARE = "compare"
    RECHECK = "recheck"
    EXPORT = "export"
    REPORT = "report"
    DIGEST = "digest"
    TREE = "tree"
    HASHLOG = "hashlog"


BESIDE = {Kind.REPORT: Kind.COMPARE, Kind.RECHECK: Kind.COMPARE, Kind.TREE: Kind.DIGEST}
"""Objects that explain others, and the kind of run they belong to."""


@dataclass(frozen=True, slots=True)
class Named:
    """An object as its name tells it; heights `start` to `end`, both included. A recheck has a number in their place."""

    kind: Kind
    start: int
    end: int


def named(key: str) -> Named | None:
    """What the last part of a key says; None for a name that is none of ours."""
    name = key.rpartition("/")[2]
    for kind, pattern in _NAMES:
        if match := pattern.fullmatch(name):
            start = int(match[1])
            return Named(Kind(kind), start, int(match[2]) if match[2] else start)
    return None


def beside(key: str) -> bool:
    """Whether an entry's key names an object of its own folder: not one elsewhere, and nothing a store cannot hold."""
    return key.isprintable() and "/" not in key and key not in ("", ".", "..")


@dataclass(slots=True)
class Folder:
    """One prefix with evidence. `prefix` is empty or ends in a slash, relative to the store; everything else is relative to it.

    `objects`: stored size in bytes by key, manifests left out. `runs`: the entry numbers a listing shows, ascending.
    """

    prefix: str
    objects: dict[str, int] = field(default_factory=dict)
    runs: dict[str, list[int]] = field(default_factory=dict)


async def folders(store: Store) -> list[Folder]:
    """Everything below a store's prefix by folder, in the order of their names. Raises StoreError."""
    found: dict[str, Folder] = {}
    async for info in store.list():
        match = _KEY.fullmatch(info.key)
        if match is None:
            continue
        folder = found.setdefault(match["folder"], Folder(match["folder"]))
        if match["run"]:
            folder.runs.setdefault(match["run"], []).append(int(match["seq"]))
        else:
            folder.objects[match["name"]] = info.size
    for folder in found.values():
        for numbers in folder.runs.values():
            numbers.sort()
    return [found[prefix] for prefix in sorted(found)]


# --- manifests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Break:
    """A place where a chain does not hold: `missing` (an entry is not there), `broken` (it does not follow), `unreadable`."""

    why: str
    key: str
    text: str


@dataclass(slots=True)
class Chain:
    """One run's manifest as far as it can be read. `head` is its last entry; entries behind a break are kept, too.

    `digests`: SHA-256 of every entry by its number.
    """

    run: str
    entries: list[Entry] = field(default_factory=list)
    head: ChainHead = field(default_factory=ChainHead)
    breaks: list[Break] = field(default_factory=list)
    digests: dict[int, str] = field(default_factory=dict)

    @property
    def opening(self) -> Entry | None:
        """The first entry where it says what was about to happen."""
        return self.entries[0] if self.entries and self.entries[0].kind == "run" else None

    @property
    def ending(self) -> Entry | None:
        """The last entry where it closes the run."""
        return self.entries[-1] if self.entries and self.entries[-1].kind == "end" else None

    def objects(self) -> dict[str, Entry]:
        """The entry that counts for every object: of a key published again, the last."""
        return {entry.key: entry for entry in self.entries if entry.key is not None and beside(entry.key)}


@dataclass(frozen=True, slots=True)
class Claim:
    """A run's entry for an object."""

    run: str
    entry: Entry


def claims(chains: Sequence[Chain]) -> dict[str, list[Claim]]:
    """Every entry that speaks of each object, across the runs of a folder: earlier runs first, each in its own order."""
    found: dict[str, list[Claim]] = {}
    for chain in sorted(chains, key=lambda chain: chain.entries[0].at if chain.entries else ""):
        for entry in chain.entries:
            if entry.key is not None and beside(entry.key):
                found.setdefault(entry.key, []).append(Claim(chain.run, entry))
    return found


def counting(told: Sequence[Claim]) -> list[Claim]:
    """Of the claims to one object those that may count, the likeliest last: each run's last, of these the newest.

    More than one where runs published the same key within one second, which is what their clocks tell: the object decides.
    """
    last = list({claim.run: claim for claim in told}.values())
    newest = max(claim.entry.at for claim in last)
    return [claim for claim in last if claim.entry.at == newest]


async def read_chain(store: Store, folder: Folder, run: str) -> Chain:
    """The manifest of a run, many entries at once. What is wrong with it is in `breaks`. Raises StoreError."""
    chain = Chain(run)
    expected = 1

    async def fetch(number: int) -> bytes | None:
        try:
            return await store.get(folder.prefix + entry_key(run, number))
        except StoreError as error:
            if error.code == "NoSuchKey":
                return None
            raise

    source = in_order(folder.runs[run], fetch, width=ENTRIES_IN_FLIGHT)
    async for number, raw in source:
        if raw is None:
            continue
        if number != expected:
            chain.breaks.append(_hole(folder, run, expected, number))
        _link(chain, raw, folder.prefix + entry_key(run, number), number)
        expected = number + 1
    return chain


def _hole(folder: Folder, run: str, expected: int, number: int) -> Break:
    key = folder.prefix + entry_key(run, expected)
    many = f"entry {expected} is" if number == expected + 1 else f"entries {expected} to {number - 1} are"
    return Break("missing", key, f"{many} not there, although entry {number} is")


def _link(chain: Chain, raw: bytes, key: str, number: int) -> None:
    """Takes the next entry. One that does not follow is a break, and the chain goes on from it: its object is looked at, too."""
    chain.digests[number] = hashlib.sha256(raw).hexdigest()
    before, chain.head = chain.head, ChainHead(chain.run, number, chain.digests[number])
    try:
        entry = decode(raw, key)
    except ManifestError as error:
        chain.breaks.append(Break("unreadable", key, str(error).removeprefix(f"{key}: ")))
        return
    chain.entries.append(entry)
    if before.seq + 1 != number:
        # what it follows is not there; that it speaks of its own place can still be checked
        before = ChainHead(chain.run, number - 1, entry.prev)
    try:
        follows(ChainHead(chain.run, before.seq, before.sha256), raw, key)
    except ManifestError as error:
        chain.breaks.append(Break("broken", key, str(error).removeprefix(f"{key}: ")))


# --- objects --------------------------------------------------------------------------------------------------------


class LongLineError(ValueError):
    """A line no record has; says where and how long."""


@dataclass(slots=True)
class Reading:
    """One object being read. The hashes and sizes are of what has been read so far: final when the iteration has ended.

    `heard` is told the stored bytes as they arrive. Iterating raises StoreError, with code `BadGzip` for an object that is
    cut or damaged, and NoSuchKey for one that is not there.
    """

    store: Store
    key: str
    heard: Callable[[int], None] = lambda _: None
    payload_bytes: int = 0
    stored_bytes: int = 0
    _payload: hashlib._Hash = field(default_factory=hashlib.sha256)
    _stored: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        """The seal: over the uncompressed payload, lower-case hex."""
        return self._payload.hexdigest()

    @property
    def stored_sha256(self) -> str:
        """Over the object as it is stored, which is what a plain download gives."""
        return self._stored.hexdigest()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The payload in pieces of bounded size."""
        async for piece in gunzip(self._chunks(), self.store.url(self.key)):
            # hashing releases the interpreter lock: objects read at once use all cores
            await asyncio.to_thread(self._payload.update, piece)
            self.payload_bytes += len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self.store.stream(self.key):
            await asyncio.to_thread(self._stored.update, chunk)
            self.stored_bytes += len(chunk)
            self.heard(len(chunk))
            yield chunk

    async def lines(self) -> AsyncIterator[list[bytes]]:
        """The payload's lines in batches, without their line feeds; a last line without one comes last. Raises LongLineError."""
        parts: list[bytes] = []
        held = 0
        async for piece in self.pieces():
            head, *rest = piece.split(b"\n")
            parts.append(head)
            held += len(head)
            if held > LONGEST_LINE:
                raise LongLineError(f"a line is longer than {LONGEST_LINE} bytes, which no record is")
            if rest:
                whole = [b"".join(parts), *rest[:-1]]
                parts, held = [rest[-1]], len(rest[-1])
                yield whole
        if held:
            yield [b"".join(parts)]
