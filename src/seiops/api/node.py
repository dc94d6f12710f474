"""SeiNode: one blockchain node, in exactly one of five modes (docs/contracts/controller-api.md 2)."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from seiops.api.meta import Model, Resource, Timestamp
from seiops.api.schema import (
    AGE,
    DNS_LABEL,
    HOST_PORT,
    KEY_NAME,
    NOT_EMPTY,
    SET_LIST,
    Column,
    Default,
    Definition,
    Int32,
    Int64,
    Items,
    ObjectName,
    OmitEmpty,
    Quantity,
    Required,
    Rule,
    at_least,
    immutable,
    list_map,
    max_length,
    min_items,
    min_properties,
    one_of,
)
from seiops.api.status import Condition, NodePhase, TaskPlan

DEFAULT_SIDECAR_PORT = 7777
DEFAULT_OPERATOR_KEY = "node_admin"

NodeImage = Annotated[str, NOT_EMPTY, max_length(512)]
Witnesses = Annotated[OmitEmpty[list[str]], min_items(2), SET_LIST, Items((HOST_PORT,))]


def exactly_one(fields: tuple[str, ...], message: str) -> Rule:
    counted = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in fields)
    return Rule(f"{counted} == 1", message)


# Snapshot source and generation (blocks B1 and B2)


class S3Source(Model):
    """Restore an archive from the platform's snapshot bucket, then sync."""

    target_height: Annotated[Required[Int64], at_least(1)] = 0
    """Height to reach from the archive; also where the bootstrap Job halts."""


class StateSyncSource(Model):
    """State sync. An empty object: its presence is the signal."""


class SnapshotSource(Model):
    """Where the first state of a node comes from: an archive in S3, or state sync."""

    rules: ClassVar = (exactly_one(("s3", "stateSync"), "exactly one of s3 or stateSync must be set"),)

    s3: S3Source | None = None
    """Restore a snapshot archive, then sync from its height."""
    state_sync: StateSyncSource | None = None
    """Fetch a snapshot from peers, checked by light-client witnesses."""
    rpc_servers: Witnesses = Field(default_factory=list)
    """Light-client witnesses as host:port. With two or more the syncers of the controller's configuration are not read."""
    trust_period: OmitEmpty[str] = ""
    """How long the trust height stays trusted, as a duration (`9999h0m0s`)."""
    backfill_blocks: OmitEmpty[Int64] = 0
    """Blocks to fetch below the snapshot height."""
    bootstrap_image: OmitEmpty[str] = ""
    """Image of seid for the bootstrap Job; needs `s3.targetHeight`."""


class SnapshotPublish(Model):
    """Upload of the node's snapshots. An empty object: its presence is the signal."""


class TendermintSnapshots(Model):
    """State-sync snapshots that the node takes of itself."""

    keep_recent: Annotated[Required[Int32], at_least(1)] = 0
    """Snapshots kept on disk; at least 2 when they are published."""
    publish: SnapshotPublish | None = None
    """Marks the Pod for the snapshot upload."""


class SnapshotGeneration(Model):
    """Which snapshots the node produces."""

    tendermint: TendermintSnapshots | None = None
    """State-sync snapshots."""


# Keys (block B3)


class NodeKeySecret(Model):
    secret_name: Annotated[Required[ObjectName], immutable("secretName")] = ""
    """Secret in the node's namespace with the entry `node_key.json`."""


class NodeKeySource(Model):
    """The node's P2P identity."""

    rules: ClassVar = (exactly_one(("secret",), "exactly one node key source must be set"),)

    secret: NodeKeySecret | None = None
    """Secret that holds the key."""


class SigningKeySecret(Model):
    secret_name: Annotated[Required[ObjectName], immutable("secretName")] = ""
    """Secret in the node's namespace with the entry `priv_validator_key.json`."""


class SigningKeySource(Model):
    """The validator's consensus key."""

    rules: ClassVar = (exactly_one(("secret",), "exactly one signing key source must be set"),)

    secret: SigningKeySecret | None = None
    """Secret that holds the key."""


class PassphraseSecretRef(Model):
    secret_name: Annotated[Required[ObjectName], immutable("passphrase secretName")] = ""
    """Secret with the passphrase, another one than the keyring's."""
    key: Annotated[Required[str], NOT_EMPTY, max_length(253)] = ""
    """Entry of the Secret that holds the passphrase."""


