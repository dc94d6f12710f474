"""The app-config file: how it is read, and what a bad one does to whom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seiops.controller import appconfig
from seiops.controller.appconfig import AppConfigError, SyncerRegistry, SyncerSourceError
from unit.controller import recorded

CHAIN = "flow-t"

RULED = {
    "stateSync:\n  syncers:\n    other: x\n    flow-t: [a.example:1, b.example:1]\n": ["a.example:1", "b.example:1"],
}
"""Contents whose recorded answer is another one: a bad value blocks its own chain only (rulings 10)."""


def source(tmp_path: Path, text: str) -> str:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode())
    return str(path)


@pytest.mark.parametrize("step", recorded.pack()["registry"], ids=lambda step: repr(step["content"][:40]))
def test_registry_answers_as_recorded(step: dict[str, Any], tmp_path: Path) -> None:
    text = step["content"]
    if text == "the base configuration":
        text = recorded.pack()["config"]
    path = source(tmp_path, text)
    if text in RULED:
        assert appconfig.syncers(path, CHAIN) == RULED[text]
    elif step["condition"]["reason"] == "SyncerSourceError":
        with pytest.raises(SyncerSourceError, match=f'^parsing controller config file "{path}": '):
            appconfig.syncers(path, CHAIN)
    elif step["condition"]["reason"] == "Ready":
        assert appconfig.syncers(path, CHAIN) == step["resolved"]
    else:
        found = int(step["condition"]["message"].split("found ")[1].split(" ")[0])
        assert len(appconfig.syncers(path, CHAIN)) == found < 2


@pytest.mark.parametrize(
    ("chain", "wanted"),
    [
        ("gold-1", ["sync-a.example:26657", "sync-b.example:26657"]),
        ("gold-joined", ["x.example:26657", "y.example:26657", "z.example:26657"]),
        ("gold-dup", ["sync-a.example:26657"]),
        ("absent", []),
        ("GOLD-1", []),
    ],
)
def test_lists_are_split_sorted_and_deduplicated(chain: str, wanted: list[str], tmp_path: Path) -> None:
    assert appconfig.syncers(source(tmp_path, recorded.pack()["config"]), chain) == wanted


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("[26657, a:1]", "c[0]"),
        ("[a:1, true]", "c[1]"),
        ("['http://b.example:1', a:1]", "c[0]"),
        ("[a:1, '']", "c[1]"),
        ("[a:1, ' ']", "c[1]"),
        ("[a:1, null]", "c[1]"),
        ("[a:1, b]", "c[1]"),
        ("[a:1, 'b:']", "c[1]"),
        ("[a:1, ':2']", "c[1]"),
        ("[a:1, 'b:65536']", "c[1]"),
        ("[a:1, 'b:0']", "c[1]"),
        ("['a:1, https://b:2']", "c[0]"),
        ("[{host: a}, b:1]", "c[0]"),
        ("[[a:1]]", "c[0]"),
        ("'a:1,b:2'", "c"),
        ("{a: 1}", "c"),
        ("7", "c"),
    ],
)
def test_a_bad_value_blocks_its_chain_and_no_other(value: str, path: str, tmp_path: Path) -> None:
    file = source(tmp_path, f"stateSync: {{syncers: {{c: {value}, good: [a:1, 'b:2', '[::1]:26657']}}}}")
    with pytest.raises(SyncerSourceError, match=r"stateSync\.syncers\." + path.replace("[", r"\[") + " is "):
        appconfig.syncers(file, "c")
    assert appconfig.syncers(file, "good") == ["[::1]:26657", "a:1", "b:2"]


def test_a_directory_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(SyncerSourceError) as error:
        appconfig.syncers(str(tmp_path), CHAIN)
    assert str(error.value) == f'reading controller config file "{tmp_path}": read {tmp_path}: is a directory'


def test_no_file_means_no_syncers(tmp_path: Path) -> None:
    assert appconfig.syncers(str(tmp_path / "none.yaml"), CHAIN) == []
    assert appconfig.syncers("  ", CHAIN) == []


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with path.open("wb") as file:
        file.truncate(appconfig.MAX_FILE_BYTES + 1)
    with pytest.raises(AppConfigError, match="larger than"):
        appconfig.load(str(path))


def test_the_registry_sees_every_change(tmp_path: Path) -> None:
    path = Path(source(tmp_path, "stateSync: {syncers: {c: [a:1, b:1]}}"))
    registry = SyncerRegistry(str(path))
    assert registry.syncers("c") == ["a:1", "b:1"]
    stamp = path.stat()
    path.write_text("stateSync: {syncers: {c: [a:1, d:1]}}")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert registry.syncers("c") == ["a:1", "d:1"]
    path.write_text("a: [")
    with pytest.raises(SyncerSourceError, match="YAML"):
        registry.syncers("c")
    path.unlink()
    assert registry.syncers("c") == []


def test_changed_chains() -> None:
    before = recorded.config("stateSync: {syncers: {a: [x:1], b: [y:1], c: [z:1]}}")
    after = recorded.config("stateSync: {syncers: {a: [x:1], b: [y:2], d: [w:1]}}")
    assert appconfig.changed_chains(before, after) == {"b", "c", "d"}


def test_scalars_are_spelled_as_the_go_controller_does() -> None:
    found = recorded.config(
        "Scheduling: {NODEPOOLNAME: 7, tolerationKey: y, serviceAccount: 1.50}\nresources: {node: {cpuRequest: 8}}"
    )
    assert found.scheduling.nodepool_name == "7"
    assert found.scheduling.toleration_key == "true"
    assert found.scheduling.service_account == "1.5"
    assert found.resources.node.cpu_request == "8"


def test_yaml_bombs_and_nesting_are_harmless() -> None:
    layers = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 40))
    bomb = f"l0: &l0 [x]\n{layers}stateSync: {{syncers: {{c: *l39}}}}\n"
    with pytest.raises(SyncerSourceError):
        recorded.config(bomb).syncers("c")
    merges = "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 40))
    assert recorded.config(f"m0: &m0 {{k: v}}\n{merges}genesis: {{<<: *m39, bucket: b}}\n").genesis.bucket == "b"
    for opening in ("[", "{a: ", "- "):
        with pytest.raises(AppConfigError, match="nested deeper"):
            recorded.config(opening * 100_000)


def test_problems_never_quote_the_whole_file() -> None:
    with pytest.raises(AppConfigError) as error:
        recorded.config("images: " + "s3cret" * 1000)
    assert len(str(error.value)) < 500


YAML_TEXT = st.text(alphabet="ab:-[]{}&*<!~ \n\t,'\"#|>1", max_size=60).map(str.encode) | st.binary(max_size=60)


@given(YAML_TEXT)
def test_any_bytes_are_a_config_or_an_error(content: bytes) -> None:
    try:
        found = appconfig.decode("config.yaml", content)
    except AppConfigError as error:
        assert error.problems
        return
    appconfig.check(found)
    appconfig.syncer_problems(found)
