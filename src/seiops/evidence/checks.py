"""One object held against everything that is known of it: its seal, its sizes, its name, its content.

The object is streamed once; the bytes as stored and the payload are hashed on the way, so that the same pass serves the
manifest's seal and an attestation's subject.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from seiops.digest.published import LARGEST_RECORD, CheckedRecord, examine
from seiops.evidence.contents import Checker, ComparePage, Outline, Report, checker
from seiops.evidence.findings import Finding, Name, cut
from seiops.evidence.reader import Claim, Kind, LongLineError, Named, Reading
from seiops.objectstore import Store, StoreError
from seiops.shadow.manifest import Entry


@dataclass(slots=True)
class Task:
    """An object to be checked. `run` and `entry`: the manifest entry that counts for it, None where there is none.

    `rivals`: entries of other runs that may count as well, because they were written in the same second. `folder` is relative
    to the store, `key` to the folder. `promised`: the seal a task's result gave. `size`: as listed.
    `looked_at`: heights of which another object says something, too.
    """

    folder: str
    key: str
    size: int
    name: Named | None
    run: str = ""
    entry: Entry | None = None
    promised: str = ""
    looked_at: frozenset[int] = frozenset()
    rivals: tuple[Claim, ...] = ()

    @property
    def full_key(self) -> str:
        return self.folder + self.key


@dataclass(slots=True)
class Checked:
    """An object as found. Empty hashes: it could not be read to its end. `counts`: blocks by verdict."""

    task: Task
    sha256: str = ""
    stored_sha256: str = ""
    payload_bytes: int = 0
    stored_bytes: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    unmatched: int | None = None
    halted: bool = False
    outlines: dict[int, Outline] = field(default_factory=dict)
    verdicts: dict[int, str] = field(default_factory=dict)
    outline: Outline | None = None
    record: CheckedRecord | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return bool(self.sha256)


async def check_object(store: Store, task: Task, heard: Callable[[int], None]) -> Checked:
    """Read and check one object. Raises StoreError when the store cannot be asked; everything else is a finding."""
    checked = Checked(task)
    reading = Reading(store, task.full_key, heard)
    try:
        if task.name is not None and task.name.kind is Kind.DIGEST:
            await _record(reading, checked)
        else:
            await _content(reading, checked)
    except LongLineError as error:
        _found(checked, Name.CONTENT_INVALID, str(error))
        return checked
    except StoreError as error:
        if error.code not in ("BadGzip", "NoSuchKey"):
            raise
        _unreadable(checked, error, store)
        return checked
    checked.sha256, checked.stored_sha256 = reading.sha256, reading.stored_sha256
    checked.payload_bytes, checked.stored_bytes = reading.payload_bytes, reading.stored_bytes
    _choose_entry(task, checked.sha256)
    _hold_against_entry(checked)
    return checked


def _found(checked: Checked, name: Name, text: str) -> None:
    checked.findings.append(Finding(name, checked.task.full_key, text))


def _unreadable(checked: Checked, error: StoreError, store: Store) -> None:
    if error.code == "NoSuchKey":
        _found(checked, Name.OBJECT_MISSING, "its manifest names it, but it is not there")
    else:
        text = error.message.replace(store.url(checked.task.full_key), "").lstrip(": ").strip()
        _found(checked, Name.OBJECT_DAMAGED, text)
    if checked.record is not None:
        checked.record.problems.append(error.message)


async def _content(reading: Reading, checked: Checked) -> None:
    task = checked.task
    judge = checker(task.full_key, task.name, task.looked_at)
    if judge is None:
        async for _ in reading.pieces():
            pass
        return
    async for lines in reading.lines():
        await asyncio.to_thread(judge.take, lines)
    await asyncio.to_thread(judge.end)
    _take_over(checked, judge)


def _take_over(checked: Checked, judge: Checker) -> None:
    checked.counts = dict(judge.counts)
    checked.findings += cut(judge.findings)
    if isinstance(judge, ComparePage):
        checked.unmatched, checked.halted = judge.unmatched, judge.halted
        checked.outlines, checked.verdicts = judge.outlines, judge.verdicts
    elif isinstance(judge, Report):
        checked.outline = judge.outline


async def _record(reading: Reading, checked: Checked) -> None:
    task = checked.task
    record = checked.record = CheckedRecord(task.full_key)
    payload = bytearray()
    async for piece in reading.pieces():
        if len(payload) <= LARGEST_RECORD:
            payload += piece
    _choose_entry(task, reading.sha256)
    promised = task.promised or (task.entry.sha256 if task.entry is not None and task.entry.sha256 else "")
    record.expected = promised.lower()
    if len(payload) > LARGEST_RECORD:
        record.problems.append(f"larger than {LARGEST_RECORD} bytes, which no digest record is")
    else:
        examine(record, bytes(payload))
    for finding in record.findings:
        text = finding.removeprefix(f"{task.full_key}: ")
        if not record.problems:
            checked.findings.append(Finding(Name.STORES_DIFFER, task.full_key, text, "mismatch"))
        else:
            _found(checked, Name.SEAL_DIFFERS if "was promised" in text else Name.RECORD_INVALID, text)


def _choose_entry(task: Task, seal: str) -> None:
    """Of entries of one second the one that knows this object counts."""
    for claim in task.rivals:
        if claim.entry.sha256 is not None and claim.entry.sha256.lower() == seal:
            task.run, task.entry = claim.run, claim.entry


def _hold_against_entry(checked: Checked) -> None:
    task, entry = checked.task, checked.task.entry
    if task.promised and task.promised.lower() != checked.sha256 and checked.record is None:
        _found(checked, Name.SEAL_DIFFERS, f"seal is {checked.sha256}, but {task.promised} was promised")
    if entry is None:
        return
    # a record was already held against the one seal it was promised to have
    judged = checked.record is not None and not task.promised
    if not judged and entry.sha256 is not None and entry.sha256.lower() != checked.sha256:
        text = f"seal is {checked.sha256}, entry {entry.seq} of run {task.run} says {entry.sha256}"
        _found(checked, Name.SEAL_DIFFERS, text)
    for what, told, found in (
        ("payload", entry.bytes, checked.payload_bytes),
        ("stored object", entry.stored_bytes, checked.stored_bytes),
    ):
        if told is not None and told != found:
            text = f"{what} has {found} bytes, entry {entry.seq} of run {task.run} says {told}"
            _found(checked, Name.SIZE_DIFFERS, text)
    if entry.counts is not None and checked.counts and entry.counts != checked.counts:
        text = f"holds {_counts(checked.counts)}, entry {entry.seq} of run {task.run} says {_counts(entry.counts)}"
        _found(checked, Name.COUNTS_DIFFER, text)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {verdict}" for verdict, number in sorted(counts.items())) or "nothing"
