"""Work on many heights at once with results in order: a bounded window that the consumer pulls along.

Nothing runs ahead of the window, so a slow consumer (an object store that takes its time) slows the reading down and
memory stays bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_order(
    items: Iterable[Item], work: Callable[[Item], Awaitable[Result]], *, width: int
) -> AsyncGenerator[tuple[Item, Result], None]:
    """Yields each item with its result, in the order of the items; at most `width` are worked on at a time.

    An exception of `work` is raised at its item's turn. Whatever still runs is cancelled when the consumer stops.
    """
    waiting: deque[tuple[Item, asyncio.Task[Result]]] = deque()
    source = iter(items)
    try:
        while True:
            while len(waiting) < width and (item := next(source, None)) is not None:
                waiting.append((item, asyncio.ensure_future(work(item))))
            if not waiting:
                return
            item, task = waiting[0]
            result = await task
            waiting.popleft()
            yield item, result
    finally:
        left = [task for _, task in waiting]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def carried_through(work: Coroutine[Any, Any, object], budget_s: float) -> bool:
    """Whether `work` ended within the budget; its exception is raised. Being cancelled meanwhile does not end it early.

    For what a cancelled run still owes: whoever deletes a task may stop the process in the next moment.
    """
    task = asyncio.ensure_future(work)
    deadline = time.monotonic() + budget_s
    while not task.done() and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=left)
    if not task.done():
        task.cancel()
        return False
    task.result()
    return True


def groups(start: int, end: int, size: int) -> Iterable[range]:
    """The heights from `start` to `end`, both included, in neighbouring groups."""
    return (range(first, min(first + size, end + 1)) for first in range(start, end + 1, size))
