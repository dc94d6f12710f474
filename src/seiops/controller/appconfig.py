"""The application config file: where the platform says how nodes run and whom state sync may trust.

It is a mounted ConfigMap, written by GitOps and swapped atomically. All of it but `stateSync` counts once, at start;
the syncer registry is read again on every pass of the state-sync gate. A value of the wrong type anywhere makes the
file unreadable for every gated node, a bad value under one chain blocks that chain alone (docs/contracts/
controller-behaviour.md 1.5, 1.6; the rules on syncers are in docs/configuration.md).

Public: `load`, `check`, `syncers`, `SyncerRegistry`,
`changed_chains`, `AppConfig`, `Problem`, `AppConfigError`, `SyncerSourceError`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from seiops.controller import quantity, yaml11

MAX_FILE_BYTES = 4 * 1024 * 1024
"""A ConfigMap holds 1 MiB at most; anything larger is not a config file."""

DEFAULT_SEED_SIZE = "20Gi"


class Kind(Enum):
    """How a text value is checked at start."""

    TEXT = "text"
    QUANTITY = "quantity"
    SIZE = "size greater than zero"


@dataclass(frozen=True, slots=True)
class Rule:
    """Start-up rule of one key; carried by the field it is about."""

    required: bool
    kind: Kind = Kind.TEXT
    default: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration: dotted path or variable name, the value found, what belongs there."""

    path: str
    value: str
    expected: str
    sentence: str

    def __str__(self) -> str:
        return self.sentence


class AppConfigError(Exception):
    """The file cannot be read or is not shaped like a config file. `problems` has one entry a finding.

    `readable` is what could be read in spite of them, so that a check can go on and find the rest; None if nothing.
    """

    def __init__(self, message: str, problems: list[Problem], readable: AppConfig | None = None) -> None:
        super().__init__(message)
        self.problems = problems
        self.readable = readable


class SyncerSourceError(Exception):
    """The registry gives no usable answer for one chain.

    The message is the cause alone; the condition puts `reading canonical-syncer source for chain "<chain>": ` before.
    """


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True)


_Required = Annotated[str, Rule(required=True)]
_RequiredSize = Annotated[str, Rule(required=True, kind=Kind.SIZE)]
_Optional = Annotated[str, Rule(required=False)]


class Scheduling(_Section):
    nodepool_name: _Required = Field(
        default="", alias="nodepoolName", description="node pool of full nodes and replayers"
    )
    nodepool_archive: _Required = Field(default="", alias="nodepoolArchive", description="node pool of archive nodes")
    nodepool_validator: _Required = Field(default="", alias="nodepoolValidator", description="node pool of validators")
    nodepool_seed: _Required = Field(
        default="", alias="nodepoolSeed", description="node pool of seeds; there is no fallback to another pool"
    )
    toleration_key: _Required = Field(
        default="",
        alias="tolerationKey",
        description="taint key that node Pods tolerate; the taint's value is the pool",
    )
    service_account: _Required = Field(default="", alias="serviceAccount", description="ServiceAccount of node Pods")


class Storage(_Section):
    class_perf: _Required = Field(
        default="", alias="classPerf", description="StorageClass of full nodes, replayers and validators"
    )
    class_default: _Required = Field(default="", alias="classDefault", description="StorageClass of seeds")
    class_archive: _Required = Field(default="", alias="classArchive", description="StorageClass of archive nodes")
    size_default: _RequiredSize = Field(
        default="", alias="sizeDefault", description="data volume of full nodes, replayers and validators"
    )
    size_archive: _RequiredSize = Field(default="", alias="sizeArchive", description="data volume of archive nodes")
    size_seed: Annotated[str, Rule(required=False, kind=Kind.SIZE, default=DEFAULT_SEED_SIZE)] = Field(
        default="", alias="sizeSeed", description="data volume of seeds"
    )


class RoleResources(_Section):
    cpu_request: Annotated[str, Rule(required=False, kind=Kind.QUANTITY, default="by role")] = Field(
        default="", alias="cpuRequest", description="CPU request of seid; there is no limit"
    )
    memory: Annotated[str, Rule(required=False, kind=Kind.QUANTITY, default="by role")] = Field(
        default="", description="memory request and limit of seid"
    )


