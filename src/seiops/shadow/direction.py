"""Who is ahead: a comparison runs on the node that is behind, at its start and all along (docs/contracts/shadow.md T7, 9.5)."""

from __future__ import annotations

AHEAD = 100
"""Blocks by which the canonical node has to be ahead: a page."""
CHECK = "right-direction"
ADVICE = f"submit to the node that is behind; canonical has to be at least {AHEAD} blocks ahead"


def canonical_is_ahead(shadow: int, canonical: int, end: int) -> bool:
    """Whether the run follows the right node. Where both hold all of a run that ends, nobody has to be ahead.

    Heights are the nodes' latest; `end` is the last height of the run, 0 for none.
    """
    return canonical >= shadow + AHEAD or bool(end and min(shadow, canonical) >= end)
