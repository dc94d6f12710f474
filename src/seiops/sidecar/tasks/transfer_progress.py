"""How far a transfer is: bytes, percent, rate and the time left, as the running task's result shows them."""

from __future__ import annotations

import time
from typing import Any


class Transfer:
    """Counts bytes of one phase. `total` 0 means that nobody knows; rate and ETA cover the whole phase so far."""

    def __init__(self, phase: str, total: int) -> None:
        self.phase = phase
        self.total = total
        self.done = 0
        self._started = time.monotonic()

    def add(self, amount: int) -> None:
        self.done += amount

    def wire(self) -> dict[str, Any]:
        """`done`, `total`, `bytesPerSecond` in bytes; `percent` with one decimal; `etaSeconds` whole."""
        seconds = max(time.monotonic() - self._started, 1e-3)
        rate = self.done / seconds
        shown: dict[str, Any] = {"phase": self.phase, "done": self.done, "unit": "bytes", "bytesPerSecond": round(rate)}
        if self.total:
            shown["total"] = self.total
            shown["percent"] = round(min(100.0, 100 * self.done / self.total), 1)
            shown["etaSeconds"] = round(max(0, self.total - self.done) / rate) if rate else None
        return shown
