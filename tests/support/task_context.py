"""A task's surroundings in a test process: a home, settings, and an HTTP session the test owns."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import aiohttp

from seiops.sidecar import settings
from seiops.sidecar.task import TaskContext


class _Nothing:
    """Hold records and transaction markers: the tasks of the proofs ask for neither."""


def context_for(
    home: Path, session: aiohttp.ClientSession | None = None, *, kind: str = "result-export", **environment: str
) -> TaskContext:
    nothing: Any = _Nothing()

    def http() -> aiohttp.ClientSession:
        assert session is not None, "this test gave its task no network"
        return session

    home.mkdir(parents=True, exist_ok=True)
    given = dict.fromkeys(settings.REQUIRED, "test-1") | environment
    return TaskContext(
        task_id="4f6c1c1e-1b0a-4f53-9f5e-0a9f5a2f7f11", task_type=kind, run=1, home=home,
        settings=settings.load(given, home=str(home), port=None), open_http=http, log=logging.getLogger("test"),
        records=nothing, markers=nothing, report=lambda value: None,
    )  # fmt: skip
