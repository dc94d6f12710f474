"""The vectors of docs/contracts/seid-config.json, and that the packaged schema is the contract's."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seidev.config_schema import CONTRACT, SCHEMA, distil
from seidev.config_schema import render as render_schema
from seiops.seid.durations import DurationError, format_duration, parse_duration
from seiops.seid.editing import merge
from seiops.seid.intent import Intent, IntentError, Resolution, check, resolve, resolve_incremental
from seiops.seid.overrides import OverrideError, apply_overrides
from seiops.seid.reading import ReadError, read_config
from seiops.seid.rendering import render, toml_value
from seiops.seid.schema import Host, load_schema
from seiops.seid.validation import validate

DOCUMENT = json.loads(CONTRACT.read_text())
VECTORS = DOCUMENT["vectors"]
V21 = load_schema("v0.0.21")
V25 = load_schema("v0.0.25")
HOST = Host("node-0", 2)


def test_the_packaged_schema_is_distilled_from_the_contract() -> None:
    assert SCHEMA.read_text() == render_schema(distil(DOCUMENT)), "run: python -m seidev.config_schema"


def test_field_counts() -> None:
    assert len(V21.fields) == DOCUMENT["counts"]["fields_v0_0_21"]
    ours = {"storage.state_commit.write_mode_enable_auto"}
    assert len(V25.fields.keys() - ours) == DOCUMENT["counts"]["fields_v0_0_25"]


@pytest.mark.parametrize("profile", ["v0.0.21", "v0.0.25"])
@pytest.mark.parametrize("mode", ["validator", "full", "seed", "archive"])
def test_rendered_examples(profile: str, mode: str) -> None:
    schema = load_schema(profile)
    rendered = render(schema, schema.defaults(mode, HOST) | {"version": 2})
    example = DOCUMENT["rendered_examples"][profile][mode]
    for file in ("config.toml", "app.toml"):
        assert rendered[file].decode() == example[file]["text"]


@pytest.mark.parametrize("vector", VECTORS["override_parse"], ids=lambda v: f"{v['key']}={v['input']!r}")
def test_override_values(vector: dict[str, Any]) -> None:
    values = V21.defaults("full", HOST)
    if "error" in vector:
        with pytest.raises(OverrideError) as failure:
            apply_overrides(V21, values, {vector["key"]: vector["input"]})
        assert str(failure.value) == vector["error"]
        return
    apply_overrides(V21, values, {vector["key"]: vector["input"]})
    got = values[vector["key"]]
    if "value_as_text" in vector:
        assert isinstance(got, float)
        text = vector["value_as_text"]
        assert math.isnan(got) if text == "NaN" else got == float(text)
    else:
        assert shown(vector["key"], got) == vector["value"]


def shown(key: str, value: Any) -> Any:
    return format_duration(value) if V21.fields[key].kind == "duration" else value


@pytest.mark.parametrize("vector", VECTORS["lenient_read"], ids=lambda v: f"{v['file']}:{v['text']!r}")
def test_lenient_reading(vector: dict[str, Any], tmp_path: Path) -> None:
    for name in ("config.toml", "app.toml"):
        (tmp_path / name).write_text("")
    if vector["file"] == "(missing)":
        (tmp_path / "config.toml").unlink()
    else:
        (tmp_path / vector["file"]).write_text(vector["text"])
    if vector.get("error"):
        with pytest.raises(ReadError) as failure:
            read_config(V21, tmp_path)
        assert str(failure.value).startswith(f"reading {tmp_path}/")
        return
    assert shown(vector["key"], read_config(V21, tmp_path)[vector["key"]]) == vector["value"]


def test_an_integer_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[p2p]\nmax-connections = 70000\n")
    (tmp_path / "app.toml").write_text("")
    with pytest.raises(
        ReadError, match=r"'p2p.max-connections' value 70000 does not fit 'uint16': allowed are 0 to 65535"
    ):
        read_config(V25, tmp_path)


@pytest.mark.parametrize("vector", VECTORS["intents"], ids=lambda v: f"{v['operation'][:20]} {json.dumps(v['intent'])}")
def test_intents(vector: dict[str, Any]) -> None:
    raw = vector["intent"]
    intent = Intent(raw["mode"], raw.get("overrides", {}), raw.get("targetVersion", 0), raw.get("incremental", False))
    try:
        got = outcome(vector["operation"], intent)
    except IntentError as error:
        assert str(error) == vector["error"]
        return
    wanted = vector["result"]
    assert (got.valid, got.version, got.mode) == (wanted["valid"], wanted["version"], wanted["mode"])
    assert [str(finding) for finding in got.findings] == wanted["diagnostics"]
    assert (got.values is not None) == wanted["config_present"]
    if got.values is not None:
        assert (got.values["version"], got.values["mode"]) == (wanted["config_version"], wanted["config_mode"])


def outcome(operation: str, intent: Intent) -> Resolution:
    if operation == "validate":
        return check(V21, intent)
    if operation == "resolve":
        return resolve(V21, intent, HOST)
    return resolve_incremental(V21, intent, V21.defaults("full", HOST) | {"version": 2})


def test_all_zero_findings() -> None:
    wanted = next(item for item in VECTORS["validation"] if item["case"] == "all zero")
    assert [str(finding) for finding in validate(V21, V21.zeros())] == wanted["diagnostics"]


@pytest.mark.parametrize(
    "overrides, case",
    [
        ({"state_sync.enable": True}, "statesync enable only"),
        (
            {
                "storage.state_commit.write_mode": "evm_only",
                "storage.state_commit.read_mode": "x",
                "storage.state_store.write_mode": "y",
                "storage.state_store.read_mode": "z",
            },
            "modes",
        ),
    ],
)
def test_validation_cases(overrides: dict[str, Any], case: str) -> None:
    wanted = next(item for item in VECTORS["validation"] if item["case"] == case)
    values = V21.defaults("full", HOST) | {"version": 2} | overrides
    assert [str(finding) for finding in validate(V21, values)] == wanted["diagnostics"]


@pytest.mark.parametrize("nanoseconds, text", VECTORS["duration_format_ns"])
def test_durations(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text
    if nanoseconds > -(2**63):
        assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "1d", " 5s", "s", ".s", "9223372037s", "--1s", "1.s.", "é"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(DurationError, match=r"^time: "):
        parse_duration(text)


@pytest.mark.parametrize("vector", VECTORS["toml_encode"], ids=lambda v: v["toml"])
def test_toml_encoding(vector: dict[str, Any]) -> None:
    assert toml_value(vector["value_json"]) == vector["toml"]
    assert tomllib.loads(f"v = {vector['toml']}")["v"] == vector["value_json"]


@pytest.mark.parametrize("vector", VECTORS["merge_patch"], ids=lambda v: v["name"])
def test_merge(vector: dict[str, Any]) -> None:
    original = json.dumps(vector["original"])
    assert merge(vector["original"], vector["patch"]) == vector["result"]
    assert json.dumps(vector["original"]) == original
