"""From a stored task to the body of its submission.

A plan keeps parameters as the Go controller does, in PascalCase with zero values and nulls; the sidecar takes camelCase
without them. A plan stored by either controller must be readable here, so keys are matched in any case
(docs/contracts/controller-behaviour.md 3.12, 7.3, 7.4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from seiops.api.status import PlannedTask
from seiops.controller.plan.catalogue import TaskType
from seiops.seid import intent as seid_intent
from seiops.seid.schema import load_schema

Params = dict[str, Any]


class UndecodableTaskError(Exception):
    """A stored task that cannot be run: its type is not known or its parameters do not fit it. Fails the plan."""


class SubmissionInvalidError(Exception):
    """Parameters the sidecar would not accept: `validating <type>: <why>`. Nothing has been sent."""


@dataclass(frozen=True, slots=True)
class _Field:
    stored: str
    wire: str
    kind: type
    zero: Any
    always: bool


def _text(stored: str, wire: str) -> _Field:
    return _Field(stored, wire, str, "", True)


def _optional_text(stored: str, wire: str) -> _Field:
    return _Field(stored, wire, str, "", False)


def _number(stored: str, wire: str) -> _Field:
    return _Field(stored, wire, int, 0, True)


def _optional_number(stored: str, wire: str) -> _Field:
    return _Field(stored, wire, int, 0, False)


def _list(stored: str, wire: str) -> _Field:
    return _Field(stored, wire, list, None, True)


def _optional(stored: str, wire: str, kind: type, zero: Any) -> _Field:
    return _Field(stored, wire, kind, zero, False)


_PROPOSAL = (
    _text("ChainID", "chainId"),
    _text("KeyName", "keyName"),
    _text("Title", "title"),
    _text("Description", "description"),
    _text("InitialDeposit", "initialDeposit"),
    _text("Fees", "fees"),
    _number("Gas", "gas"),
    _optional_text("Memo", "memo"),
)

_FIELDS: dict[TaskType, tuple[_Field, ...]] = {
    TaskType.SNAPSHOT_RESTORE: (_optional_number("TargetHeight", "targetHeight"),),
    TaskType.CONFIGURE_GENESIS: (_optional_text("ExpectedGenesisHash", "expectedGenesisHash"),),
    TaskType.CONFIGURE_STATE_SYNC: (
        _optional("UseLocalSnapshot", "useLocalSnapshot", bool, False),
        _optional_text("TrustPeriod", "trustPeriod"),
        _optional_number("BackfillBlocks", "backfillBlocks"),
        _optional("RpcServers", "rpcServers", list, None),
    ),
    TaskType.CONFIG_APPLY: (
        _text("mode", "mode"),
        _Field("incremental", "incremental", bool, False, True),
        _number("targetVersion", "targetVersion"),
        _optional("overrides", "overrides", dict, None),
    ),
    TaskType.CONFIG_PATCH: (_Field("files", "files", dict, None, True),),
    TaskType.CONFIG_VALIDATE: (),
    TaskType.MARK_READY: (),
    TaskType.MARK_NOT_READY: (),
    TaskType.STOP_SEID: (),
    TaskType.RESET_DATA: (),
    TaskType.RESTART_SEID: (),
    TaskType.SET_GENESIS_PEERS: (),
    TaskType.GENERATE_IDENTITY: (_text("ChainID", "chainId"), _text("Moniker", "moniker")),
    TaskType.GENERATE_GENTX: (
        _text("ChainID", "chainId"),
        _text("StakingAmount", "stakingAmount"),
        _text("AccountBalance", "accountBalance"),
    ),
    TaskType.UPLOAD_GENESIS_ARTIFACTS: (_text("NodeName", "nodeName"),),
    TaskType.ASSEMBLE_AND_UPLOAD_GENESIS: (
        _text("AccountBalance", "accountBalance"),
        _text("Namespace", "namespace"),
        _list("Nodes", "nodes"),
        _optional("Accounts", "accounts", list, None),
        _optional("Overrides", "overrides", dict, None),
    ),
    TaskType.AWAIT_CONDITION: (
        _text("Condition", "condition"),
        _optional_number("TargetHeight", "targetHeight"),
        _optional_text("Action", "action"),
    ),
    TaskType.GOV_VOTE: (
        _text("ChainID", "chainId"),
        _text("KeyName", "keyName"),
        _number("ProposalID", "proposalId"),
        _text("Option", "option"),
        _text("Fees", "fees"),
        _number("Gas", "gas"),
        _optional_text("Memo", "memo"),
    ),
    TaskType.GOV_SOFTWARE_UPGRADE: (
        *_PROPOSAL,
        _text("UpgradeName", "upgradeName"),
        _number("UpgradeHeight", "upgradeHeight"),
        _optional_text("UpgradeInfo", "upgradeInfo"),
    ),
    TaskType.GOV_PARAM_CHANGE: (*_PROPOSAL, _list("Changes", "changes")),
}


def params(task: PlannedTask) -> Params:
    """`params` of the submission, keys sorted; {} means that the body has none.

    Raises UndecodableTaskError for a type no sidecar task has, or a stored value of the wrong type.
    """
    fields = _fields(task.type)
    if task.params is not None and not isinstance(task.params, Mapping):
        raise UndecodableTaskError(f"deserializing {task.type} params: not an object")
    stored = {str(key).casefold(): value for key, value in (task.params or {}).items()}
    wire = dict(_submitted(task.type, fields, stored))
    return {key: wire[key] for key in sorted(wire)}


def check(task_type: str, submitted: Params) -> None:
    """Raises SubmissionInvalidError if the sidecar could only refuse these parameters (7.4)."""
    rule = _RULES.get(_known(task_type))
    for why in rule(submitted) if rule is not None else ():
        raise SubmissionInvalidError(f"validating {task_type}: {why}")


def body(task: PlannedTask) -> bytes:
    """The bytes of the submission as the Go client writes them: sorted keys, `<`, `>` and `&` escaped.

    Raises UndecodableTaskError, SubmissionInvalidError.
    """
    submitted = params(task)
    check(task.type, submitted)
    request = {"id": task.id, **({"params": submitted} if submitted else {}), "type": task.type}
    return go_json(request)


def go_json(value: Any) -> bytes:
    """JSON as Go's encoder writes a map: keys sorted, HTML characters and line separators escaped."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    return text.translate(_ESCAPED).encode()