class OperatorKeyringSecret(Model):
    secret_name: Annotated[Required[ObjectName], immutable("secretName")] = ""
    """Secret with the keyring's `<key>.info` and `<hex>.address` entries."""
    passphrase_secret_ref: Required[PassphraseSecretRef] = Field(default_factory=PassphraseSecretRef)
    """Where the keyring's passphrase is kept."""
    key_name: Annotated[OmitEmpty[str], Default(DEFAULT_OPERATOR_KEY), max_length(64), KEY_NAME] = ""
    """Name of the key that signs."""
    seid_mount: OmitEmpty[bool] = False
    """Mounts keyring and passphrase into the seid container as well."""


class OperatorKeyringSource(Model):
    """Key of the operator account, used by the sidecar to sign transactions."""

    secret: OperatorKeyringSecret | None = None
    """Secrets that hold the keyring and its passphrase."""


# Modes


class FullNodeSpec(Model):
    """A full node that serves RPC."""

    snapshot: SnapshotSource | None = None
    """First state; absent: blocks are synced from genesis."""
    snapshot_generation: SnapshotGeneration | None = None
    """Snapshots the node produces."""


class ArchiveSpec(Model):
    """A node that keeps all history. It always syncs blocks from genesis."""

    snapshot_generation: SnapshotGeneration | None = None
    """Snapshots the node produces."""


class ShadowResultExport(Model):
    """Comparison of the replayed results with a node of the reference chain."""

    canonical_rpc: Annotated[Required[str], NOT_EMPTY] = ""
    """RPC endpoint of the reference node."""


class ResultExport(Model):
    """What happens with the results of replayed blocks."""

    shadow_result: ShadowResultExport | None = None
    """Compare with a reference node."""


class ReplayerSpec(Model):
    """A node that executes a chain's blocks again from a restored snapshot."""

    snapshot: Required[SnapshotSource] = Field(default_factory=SnapshotSource)
    """First state; must be the S3 variant."""
    result_export: ResultExport | None = None
    """Export of block results."""


class GenesisCeremony(Model):
    """The node's part in the genesis ceremony of its SeiNetwork."""

    chain_id: Annotated[Required[str], NOT_EMPTY] = ""
    """Chain that is being created."""
    staking_amount: Annotated[Required[str], NOT_EMPTY] = ""
    """Self-delegation in coin notation."""
    account_balance: Annotated[Required[str], NOT_EMPTY] = ""
    """Balance of the validator's account in coin notation."""
    index: Annotated[Required[Int32], at_least(0)] = 0
    """Ordinal of the validator, from 0."""


def _distinct(first: str, second: str, guards: tuple[str, ...], message: str) -> Rule:
    guarded = "".join(f"!has(self.{guard}) || " for guard in guards)
    return Rule(f"{guarded}self.{first} != self.{second}", message)


_KEYRING = "operatorKeyring.secret.secretName"
_PASSPHRASE = "operatorKeyring.secret.passphraseSecretRef.secretName"
_SIGNING = "signingKey.secret.secretName"
_NODE_KEY = "nodeKey.secret.secretName"


