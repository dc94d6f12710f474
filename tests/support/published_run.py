"""A small real run on disk: compared by the real loop, with its manifest, ready to be verified or tampered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seiops.shadow.loop import Course
from seiops.shadow.manifest import What
from seiops.shadow.pages import now
from seiops.shadow.verdicts import overall
from support.shadow_nodes import Heard, Node, comparator_for, loop_for, request_for, serving, shelf_in

CHAIN = "test-1"
BLOCKS = 130


async def publish(home: Path, *, canonical: Node | None = None, survey: bool = True, **info: Any) -> Path:
    """The directory of the run's prefix; the run is called `run-1` and covers BLOCKS blocks if nothing stops it."""
    shadow, other = Node(latest=BLOCKS), canonical or Node(latest=BLOCKS, identity="other")
    async with serving(shadow, other) as session:
        comparator = comparator_for(request_for(shadow, other, migration=True), session)
        shelf = shelf_in(home)
        opening = {"params": {"end_height": BLOCKS}, "startHeight": 1, "chain": CHAIN} | info
        shelf.opening = What("run", now(), info=opening)
        loop = loop_for(comparator, shelf, shadow, Heard(), Course(1, BLOCKS, survey))
        reason = await loop.run()
        ending = {"reason": reason, "verdict": overall(shelf.progress.after_rechecks)}
        await shelf.close(What("end", now(), counts=shelf.progress.counts, info=ending))
    return home / "bucket" / "run"
