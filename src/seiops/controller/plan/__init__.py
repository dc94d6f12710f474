"""Plans: what has to happen to a node, decided in one go and stored before anything of it happens.

Pure functions from a SeiNode (spec and status) to a `TaskPlan`; running the plan is the executor's business.

Public: `build(node, ctx)` decides; `build_init`, `build_update`, `build_mark_ready` build; `validate(node)` raises
`PlanInvalidError`; `image_drift`, `uses_bootstrap_job`, `awaits_bootstrap` answer questions of the reconcile;
`task_id(plan_id, type, index)`; `runner`, `retry_budget`, `plan_type` describe tasks; `wire.params(task)`, `wire.check(type, params)`
and `wire.body(task)` turn a stored task into its submission.
"""

from seiops.controller.plan import wire
from seiops.controller.plan.builders import (
    PlanContext,
    awaits_bootstrap,
    build,
    build_init,
    build_mark_ready,
    build_update,
    image_drift,
    uses_bootstrap_job,
)
from seiops.controller.plan.catalogue import Runner, TaskType, persisted_retries, plan_type, retry_budget, runner
from seiops.controller.plan.ids import new_plan_id, task_id
from seiops.controller.plan.validation import PlanInvalidError, validate

__all__ = [
    "PlanContext",
    "PlanInvalidError",
    "Runner",
    "TaskType",
    "awaits_bootstrap",
    "build",
    "build_init",
    "build_mark_ready",
    "build_update",
    "image_drift",
    "new_plan_id",
    "persisted_retries",
    "plan_type",
    "retry_budget",
    "runner",
    "task_id",
    "uses_bootstrap_job",
    "validate",
    "wire",
]
