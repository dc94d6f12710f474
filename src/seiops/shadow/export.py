"""Plain export: the results of every block, a thousand heights an object (docs/contracts/shadow.md 4.3, 4.4).

The node's text is passed through without decoding it. Heights are read in parallel and written in order; the store's
back-pressure reaches the node. A failure of the node is raised as it is, a failure of the store as the store's.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from seiops.objectstore import Published
from seiops.seid.bulk import BATCH_CALLS, BulkReader, Want
from seiops.seid.comet import CometError
from seiops.shadow import pages, rawjson
from seiops.shadow.manifest import What
from seiops.shadow.pages import EXPORT_PAGE, Shelf
from seiops.shadow.pipeline import groups, in_order
from seiops.shadow.sides import Patience

WINDOW = 8
"""Requests in flight; each holds at most the ten heights of a batch, and fewer where blocks are large."""
_HEIGHT = re.compile(rb'"height"\s*:\s*"(\d+)"')
_HEAD_BYTES = 200


class ProducerError(Exception):
    """The node did not give a block's results, or gave something else; never a fault of the store."""

    def __init__(self, message: str, height: int) -> None:
        super().__init__(message)
        self.height = height


class PageError(Exception):
    """A page was not published; `cause` is a ProducerError or a StoreError."""

    def __init__(self, start: int, end: int, cause: Exception) -> None:
        self.what = f"exporting page {start}-{end}"
        super().__init__(f"{self.what}: {cause}")
        self.cause = cause


@dataclass(slots=True)
class Exporter:
    """Exports the pages of one submission. `on_page` hears of every stored page and where the export stands."""

    reader: BulkReader
    shelf: Shelf
    on_page: Callable[[Published, int], None]
    patience: Patience = field(default_factory=Patience)
    as_served: bool = False

    async def run(self, start: int, end: int, *, whole_pages: bool) -> int:
        """Publishes the pages from `start` to at most `end`; the number of pages. Raises PageError.

        With `whole_pages` a trailing part of a page is left for later, as upstream does.
        """
        done = 0
        for first in range(start, end + 1, EXPORT_PAGE):
            last = min(first + EXPORT_PAGE - 1, end)
            if whole_pages and last - first + 1 < EXPORT_PAGE:
                break
            try:
                published = await self._page(first, last)
            except Exception as error:
                raise PageError(first, last, error) from error
            done += 1
            self.on_page(published, last)
        return done

    async def _page(self, first: int, last: int) -> Published:
        what = What("export", pages.now(), (first, last))
        key = pages.export_key(self.shelf.prefix, first, last)
        published = await self.shelf.put(key, self._lines(first, last), what)
        await self.shelf.advance(last, {"exported": last - first + 1})
        return published

    async def _lines(self, first: int, last: int) -> AsyncIterator[bytes]:
        """Export lines in order: members alphabetically, the response as received (docs/contracts/shadow.md 5.3)."""
        await self._find_dress(first)
        async for heights, bodies in in_order(groups(first, last, BATCH_CALLS), self._read, width=WINDOW):
            exported_at = pages.now()
            lines = [_line(body, height, exported_at) for height, body in zip(heights, bodies, strict=True)]
            yield b"".join([piece for line in lines for piece in line])

    async def _find_dress(self, height: int) -> None:
        """A node whose plain answers carry an envelope is asked one by one, so that lines show what it serves."""
        served = (await self.reader.read_as_served([Want("block_results", height)]))[0]
        self.as_served = isinstance(served, bytes) and rawjson.is_enveloped(served)

    async def _read(self, heights: range) -> list[bytes]:
        wants = [Want("block_results", height) for height in heights]
        read = self.reader.read_as_served if self.as_served else self.reader.read
        bodies = await self.patience.until_read(wants, read)
        found = []
        for height, body in zip(heights, bodies, strict=True):
            if isinstance(body, CometError):
                raise ProducerError(f"{_problem(body)} at height {height}: {body}", height) from body
            found.append(body)
        return found


def _problem(error: CometError) -> str:
    return "marshaling result" if str(error).startswith("decoding JSON response") else "querying block_results"


def _line(body: bytes, height: int, exported_at: str) -> tuple[bytes, bytes, bytes]:
    """In pieces: a block's results may be megabytes, and they are copied only once."""
    try:
        text = rawjson.compact_parsed(body)
    except rawjson.BadJsonError as error:
        raise ProducerError(f"marshaling result at height {height}: {error}", height) from None
    told = _HEIGHT.search(text, 0, _HEAD_BYTES)
    if told is not None and int(told[1]) != height:
        message = f"querying block_results at height {height}: the node answered for height {int(told[1])}"
        raise ProducerError(message, height)
    return b'{"block_results":', text, b',"exported_at":"%b","height":%d}\n' % (exported_at.encode(), height)