class ValidatorSpec(Model):
    """A validator; without keys it follows the chain and signs nothing."""

    rules: ClassVar = (
        Rule(
            "has(self.signingKey) == has(self.nodeKey)",
            "signingKey and nodeKey must be set together (validators get both or neither)",
        ),
        _distinct(
            _SIGNING,
            _NODE_KEY,
            ("signingKey", "nodeKey"),
            "signingKey and nodeKey must reference distinct Secrets — packing both keys in one Secret collapses the "
            "bootstrap-pod trust boundary",
        ),
        _distinct(
            _KEYRING,
            _SIGNING,
            ("operatorKeyring", "signingKey"),
            "operatorKeyring and signingKey must reference distinct Secrets — collapsing them into one Secret would force "
            "the sidecar/seid trust boundary to evaporate",
        ),
        _distinct(
            _KEYRING,
            _NODE_KEY,
            ("operatorKeyring", "nodeKey"),
            "operatorKeyring and nodeKey must reference distinct Secrets",
        ),
        _distinct(
            _KEYRING,
            _PASSPHRASE,
            ("operatorKeyring",),
            "operatorKeyring data Secret and passphrase Secret must be distinct",
        ),
        _distinct(
            _PASSPHRASE,
            _SIGNING,
            ("operatorKeyring", "signingKey"),
            "operatorKeyring passphrase Secret must not equal signingKey Secret",
        ),
        _distinct(
            _PASSPHRASE,
            _NODE_KEY,
            ("operatorKeyring", "nodeKey"),
            "operatorKeyring passphrase Secret must not equal nodeKey Secret",
        ),
    )

    snapshot: SnapshotSource | None = None
    """First state; absent: blocks are synced from genesis."""
    signing_key: SigningKeySource | None = None
    """Consensus key; together with `nodeKey` or not at all."""
    node_key: NodeKeySource | None = None
    """P2P identity; together with `signingKey` or not at all."""
    operator_keyring: OperatorKeyringSource | None = None
    """Keyring of the operator account; absent: the test keyring."""
    genesis_ceremony: GenesisCeremony | None = None
    """Set by the SeiNetwork controller on nodes that create a chain."""


class SeedSpec(Model):
    """A seed node, known to others by its published identity."""

    node_key: Required[NodeKeySource] = Field(default_factory=NodeKeySource)
    """P2P identity."""


# Peers


class Ec2TagsPeers(Model):
    """Running EC2 instances that carry all of the tags."""

    region: Annotated[Required[str], NOT_EMPTY] = ""
    """AWS region to look in."""
    tags: Annotated[Required[dict[str, str]], min_properties(1)] = Field(default_factory=dict)
    """Tags an instance must have."""


class StaticPeers(Model):
    """Peers listed one by one."""

    addresses: Annotated[Required[list[str]], min_items(1)] = Field(default_factory=list)
    """`nodeId@host:port`, taken as written."""


class LabelPeers(Model):
    """Other SeiNodes that carry all of the labels; the node itself is left out."""

    selector: Annotated[Required[dict[str, str]], min_properties(1)] = Field(default_factory=dict)
    """Labels a SeiNode must have."""
    namespace: OmitEmpty[str] = ""
    """Namespace to look in; absent: the node's own."""


class PeerSource(Model):
    """One source of peers; the sources of a node are united."""

    rules: ClassVar = (
        exactly_one(("ec2Tags", "static", "label"), "exactly one of ec2Tags, static, or label must be set"),
    )

    ec2_tags: Ec2TagsPeers | None = None
    """EC2 instances by tag."""
    static: StaticPeers | None = None
    """Fixed addresses."""
    label: LabelPeers | None = None
    """SeiNodes by label."""


# Sidecar and data volume (blocks B4 and B5)


class ResourceClaim(Model):
    name: Required[str] = ""
    """Name of an entry of the Pod's resource claims."""
    request: OmitEmpty[str] = ""
    """One request within the claim; absent: all of them."""


class ResourceRequirements(Model):
    """Compute resources of a container, as in a Pod."""

    claims: Annotated[OmitEmpty[list[ResourceClaim]], list_map("name")] = Field(default_factory=list)
    """Resource claims the container uses."""
    limits: OmitEmpty[dict[str, Quantity]] = Field(default_factory=dict)
    """Most the container may use."""
    requests: OmitEmpty[dict[str, Quantity]] = Field(default_factory=dict)
    """Least the container gets."""


class SidecarSpec(Model):
    """The task engine that runs beside seid."""

    image: OmitEmpty[str] = ""
    """Sidecar image; absent: the platform's."""
    port: Annotated[OmitEmpty[Int32], Default(DEFAULT_SIDECAR_PORT)] = 0
    """Port of the sidecar's API inside the Pod."""
    resources: ResourceRequirements | None = None
    """Compute resources of the sidecar container."""


class DataVolumeImport(Model):
    pvc_name: Annotated[Required[ObjectName], immutable("pvcName")] = ""
    """Existing claim in the same namespace; it is never changed or deleted."""


class DataVolume(Model):
    """The volume with the chain's data; absent: a claim `data-<name>` is created."""

    rules: ClassVar = (Rule("(!has(oldSelf.import) || has(self.import))", "import cannot be unset once configured"),)

    # `import` is a keyword of Python.
    import_: DataVolumeImport | None = Field(default=None, validation_alias="import", serialization_alias="import")
    """Adopts an existing claim."""


