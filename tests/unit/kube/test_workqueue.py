"""The queue's promises: once in the queue, once in a worker, back-off that only success resets."""

import asyncio

import pytest

from seiops.kube.workqueue import QueueClosedError, WorkQueue


async def _drain(queue: WorkQueue[str]) -> list[str]:
    keys = []
    while len(queue):
        key = await queue.get()
        keys.append(key)
        queue.done(key)
    return keys


async def test_a_key_is_queued_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert await _drain(queue) == ["a", "b"]


async def test_a_key_in_a_worker_is_not_given_to_another_and_comes_back_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    queue.done("a")
    assert await _drain(queue) == ["a"]


async def test_the_earliest_of_two_delays_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 60.0)
    queue.add_after("a", 0.01)
    queue.add_after("a", 60.0)
    assert await asyncio.wait_for(queue.get(), 5.0) == "a"


async def test_a_pass_cancels_the_key_s_older_delay() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.02)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.1)


async def test_back_off_doubles_to_its_limit_and_success_resets_it() -> None:
    queue: WorkQueue[str] = WorkQueue(base_delay=0.001, longest_delay=0.008)
    assert [queue.retry("a") for _ in range(6)] == [0.001, 0.002, 0.004, 0.008, 0.008, 0.008]
    queue.forget("a")
    assert queue.retry("a") == 0.001


async def test_back_off_survives_unrelated_wakes() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.retry("a")
    queue.retry("a")
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.retry("a") == pytest.approx(0.02)


async def test_many_failures_do_not_overflow() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(5000):
        delay = queue.retry("a")
    assert delay == 1000.0
    queue.close()


async def test_closing_sends_waiting_workers_home() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()
    for worker in workers:
        with pytest.raises(QueueClosedError):
            await worker
    queue.add("a")
    assert len(queue) == 0


async def test_a_cancelled_reader_passes_its_turn_on() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 5.0) == "a"
    with pytest.raises(asyncio.CancelledError):
        await first
