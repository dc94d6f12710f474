"""A task's surroundings without the sidecar: a home, settings, one HTTP session, and stand-ins for seid."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sidecar_stands import Child, Rpc

from seiops.sidecar.settings import Settings, load
from seiops.sidecar.task import TaskContext, TxMarker


class NoRecords:
    async def held(self) -> bool:
        return False

    async def purge(self, task_type: str) -> int:
        return 0


class NoMarkers:
    async def load(self, task_id: str) -> TxMarker | None:
        return None

    async def save(self, marker: TxMarker) -> None:
        raise AssertionError("these tasks write no transaction markers")


def settings_for(home: Path, **environment: str) -> Settings:
    """The environment of the recordings, with buckets in memory and a seid nobody listens for."""
    return load(
        {
            "SEI_CHAIN_ID": "golden-1",
            "SEI_GENESIS_BUCKET": f"memory://{home.name}-gen",
            "SEI_GENESIS_REGION": "eu-central-1",
            "SEI_SNAPSHOT_BUCKET": f"memory://{home.name}-snap",
            "SEI_SNAPSHOT_REGION": "us-east-2",
            "SEI_SIDECAR_RPC_URL": "http://127.0.0.1:1",
            **environment,
        },
        home=str(home),
        port=None,
    )


ContextFactory = Callable[..., TaskContext]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / f"home-{tmp_path.name}"
    for name in ("config", "data"):
        (home / name).mkdir(parents=True)
    return home


@pytest.fixture
def context(home: Path, session: aiohttp.ClientSession) -> ContextFactory:
    """`context(SEI_...=value)` makes a context; what the task reports is in `context.reports`."""

    def make(**environment: str) -> TaskContext:
        return TaskContext(
            task_id="t",
            task_type="t",
            run=1,
            home=home,
            settings=settings_for(home, **environment),
            open_http=lambda: session,
            log=logging.getLogger("test"),
            records=NoRecords(),
            markers=NoMarkers(),
            report=lambda value: None,
        )

    return make


@pytest.fixture
async def rpcs() -> AsyncIterator[Callable[[], Awaitable[Rpc]]]:
    started: list[Rpc] = []

    async def make() -> Rpc:
        started.append(await Rpc().start())
        return started[-1]

    yield make
    for rpc in started:
        await rpc.stop()


@pytest.fixture
def seid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Child]]:
    """`seid(script)` starts a process that looks like seid.

    The tasks see a process table that holds only these, so that nobody else's seid is ever signalled.
    """
    table = tmp_path / "proc"
    table.mkdir()
    monkeypatch.setattr("seiops.seid.process.PROC", table)
    children: list[Child] = []

    def start(script: str, **options: Any) -> Child:
        children.append(Child(table, script, **options))
        return children[-1]

    yield start
    for child in children:
        child.end()