class Resources(_Section):
    validator: RoleResources = RoleResources()
    node: RoleResources = RoleResources()
    replayer: RoleResources = RoleResources()
    archive: RoleResources = RoleResources()
    seed: RoleResources = RoleResources()


class Bucket(_Section):
    bucket: _Required = Field(default="", description="bucket name, given to the sidecar")
    region: _Required = Field(default="", description="bucket region, given to the sidecar")


class ResultExport(_Section):
    bucket: _Optional = Field(default="", description="accepted, used by nothing")
    region: _Optional = Field(default="", description="accepted, used by nothing")
    prefix: _Optional = Field(default="", description="accepted, used by nothing")


class Images(_Section):
    sidecar: _Required = Field(default="", description="sidecar image; `spec.sidecar.image` of a node wins")
    kube_rbac_proxy: _Required = Field(default="", alias="kubeRBACProxy", description="kube-rbac-proxy image")
    cosmos_exporter: _Required = Field(default="", alias="cosmosExporter", description="cosmos-exporter image")


class StateSync(_Section):
    syncers: dict[str, object] = Field(
        default_factory=dict,
        description="canonical syncer RPC endpoints by chain id: lists of `host:port`, read again while running",
    )


class AppConfig(_Section):
    """The decoded file. Texts are as written; numbers and booleans where text belongs have been spelled out."""

    scheduling: Scheduling = Scheduling()
    storage: Storage = Storage()
    resources: Resources = Resources()
    snapshot: Bucket = Bucket()
    genesis: Bucket = Bucket()
    result_export: ResultExport = Field(default_factory=ResultExport, alias="resultExport")
    images: Images = Images()
    state_sync: StateSync = Field(default_factory=StateSync, alias="stateSync")

    def syncers(self, chain_id: str) -> list[str]:
        """Witness endpoints registered for the chain, sorted, each once; [] if there are none.

        Raises SyncerSourceError naming the path of every value under the chain that is not a `host:port` text.
        """
        problems = [str(problem) for problem in _chain_problems(chain_id, self.state_sync.syncers.get(chain_id))]
        if problems:
            raise SyncerSourceError("; ".join(problems))
        return sorted(set(_endpoints(self.state_sync.syncers.get(chain_id))))


def load(path: str) -> AppConfig:
    """Decode the file. A blank path, a missing or an empty file is an empty config.

    Raises AppConfigError: `reading controller config file "<path>": <cause>` or
    `parsing controller config file "<path>": <cause>`, all wrong shapes in one.
    """
    if not path.strip():
        return AppConfig()
    return decode(path, _read(path))


def decode(path: str, content: bytes | None) -> AppConfig:
    """`load` of content that has been read already; None stands for a file that is not there."""
    if content is None:
        return AppConfig()
    try:
        document = yaml11.first_document(content)
    except yaml11.YamlError as error:
        problem = Problem(path, "", "YAML", f"the file is not YAML: {error}")
        raise AppConfigError(_parsing(path, f"error converting YAML to JSON: {error}"), [problem]) from None
    shaper = _Shaper()
    shaped = shaper.section(AppConfig, document, "")
    config = AppConfig.model_validate(shaped)
    if shaper.problems:
        raise shape_error(path, shaper.problems, config)
    return config


def shape_error(path: str, problems: list[Problem], readable: AppConfig) -> AppConfigError:
    """The error of a file with values of the wrong type."""
    return AppConfigError(_parsing(path, "; ".join(map(str, problems))), problems, readable)


def check(config: AppConfig) -> list[Problem]:
    """Every start-up problem of a decoded file: required keys in the contract's order, then sizes and quantities.

    Order and texts of the required keys are those of docs/contracts/controller-behaviour.md 1.6; `resultExport` is
    not required (difference D9), sizes are parsed (difference D17).
    """
    blank = [
        Problem(key.path, key.value, f"{key.help}", f"{key.path} is required: {key.help}")
        for key in sorted(keys(config), key=_contract_order)
        if key.rule.required and not key.value.strip()
    ]
    return blank + [problem for key in keys(config) for problem in _amount_problems(key)]


