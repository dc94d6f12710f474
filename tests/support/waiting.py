"""Waiting for a condition instead of for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable


def until(condition: Callable[[], object], *, seconds: float = 30.0, every: float = 0.05) -> None:
    """Returns as soon as the condition is truthy; fails the test when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not true after {seconds:.0f} s: {getattr(condition, '__qualname__', condition)}")
        time.sleep(every)


async def until_async(
    condition: Callable[[], Awaitable[object]], what: str, *, seconds: float = 30.0, every: float = 0.05
) -> None:
    """The same for a condition that has to be awaited."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        await asyncio.sleep(every)
