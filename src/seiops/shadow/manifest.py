"""The manifest of a run: an append-only chain of small objects that says what was published, in order.

`<prefix>manifest/<run-id>/<seq>.json` (rulings: manifest). Each entry carries the SHA-256 of the one before it and is
written only where nothing is yet, after the object it speaks of; so an entry can be neither changed nor dropped without
the chain showing it, and an object without an entry was not finished. A key published again gets a new entry; the last
one counts.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from seiops.objectstore import Published, Store, StoreError

FORMAT = "seiops-manifest/1"
STOPPED = "stopped"
"""The reason of an end that was asked for. The same run may be started again; its entries then go on behind that one."""
_SEQ_DIGITS = 8
_KEY = re.compile(r"manifest/(?P<run>[^/]+)/(?P<seq>\d{8})\.json")


class ManifestError(Exception):
    """The chain of a run does not hold; names the entry and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The last entry written: `sha256` over its bytes, lower-case hex. Empty before the first."""

    run: str = ""
    seq: int = 0
    sha256: str = ""


def chain_of(task_id: str, run: int) -> ChainHead:
    """The empty chain of a task's run: a task that is submitted again keeps its id, what it published before its chain."""
    return ChainHead(task_id if run == 1 else f"{task_id}-{run}")


class Entry(msgspec.Struct, rename="camel", omit_defaults=True):
    """One manifest entry.

    `kind`: `run` (first: what is about to happen), `page`, `report`, `export`, `hashlog`, `digest`, `tree`, `end` (the run's
    verdict).
    `key`: the object, relative to the run's prefix. `sha256`, `bytes`: the uncompressed payload; `stored_bytes`: as stored.
    `counts`: verdict to number of blocks, for pages and the end. `info`: what only this kind has.
    """

    format: str
    run: str
    seq: int
    prev: str
    kind: str
    at: str
    key: str | None = None
    start_height: int | None = None
    end_height: int | None = None
    counts: dict[str, int] | None = None
    sha256: str | None = None
    bytes: int | None = None
    stored_bytes: int | None = None
    info: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class What:
    """The part of an entry its author knows: what was published and which heights it covers."""

    kind: str
    at: str
    heights: tuple[int, int] | None = None
    counts: dict[str, int] | None = None
    published: Published | None = None
    info: dict[str, Any] | None = None


def entry_key(run: str, seq: int) -> str:
    """Relative to the run's prefix."""
    return f"manifest/{run}/{seq:0{_SEQ_DIGITS}d}.json"


def parse_key(key: str) -> tuple[str, int] | None:
    """Run and sequence number of a manifest key relative to its prefix; None for any other key."""
    match = _KEY.fullmatch(key)
    return (match["run"], int(match["seq"])) if match else None


def encode(entry: Entry) -> bytes:
    """The bytes of an entry; its place in the chain is their SHA-256."""
    return msgspec.json.encode(entry) + b"\n"


_decoder = msgspec.json.Decoder(Entry)


def decode(raw: bytes, where: str) -> Entry:
    """Raises ManifestError that names `where`."""
    try:
        entry = _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        raise ManifestError(f"{where}: not a manifest entry: {error}") from None
    if entry.format != FORMAT:
        raise ManifestError(f"{where}: format {entry.format!r} is not {FORMAT!r}; use a newer seiops to read it")
    return entry


def follows(head: ChainHead, raw: bytes, where: str) -> tuple[Entry, ChainHead]:
    """The chain rule: the next entry and the new head, or ManifestError."""
    entry = decode(raw, where)
    if head.run and entry.run != head.run:
        raise ManifestError(f"{where}: belongs to run {entry.run}, not {head.run}")
    if entry.seq != head.seq + 1:
        raise ManifestError(f"{where}: is number {entry.seq}, expected {head.seq + 1}")
    if entry.prev != head.sha256:
        raise ManifestError(
            f"{where}: follows {entry.prev or 'nothing'}, but the entry before it is {head.sha256 or 'none'}"
        )
    return entry, ChainHead(entry.run, entry.seq, hashlib.sha256(raw).hexdigest())


@dataclass(slots=True)
class Writer:
    """Appends to the chain of one run. `store` is opened at the run's prefix; `head` is where the chain ends.

    One writer a run; the caller keeps `head` with its progress, so that a restart goes on where it stopped.
    """

    store: Store
    head: ChainHead = field(default_factory=ChainHead)
    prefix: str = ""

    async def append(self, what: What) -> Entry:
        """Writes the next entry. Raises StoreError; the chain is then where it was."""
        while True:
            entry = self._next(what)
            raw = encode(entry)
            key = self.prefix + entry_key(entry.run, entry.seq)
            try:
                await self.store.create(key, raw, content_type="application/json")
            except StoreError as error:
                if error.code != "PreconditionFailed":
                    raise
                await self._catch_up(key)
                continue
            self.head = ChainHead(entry.run, entry.seq, hashlib.sha256(raw).hexdigest())
            return entry

    def _next(self, what: What) -> Entry:
        published = what.published
        return Entry(
            format=FORMAT,
            run=self.head.run,
            seq=self.head.seq + 1,
            prev=self.head.sha256,
            kind=what.kind,
            at=what.at,
            key=published.key.removeprefix(self.prefix) if published else None,
            start_height=what.heights[0] if what.heights else None,
            end_height=what.heights[1] if what.heights else None,
            counts=what.counts,
            sha256=published.sha256 if published else None,
            bytes=published.uncompressed_bytes if published else None,
            stored_bytes=published.compressed_bytes if published else None,
            info=what.info,
        )

    async def _catch_up(self, key: str) -> None:
        """The number is taken: by us, in the moment before a crash, or by someone else; then the run gets a name of its own."""
        try:
            _, self.head = follows(self.head, await self.store.get(key), key)
        except (ManifestError, StoreError):
            self.head = ChainHead(f"{self.head.run}-{uuid.uuid4().hex[:8]}")


async def read_chain(store: Store, run: str) -> AsyncIterator[tuple[Entry, str]]:
    """Entries of a run in order, each with its key; the chain rule is checked. Raises ManifestError, StoreError."""
    head = ChainHead()
    seq = 1
    while True:
        key = entry_key(run, seq)
        try:
            raw = await store.get(key)
        except StoreError as error:
            if error.code == "NoSuchKey":
                return
            raise
        entry, head = follows(head, raw, store.url(key))
        yield entry, key
        seq += 1


async def list_runs(store: Store) -> dict[str, int]:
    """Runs under the store's prefix and how many entries each shows in a listing. Raises StoreError."""
    found: dict[str, int] = {}
    async for info in store.list("manifest/"):
        if parsed := parse_key(info.key):
            found[parsed[0]] = found.get(parsed[0], 0) + 1
    return found
