"""Status blocks that several kinds share: conditions, and the task plan that survives a restart of the controller."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from seiops.api.meta import Model, Timestamp
from seiops.api.schema import NOT_EMPTY, Int64, OmitEmpty, Required, at_least, max_length, one_of, pattern


class ConditionStatus(StrEnum):
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One observed state. Its type and reason are stable names, whatever varies stands in the message."""

    type: Annotated[
        Required[str],
        max_length(316),
        pattern(
            r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"
        ),
    ] = ""
    """Name of the condition, unique within the object."""
    status: Annotated[Required[str], one_of(ConditionStatus)] = ""
    """True, False or Unknown."""
    reason: Annotated[
        Required[str], NOT_EMPTY, max_length(1024), pattern("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    ] = ""
    """Why the condition has this status: one CamelCase word of a closed set."""
    message: Annotated[Required[str], max_length(32768)] = ""
    """Explanation for a person."""
    last_transition_time: Required[Timestamp | None] = None
    """When the status last changed; a new reason or message alone does not move it."""
    observed_generation: Annotated[OmitEmpty[Int64], at_least(0)] = 0
    """Generation of the object that the condition speaks about."""


class NodePhase(StrEnum):
    """Phases of a SeiNode; an absent phase means that no plan exists yet."""

    PENDING = "Pending"
    INITIALIZING = "Initializing"
    RUNNING = "Running"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class PlanPhase(StrEnum):
    ACTIVE = "Active"
    COMPLETE = "Complete"
    FAILED = "Failed"


class TaskStatus(StrEnum):
    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


class PlannedTask(Model):
    """One step of a plan, with all it needs to be submitted again after a restart."""

    type: Required[str] = ""
    """Task type in kebab-case."""
    id: Required[str] = ""
    """UUIDv5 of plan id, type and index; the sidecar knows the task by the same id."""
    status: Annotated[Required[str], one_of(TaskStatus)] = ""
    """Where the task stands."""
    params: Any = None
    """Parameters of the task as they are submitted."""
    error: OmitEmpty[str] = ""
    """Last failure, in words."""
    submitted_at: Timestamp | None = None
    """First successful submission of the current attempt."""
    retry_count: OmitEmpty[int] = 0
    """Attempts that failed and were repeated."""
    max_retries: OmitEmpty[int] = 0
    """Failures that are repeated before the plan fails."""


class FailedTaskDetail(Model):
    """The task that failed a plan."""

    type: Required[str] = ""
    """Type of the failed task."""
    id: Required[str] = ""
    """Id of the failed task."""
    error: Required[str] = ""
    """What the task reported."""
    retry_count: Required[int] = 0
    """Retries that were used."""
    max_retries: Required[int] = 0
    """Retries that were allowed."""


class TaskPlan(Model):
    """An ordered list of tasks, stored before the first of them runs."""

    id: OmitEmpty[str] = ""
    """UUIDv4 of this plan."""
    phase: Annotated[Required[str], one_of(PlanPhase)] = ""
    """Where the plan stands."""
    tasks: Required[list[PlannedTask]] = Field(default_factory=list)
    """Tasks in the order in which they run; the first that is not Complete is the current one."""
    target_phase: Annotated[OmitEmpty[str], one_of(NodePhase)] = ""
    """SeiNode phase when the plan completes; absent: the phase stays."""
    failed_phase: Annotated[OmitEmpty[str], one_of(NodePhase)] = ""
    """SeiNode phase when the plan fails; absent: the plan is built again."""
    failed_task_index: int | None = None
    """Position of the task that failed the plan."""
    failed_task_detail: FailedTaskDetail | None = None
    """The task that failed the plan."""
