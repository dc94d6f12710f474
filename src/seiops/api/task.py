"""SeiNodeTask: one action on one node, run once (docs/contracts/controller-api.md 4)."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from seiops.api.meta import Model, Resource, Timestamp
from seiops.api.node import NodeImage, exactly_one
from seiops.api.schema import (
    AGE,
    KEY_NAME,
    NOT_EMPTY,
    Column,
    Default,
    Definition,
    Int32,
    Int64,
    ObjectName,
    OmitEmpty,
    Required,
    Rule,
    at_least,
    list_map,
    min_items,
    one_of,
)
from seiops.api.status import Condition, NodePhase, TaskStatus

DEFAULT_REQUIRE_PHASE_TIMEOUT = "5m"


class TaskKind(StrEnum):
    GOV_SOFTWARE_UPGRADE = "GovSoftwareUpgrade"
    GOV_VOTE = "GovVote"
    GOV_PARAM_CHANGE = "GovParamChange"
    AWAIT_CONDITION = "AwaitCondition"
    UPDATE_NODE_IMAGE = "UpdateNodeImage"
    AWAIT_NODES_AT_HEIGHT = "AwaitNodesAtHeight"
    RESTART_SEID = "RestartSeid"
    MARK_READY = "MarkReady"


# Spec field of each kind's payload, in the order in which the admission messages name them.
PAYLOADS: dict[TaskKind, str] = {
    TaskKind.GOV_SOFTWARE_UPGRADE: "govSoftwareUpgrade",
    TaskKind.GOV_VOTE: "govVote",
    TaskKind.GOV_PARAM_CHANGE: "govParamChange",
    TaskKind.AWAIT_CONDITION: "awaitCondition",
    TaskKind.UPDATE_NODE_IMAGE: "updateNodeImage",
    TaskKind.AWAIT_NODES_AT_HEIGHT: "awaitNodesAtHeight",
    TaskKind.RESTART_SEID: "restartSeid",
    TaskKind.MARK_READY: "markReady",
}

KIND_IMMUTABLE = Rule("self.kind == oldSelf.kind", "spec.kind is immutable")


# Target (block B8)


class NodeRef(Model):
    name: Required[ObjectName] = ""
    """SeiNode in the same namespace."""


class Target(Model):
    """The node to act on, and when it is fit for it."""

    node_ref: Required[NodeRef] = Field(default_factory=NodeRef)
    """The node."""
    require_phase: Annotated[OmitEmpty[str], Default(NodePhase.RUNNING.value), one_of(NodePhase)] = ""
    """Phase the node must be in."""
    require_phase_timeout: Annotated[OmitEmpty[str], Default(DEFAULT_REQUIRE_PHASE_TIMEOUT)] = ""
    """How long to wait for that phase, as a duration."""


# Payloads


class GovTx(Model):
    """Fields of every governance transaction."""

    chain_id: Annotated[Required[str], NOT_EMPTY] = ""
    """Chain the transaction is signed for."""
    key_name: Annotated[OmitEmpty[str], KEY_NAME] = ""
    """Key that signs; absent: the node's operator key."""
    fees: Annotated[Required[str], NOT_EMPTY] = ""
    """Fees in coin notation."""
    gas: Annotated[Required[Int64], at_least(1)] = 0
    """Gas limit."""
    memo: OmitEmpty[str] = ""
    """Memo of the transaction."""


class GovSoftwareUpgrade(GovTx):
    """Proposes an upgrade at a height."""

    title: Annotated[Required[str], NOT_EMPTY] = ""
    """Title of the proposal."""
    description: Annotated[Required[str], NOT_EMPTY] = ""
    """Description of the proposal."""
    upgrade_name: Annotated[Required[str], NOT_EMPTY] = ""
    """Name of the upgrade, as the new binary registers it."""
    upgrade_height: Annotated[Required[Int64], at_least(1)] = 0
    """Height at which the old binary stops."""
    upgrade_info: OmitEmpty[str] = ""
    """Further information for the new binary."""
    initial_deposit: Annotated[Required[str], NOT_EMPTY] = ""
    """Deposit in coin notation."""


class VoteOption(StrEnum):
    YES = "yes"
    NO = "no"
    ABSTAIN = "abstain"
    NO_WITH_VETO = "no_with_veto"
    NO_WITH_VETO_DASHED = "no-with-veto"