def syncer_problems(config: AppConfig) -> list[Problem]:
    """Everything wrong under `stateSync.syncers`, over all chains. Each blocks its own chain only."""
    return [p for chain, value in sorted(config.state_sync.syncers.items()) for p in _chain_problems(chain, value)]


def syncer_shape_problems(config: AppConfig) -> list[Problem]:
    """The part of `syncer_problems` that is a wrong type: a start refuses these, as it refuses them elsewhere."""
    return [p for p in syncer_problems(config) if p.expected in (_LIST_EXPECTED, _TEXT_EXPECTED)]


def syncers(path: str, chain_id: str) -> list[str]:
    """Witness endpoints of the chain from a fresh read of the file (docs/contracts/controller-behaviour.md 2.5)."""
    return SyncerRegistry(path).syncers(chain_id)


def changed_chains(before: AppConfig, after: AppConfig) -> set[str]:
    """Chains whose registry entry is not the same in both: the nodes of just these have something to look at again."""
    old, new = before.state_sync.syncers, after.state_sync.syncers
    return {chain for chain in old.keys() | new.keys() if old.get(chain) != new.get(chain)}


class SyncerRegistry:
    """The registry part of one file, read on every question and decoded only when its bytes have changed."""

    def __init__(self, path: str) -> None:
        self.path = path.strip()
        self._content: bytes | None = None
        self._decoded: AppConfig | AppConfigError = AppConfig()

    def current(self) -> AppConfig:
        """The file as it is now. Raises AppConfigError."""
        if not self.path:
            return AppConfig()
        content = _read(self.path)
        if content != self._content:
            self._content = content
            try:
                self._decoded = decode(self.path, content)
            except AppConfigError as error:
                self._decoded = error
        if isinstance(self._decoded, AppConfigError):
            raise self._decoded
        return self._decoded

    def syncers(self, chain_id: str) -> list[str]:
        """Endpoints of the chain, sorted, each once. Raises SyncerSourceError for the file or for this chain."""
        try:
            config = self.current()
        except AppConfigError as error:
            raise SyncerSourceError(str(error)) from error
        try:
            return config.syncers(chain_id)
        except SyncerSourceError as error:
            raise SyncerSourceError(_parsing(self.path, str(error))) from None


@dataclass(frozen=True, slots=True)
class Key:
    """One text key of the file with its rule and, if a config was given, its value."""

    path: str
    rule: Rule
    help: str
    value: str


def keys(config: AppConfig) -> Iterator[Key]:
    """All text keys of the file in the order of the models."""
    return _keys(config, "")


def _keys(section: BaseModel, prefix: str) -> Iterator[Key]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        path = f"{prefix}{field.alias or name}"
        if isinstance(value, BaseModel):
            yield from _keys(value, f"{path}.")
        elif isinstance(value, str):
            rule = next(item for item in field.metadata if isinstance(item, Rule))
            yield Key(path, rule, field.description or "", value)


_CONTRACT_ORDER = ("scheduling.", "storage.", "snapshot.", "genesis.", "images.")


def _contract_order(key: Key) -> int:
    return next((i for i, prefix in enumerate(_CONTRACT_ORDER) if key.path.startswith(prefix)), len(_CONTRACT_ORDER))


def _amount_problems(key: Key) -> Iterator[Problem]:
    if key.rule.kind is Kind.TEXT or not key.value.strip():
        return
    try:
        amount = quantity.parse(key.value).amount
    except quantity.QuantityError as error:
        cause = str(error)
    else:
        if amount > 0 or (amount == 0 and key.rule.kind is Kind.QUANTITY):
            return
        cause = "must be greater than zero" if key.rule.kind is Kind.SIZE else "must not be negative"
    expected = f"a Kubernetes quantity ({key.rule.kind.value}) such as 2000Gi"
    yield Problem(key.path, key.value, expected, f"{key.path}: invalid quantity {_quoted(key.value)}: {cause}")


