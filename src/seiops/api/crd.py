"""Writes the four CRDs from the models: `python -m seiops.api.crd --out deploy/crd`.

The schema is structural in the API server's sense: plain nesting, no references. Docstrings become descriptions, so
`kubectl explain` shows what the source says. The output is the same byte for byte on every run.
"""

import argparse
import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from seiops.api.meta import GROUP, VERSION, Model, Resource
from seiops.api.network import SeiNetwork
from seiops.api.node import SeiNode
from seiops.api.schema import Default, Items, Keywords, RequiredMark, Rule
from seiops.api.task import SeiNodeTask
from seiops.api.workflow import SeiNodeTaskWorkflow

KINDS: tuple[type[Resource], ...] = (SeiNode, SeiNetwork, SeiNodeTask, SeiNodeTaskWorkflow)

Schema = dict[str, Any]

_SCALARS: dict[Any, str] = {str: "string", int: "integer", bool: "boolean", datetime: "string"}


def definition(kind: type[Resource]) -> Schema:
    """The CustomResourceDefinition of one kind."""
    names = kind.definition
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": names.kind,
                "listKind": names.list_kind,
                "plural": names.plural,
                "shortNames": list(names.short_names),
                "singular": names.singular,
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "additionalPrinterColumns": [_column(column) for column in names.columns],
                    "name": VERSION,
                    "schema": {"openAPIV3Schema": _root(kind)},
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                }
            ],
        },
    }


def _column(column: Any) -> Schema:
    shown = {"jsonPath": column.json_path, "name": column.name, "type": column.type}
    return {**shown, "priority": column.priority} if column.priority else shown


def _root(kind: type[Resource]) -> Schema:
    """`spec` is not required: objects without one exist, and must stay valid."""
    return {
        "description": _description(kind),
        "properties": {
            "apiVersion": {"description": "Group and version of the object.", "type": "string"},
            "kind": {"description": "Kind of the object.", "type": "string"},
            "metadata": {"type": "object"},
            "spec": _schema(kind.model_fields["spec"].annotation, ()),
            "status": _schema(kind.model_fields["status"].annotation, ()),
        },
        "type": "object",
    }


def _schema(annotation: Any, notes: Sequence[Any]) -> Schema:
    """Schema of one property: its type, then what the notes on its annotation add."""
    inner, inner_notes = _unwrapped(annotation)
    notes = (*inner_notes, *notes)
    schema = _typed(inner)
    rules = list(schema.pop("x-kubernetes-validations", ()))
    for note in notes:
        match note:
            case Keywords(values):
                schema.update(values)
            case Items(keywords):
                target = schema["items"] if "items" in schema else schema["additionalProperties"]
                for keyword in keywords:
                    target.update(keyword.values)
            case Default(value):
                schema["default"] = value
            case Rule():
                rules.append({"message": note.message, "rule": note.expression})
    if rules:
        schema["x-kubernetes-validations"] = rules
    return schema


def _unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Takes `Annotated` and `| None` off; the notes of the inner annotation come first."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        base, inner_notes = _unwrapped(inner)
        return base, (*inner_notes, *notes)
    if get_origin(annotation) in (Union, UnionType):
        present = [argument for argument in get_args(annotation) if argument is not type(None)]
        if len(present) == 1:
            return _unwrapped(present[0])
    return annotation, ()


def _typed(annotation: Any) -> Schema:
    if annotation is Any:
        return {"x-kubernetes-preserve-unknown-fields": True}
    if annotation in _SCALARS:
        return {"type": _SCALARS[annotation]}
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list:
        return {"items": _schema(arguments[0], ()), "type": "array"}
    if origin is dict:
        return {"additionalProperties": _schema(arguments[1], ()), "type": "object"}
    if origin in (Union, UnionType):
        # Integer or string: the keywords of the annotation say which, and a type would contradict them.
        return {}
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return _object(annotation)
    raise TypeError(f"no CRD schema for {annotation!r}")


def _object(model: type[Model]) -> Schema:
    schema: Schema = {}
    if description := _description(model):
        schema["description"] = description
    described = _field_descriptions(model)
    properties, required = {}, []
    for name, field in model.model_fields.items():
        wire_name = field.serialization_alias or name
        properties[wire_name] = _schema(field.annotation, field.metadata)
        if name in described:
            properties[wire_name]["description"] = described[name]
        if any(isinstance(note, RequiredMark) for note in field.metadata):
            required.append(wire_name)
    if properties:
        schema["properties"] = properties
    if required:
        schema["required"] = sorted(required)
    schema["type"] = "object"
    if model.rules:
        schema["x-kubernetes-validations"] = [
            {"message": rule.message, "rule": rule.expression} for rule in model.rules
        ]
    return schema


def _description(model: type[BaseModel]) -> str:
    own = model.__dict__.get("__doc__")
    return inspect.cleandoc(own) if own else ""


@cache
def _field_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Docstrings that stand below the fields of a model and of the models it extends."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Model) and base is not Model:
            found.update(_described_fields(base))
    return found


def _described_fields(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(body, ast.ClassDef)
    for statement, following in zip(body.body, body.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                yield name, inspect.cleandoc(text)


class _Dumper(yaml.SafeDumper):
    """No anchors: kustomize and people read the file, and repeated blocks must stand alone."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def render(kind: type[Resource]) -> str:
    """The CRD as YAML, keys sorted, one document."""
    source = "# Generated from src/seiops/api by `python -m seiops.api.crd`; edit the models instead.\n"
    body: str = yaml.dump(definition(kind), Dumper=_Dumper, sort_keys=True, width=120, allow_unicode=True)
    return source + body


def file_name(kind: type[Resource]) -> str:
    return f"{GROUP}_{kind.definition.plural}.yaml"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m seiops.api.crd", description="Write the CRDs of sei.io/v1alpha1.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into, created when missing")
    out: Path = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        (out / file_name(kind)).write_text(render(kind), encoding="utf-8")


if __name__ == "__main__":
    main()