class SeiNodeSpec(Model):
    """The node that should exist."""

    rules: ClassVar = (
        exactly_one(
            ("fullNode", "archive", "replayer", "validator", "seed"),
            "exactly one of fullNode, archive, replayer, validator, or seed must be set",
        ),
        Rule(
            "!has(self.replayer) || (has(self.peers) && size(self.peers) > 0)",
            "peers is required when replayer mode is set",
        ),
    )

    chain_id: Annotated[Required[str], NOT_EMPTY, DNS_LABEL] = ""
    """Chain the node follows."""
    image: Required[NodeImage] = ""
    """Image of seid; a change replaces the Pod."""
    full_node: FullNodeSpec | None = None
    """Mode: full node."""
    archive: ArchiveSpec | None = None
    """Mode: archive."""
    replayer: ReplayerSpec | None = None
    """Mode: replayer."""
    validator: ValidatorSpec | None = None
    """Mode: validator."""
    seed: SeedSpec | None = None
    """Mode: seed."""
    peers: OmitEmpty[list[PeerSource]] = Field(default_factory=list)
    """Where persistent peers are found."""
    external_address: OmitEmpty[str] = ""
    """host:port under which others reach the node's P2P port."""
    overrides: OmitEmpty[dict[str, str]] = Field(default_factory=dict)
    """Configuration keys in dotted form; they win over what the mode sets."""
    pod_labels: OmitEmpty[dict[str, str]] = Field(default_factory=dict)
    """Additional labels of the Pod; the system's own win."""
    sidecar: SidecarSpec | None = None
    """Image, port and resources of the sidecar."""
    data_volume: DataVolume | None = None
    """Where the chain's data is kept."""
    paused: OmitEmpty[bool] = False
    """Stops the node and freezes its reconciliation."""


# Conditions, their reasons, and Events


class NodeCondition(StrEnum):
    """Types in `status.conditions`; one once written is never removed (docs/contracts/controller-api.md 2.5)."""

    PAUSED = "Paused"
    STATE_SYNC_READY = "StateSyncReady"
    SIDECAR_READY = "SidecarReady"
    NODE_UPDATE_IN_PROGRESS = "NodeUpdateInProgress"
    IMPORT_PVC_READY = "ImportPVCReady"
    SIGNING_KEY_READY = "SigningKeyReady"
    NODE_KEY_READY = "NodeKeyReady"
    OPERATOR_KEYRING_READY = "OperatorKeyringReady"
    WORKFLOW_IN_PROGRESS = "WorkflowInProgress"
    SPEC_VALID = "SpecValid"


class PausedReason(StrEnum):
    PAUSED = "Paused"
    NOT_PAUSED = "NotPaused"


class StateSyncReason(StrEnum):
    READY = "Ready"
    NO_SYNCERS_CONFIGURED = "NoSyncersConfigured"
    NOT_APPLICABLE = "NotApplicable"
    SYNCER_SOURCE_ERROR = "SyncerSourceError"


class SidecarReason(StrEnum):
    READY = "Ready"
    NOT_READY = "NotReady"
    UNREACHABLE = "Unreachable"


class UpdateReason(StrEnum):
    UPDATE_STARTED = "UpdateStarted"
    UPDATE_COMPLETE = "UpdateComplete"
    UPDATE_FAILED = "UpdateFailed"
    NO_UPDATE = "NoUpdate"


class ImportPVCReason(StrEnum):
    VALIDATED = "PVCValidated"
    NOT_READY = "PVCNotReady"
    INVALID = "PVCInvalid"


class SigningKeyReason(StrEnum):
    VALIDATED = "SigningKeyValidated"
    NOT_READY = "SigningKeyNotReady"
    INVALID = "SigningKeyInvalid"


class NodeKeyReason(StrEnum):
    VALIDATED = "NodeKeyValidated"
    NOT_READY = "NodeKeyNotReady"
    INVALID = "NodeKeyInvalid"


class OperatorKeyringReason(StrEnum):
    VALIDATED = "OperatorKeyringValidated"
    NOT_READY = "OperatorKeyringNotReady"
    INVALID = "OperatorKeyringInvalid"