class _Shaper:
    """Fits a decoded document to the models: keys in any case, scalars spelled out, every wrong shape noted."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def section(self, model: type[BaseModel], raw: object, path: str) -> dict[str, Any]:
        shaped: dict[str, Any] = {}
        for key, value in self._pairs(raw, path):
            name = _field_named(model, key)
            if name is None or value is None:
                continue
            field = model.model_fields[name]
            place = f"{path}{field.alias or name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
                shaped.setdefault(name, {}).update(self.section(field.annotation, value, f"{place}."))
            elif model is StateSync:
                shaped.setdefault(name, {}).update(self._pairs(value, f"{place}."))
            else:
                shaped[name] = self._text(value, place)
        return shaped

    def _pairs(self, raw: object, path: str) -> list[tuple[str, object]]:
        if raw is None:
            return []
        if not isinstance(raw, Mapping):
            self._note(path.rstrip(".") or "the file", raw, "a map")
            return []
        named = {_spelled(key): value for key, value in raw.items() if _spelled(key) is not None}
        return sorted((str(key), value) for key, value in named.items())

    def _text(self, value: object, place: str) -> str:
        text = _spelled(value)
        if text is None:
            self._note(place, value, "text")
        return text or ""

    def _note(self, place: str, value: object, expected: str) -> None:
        self.problems.append(
            Problem(place, _shape_of(value), expected, f"{place} is {_shape_of(value)}, expected {expected}")
        )


def _field_named(model: type[BaseModel], key: str) -> str | None:
    wanted = key.casefold()
    for name, field in model.model_fields.items():
        if (field.alias or name).casefold() == wanted:
            return name
    return None


def _spelled(value: object) -> str | None:
    """Text of a scalar as the Go decoder spells it; None for what is no scalar."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    return None


def _shape_of(value: object) -> str:
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list):
        return "a list"
    text = _spelled(value)
    return "null" if value is None else _quoted(text) if isinstance(value, str) and text is not None else f"{text}"


_LIST_EXPECTED = "a list of host:port texts"
_TEXT_EXPECTED = "a host:port text, not a collection"
_ENDPOINT_EXPECTED = "a host:port text without scheme or path"
_SEPARATORS = re.compile(r"[\n\r, \t]+")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)


def _chain_problems(chain_id: str, value: object) -> Iterator[Problem]:
    path = f"stateSync.syncers.{chain_id}"
    if value is None:
        return
    if not isinstance(value, list):
        yield _syncer_problem(path, value, _LIST_EXPECTED)
        return
    for index, item in enumerate(value):
        if isinstance(item, Mapping | list):
            yield _syncer_problem(f"{path}[{index}]", item, _TEXT_EXPECTED)
        elif not isinstance(item, str) or not _split(item) or not all(map(_is_endpoint, _split(item))):
            yield _syncer_problem(f"{path}[{index}]", item, _ENDPOINT_EXPECTED)


def _syncer_problem(path: str, value: object, expected: str) -> Problem:
    shape = "empty" if isinstance(value, str) and not value.strip() else _shape_of(value)
    return Problem(path, shape, expected, f"{path} is {shape}, expected {expected}")


def _endpoints(value: object) -> Iterator[str]:
    for item in value if isinstance(value, list) else ():
        yield from _split(str(item))


def _split(item: str) -> list[str]:
    return [part for part in _SEPARATORS.split(item) if part]


def _is_endpoint(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    if not colon or _HOST.fullmatch(host) is None or _PORT.fullmatch(port) is None:
        return False
    return 0 < int(port) < 65536


def _read(path: str) -> bytes | None:
    """Content of the file, None if it is not there. Raises AppConfigError."""
    place = path.strip()
    try:
        with Path(place).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        call = "read" if isinstance(error, IsADirectoryError) else "open"
        raise _unreadable(place, f"{call} {place}: {(error.strerror or str(error)).lower()}") from None
    except ValueError as error:
        raise _unreadable(place, f"open {place!r}: {error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise _unreadable(place, f"the file is larger than {MAX_FILE_BYTES} bytes")
    return content


def _unreadable(path: str, cause: str) -> AppConfigError:
    message = f"reading controller config file {_quoted(path)}: {cause}"
    return AppConfigError(message, [Problem(path, "", "a readable file", message)])


def _parsing(path: str, cause: str) -> str:
    return f"parsing controller config file {_quoted(path.strip())}: {cause}"


def _quoted(text: str) -> str:
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
