"""Who hears of the requests a client makes: how long each took, and which reads failed.

The clients know nothing of metrics; whoever makes them may listen in.
"""

from __future__ import annotations

from typing import Protocol

SEVERAL = "batch"
"""The method of a request that asks for different things at once."""


class Observer(Protocol):
    """Told by the clients of one node. Must not raise."""

    def asked(self, method: str, seconds: float) -> None:
        """One request and its answer, whatever it was. `method` is `batch` for a request of several methods."""
        ...

    def failed(self, method: str, error: Exception) -> None:
        """One read without a result, of a single request or inside a batch; repeated reads count each time."""
        ...


class Nobody:
    """An observer for clients nobody listens to."""

    def asked(self, method: str, seconds: float) -> None:
        pass

    def failed(self, method: str, error: Exception) -> None:
        pass


def named(methods: set[str]) -> str:
    """What a request asks for, in one word."""
    return next(iter(methods)) if len(methods) == 1 else SEVERAL
