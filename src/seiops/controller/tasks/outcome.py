"""How one look at a controller-side task can end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

from seiops.api.node import SeiNode
from seiops.controller.world import World


class Outcome(Enum):
    DONE = "done"
    WAITING = "waiting"
    """What the task needs is not there yet; it is looked at again at the poll interval."""


class TaskFailedError(Exception):
    """The task cannot succeed; its plan fails with this message."""


class TaskDelayedError(Exception):
    """Something outside failed; the task is tried again and nothing of it is recorded."""


Params = dict[str, Any]

Handler = Callable[[SeiNode, Params, World], Awaitable[Outcome]]
"""Runs a task of the given node, or looks whether it is done. May raise the errors above and ApiError (as delayed)."""
