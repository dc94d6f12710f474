"""`validate-signing-key`, `validate-node-key`, `validate-operator-keyring`: the Secrets of a node before it mounts them.

Only shapes are checked; keys stay what they are and no value of a Secret is ever put into a message
(docs/contracts/controller-behaviour.md 4.3 to 4.5). Secrets are read one by one, in the node's namespace.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import orjson

from seiops.api.node import (
    NodeCondition,
    NodeKeyReason,
    OperatorKeyringReason,
    SeiNode,
    SigningKeyReason,
)
from seiops.controller.conditions import FALSE, TRUE, set_condition
from seiops.controller.tasks.outcome import Outcome, Params, TaskDelayedError, TaskFailedError
from seiops.controller.world import World
from seiops.kube import ApiError, Obj
from seiops.kube.client.resource import SECRETS

SIGNING_KEY = "priv_validator_key.json"
NODE_KEY = "node_key.json"


async def validate_signing_key(node: SeiNode, params: Params, world: World) -> Outcome:
    name = str(params.get("secretName") or "")
    kind = NodeCondition.SIGNING_KEY_READY

    async def check() -> str:
        if not name:
            raise TaskFailedError("validate-signing-key: secretName is empty")
        await _check_key_file(world, node, name, SIGNING_KEY, "validator key", _signing_key_problem)
        return f'Secret "{name}" passes all signing-key validation rules'

    reasons = (SigningKeyReason.VALIDATED, SigningKeyReason.NOT_READY, SigningKeyReason.INVALID)
    return await _judge(node, kind, reasons, check)


async def validate_node_key(node: SeiNode, params: Params, world: World) -> Outcome:
    name = str(params.get("secretName") or "")
    kind = NodeCondition.NODE_KEY_READY

    async def check() -> str:
        if not name:
            raise TaskFailedError("validate-node-key: secretName is empty")
        await _check_key_file(world, node, name, NODE_KEY, "node key", _node_key_problem)
        return f'Secret "{name}" passes all node-key validation rules'

    reasons = (NodeKeyReason.VALIDATED, NodeKeyReason.NOT_READY, NodeKeyReason.INVALID)
    return await _judge(node, kind, reasons, check)


async def validate_operator_keyring(node: SeiNode, params: Params, world: World) -> Outcome:
    kind = NodeCondition.OPERATOR_KEYRING_READY

    async def check() -> str:
        for field in ("secretName", "passphraseSecretName", "passphraseSecretKey"):
            if not params.get(field):
                raise TaskFailedError(f"validate-operator-keyring: {field} is empty")
        name, passphrase = str(params["secretName"]), str(params["passphraseSecretName"])
        _check_keyring(name, await _read(world, node, name), str(params.get("keyName") or ""))
        _check_passphrase(passphrase, await _read(world, node, passphrase), str(params["passphraseSecretKey"]))
        return f'Secret pair ("{name}", "{passphrase}") passes operator-keyring validation'

    reasons = (OperatorKeyringReason.VALIDATED, OperatorKeyringReason.NOT_READY, OperatorKeyringReason.INVALID)
    return await _judge(node, kind, reasons, check)


async def _judge(
    node: SeiNode, kind: NodeCondition, reasons: tuple[str, str, str], check: Callable[[], Any]
) -> Outcome:
    """Runs a check and writes its result into the condition: validated, not ready (wait), invalid (fail)."""
    validated, not_ready, invalid = reasons
    try:
        message = await check()
    except TaskDelayedError as error:
        set_condition(node, kind, FALSE, not_ready, str(error))
        return Outcome.WAITING
    except TaskFailedError as error:
        set_condition(node, kind, FALSE, invalid, str(error))
        raise
    set_condition(node, kind, TRUE, validated, message)
    return Outcome.DONE


async def _read(world: World, node: SeiNode, name: str) -> dict[str, bytes]:
    """Decoded data of a Secret that is there to stay."""
    try:
        secret: Obj = await world.client.get(SECRETS, name, node.namespace)
    except ApiError as error:
        if error.not_found:
            raise TaskDelayedError(f'secret "{name}" not found in namespace "{node.namespace}"') from error
        raise TaskDelayedError(f'getting Secret "{name}": {error}') from error
    deleted = secret["metadata"].get("deletionTimestamp")
    if deleted:
        raise TaskDelayedError(f'secret "{name}" is being deleted (deletionTimestamp={deleted})')
    data = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            data[key] = base64.b64decode(value or "")
        except binascii.Error:
            data[key] = b""
    return data


async def _check_key_file(
    world: World, node: SeiNode, name: str, key: str, what: str, problem: Callable[[Any], str]
) -> None:
    content = (await _read(world, node, name)).get(key)
    if not content:
        raise TaskFailedError(f'secret "{name}" missing required data key "{key}"')
    prefix = f'secret "{name}" data key "{key}" is not a valid Tendermint {what}: '
    try:
        decoded = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        # The decoder's own message would quote the document; the position is all that may be said of a secret.
        raise TaskFailedError(f"{prefix}not valid JSON: at line {error.lineno} column {error.colno}") from None
    if not isinstance(decoded, dict):
        raise TaskFailedError(f"{prefix}not valid JSON: not an object")
    why = problem(decoded)
    if why:
        raise TaskFailedError(prefix + why)


def _signing_key_problem(key: dict[str, Any]) -> str:
    if not _is_text(key.get("address")):
        return "missing address"
    if not _has_type_and_value(key.get("pub_key")):
        return "missing pub_key.type or pub_key.value"
    return _node_key_problem(key)


def _node_key_problem(key: dict[str, Any]) -> str:
    return "" if _has_type_and_value(key.get("priv_key")) else "missing priv_key.type or priv_key.value"


def _has_type_and_value(part: Any) -> bool:
    return isinstance(part, dict) and _is_text(part.get("type")) and _is_text(part.get("value"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _check_keyring(name: str, data: dict[str, bytes], key_name: str) -> None:
    entries = sorted(key for key in data if key.endswith(".info"))
    for key in entries:
        if not data[key]:
            raise TaskFailedError(
                f'secret "{name}" data key "{key}" is empty (expected non-empty keyring entry payload)'
            )
    if not entries:
        raise TaskFailedError(f'secret "{name}" has no "*.info" data keys (expected at least one keyring entry)')
    if not any(key.endswith(".address") for key in data):
        raise TaskFailedError(
            f'secret "{name}" has no "*.address" data keys (expected name→address index for at least one keyring entry)'
        )
    if key_name and f"{key_name}.info" not in data:
        raise TaskFailedError(f'secret "{name}" is missing data key "{key_name}.info" for keyName "{key_name}"')


def _check_passphrase(name: str, data: dict[str, bytes], key: str) -> None:
    if key not in data:
        raise TaskFailedError(f'passphrase Secret "{name}" missing data key "{key}"')
    if not data[key]:
        raise TaskFailedError(f'passphrase Secret "{name}" data key "{key}" is empty')