class GovVote(GovTx):
    """Votes on a proposal."""

    proposal_id: Annotated[Required[Int64], at_least(1)] = 0
    """The proposal."""
    option: Annotated[Required[str], one_of(VoteOption)] = ""
    """The vote."""


class ParamChange(Model):
    """One parameter and its new value."""

    subspace: Annotated[Required[str], NOT_EMPTY] = ""
    """Module that owns the parameter."""
    key: Annotated[Required[str], NOT_EMPTY] = ""
    """Name of the parameter."""
    value: Required[Any] = None
    """New value, any JSON; passed on as it is."""


class GovParamChange(GovTx):
    """Proposes new values of chain parameters."""

    title: Annotated[Required[str], NOT_EMPTY] = ""
    """Title of the proposal."""
    description: Annotated[Required[str], NOT_EMPTY] = ""
    """Description of the proposal."""
    changes: Annotated[Required[list[ParamChange]], min_items(1)] = Field(default_factory=list)
    """Parameters to change."""
    initial_deposit: Annotated[Required[str], NOT_EMPTY] = ""
    """Deposit in coin notation."""


class HeightCondition(Model):
    """Reached when the node's height is at least the target."""

    target_height: Annotated[Required[Int64], at_least(1)] = 0
    """Height to reach."""


SIGTERM_SEID = "SIGTERM_SEID"


class AwaitCondition(Model):
    """Waits on the node, then optionally acts."""

    rules: ClassVar = (exactly_one(("height",), "exactly one condition must be set (currently: height)"),)

    height: HeightCondition | None = None
    """Wait for a height."""
    action: Annotated[OmitEmpty[str], one_of((SIGTERM_SEID,))] = ""
    """What to do then; `SIGTERM_SEID` stops seid."""


class UpdateNodeImage(Model):
    """Rolls the node to another image."""

    image: Required[NodeImage] = ""
    """Image of seid."""


class AwaitNodesAtHeight(Model):
    """Waits until the node has reached a height."""

    target_height: Annotated[Required[Int64], at_least(1)] = 0
    """Height to reach."""


class RestartSeid(Model):
    """Restarts seid in its Pod."""


class MarkReady(Model):
    """Opens the sidecar's readiness gate."""


def _payload_required(kind: TaskKind, payload: str) -> Rule:
    return Rule(f"self.kind != '{kind}' || has(self.{payload})", f"spec.{payload} is required when kind={kind}")


_ALL_PAYLOADS = tuple(PAYLOADS.values())


class SeiNodeTaskSpec(Model):
    """The action: a kind, its payload, and the node. Only the kind is fixed after creation."""

    rules: ClassVar = (
        exactly_one(
            _ALL_PAYLOADS, f"exactly one of {', '.join(_ALL_PAYLOADS[:-1])}, or {_ALL_PAYLOADS[-1]} must be set"
        ),
        *(_payload_required(kind, payload) for kind, payload in PAYLOADS.items()),
        KIND_IMMUTABLE,
    )

    kind: Annotated[Required[str], one_of(TaskKind)] = ""
    """What to do."""
    target: Required[Target] = Field(default_factory=Target)
    """The node to act on."""
    timeout_seconds: Annotated[OmitEmpty[Int32], at_least(0)] = 0
    """How long the action may take; 0: the default of its kind."""
    gov_software_upgrade: GovSoftwareUpgrade | None = None
    """Payload of GovSoftwareUpgrade."""
    gov_vote: GovVote | None = None
    """Payload of GovVote."""
    gov_param_change: GovParamChange | None = None
    """Payload of GovParamChange."""
    await_condition: AwaitCondition | None = None
    """Payload of AwaitCondition."""
    update_node_image: UpdateNodeImage | None = None
    """Payload of UpdateNodeImage."""
    await_nodes_at_height: AwaitNodesAtHeight | None = None
    """Payload of AwaitNodesAtHeight."""
    restart_seid: RestartSeid | None = None
    """Payload of RestartSeid."""
    mark_ready: MarkReady | None = None
    """Payload of MarkReady."""


class TaskCondition(StrEnum):
    """Types in `status.conditions`; Ready and Failed appear when the task ends (docs/contracts/controller-api.md 4.2)."""

    TARGET_READY = "TargetReady"
    READY = "Ready"
    FAILED = "Failed"


class TargetReason(StrEnum):
    PHASE_MET = "PhaseMet"
    PHASE_NOT_MET = "PhaseNotMet"


class TaskReadyReason(StrEnum):
    TASK_COMPLETE = "TaskComplete"
    CONFIRMED = "Confirmed"


