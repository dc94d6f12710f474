"""Edits keep what they do not touch, and never change a meaning, whatever shape the file has."""

from __future__ import annotations

import gzip
import json
import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seiops.seid.config import ConfigFiles
from seiops.seid.editing import EditError, merge, patch_toml, plain_toml
from seiops.seid.intent import Intent, resolve_incremental
from seiops.seid.schema import load_schema
from seiops.seid.validation import AUTO_WRITE_MODE, WRITE_MODE

DATA = Path(__file__).parents[2] / "data" / "seid-config"
SEID = json.loads(gzip.decompress((DATA / "seid-defaults.json.gz").read_bytes()))


@pytest.mark.parametrize("mode", ["validator", "full", "archive", "seed"])
def test_a_file_of_seid_itself_keeps_every_comment_and_key(mode: str, tmp_path: Path) -> None:
    """seid's own templates: comments, quoted numbers, keys the schema does not know, no pruning strategy."""
    for name in ("config.toml", "app.toml"):
        (tmp_path / name).write_text(SEID[mode][name])
    files = ConfigFiles(load_schema(), tmp_path)
    overrides = {"mempool.size": "7", "storage.pruning": "nothing", WRITE_MODE: "flatkv_only"}
    if mode == "seed":
        overrides["network.p2p.pex"] = "true"
    resolution = resolve_incremental(files.schema, Intent(overrides=overrides), files.read())
    assert resolution.values is not None, [str(finding) for finding in resolution.findings]
    assert resolution.values[AUTO_WRITE_MODE] is False
    files.write_changes(resolution.values)
    for name in ("config.toml", "app.toml"):
        before, after = SEID[mode][name], (tmp_path / name).read_text()
        assert comments(before) == comments(after)
        assert leaves(tomllib.loads(before)) <= leaves(tomllib.loads(after))
    assert tomllib.loads((tmp_path / "config.toml").read_text())["mempool"]["size"] == 7
    again = files.read()
    assert again == resolution.values
    stands = {name: (tmp_path / name).read_bytes() for name in ("config.toml", "app.toml")}
    files.write_changes(again)
    assert {name: (tmp_path / name).read_bytes() for name in stands} == stands


def comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


def leaves(document: dict[str, Any], path: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in document.items():
        found |= leaves(value, f"{path}/{key}") if isinstance(value, dict) else {f"{path}/{key}"}
    return found


@pytest.mark.parametrize(
    "text",
    [
        "[a]\nx = 1\n[b]\ny = 2\n[a.c]\nz = 3\n",
        "a.b.c = 1\na.d = 2\n",
        "a = {b = {c = 1}, d = 2}\n",
        "[[l]]\nx = 1\n[[l]]\nx = 2\n[a]\nk = 1\n",
        '"dot.ted" = 1\n\'quo"ted\' = 2\n[ "sp ace" ]\nx = 1\n',
        "\r\n[a]\r\nx = 1\r\n",
        "x = 1 # c\n\n\n# tail",
        "d = 2026-01-02T03:04:05Z\nt = 03:04:05\nf = nan\ni = -inf\n",
        "",
    ],
)
@pytest.mark.parametrize(
    "patch",
    [
        {"a": {"c": {"z": 9, "new": "n"}}},
        {"a": {"x": None, "b": None}},
        {"a": 5},
        {"root": 1, "fresh": {"t": {"u": [1, "a", {"v": 2}]}, "empty": {}}},
        {"l": [1], "x": None},
    ],
)
def test_odd_shapes(text: str, patch: dict[str, Any]) -> None:
    wanted = without_nulls(merge(tomllib.loads(text), patch))
    assert shown(tomllib.loads(patch_toml(text, patch))) == shown(wanted)


def shown(document: dict[str, Any]) -> str:
    """Not a number included, which is not equal to itself."""
    return json.dumps(document, default=str, sort_keys=True)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


NAMES = st.text(string.ascii_lowercase + "-.", min_size=1, max_size=3)
SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=5), st.floats(allow_nan=False))
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
DOCUMENTS = st.dictionaries(NAMES, VALUES, max_size=4)
PATCHES = st.dictionaries(NAMES, st.none() | VALUES, max_size=4)


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, PATCHES)
def test_any_patch_on_any_document(document: dict[str, Any], patch: dict[str, Any]) -> None:
    text = plain_toml(document)
    assert tomllib.loads(text) == document
    assert tomllib.loads(patch_toml(text, patch)) == without_nulls(merge(document, patch))


def test_integers_beyond_toml_become_floats() -> None:
    assert tomllib.loads(patch_toml("", {"big": 2**64}))["big"] == float(2**64)


def test_a_null_in_an_array_has_no_form() -> None:
    with pytest.raises(EditError):
        patch_toml("", {"a": [None]})
