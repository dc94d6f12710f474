"""SeiNetwork: a chain of our own, created by a genesis ceremony among its validators (docs/contracts/controller-api.md 3)."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from seiops.api.meta import Model, Resource
from seiops.api.node import DataVolume, SidecarSpec
from seiops.api.schema import (
    AGE,
    DNS_LABEL,
    NOT_EMPTY,
    Column,
    Default,
    Definition,
    Int32,
    Int64,
    OmitEmpty,
    Required,
    Rule,
    at_least,
    at_most,
    list_map,
    max_length,
    one_of,
)
from seiops.api.status import Condition, NodePhase, TaskPlan

DEFAULT_STAKING_AMOUNT = "10000000usei"
DEFAULT_ACCOUNT_BALANCE = "1000000000000000000000usei,1000000000000000000000uusdc,1000000000000000000000uatom"


class DeletionPolicy(StrEnum):
    DELETE = "Delete"
    RETAIN = "Retain"


class Vesting(Model):
    """Coins of an account that become spendable later."""

    amount: Annotated[Required[str], NOT_EMPTY] = ""
    """Part of the balance that vests, in coin notation."""
    end_time: Annotated[Required[Int64], at_least(1)] = 0
    """When all of it is spendable, in Unix seconds."""
    delayed: OmitEmpty[bool] = False
    """True: all at once at the end; else evenly until then."""


class GenesisAccount(Model):
    """An account that exists from the first block."""

    address: Annotated[Required[str], NOT_EMPTY] = ""
    """Bech32 address."""
    balance: Annotated[Required[str], NOT_EMPTY] = ""
    """Balance in coin notation."""
    vesting: Vesting | None = None
    """Vesting schedule; absent: all coins are spendable."""


class GenesisSpec(Model):
    """What the chain starts with. None of it can change later."""

    chain_id: Annotated[Required[str], NOT_EMPTY, max_length(64), DNS_LABEL] = ""
    """Name of the new chain."""
    staking_amount: Annotated[OmitEmpty[str], Default(DEFAULT_STAKING_AMOUNT)] = ""
    """Self-delegation of each validator, in coin notation."""
    account_balance: Annotated[OmitEmpty[str], Default(DEFAULT_ACCOUNT_BALANCE)] = ""
    """Balance of each validator's account, in coin notation."""
    accounts: OmitEmpty[list[GenesisAccount]] = Field(default_factory=list)
    """Further accounts."""
    overrides: OmitEmpty[dict[str, Any]] = Field(default_factory=dict)
    """Genesis parameters in dotted form (`staking.params.unbonding_time`), any JSON value."""
    max_ceremony_duration: OmitEmpty[str] = ""
    """Declared, but read by nothing."""


class SeiNetworkSpec(Model):
    """The network that should exist."""

    rules: ClassVar = (
        Rule(
            "self.genesis == oldSelf.genesis",
            "spec.genesis is immutable once set; the ceremony's outputs (chain ID, validator gentxs, account balances) are "
            "baked into chain state and cannot be retroactively rewritten by editing the spec",
        ),
        Rule(
            "self.replicas == oldSelf.replicas",
            "spec.replicas is fixed at the genesis ceremony; the validator set is minted into genesis state and cannot be "
            "grown or shrunk by editing the spec",
        ),
        Rule(
            "(!has(self.dataVolume) && !has(oldSelf.dataVolume)) || self.dataVolume == oldSelf.dataVolume",
            "spec.dataVolume is immutable once set; it backs a StatefulSet volumeClaimTemplate, which Kubernetes forbids "
            "changing after create",
        ),
    )

    replicas: Annotated[Required[Int32], Default(1), at_least(1), at_most(100)] = 0
    """Number of validators."""
    genesis: Required[GenesisSpec] = Field(default_factory=GenesisSpec)
    """What the chain starts with."""
    image: Annotated[Required[str], NOT_EMPTY] = ""
    """Image of seid for all validators."""
    sidecar: SidecarSpec | None = None
    """Sidecar of all validators."""
    config_overrides: OmitEmpty[dict[str, str]] = Field(default_factory=dict)
    """Configuration keys in dotted form, for all validators."""
    pod_labels: OmitEmpty[dict[str, str]] = Field(default_factory=dict)
    """Additional labels of the validators' Pods."""
    data_volume: DataVolume | None = None
    """Data volume of the validators; it cannot change later."""
    deletion_policy: Annotated[OmitEmpty[str], Default(DeletionPolicy.RETAIN.value), one_of(DeletionPolicy)] = ""
    """What happens to the validators when the network is deleted."""
    paused: OmitEmpty[bool] = False
    """Freezes the network and its validators."""


class NetworkPhase(StrEnum):
    PENDING = "Pending"
    INITIALIZING = "Initializing"
    READY = "Ready"
    PAUSED = "Paused"
    DEGRADED = "Degraded"
    FAILED = "Failed"
    TERMINATING = "Terminating"


class NetworkCondition(StrEnum):
    """Types in `status.conditions`, all present after the first reconcile (docs/contracts/controller-api.md 3.2)."""

    GENESIS_CEREMONY_COMPLETE = "GenesisCeremonyComplete"
    PLAN_IN_PROGRESS = "PlanInProgress"
    NODES_READY = "NodesReady"
    ROLLOUT_IN_PROGRESS = "RolloutInProgress"
    PAUSED = "Paused"


class CeremonyReason(StrEnum):
    NOT_STARTED = "NotStarted"
    IN_PROGRESS = "InProgress"
    FAILED = "CeremonyFailed"
    COMPLETE = "Complete"


class NetworkPlanReason(StrEnum):
    NOT_STARTED = "NotStarted"
    STARTED = "PlanStarted"
    COMPLETE = "PlanComplete"
    FAILED = "PlanFailed"


