"""Task types made of closures, and an engine over a real store, for tests of the engine and the API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seiops.sidecar import tasks
from seiops.sidecar.engine import Engine, Submission
from seiops.sidecar.settings import Settings, load
from seiops.sidecar.store import TaskRow, TaskStore
from seiops.sidecar.task import Handler

ENVIRONMENT = {
    "SEI_CHAIN_ID": "c-1",
    "SEI_GENESIS_BUCKET": "g",
    "SEI_GENESIS_REGION": "r",
    "SEI_SNAPSHOT_BUCKET": "s",
    "SEI_SNAPSHOT_REGION": "r",
}


@dataclass(frozen=True)
class FakeType:
    run: Handler
    heavy: bool = False
    exclusive: str | None = None

    def handler(self) -> Handler:
        return self.run


class Registry:
    """Fake types by name, and the real mark-ready and mark-not-ready."""

    def __init__(self, **types: FakeType) -> None:
        self.types = types

    def find(self, name: str) -> Any:
        if name in ("mark-ready", "mark-not-ready"):
            return self.types.get(name) or tasks.find(name)
        return self.types.get(name)


def settings(home: Path, **changed: str) -> Settings:
    return load({**ENVIRONMENT, **changed}, home=str(home), port="0")


@dataclass
class World:
    """One life of a sidecar process over a home directory."""

    store: TaskStore
    engine: Engine

    async def submit(self, kind: str, task_id: str = "", params: dict[str, Any] | None = None) -> str:
        return await self.engine.submit(Submission.of(kind, task_id, params))

    async def row(self, task_id: str) -> TaskRow:
        found = await self.store.get(task_id)
        assert found is not None
        return found

    async def ended(self, task_id: str, seconds: float = 10) -> TaskRow:
        """The row once it is terminal."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (row := await self.row(task_id)).status != "running":
                return row
            await asyncio.sleep(0.002)
        raise AssertionError(f"{task_id} is still running after {seconds} s")


def no_http() -> Any:
    raise AssertionError("no task of these tests makes requests")


@contextlib.asynccontextmanager
async def life(home: Path, registry: Registry, *, rehydrate: bool = True, **changed: str) -> AsyncIterator[World]:
    store = TaskStore.open(home / "sidecar.db")
    engine = Engine(settings(home, **changed), store, no_http, registry.find)
    try:
        if rehydrate:
            await engine.rehydrate()
        yield World(store, engine)
    finally:
        await engine.stop(5)
        store.close()


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError(f"still waiting after {seconds} s")
