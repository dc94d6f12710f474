"""What a field says to the API server, kept apart from what it says to our own parser.

A stored object was admitted by some version of the CRD, not necessarily by this one, so parsing stays as lenient as a
typed Kubernetes client: it looks at types only. Patterns, minima, enums, defaults and CEL rules therefore do not
constrain the models; they are notes on the annotations that `seiops.api.crd` turns into the CRD and the API server enforces.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from operator import not_
from typing import Annotated, Any, TypeVar

from pydantic import Field

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """One CEL validation rule and the message an object that breaks it gets."""

    expression: str
    message: str


@dataclass(frozen=True, slots=True, eq=False)
class Keywords:
    """OpenAPI keywords of one property, in wire spelling (`minLength`, `x-kubernetes-list-type`).

    Compared by identity: annotations must be hashable, and the values hold lists.
    """

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Items:
    """Keywords of the items of an array, or of the values of a map."""

    keywords: tuple[Keywords, ...]


@dataclass(frozen=True, slots=True)
class Default:
    """Value the API server fills in when the field is absent."""

    value: str | int


@dataclass(frozen=True, slots=True)
class RequiredMark:
    """The field stands in its parent's `required` list."""


REQUIRED = RequiredMark()

# Required fields are always serialised, also when they hold the zero value.
Required = Annotated[T, REQUIRED]
# Optional scalars, lists and maps vanish from the wire when they hold the zero value (docs/contracts/controller-api.md 1.1).
OmitEmpty = Annotated[T, Field(exclude_if=not_)]

# The API server stores any integer up to int64 in an int32 field; what does not fit is reported as undecodable.
Int32 = Annotated[int, Field(ge=-(2**31), le=2**31 - 1), Keywords({"format": "int32"})]
Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Keywords({"format": "int64"})]

_QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
# A resource quantity as users write it: `2`, `"500m"`, `"4Gi"`.
Quantity = Annotated[
    int | str,
    Keywords(
        {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": _QUANTITY, "x-kubernetes-int-or-string": True}
    ),
]

DNS_LABEL = Keywords({"pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"})
HOST_PORT = Keywords({"pattern": r"^[^\s:/,]+:[0-9]{1,5}$"})
KEY_NAME = Keywords({"pattern": "^[a-zA-Z0-9_-]+$"})
NOT_EMPTY = Keywords({"minLength": 1})
SET_LIST = Keywords({"x-kubernetes-list-type": "set"})

ObjectName = Annotated[str, NOT_EMPTY, Keywords({"maxLength": 253}), DNS_LABEL]


def max_length(characters: int) -> Keywords:
    return Keywords({"maxLength": characters})


def at_least(minimum: int) -> Keywords:
    return Keywords({"minimum": minimum})


def at_most(maximum: int) -> Keywords:
    return Keywords({"maximum": maximum})


def min_items(count: int) -> Keywords:
    return Keywords({"minItems": count})


def min_properties(count: int) -> Keywords:
    return Keywords({"minProperties": count})


def pattern(expression: str) -> Keywords:
    return Keywords({"pattern": expression})


def one_of(values: type[StrEnum] | tuple[str, ...]) -> Keywords:
    return Keywords({"enum": [str(value) for value in values]})


def list_map(key: str) -> Keywords:
    """A list whose items are merged by the field `key` under server-side apply."""
    return Keywords({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})


def immutable(name: str) -> Rule:
    """Binds only while the enclosing object stays in place: a transition rule needs the old value."""
    return Rule("self == oldSelf", f"{name} is immutable")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; a priority above zero shows it with `-o wide` only."""

    name: str
    type: str
    json_path: str
    priority: int = 0


AGE = Column("Age", "date", ".metadata.creationTimestamp")


@dataclass(frozen=True, slots=True)
class Definition:
    """Names and columns of a kind, as its CRD declares them (docs/contracts/controller-api.md 1)."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...] = field(default=(AGE,))

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"
