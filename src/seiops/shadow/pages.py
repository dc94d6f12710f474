"""Names and payloads of what a run publishes (docs/contracts/shadow.md 5.1 to 5.4), and how a page reaches the store.

A page is stored, then entered in the manifest, then counted as progress: a crash between any two repeats work and never
loses or doubles a block.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seiops.objectstore import Published, Store, publish_gzip
from seiops.shadow import progress as progress_files
from seiops.shadow import rawjson
from seiops.shadow.manifest import What, Writer
from seiops.shadow.progress import Progress
from seiops.shadow.verdicts import Compared, Gap

COMPARE_PAGE = 100
MOST_UNDECIDED = 10_000
"""Heights remembered for a second pass; a run with more of them has another problem, and its file stays small."""
EXPORT_PAGE = 1000


def normal_prefix(prefix: str) -> str:
    """Empty stays empty; otherwise exactly one trailing slash is ensured."""
    return prefix if not prefix or prefix.endswith("/") else prefix + "/"


def export_key(prefix: str, start: int, end: int) -> str:
    return f"{prefix}{start}-{end}.ndjson.gz"


def compare_key(prefix: str, start: int, end: int) -> str:
    return f"{prefix}{start}-{end}.compare.ndjson.gz"


def recheck_key(prefix: str, number: int) -> str:
    return f"{prefix}recheck-{number}.compare.ndjson.gz"


def report_key(prefix: str, height: int) -> str:
    return f"{prefix}divergence-{height}.report.json.gz"


def now() -> str:
    """UTC, in seconds, as records carry it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _chunks(lines: list[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


@dataclass(slots=True)
class Shelf:
    """Where a run puts its objects: store, manifest and progress file belong together.

    `opening` is entered before the first object: a run that publishes nothing leaves no manifest.
    `on_saved_badly` is told when the progress file could not be written; the run goes on, the page is made again later.
    """

    store: Store
    home: Path
    progress: Progress
    writer: Writer
    on_saved_badly: Callable[[OSError], None]
    opening: What | None = None
    published: list[dict[str, Any]] = field(default_factory=list)

    @property
    def prefix(self) -> str:
        return self.progress.key.prefix

    async def put(self, key: str, payload: AsyncIterable[bytes], what: What) -> Published:
        """Stores an object and enters it in the manifest. Raises StoreError, and whatever `payload` raises."""
        published = await publish_gzip(self.store, key, payload)
        await self._open()
        await self.enter(What(what.kind, what.at, what.heights, what.counts, published, what.info))
        self._note(published, what)
        return published

    async def close(self, what: What) -> None:
        """Enters the end of the run, where anything was published. Raises StoreError."""
        if self.writer.head.seq:
            await self.enter(what)
            await self.save()

    async def _open(self) -> None:
        if self.opening is not None and self.writer.head.seq == 0:
            await self.enter(self.opening)

    async def enter(self, what: What) -> None:
        """Enters in the manifest what has no object of its own. Raises StoreError."""
        await self.writer.append(what)
        self.progress.manifest = self.writer.head

    async def put_compare_page(self, page: list[Compared | Gap]) -> Published:
        """Stores up to 100 compared blocks and advances the progress to the last of them. Raises StoreError."""
        start, end = page[0].height, page[-1].height
        counts = count_verdicts(page)
        lines = [rawjson.line(block.record()) for block in page]
        what = What("page", now(), (start, end), counts)
        published = await self.put(compare_key(self.prefix, start, end), _chunks(lines), what)
        for block in page:
            if block.verdict in ("indeterminate", "gap") and len(self.progress.undecided) < MOST_UNDECIDED:
                self.progress.undecided[block.height] = block.verdict
        await self.advance(end, counts)
        return published

    async def put_recheck(self, blocks: list[Compared]) -> Published:
        """Stores what a second pass found; the first lines of these heights stay where they are. Raises StoreError."""
        counts = count_verdicts(blocks)
        what = What("recheck", now(), (blocks[0].height, blocks[-1].height), counts)
        own = self.progress
        key = recheck_key(self.prefix, own.rechecks + 1)
        published = await self.put(key, _chunks([rawjson.line(block.record()) for block in blocks]), what)
        own.rechecks += 1
        for block in blocks:
            before = own.undecided.get(block.height)
            if before is not None and block.verdict != "indeterminate":
                del own.undecided[block.height]
                own.settled[before] = own.settled.get(before, 0) - 1
                own.settled[block.verdict] = own.settled.get(block.verdict, 0) + 1
        await self.save()
        return published

    async def advance(self, height: int, counts: dict[str, int]) -> None:
        """Every height up to `height` is stored now."""
        self.progress.last = height
        self.progress.pages += 1
        for verdict, number in counts.items():
            self.progress.counts[verdict] = self.progress.counts.get(verdict, 0) + number
        await self.save()

    async def save(self) -> None:
        """Writes the progress files; a failure is reported, not raised: the page is stored and only made again."""
        try:
            await asyncio.to_thread(progress_files.save, self.home, self.progress)
        except OSError as error:
            self.on_saved_badly(error)

    def _note(self, published: Published, what: What) -> None:
        entry: dict[str, Any] = {
            "key": published.key,
            "sha256": published.sha256,
            "bytes": published.uncompressed_bytes,
        }
        if what.heights:
            entry |= {"startHeight": what.heights[0], "endHeight": what.heights[1]}
        self.published.append(entry)
        # the manifest holds all of them; a task result must not grow with the length of the run
        del self.published[:-50]


def count_verdicts(page: Sequence[Compared | Gap]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for block in page:
        counts[block.verdict] = counts.get(block.verdict, 0) + 1
    return counts