_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def _known(task_type: str) -> TaskType | None:
    try:
        return TaskType(task_type)
    except ValueError:
        return None


def _fields(task_type: str) -> tuple[_Field, ...]:
    known = _known(task_type)
    fields = _FIELDS.get(known) if known is not None else None
    if fields is None:
        raise UndecodableTaskError(f'unknown task type "{task_type}"')
    return fields


def _submitted(task_type: str, fields: tuple[_Field, ...], stored: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field in fields:
        value = stored.get(field.stored.casefold())
        if value is None:
            value = field.zero
        elif not isinstance(value, field.kind) or (field.kind is int and isinstance(value, bool)):
            found, wanted = type(value).__name__, field.kind.__name__
            raise UndecodableTaskError(
                f"deserializing {task_type} params: {field.stored} is {found}, expected {wanted}"
            )
        if field.always or value:
            yield field.wire, value


def _missing(submitted: Params, *names: str) -> Iterator[str]:
    for name in names:
        value = submitted.get(name)
        if not value or (isinstance(value, int) and value < 0):
            yield f"missing required field {name[0].upper()}{name[1:]}"


def _config_apply(submitted: Params) -> Iterator[str]:
    wanted = seid_intent.Intent(
        mode=submitted["mode"],
        overrides=submitted.get("overrides", {}),
        target_version=submitted["targetVersion"],
        incremental=submitted["incremental"],
    )
    findings = seid_intent.check(load_schema(), wanted).findings
    if findings:
        yield "; ".join(str(finding) for finding in findings)


def _config_patch(submitted: Params) -> Iterator[str]:
    if not submitted.get("files"):
        yield "at least one file is required"


def _assemble(submitted: Params) -> Iterator[str]:
    yield from _missing(submitted, "accountBalance", "namespace", "nodes")
    for index, account in enumerate(submitted.get("accounts", [])):
        for name in ("address", "balance"):
            if not account.get(name):
                yield f"account {index}: missing required field {name}"


def _await_condition(submitted: Params) -> Iterator[str]:
    condition = submitted["condition"]
    if condition not in ("height", "catchingUp"):
        yield f'unknown condition "{condition}", expected height or catchingUp'
    elif condition == "height" and submitted.get("targetHeight", 0) <= 0:
        yield "condition height needs TargetHeight > 0"
    if submitted.get("action", "") not in ("", "SIGTERM_SEID"):
        yield f'unknown action "{submitted["action"]}", expected SIGTERM_SEID'


_VOTES = ("yes", "no", "abstain", "no_with_veto", "no-with-veto")


def _vote(submitted: Params) -> Iterator[str]:
    yield from _missing(submitted, "chainId", "keyName", "proposalId", "option", "fees", "gas")
    if submitted["option"].lower() not in _VOTES:
        yield f'unknown option "{submitted["option"]}", expected one of {", ".join(_VOTES)}'


_PROPOSAL_NAMES = ("chainId", "keyName", "title", "description", "initialDeposit", "fees", "gas")


def _software_upgrade(submitted: Params) -> Iterator[str]:
    yield from _missing(submitted, *_PROPOSAL_NAMES, "upgradeName", "upgradeHeight")


def _param_change(submitted: Params) -> Iterator[str]:
    yield from _missing(submitted, *_PROPOSAL_NAMES, "changes")
    for index, change in enumerate(submitted.get("changes") or []):
        for name in ("subspace", "key", "value"):
            if change.get(name) in (None, ""):
                yield f"change {index}: missing required field {name}"


_RULES: dict[TaskType | None, Callable[[Params], Iterator[str]]] = {
    TaskType.CONFIG_APPLY: _config_apply,
    TaskType.CONFIG_PATCH: _config_patch,
    TaskType.GENERATE_IDENTITY: lambda submitted: _missing(submitted, "chainId", "moniker"),
    TaskType.GENERATE_GENTX: lambda submitted: _missing(submitted, "chainId", "stakingAmount", "accountBalance"),
    TaskType.UPLOAD_GENESIS_ARTIFACTS: lambda submitted: _missing(submitted, "nodeName"),
    TaskType.ASSEMBLE_AND_UPLOAD_GENESIS: _assemble,
    TaskType.AWAIT_CONDITION: _await_condition,
    TaskType.GOV_VOTE: _vote,
    TaskType.GOV_SOFTWARE_UPGRADE: _software_upgrade,
    TaskType.GOV_PARAM_CHANGE: _param_change,
}
