"""Pages and reports by their names alone, in the shape scripts around the Go program read (docs/contracts/shadow.md 7.3).

Nothing is opened, folders below the prefix are included, and overlapping pages count twice in the total, as recorded; that
they overlap is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from seiops.evidence.oneblock import BlockError
from seiops.objectstore import Store, StoreError

_PAGE = re.compile(r"(\d+)-(\d+)\.compare\.ndjson\.gz$")
_REPORT = re.compile(r"divergence-(\d+)\.report\.json\.gz$")


@dataclass(slots=True)
class Listing:
    """`pages`: key, first and last height, by first height; `reports`: key and height, by height. Keys as in the bucket."""

    pages: list[tuple[str, int, int]]
    reports: list[tuple[str, int]]

    @property
    def total(self) -> int:
        return sum(end - start + 1 for _, start, end in self.pages)

    @property
    def repeated(self) -> int:
        """Blocks that more than one page names."""
        covered, reached = 0, -1
        for _, start, end in self.pages:
            covered += max(end - max(start, reached + 1) + 1, 0)
            reached = max(reached, end)
        return self.total - covered

    @property
    def headline(self) -> str:
        text = f"{len(self.pages)} comparison page(s), {len(self.reports)} divergence report(s), {self.total} blocks covered"
        return f"{text}, {self.repeated} of them repeatedly" if self.repeated else text

    def wire(self) -> dict[str, Any]:
        return {
            "pages": [
                {"key": key, "startHeight": start, "endHeight": end, "blocks": end - start + 1}
                for key, start, end in self.pages
            ],
            "divergenceReports": [{"key": key, "height": height} for key, height in self.reports],
            "totalBlocks": self.total,
        }


async def listing(store: Store) -> Listing:
    """Raises BlockError in the recorded words."""
    found = Listing([], [])
    try:
        async for info in store.list():
            if page := _PAGE.search(info.key):
                found.pages.append((store.prefix + info.key, int(page[1]), int(page[2])))
            elif report := _REPORT.search(info.key):
                found.reports.append((store.prefix + info.key, int(report[1])))
    except StoreError as error:
        raise BlockError(f"listing {store.url()}: {error}") from None
    found.pages.sort(key=lambda one: (one[1], one[2], one[0]))
    found.reports.sort(key=lambda one: (one[1], one[0]))
    return found


def listing_lines(found: Listing) -> Iterator[str]:
    """The table: columns two blanks apart, the last one not padded."""
    rows = [("TYPE", "HEIGHT RANGE", "BLOCKS")]
    rows += [("page", f"{start} - {end}", str(end - start + 1)) for _, start, end in found.pages]
    rows += [("divergence", str(height), "-") for _, height in found.reports]
    widths = [max(len(row[column]) for row in rows) + 2 for column in (0, 1)]
    for row in rows:
        yield f"{row[0]:<{widths[0]}}{row[1]:<{widths[1]}}{row[2]}"
