"""The CRDs are a contract with objects that already exist on live clusters: every recorded detail holds, and nothing is added."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from seiops.api import crd
from seiops.api.meta import Resource

ROOT = Path(__file__).parents[2]
CONTRACT = json.loads((ROOT / "docs/contracts/crd-fields.json").read_text())
KINDS = {kind.definition.kind: kind for kind in crd.KINDS}

# Keywords that carry structure or text; all others are constraints and are compared one for one.
STRUCTURE = {"type", "properties", "items", "additionalProperties", "required", "default", "description"}


def generated(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "deploy/crd" / crd.file_name(KINDS[kind])).read_text())
    return document


def root_schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = generated(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def type_of(schema: dict[str, Any]) -> str:
    if "additionalProperties" in schema:
        return "map"
    if schema.get("x-kubernetes-int-or-string"):
        return "int-or-string"
    return str(schema.get("type", "any"))


def fields(schema: dict[str, Any], path: str, required: bool | None) -> Iterator[dict[str, Any]]:
    """The schema as the contract lists it: one entry a path, in no particular order."""
    constraints = {key: value for key, value in schema.items() if key not in STRUCTURE | {"x-kubernetes-validations"}}
    yield {
        "path": path,
        "type": type_of(schema),
        "required": required,
        "default": schema.get("default"),
        "constraints": constraints,
    }
    for name, child in schema.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}", name in schema.get("required", ()))
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]", None)
    if "additionalProperties" in schema:
        yield from fields(schema["additionalProperties"], f"{path}{{}}", None)


def rules(schema: dict[str, Any], path: str) -> Iterator[dict[str, str]]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield {"path": path, **rule}
    for name, child in schema.get("properties", {}).items():
        yield from rules(child, f"{path}.{name}")
    if "items" in schema:
        yield from rules(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from rules(schema["additionalProperties"], f"{path}{{}}")


def of_root(kind: str, walk: Any, *arguments: Any) -> Iterator[dict[str, Any]]:
    for part in ("spec", "status"):
        yield from walk(root_schema(kind)["properties"][part], part, *arguments)


@pytest.mark.parametrize("kind", CONTRACT["fields"])
def test_every_field_equals_the_contract(kind: str) -> None:
    found = {field["path"]: field for field in of_root(kind, fields, False)}
    expected = {field["path"]: field for field in CONTRACT["fields"][kind]}
    assert sorted(found) == sorted(expected)
    for path, field in expected.items():
        assert found[path] == field


@pytest.mark.parametrize("kind", CONTRACT["celRules"])
def test_every_cel_rule_equals_the_contract_in_order(kind: str) -> None:
    assert sorted(of_root(kind, rules), key=lambda rule: rule["path"]) == sorted(
        CONTRACT["celRules"][kind], key=lambda rule: rule["path"]
    )


@pytest.mark.parametrize("kind", CONTRACT["kinds"])
def test_names_columns_and_subresources_equal_the_contract(kind: str) -> None:
    spec = generated(kind)["spec"]
    (version,) = spec["versions"]
    names = spec["names"]
    assert {
        "crdName": generated(kind)["metadata"]["name"],
        "group": spec["group"],
        "version": version["name"],
        "scope": spec["scope"],
        "plural": names["plural"],
        "singular": names["singular"],
        "listKind": names["listKind"],
        "shortNames": names["shortNames"],
        "served": version["served"],
        "storage": version["storage"],
        "subresources": version["subresources"],
        "printerColumns": version["additionalPrinterColumns"],
        "rootRequired": root_schema(kind).get("required", []),
    } == CONTRACT["kinds"][kind]


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.definition.kind)
def test_the_checked_in_yaml_is_what_the_models_generate(kind: type[Resource], tmp_path: Path) -> None:
    crd.main(["--out", str(tmp_path)])
    name = crd.file_name(kind)
    assert (ROOT / "deploy/crd" / name).read_text() == (tmp_path / name).read_text(), "run `make generate`"


def test_every_property_says_what_it_is_for() -> None:
    def undocumented(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name, child in schema.get("properties", {}).items():
            if not child.get("description"):
                yield f"{path}.{name}"
            yield from undocumented(child, f"{path}.{name}")
        if "items" in schema:
            yield from undocumented(schema["items"], f"{path}[]")

    missing = [
        where
        for kind in KINDS
        for part in ("spec", "status")
        for where in undocumented(root_schema(kind)["properties"][part], f"{kind}.{part}")
    ]
    assert missing == []