class TaskFailedReason(StrEnum):
    """Also the reasons of the Warning Events on SeiNodeTasks."""

    TARGET_RESOLVE_FAILED = "TargetResolveFailed"
    UNSUPPORTED_KIND = "UnsupportedKind"
    PARAMS_BUILD_FAILED = "ParamsBuildFailed"
    DESERIALIZE_FAILED = "DeserializeFailed"
    TASK_TERMINAL_ERROR = "TaskTerminalError"
    TASK_FAILED = "TaskFailed"
    TX_FAILED = "TxFailed"
    INCLUSION_UNDETERMINED = "InclusionUndetermined"
    TIMEOUT = "Timeout"


class SubmittedTask(Model):
    """The one task that carries out the action."""

    id: Required[str] = ""
    """UUIDv5 of the object's UID and kind; the sidecar knows the task by the same id."""
    status: Annotated[Required[str], one_of(TaskStatus)] = ""
    """Where the task stands."""
    err: OmitEmpty[str] = ""
    """Last failure, in words."""
    submitted_at: Timestamp | None = None
    """First successful submission."""
    execution_started_at: Timestamp | None = None
    """From when `timeoutSeconds` counts."""


class GovProposalOutput(Model):
    """A proposal that was made."""

    tx_hash: OmitEmpty[str] = ""
    """Hash of the transaction."""
    height: OmitEmpty[Int64] = 0
    """Block it is in."""
    proposal_id: OmitEmpty[Int64] = 0
    """Id of the proposal."""


class GovVoteOutput(Model):
    """A vote that was cast."""

    tx_hash: OmitEmpty[str] = ""
    """Hash of the transaction."""
    height: OmitEmpty[Int64] = 0
    """Block it is in."""


class UpdateNodeImageOutput(Model):
    applied_image: OmitEmpty[str] = ""
    """Image the node ran when the task completed."""


class AwaitConditionOutput(Model):
    observed_value: OmitEmpty[Int64] = 0
    """Declared, but never written."""


class AwaitNodesAtHeightOutput(Model):
    current_height: OmitEmpty[Int64] = 0
    """Declared, but never written."""


class TaskOutputs(Model):
    """Result of the action; at most the member that matches the kind is set."""

    gov_software_upgrade: GovProposalOutput | None = None
    """Result of GovSoftwareUpgrade."""
    gov_vote: GovVoteOutput | None = None
    """Result of GovVote."""
    gov_param_change: GovProposalOutput | None = None
    """Result of GovParamChange."""
    update_node_image: UpdateNodeImageOutput | None = None
    """Result of UpdateNodeImage."""
    await_condition: AwaitConditionOutput | None = None
    """Result of AwaitCondition."""
    await_nodes_at_height: AwaitNodesAtHeightOutput | None = None
    """Result of AwaitNodesAtHeight."""


class SeiNodeTaskStatus(Model):
    """How far the action is. A task that has ended is never touched again."""

    observed_generation: OmitEmpty[Int64] = 0
    """Generation of the spec that the status speaks about."""
    phase: Annotated[OmitEmpty[str], one_of(TaskStatus)] = ""
    """Where the task stands; absent while it waits for its node."""
    phase_transition_time: Timestamp | None = None
    """When the phase last changed."""
    started_at: Timestamp | None = None
    """When the controller first saw the object."""
    target_first_observed_at: Timestamp | None = None
    """Since when the node is seen outside the required phase."""
    task: SubmittedTask | None = None
    """The task that carries out the action."""
    outputs: TaskOutputs | None = None
    """Result of the action."""
    conditions: Annotated[OmitEmpty[list[Condition]], list_map("type")] = Field(default_factory=list)
    """Observed states."""


TARGET_COLUMNS = (
    Column("Kind", "string", ".spec.kind"),
    Column("Target", "string", ".spec.target.nodeRef.name"),
    Column("Phase", "string", ".status.phase"),
    AGE,
)


class SeiNodeTask(Resource):
    """One action on one SeiNode, run once."""

    definition: ClassVar = Definition(
        kind="SeiNodeTask", plural="seinodetasks", short_names=("snt",), columns=TARGET_COLUMNS
    )

    kind: str = "SeiNodeTask"
    spec: SeiNodeTaskSpec = Field(default_factory=SeiNodeTaskSpec)
    status: SeiNodeTaskStatus = Field(default_factory=SeiNodeTaskStatus)
