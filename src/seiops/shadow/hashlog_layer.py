"""Layer H: blocks settled by two hash logs, without asking either node (rulings: hash log).

It covers every state write and the consensus fields of receipts, and says nothing of `log` and `events`; every record
it settles says so.
"""

from __future__ import annotations

import asyncio
import tempfile
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seiops.objectstore import StoreError, open_store
from seiops.shadow.hashlog import SHARED_COLUMNS, HashLogError, LogReader, Row, differing
from seiops.shadow.receipts import Block
from seiops.shadow.verdicts import Compared, HeaderComparison, Unread

ONLY = "only"
_NOT_COVERED = ["log", "events"]


class HashLogLayer:
    """Both logs of a run. `settle` is asked in ascending order, give or take a window of blocks."""

    def __init__(self, mode: str, shadow: Path, canonical_url: str, region: str, migration: bool) -> None:
        self._only = mode == ONLY
        self._shadow = LogReader(shadow)
        self._canonical_url = canonical_url
        self._region = region
        self._migration = migration
        self._canonical: LogReader | None = None
        self._lock = asyncio.Lock()
        self._notes: dict[int, dict[str, Any]] = {}

    @classmethod
    def open(cls, mode: str, folder: str, canonical_url: str, region: str, migration: bool) -> HashLogLayer:
        return cls(mode, Path(folder), canonical_url, region, migration)

    async def settle(self, height: int) -> Compared | Unread | None:
        """A finished comparison, None to look at the nodes themselves. Raises HashLogError.

        In mode `only` nothing looks deeper: a missing row is a height that cannot be read yet.
        """
        async with self._lock:
            canonical = await self._canonical_log()
            ours = await asyncio.to_thread(self._shadow.row, height)
            theirs = await asyncio.to_thread(canonical.row, height)
        if ours is None or theirs is None or _lacking(ours) or _lacking(theirs):
            side, row = ("shadow", ours) if ours is None or _lacking(ours) else ("canonical", theirs)
            what = "row" if row is None else _lacking(row)
            if self._only:
                return Unread(height, f"the {side} hash log has no {what} for block {height}", not_ready=True)
            self._notes[height] = {"source": "hash-log", "missing": side}
            return None
        note = _compared(ours, theirs)
        equal = note["changesetMatch"] and note["resultHashMatch"] and note["blockHashMatch"]
        if equal or self._only:
            return self._record(height, ours, theirs, note)
        self._notes[height] = note
        return None

    def annotate(self, block: Compared) -> None:
        """Adds to a deeper comparison what the hash logs said of the block."""
        block.layer_h = self._notes.pop(block.height, None)

    def _record(self, height: int, ours: Row, theirs: Row, note: dict[str, Any]) -> Compared:
        shadow, canonical = (Block("", "", row.values.get("blockHash", "").upper(), 0) for row in (ours, theirs))
        timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        found = Compared(height, timestamp, self._migration, HeaderComparison(shadow, canonical))
        found.layer_h = note | {"notCovered": _NOT_COVERED}
        return found

    async def _canonical_log(self) -> LogReader:
        if self._canonical is None:
            path = await asyncio.to_thread(_local_path, self._canonical_url)
            if path is None:
                path = await self._download()
            self._canonical = LogReader(path)
        return self._canonical

    async def _download(self) -> Path:
        """The published slice in a file of its own, which goes with this layer."""
        folder, _, name = self._canonical_url.rpartition("/")
        descriptor = tempfile.NamedTemporaryFile(prefix="hashlog-", suffix=f"-{name}", delete=False)  # noqa: SIM115
        path = Path(descriptor.name)
        weakref.finalize(self, path.unlink, missing_ok=True)
        try:
            store = open_store(folder, region=self._region)
            with descriptor as file:
                async for chunk in store.stream(name):
                    await asyncio.to_thread(file.write, chunk)
        except (StoreError, ValueError, OSError) as error:
            raise HashLogError(f"canonicalHashLog {self._canonical_url}: {error}") from error
        return path


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme in ("", "file") else None


def _lacking(row: Row) -> str:
    """A hash that was not written before the node stopped; empty for a whole row."""
    return next((column for column in SHARED_COLUMNS if column not in row.values), "")


def _compared(ours: Row, theirs: Row) -> dict[str, Any]:
    wrong = differing(ours, theirs)
    note: dict[str, Any] = {"source": "hash-log"}
    for column in SHARED_COLUMNS:
        note[f"{column}Match"] = column not in wrong
        if column in wrong:
            note[f"shadow{column[0].upper()}{column[1:]}"] = ours.values.get(column, "")
            note[f"canonical{column[0].upper()}{column[1:]}"] = theirs.values.get(column, "")
    return note
