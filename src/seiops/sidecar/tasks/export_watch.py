"""What a comparison tells the outside while it runs: counters, gauges, the progress of its task."""

from __future__ import annotations

import logging

from seiops.shadow.faults import why
from seiops.shadow.pages import Shelf
from seiops.shadow.verdicts import Compared
from seiops.sidecar import metrics, shadow_metrics
from seiops.sidecar.task import TaskContext


class TaskWatcher:
    """Implements the loop's Watcher for one task. Counts stay with the process, verdicts with the run."""

    def __init__(self, ctx: TaskContext, shelf: Shelf, end: int) -> None:
        self._ctx = ctx
        self._shelf = shelf
        self._end = end
        self._labels = (ctx.settings.chain_id, ctx.settings.pod_name)
        self._head = 0
        self._counts: dict[str, int] = dict(shelf.progress.counts)
        self._done = 0
        metrics.BLOCKS_COMPARED.labels(*self._labels)

    def compared(self, block: Compared) -> None:
        metrics.BLOCKS_COMPARED.labels(*self._labels).inc()
        self._counts[block.verdict] = self._counts.get(block.verdict, 0) + 1
        self._done += 1
        if block.layer2 is not None:
            shadow_metrics.KEYS.labels(*self._labels).inc(block.layer2.keys)
        if block.verdict == "indeterminate":
            layer = str(block.divergence_layer)
            shadow_metrics.INDETERMINATE.labels(*self._labels, layer, block.reason).inc()
        shadow_metrics.HEIGHT.labels(*self._labels, "compared").set(block.height)
        shadow_metrics.LAG.labels(*self._labels).set(max(self._head - block.height, 0))
        self._show(block.height)

    def diverged(self, layer: int) -> None:
        metrics.DIVERGENCES.labels(*self._labels, str(layer)).inc()

    def stuck(self, height: int, error: str) -> None:
        shadow_metrics.STUCK.labels(*self._labels).inc()
        attrs = {"height": height, "err": error}
        self._ctx.log.log(logging.ERROR, "height cannot be read", extra={"attrs": attrs})

    def passed_over(self, height: int) -> None:
        shadow_metrics.GAPS.labels(*self._labels).inc()

    def published(self, start: int, end: int) -> None:
        shadow_metrics.PAGES.labels(*self._labels).inc()

    def heads(self, shadow: int, canonical: int | None) -> None:
        self._head = shadow
        shadow_metrics.HEIGHT.labels(*self._labels, "shadow").set(shadow)
        if canonical is not None:
            shadow_metrics.HEIGHT.labels(*self._labels, "canonical").set(canonical)

    def _show(self, height: int) -> None:
        end = self._end or self._head
        self._ctx.progress(
            {
                "phase": "comparing",
                "done": self._done,
                "total": max(end - height, 0) + self._done,
                "unit": "blocks",
                "height": height,
                "counts": self._counts,
                "pages": self._shelf.progress.pages,
            }
        )


class NodeRequests:
    """Implements the clients' Observer for one side of one task."""

    def __init__(self, ctx: TaskContext, side: str) -> None:
        self._labels = (ctx.settings.chain_id, ctx.settings.pod_name, side)

    def asked(self, method: str, seconds: float) -> None:
        shadow_metrics.RPC_SECONDS.labels(*self._labels, method).observe(seconds)

    def failed(self, method: str, error: Exception) -> None:
        shadow_metrics.RPC_ERRORS.labels(*self._labels, method, why(error)).inc()