class NodeWorkflowReason(StrEnum):
    NO_WORKFLOW = "NoWorkflow"
    RUNNING = "WorkflowRunning"
    FAILED_HELD = "WorkflowFailedHeld"


class SpecReason(StrEnum):
    """Why a spec that was admitted cannot be carried out."""

    VALID = "Valid"
    PLAN_INVALID = "PlanInvalid"
    RENDER_FAILED = "RenderFailed"
    PEERS_INVALID = "PeersInvalid"
    UNDECODABLE = "Undecodable"


class NodeEvent(StrEnum):
    """Reasons of Events on SeiNodes (docs/contracts/controller-api.md 6.3)."""

    NODE_FAILED = "NodeFailed"
    STATEFUL_SET_RENDER_FAILED = "StatefulSetRenderFailed"
    PHASE_TRANSITION = "PhaseTransition"
    SIDECAR_READINESS_LOST = "SidecarReadinessLost"
    SIDECAR_READINESS_RESTORED = "SidecarReadinessRestored"
    STATE_SYNC_BLOCKED = "StateSyncBlocked"


# Status


class StatefulSetRef(Model):
    name: Required[str] = ""
    """Name of the StatefulSet, the same as the node's."""
    uid: Required[str] = ""
    """Its UID; one with another UID is not this node's."""


class NodeEndpoint(Model):
    """URLs of the node inside the cluster."""

    tendermint_rpc: OmitEmpty[str] = ""
    """Tendermint RPC."""
    tendermint_rest: OmitEmpty[str] = ""
    """REST API."""
    evm_json_rpc: OmitEmpty[str] = ""
    """EVM JSON-RPC over HTTP."""
    evm_ws: OmitEmpty[str] = ""
    """EVM JSON-RPC over WebSocket."""


class AdoptedWorkflow(Model):
    """The workflow that occupies the node."""

    name: Required[str] = ""
    """Name of the SeiNodeTaskWorkflow."""
    uid: Required[str] = ""
    """Its UID; a new object of the same name is another workflow."""
    adopted_at: Required[Timestamp | None] = None
    """When the node was taken."""


class SeiNodeStatus(Model):
    """What the controller last saw and did."""

    phase: Annotated[OmitEmpty[str], one_of(NodePhase)] = ""
    """Where the node stands in its life; absent until the first plan exists."""
    phase_transition_time: Timestamp | None = None
    """When a plan last set the phase."""
    conditions: Annotated[OmitEmpty[list[Condition]], list_map("type")] = Field(default_factory=list)
    """Observed states; one once written stays."""
    plan: TaskPlan | None = None
    """What is being done; absent when nothing is."""
    current_image: OmitEmpty[str] = ""
    """Image of seid that last ran after a complete rollout."""
    current_sidecar_image: OmitEmpty[str] = ""
    """Sidecar image at the same moment."""
    stateful_set: StatefulSetRef | None = None
    """StatefulSet of the node."""
    endpoint: NodeEndpoint | None = None
    """URLs, for full and archive nodes."""
    resolved_peers: OmitEmpty[list[str]] = Field(default_factory=list)
    """Peers as `nodeId@host:port`, sorted."""
    resolved_state_syncers: OmitEmpty[list[str]] = Field(default_factory=list)
    """Light-client witnesses as host:port, sorted; only while StateSyncReady is True."""
    resolved_rpc_witnesses: OmitEmpty[list[str]] = Field(
        default_factory=list, validation_alias="resolvedRPCWitnesses", serialization_alias="resolvedRPCWitnesses"
    )
    """Deprecated and never written."""
    adopted_workflow: AdoptedWorkflow | None = None
    """Workflow that occupies the node."""


class SeiNode(Resource):
    """A Sei blockchain node: its configuration, its Pod, its data, and the plan that brings them together."""

    definition: ClassVar = Definition(
        kind="SeiNode",
        plural="seinodes",
        short_names=("snode",),
        columns=(
            Column("Phase", "string", ".status.phase"),
            Column("StatefulSet", "string", ".status.statefulSet.name", priority=1),
            AGE,
        ),
    )

    kind: str = "SeiNode"
    spec: SeiNodeSpec = Field(default_factory=SeiNodeSpec)
    status: SeiNodeStatus = Field(default_factory=SeiNodeStatus)
