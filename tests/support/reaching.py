"""Waiting for a condition inside an event loop."""

import asyncio
from collections.abc import Callable


async def reach(condition: Callable[[], object], *, seconds: float = 60.0, every: float = 0.02) -> None:
    """Returns as soon as the condition is truthy; fails the test when it is not within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                if condition():
                    return
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"not true after {seconds:.0f} s: {condition}") from None
