"""The recorded outcomes of the Go sidecar's configuration tasks, at the level of the library: profile v0.0.21."""

from __future__ import annotations

import gzip
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seiops.seid.config import ConfigFiles
from seiops.seid.intent import Intent, IntentError, resolve, resolve_incremental
from seiops.seid.overrides import OverrideError
from seiops.seid.reading import ReadError
from seiops.seid.rendering import render
from seiops.seid.schema import Host, load_schema
from seiops.seid.validation import errors

DATA = Path(__file__).parents[2] / "data" / "seid-config"
SCHEMA = load_schema("v0.0.21")
HOST = Host("golden-host", 2)


def recorded(name: str) -> Any:
    return json.loads(gzip.decompress((DATA / name).read_bytes()))


CASES = {case["case"]: case for case in recorded("cases.json.gz")}
KEYS = recorded("keys.json.gz")
DEFAULTS = CASES["apply-full-defaults"]["after"]


def full_applies() -> list[str]:
    return [
        name
        for name, case in CASES.items()
        if case["type"] == "config-apply" and case["status"] == "completed" and not case["params"].get("incremental")
    ]


def intent(params: dict[str, Any]) -> Intent:
    return Intent(
        params.get("mode", ""),
        params.get("overrides", {}),
        params.get("targetVersion", 0),
        params.get("incremental", False),
    )


@pytest.mark.parametrize("name", full_applies())
def test_full_renderings_are_byte_equal(name: str) -> None:
    case = CASES[name]
    resolution = resolve(SCHEMA, intent(case["params"]), HOST)
    assert resolution.values is not None
    rendered = render(SCHEMA, resolution.values)
    for file, content in rendered.items():
        assert content.decode() == case["after"][file]


def apply(row: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    try:
        resolution = resolve(SCHEMA, Intent(row["mode"], {row["key"]: row["value"]}), HOST)
    except IntentError as error:
        return f"config-apply: {error}", {}
    if resolution.values is None:
        return " ".join(map(str, errors(resolution.findings))), {}
    return "", render(SCHEMA, resolution.values)


@pytest.mark.parametrize("row", [row for row in KEYS if "key" in row], ids=lambda row: f"{row['key']}={row['value']}")
def test_every_single_override(row: dict[str, Any]) -> None:
    problem, rendered = apply(row)
    if row["status"] == "completed":
        assert not problem
        assert {file: hashlib.sha256(data).hexdigest() for file, data in rendered.items()} == row["sha256"]
    elif row["error"].startswith("config-apply: "):
        assert problem == row["error"]
    else:
        listed = json.loads(row["error"].removeprefix("config validation failed: "))
        assert problem == " ".join(f"[{item['severity']}] {item['field']}: {item['message']}" for item in listed)


@pytest.mark.parametrize("row", [row for row in KEYS if "op" in row], ids=lambda row: row["text"][:40])
def test_odd_files_are_read_as_recorded(row: dict[str, Any], tmp_path: Path) -> None:
    home = tmp_path
    for name, text in DEFAULTS.items():
        (home / name).write_text(text)
    if row["file"] == "(missing)":
        (home / "app.toml").unlink()
    else:
        (home / row["file"]).write_text(row["text"])
    try:
        resolution = resolve_incremental(SCHEMA, Intent(), ConfigFiles(SCHEMA, home).read())
    except ReadError as error:
        reason = str(error).replace(str(home), "HOME_DIR/config")
        wanted = row["error"].removeprefix("config-apply incremental: reading current config: ")
        if ": toml: " in wanted:
            assert reason.startswith(wanted.partition(": toml: ")[0] + ": toml: ")
        else:
            assert reason == wanted
        return
    listed = json.loads(row["error"].removeprefix("config validation failed: "))
    assert [finding.wire() for finding in resolution.findings] == listed


@pytest.mark.parametrize(
    "name",
    ["incremental-full", "incremental-no-overrides", "incremental-change-mode", "incremental-drops-foreign-keys"],
)
def test_incremental_values_equal_and_foreign_keys_stay(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for file, text in case["before"].items():
        (tmp_path / file).write_text(text)
    files = ConfigFiles(SCHEMA, tmp_path)
    resolution = resolve_incremental(SCHEMA, intent(case["params"]), files.read())
    assert resolution.values is not None
    files.write_changes(resolution.values)
    for file in ("config.toml", "app.toml"):
        got = tomllib.loads((tmp_path / file).read_text())
        wanted = tomllib.loads(case["after"].get(file) or case["before"][file])
        before = tomllib.loads(case["before"][file])
        for table, keys in before.items():
            if table not in wanted:
                assert got.pop(table) == keys
        assert got == wanted


def test_reload_of_every_hot_key(tmp_path: Path) -> None:
    case = CASES["reload-all-hot"]
    for file, text in case["before"].items():
        (tmp_path / file).write_text(text)
    files = ConfigFiles(SCHEMA, tmp_path)
    values = files.read()
    fields = case["params"]["fields"]
    assert all(SCHEMA.fields[key].hot_reload for key in fields)
    resolution = resolve_incremental(SCHEMA, Intent(overrides=fields), values)
    assert resolution.values is not None
    files.write_changes(resolution.values)
    assert {file: (tmp_path / file).read_text() for file in case["after"]} == case["after"]


def test_validation_of_files_on_disk(tmp_path: Path) -> None:
    case = CASES["validate-errors"]
    for file, text in case["before"].items():
        (tmp_path / file).write_text(text)
    _, findings = ConfigFiles(SCHEMA, tmp_path).validate()
    listed = json.loads(case["error"].removeprefix("config validation failed: "))
    assert [finding.wire() for finding in findings] == listed["diagnostics"]


def test_errors_name_the_key() -> None:
    with pytest.raises(IntentError, match=r'unknown override key "no.such"'):
        resolve(SCHEMA, Intent("full", {"no.such": "1"}), HOST)
    assert issubclass(OverrideError, ValueError)
