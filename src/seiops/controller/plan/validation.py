"""What the planner refuses although the API server admitted it (docs/contracts/controller-behaviour.md 3.9).

Most of it repeats admission rules, because a stored object may be older than the rules.
"""

from __future__ import annotations

from collections.abc import Iterator

from seiops.api.node import (
    NodeKeySource,
    ReplayerSpec,
    SeedSpec,
    SeiNode,
    SnapshotGeneration,
    SnapshotSource,
    ValidatorSpec,
)
from seiops.controller.resources.identity import node_key_secret, operator_keyring, signing_key_secret


class PlanInvalidError(Exception):
    """The spec allows no plan. The message is the wire text of docs/contracts/controller-behaviour.md 3.9."""


def validate(node: SeiNode) -> None:
    """Raises PlanInvalidError with the first violated rule of the node's mode."""
    for message in _violations(node):
        raise PlanInvalidError(message)


def _violations(node: SeiNode) -> Iterator[str]:
    spec = node.spec
    if spec.full_node is not None:
        yield from _bootstrap_image("fullNode", spec.full_node.snapshot)
        yield from _snapshot_generation("fullNode", spec.full_node.snapshot_generation)
    elif spec.archive is not None:
        yield from _snapshot_generation("archive", spec.archive.snapshot_generation)
    elif spec.replayer is not None:
        yield from _replayer(node, spec.replayer)
    elif spec.validator is not None:
        yield from _validator(node, spec.validator)
    elif spec.seed is not None:
        yield from _seed(spec.seed)
    else:
        yield f"no mode sub-spec set on SeiNode {node.namespace}/{node.name}"


def _bootstrap_image(mode: str, source: SnapshotSource | None) -> Iterator[str]:
    if source is None or not source.bootstrap_image:
        return
    if source.s3 is None or source.s3.target_height <= 0:
        yield f"{mode}: bootstrapImage requires s3 with targetHeight > 0"


def _snapshot_generation(mode: str, generation: SnapshotGeneration | None) -> Iterator[str]:
    if generation is None:
        return
    if generation.tendermint is None:
        yield (
            f"{mode}: snapshotGeneration is set but has no sub-struct (e.g., tendermint); "
            "omit it to disable snapshot generation"
        )
    elif generation.tendermint.publish is not None and generation.tendermint.keep_recent < 2:
        yield (
            f"{mode}: snapshotGeneration.tendermint.keepRecent must be >= 2 when publish is set "
            "(upload algorithm requires the second-to-latest snapshot)"
        )


def _replayer(node: SeiNode, replayer: ReplayerSpec) -> Iterator[str]:
    if replayer.snapshot is None or replayer.snapshot.s3 is None:
        yield "replayer requires an S3 snapshot source"
    elif replayer.snapshot.s3.target_height <= 0:
        yield "replayer: s3.targetHeight must be > 0"
    if not node.spec.peers:
        yield "replayer requires at least one peer source for block sync"
    if replayer.result_export is not None and replayer.result_export.shadow_result is None:
        yield "replayer: resultExport is set but has no sub-struct (e.g., shadowResult); omit it to disable result export"


def _validator(node: SeiNode, validator: ValidatorSpec) -> Iterator[str]:
    ceremony = validator.genesis_ceremony
    if validator.signing_key is not None and ceremony is not None:
        yield "validator: signingKey is mutually exclusive with genesisCeremony"
    yield from _validator_keys(node, validator)
    yield from _operator_keyring(node)
    if ceremony is None:
        yield from _bootstrap_image("validator", validator.snapshot)
        return
    if not ceremony.chain_id:
        yield "validator: genesisCeremony.chainId is required"
    if not ceremony.staking_amount:
        yield "validator: genesisCeremony.stakingAmount is required"


def _validator_keys(node: SeiNode, validator: ValidatorSpec) -> Iterator[str]:
    if validator.signing_key is None:
        if validator.node_key is not None:
            yield "validator: nodeKey requires signingKey to be set"
        return
    if not signing_key_secret(node):
        yield "validator: signingKey.secret.secretName is required"
    if validator.node_key is None:
        yield "validator: nodeKey is required when signingKey is set"
    elif not node_key_secret(node):
        yield "validator: nodeKey.secret.secretName is required"
    elif node_key_secret(node) == signing_key_secret(node):
        yield "validator: signingKey and nodeKey must reference distinct Secrets"


def _operator_keyring(node: SeiNode) -> Iterator[str]:
    """The data Secret and the passphrase Secret are distinct from each other and from both keys."""
    keyring = operator_keyring(node)
    if keyring is None:
        return
    data, passphrase = keyring.secret_name, keyring.passphrase_secret_ref.secret_name
    if data == passphrase:
        yield f'validator: operatorKeyring data Secret "{data}" must differ from its passphrase Secret'
    for subject, secret in ((f'Secret "{data}"', data), (f'passphrase Secret "{passphrase}"', passphrase)):
        for name, key in (("signingKey", signing_key_secret(node)), ("nodeKey", node_key_secret(node))):
            if key and secret == key:
                yield f"validator: operatorKeyring {subject} must differ from {name} Secret"


def _seed(seed: SeedSpec) -> Iterator[str]:
    source: NodeKeySource = seed.node_key
    if source.secret is None or not source.secret.secret_name:
        yield ("seed: nodeKey.secret.secretName is required — a seed's NodeID is published and must not be regenerated")
