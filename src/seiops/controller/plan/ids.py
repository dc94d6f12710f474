"""Identifiers of plans and tasks.

A task's id follows from its plan and place, and the sidecar knows the task by the same id: whoever continues a plan
after a crash or a takeover submits nothing twice (docs/contracts/controller-behaviour.md 3.2).
"""

from __future__ import annotations

import uuid

TASK_NAMESPACE = uuid.UUID("b7e89c3a-4f12-4d8b-9a6e-1c2d3e4f5a6b")


def new_plan_id() -> str:
    """A random UUIDv4. Every plan built gets a new one, so that a repeated `mark-ready` really runs."""
    return str(uuid.uuid4())


def task_id(plan_id: str, task_type: str, index: int) -> str:
    """UUIDv5 of `<plan id>/<type>/<index>`; the index counts over the whole plan, from 0."""
    return str(uuid.uuid5(TASK_NAMESPACE, f"{plan_id}/{task_type}/{index}"))
