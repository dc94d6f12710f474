"""SeiNodeTaskWorkflow: a recipe of several tasks that holds a node until it is done (docs/contracts/controller-api.md 5)."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from seiops.api.meta import Model, Resource, Timestamp
from seiops.api.node import Witnesses, exactly_one
from seiops.api.schema import Default, Definition, Int64, OmitEmpty, Required, Rule, list_map, one_of
from seiops.api.status import Condition, TaskPlan, TaskStatus
from seiops.api.task import KIND_IMMUTABLE, TARGET_COLUMNS, Target


class WorkflowKind(StrEnum):
    STATE_SYNC = "StateSync"


class MigrationKind(StrEnum):
    GIGA_STORE = "GigaStore"


class StateStoreBackend(StrEnum):
    PEBBLEDB = "pebbledb"
    ROCKSDB = "rocksdb"


class GigaStoreMigration(Model):
    """Moves the node to the split state store."""

    backend: Annotated[OmitEmpty[str], Default(StateStoreBackend.PEBBLEDB.value), one_of(StateStoreBackend)] = ""
    """Database of the state store."""


class Migration(Model):
    """Change of the storage layout that the new state is synced into."""

    rules: ClassVar = (
        exactly_one(("gigaStore",), "exactly one migration payload (gigaStore) must be set"),
        Rule(
            "self.kind != 'GigaStore' || has(self.gigaStore)",
            "spec.stateSync.migration.gigaStore is required when kind=GigaStore",
        ),
    )

    kind: Annotated[Required[str], one_of(MigrationKind)] = ""
    """Which change."""
    giga_store: GigaStoreMigration | None = None
    """Payload of GigaStore."""


class StateSyncRecipe(Model):
    """Wipes the node's data and syncs its state again."""

    rpc_servers: Witnesses = Field(default_factory=list)
    """Light-client witnesses as host:port; absent: those the node's status names."""
    migration: Migration | None = None
    """Storage change on the way; absent: a plain resync."""


class SeiNodeTaskWorkflowSpec(Model):
    """The recipe and its node. None of it can change later."""

    rules: ClassVar = (
        exactly_one(("stateSync",), "exactly one recipe (stateSync) must be set"),
        Rule("self.kind != 'StateSync' || has(self.stateSync)", "spec.stateSync is required when kind=StateSync"),
        KIND_IMMUTABLE,
        Rule("self.target == oldSelf.target", "spec.target is immutable"),
        Rule("self.stateSync == oldSelf.stateSync", "spec.stateSync is immutable"),
    )

    kind: Annotated[Required[str], one_of(WorkflowKind)] = ""
    """Which recipe."""
    target: Required[Target] = Field(default_factory=Target)
    """The node to act on."""
    state_sync: StateSyncRecipe | None = None
    """Payload of StateSync."""


class WorkflowCondition(StrEnum):
    """Types in `status.conditions` (docs/contracts/controller-api.md 5.2)."""

    ADOPTED = "Adopted"
    READY = "Ready"
    FAILED = "Failed"


class AdoptedReason(StrEnum):
    QUEUED_BEHIND_ACTIVE = "QueuedBehindActive"
    TARGET_NOT_READY = "TargetNotReady"
    ADOPTED = "Adopted"


class WorkflowReadyReason(StrEnum):
    NOT_COMPLETE = "NotComplete"
    COMPLETE = "WorkflowComplete"


class WorkflowFailedReason(StrEnum):
    NOT_FAILED = "NotFailed"
    FAILED = "WorkflowFailed"
    TARGET_REJECTED = "TargetRejected"
    PLAN_BUILD_FAILED = "PlanBuildFailed"
    TARGET_PHASE_TIMEOUT = "TargetPhaseTimeout"


class WorkflowEvent(StrEnum):
    """Reasons of Events on workflows (docs/contracts/controller-api.md 6.3)."""

    ADOPTED = "WorkflowAdopted"
    COMPLETE = "WorkflowComplete"
    FAILED = "WorkflowFailed"
    DELETE_HELD = "WorkflowDeleteHeld"
    FORCE_DELETED = "WorkflowForceDeleted"
    TARGET_REJECTED = "TargetRejected"
    PLAN_BUILD_FAILED = "PlanBuildFailed"
    TARGET_PHASE_TIMEOUT = "TargetPhaseTimeout"


class SeiNodeTaskWorkflowStatus(Model):
    """How far the recipe is."""

    observed_generation: OmitEmpty[Int64] = 0
    """Generation of the spec that the status speaks about."""
    phase: Annotated[OmitEmpty[str], one_of(TaskStatus)] = ""
    """Where the workflow stands."""
    plan: TaskPlan | None = None
    """The recipe's tasks, from the moment the node is taken."""
    target_first_observed_at: Timestamp | None = None
    """Since when the node is seen outside the required phase."""
    conditions: Annotated[OmitEmpty[list[Condition]], list_map("type")] = Field(default_factory=list)
    """Observed states."""


class SeiNodeTaskWorkflow(Resource):
    """A recipe of tasks on one SeiNode, run as a whole."""

    definition: ClassVar = Definition(
        kind="SeiNodeTaskWorkflow", plural="seinodetaskworkflows", short_names=("sntw",), columns=TARGET_COLUMNS
    )

    kind: str = "SeiNodeTaskWorkflow"
    spec: SeiNodeTaskWorkflowSpec = Field(default_factory=SeiNodeTaskWorkflowSpec)
    status: SeiNodeTaskWorkflowStatus = Field(default_factory=SeiNodeTaskWorkflowStatus)