class NodesReason(StrEnum):
    PENDING = "Pending"
    ALL_READY = "AllNodesReady"
    INITIALIZING = "NodesInitializing"
    FAILED = "NodesFailed"


class RolloutReason(StrEnum):
    ALL_UP_TO_DATE = "AllUpToDate"
    IMAGE_ROLLING = "ImageRolling"


class NetworkEvent(StrEnum):
    """Reasons of Events on SeiNetworks (docs/contracts/controller-api.md 6.3)."""

    PLAN_STARTED = "PlanStarted"
    PLAN_COMPLETE = "PlanComplete"
    PLAN_FAILED = "PlanFailed"
    NODE_CREATED = "SeiNodeCreated"
    NODE_DELETED = "SeiNodeDeleted"
    CHILD_PAUSED = "ChildPaused"
    CHILD_RESUMED = "ChildResumed"
    PAUSED = "Paused"
    UNPAUSED = "Unpaused"
    RETAIN_RESOURCES = "RetainResources"


class NetworkNodeStatus(Model):
    """One validator of the network."""

    name: Required[str] = ""
    """Name of the SeiNode."""
    phase: Annotated[OmitEmpty[str], one_of(NodePhase)] = ""
    """Its phase."""
    current_image: OmitEmpty[str] = ""
    """Image it runs."""


class InternalServicePorts(Model):
    rpc: Required[Int32] = 0
    """Tendermint RPC."""
    rest: Required[Int32] = 0
    """REST API."""
    evm_http: Required[Int32] = 0
    """EVM JSON-RPC over HTTP."""


class InternalService(Model):
    """The Service in front of all validators."""

    name: Required[str] = ""
    """Name of the Service."""
    namespace: Required[str] = ""
    """Namespace of the Service."""
    ports: Required[InternalServicePorts] = Field(default_factory=InternalServicePorts)
    """Ports by use."""


class PerPodServicePorts(Model):
    evm_http: Required[Int32] = 0
    """EVM JSON-RPC over HTTP."""
    evm_ws: Required[Int32] = 0
    """EVM JSON-RPC over WebSocket."""


class PerPodService(Model):
    """The Service of one validator."""

    name: Required[str] = ""
    """Name of the Service."""
    namespace: Required[str] = ""
    """Namespace of the Service."""
    ports: Required[PerPodServicePorts] = Field(default_factory=PerPodServicePorts)
    """Ports by use."""


class NetworkNodeEndpoint(Model):
    """URLs of one validator; EVM connections keep state and are not balanced."""

    name: Annotated[Required[str], NOT_EMPTY] = ""
    """Name of the SeiNode."""
    evm_json_rpc: OmitEmpty[str] = ""
    """EVM JSON-RPC over HTTP."""
    evm_ws: OmitEmpty[str] = ""
    """EVM JSON-RPC over WebSocket."""


class NetworkEndpoints(Model):
    """URLs of the network inside the cluster."""

    tendermint_rpc: OmitEmpty[str] = ""
    """Tendermint RPC of any validator."""
    tendermint_rest: OmitEmpty[str] = ""
    """REST API of any validator."""
    nodes: Annotated[OmitEmpty[list[NetworkNodeEndpoint]], list_map("name")] = Field(default_factory=list)
    """URLs of each validator."""


class SeiNetworkStatus(Model):
    """What the controller last saw and did."""

    observed_generation: OmitEmpty[Int64] = 0
    """Generation of the spec that the status speaks about."""
    phase: Annotated[OmitEmpty[str], one_of(NetworkPhase)] = ""
    """Summary of the network."""
    replicas: OmitEmpty[Int32] = 0
    """Validators wanted."""
    ready_replicas: OmitEmpty[Int32] = 0
    """Validators in phase Running."""
    up_to_date_replicas: OmitEmpty[Int32] = 0
    """Validators that run the image of the spec."""
    nodes: Annotated[OmitEmpty[list[NetworkNodeStatus]], list_map("name")] = Field(default_factory=list)
    """Each validator."""
    incumbent_nodes: OmitEmpty[list[str]] = Field(default_factory=list)
    """Names of the validators."""
    plan: TaskPlan | None = None
    """The genesis ceremony, while it runs."""
    conditions: Annotated[OmitEmpty[list[Condition]], list_map("type")] = Field(default_factory=list)
    """Observed states."""
    internal_service: InternalService | None = None
    """Service in front of all validators."""
    per_pod_services: Annotated[OmitEmpty[list[PerPodService]], list_map("name")] = Field(default_factory=list)
    """Service of each validator, by ordinal."""
    endpoints: NetworkEndpoints | None = None
    """URLs of the network."""
    genesis_hash: OmitEmpty[str] = ""
    """Declared, but never written."""
    genesis_s3_uri: OmitEmpty[str] = Field(
        default="", validation_alias="genesisS3URI", serialization_alias="genesisS3URI"
    )
    """Declared, but never written."""


class SeiNetwork(Resource):
    """A Sei chain of its own: validators created together in one genesis ceremony."""

    definition: ClassVar = Definition(
        kind="SeiNetwork",
        plural="seinetworks",
        short_names=("sn",),
        columns=(
            Column("Ready", "integer", ".status.readyReplicas"),
            Column("Replicas", "integer", ".status.replicas"),
            Column("Phase", "string", ".status.phase"),
            Column("Paused", "boolean", ".spec.paused"),
            AGE,
        ),
    )

    kind: str = "SeiNetwork"
    spec: SeiNetworkSpec = Field(default_factory=SeiNetworkSpec)
    status: SeiNetworkStatus = Field(default_factory=SeiNetworkStatus)
