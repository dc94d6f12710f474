"""What every sei.io object shares: the model base, object metadata, timestamps, and decoding one object by itself.

A bad object must stop nobody but itself, so decoding is a function of one object and its error names the object and
every field that does not fit (docs/contracts/controller-behaviour.md, D27).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError
from pydantic.alias_generators import to_camel

from seiops.api.schema import Definition, Keywords, OmitEmpty, Required, Rule

GROUP = "sei.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def rfc3339(moment: datetime) -> str:
    """Whole seconds in UTC, as every timestamp on the wire (docs/contracts/controller-api.md 1.1)."""
    return _in_utc(moment).strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[
    datetime, AfterValidator(_in_utc), PlainSerializer(rfc3339, return_type=str), Keywords({"format": "date-time"})
]


class Model(BaseModel):
    """Attributes in snake_case, the wire in camelCase; unknown fields are ignored as a Kubernetes client does."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    rules: ClassVar[tuple[Rule, ...]] = ()

    def wire(self) -> dict[str, Any]:
        """The JSON form the API server takes: camelCase, absent what is unset or zero and optional."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class OwnerReference(Model):
    api_version: Required[str] = ""
    kind: Required[str] = ""
    name: Required[str] = ""
    uid: Required[str] = ""
    controller: OmitEmpty[bool] = False
    block_owner_deletion: OmitEmpty[bool] = False


class ObjectMeta(Model):
    """The part of `metadata` that the controllers read. `managedFields` is left out: it is most of an object's bytes."""

    name: OmitEmpty[str] = ""
    namespace: OmitEmpty[str] = ""
    uid: OmitEmpty[str] = ""
    resource_version: OmitEmpty[str] = ""
    generation: OmitEmpty[int] = 0
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None
    labels: OmitEmpty[dict[str, str]] = Field(default_factory=dict)
    annotations: OmitEmpty[dict[str, str]] = Field(default_factory=dict)
    owner_references: OmitEmpty[list[OwnerReference]] = Field(default_factory=list)
    finalizers: OmitEmpty[list[str]] = Field(default_factory=list)


class Resource(Model):
    """Base of the four kinds."""

    definition: ClassVar[Definition]

    api_version: str = API_VERSION
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @classmethod
    def decode(cls, raw: Mapping[str, Any]) -> Self:
        """One object as the API server stored it. A null stands for an absent field.

        Raises `UndecodableError` naming the object and every field whose value does not fit its type.
        """
        return decode(cls, raw)


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One value that does not fit: `path` in wire spelling (`spec.sidecar.port`)."""

    path: str
    value: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.value} {self.problem}"


class UndecodableError(ValueError):
    """A stored object that cannot be read; it is marked and skipped while all others go on."""

    def __init__(self, kind: str, namespace: str, name: str, problems: tuple[FieldProblem, ...]) -> None:
        self.kind = kind
        self.namespace = namespace
        self.name = name
        self.problems = problems
        super().__init__(f"{kind} {namespace}/{name} cannot be decoded: {self.detail}")

    @property
    def detail(self) -> str:
        return "; ".join(str(problem) for problem in self.problems)


M = TypeVar("M", bound=Model)


def decode(model: type[M], raw: Mapping[str, Any]) -> M:
    """`raw` as `model`. Nulls are dropped first only where they are in the way, so the usual object is read once.

    Raises `UndecodableError` when a value does not fit its field.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        if not any(_is_null(detail) for detail in error.errors(include_url=False)):
            raise _undecodable(model, raw, error) from None
    try:
        return model.model_validate(_without_nulls(raw))
    except ValidationError as error:
        raise _undecodable(model, raw, error) from None


def _is_null(detail: Mapping[str, Any]) -> bool:
    return detail["input"] is None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


_EXPECTED = {
    "int": "is not an integer",
    "string": "is not a string",
    "bool": "is not a boolean",
    "list": "is not a list",
    "dict": "is not a map",
    "model": "is not an object",
    "datetime": "is not an RFC 3339 time",
}


def _problem(detail: Mapping[str, Any]) -> FieldProblem:
    path = ""
    for part in detail["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    kind: str = detail["type"]
    bound = detail.get("ctx", {})
    if kind == "greater_than_equal":
        problem = f"is below {bound['ge']}, the smallest value the field can hold"
    elif kind == "less_than_equal":
        problem = f"is above {bound['le']}, the largest value the field can hold"
    else:
        problem = _EXPECTED.get(kind.split("_")[0], detail["msg"])
    shown = repr(detail["input"])
    return FieldProblem(path or "(object)", shown if len(shown) <= 80 else f"{shown[:77]}...", problem)


def _undecodable(model: type[Model], raw: Any, error: ValidationError) -> UndecodableError:
    metadata = raw.get("metadata") if isinstance(raw, Mapping) else None
    metadata = metadata if isinstance(metadata, Mapping) else {}
    problems = tuple(_problem(detail) for detail in error.errors(include_url=False))
    kind = raw.get("kind") if isinstance(raw, Mapping) else None
    return UndecodableError(
        str(kind or model.__name__), str(metadata.get("namespace", "")), str(metadata.get("name", "")), problems
    )
