"""Start-up: recorded starts with good and bad configuration, flags, and everything wrong reported at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from seiops.controller import settings
from seiops.controller.settings import FlagError, SettingsError
from unit.controller import recorded

STARTUPS = [case for case in recorded.pack()["startups"] if not case["args"] or "=" in case["args"][0]]

TURNED_ROUND = {
    "missing resultExport.prefix": "D9",
    "SEI_GATEWAY_NAME missing": "D9",
    "SEI_GATEWAY_DOMAIN blank": "D9",
    "storage.sizeDefault not a quantity": "D17",
}
"""Starts that end the other way, and the difference that says so."""

GATEWAY = {"SEI_GATEWAY_NAME": "gw", "SEI_GATEWAY_NAMESPACE": "gw-ns", "SEI_GATEWAY_DOMAIN": "gw.example"}


def environment(case: dict[str, Any], path: Path) -> dict[str, str]:
    found = {**GATEWAY, "SEI_CONTROLLER_CONFIG": str(path)}
    for name, value in case["env"].items():
        if value is None:
            found.pop(name)
        else:
            found[name] = value.replace("/etc/sei-controller/config.yaml", str(path))
    return found


def mount(case: dict[str, Any], path: Path) -> None:
    if case.get("configIsDirectory"):
        path.mkdir()
    elif case["config"] == "the base configuration":
        path.write_text(recorded.pack()["config"])
    elif case["config"] is not None:
        path.write_text(case["config"])


@pytest.mark.parametrize("case", STARTUPS, ids=lambda case: case["case"])
def test_starts_end_as_recorded(case: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    mount(case, path)
    refused: SettingsError | None = None
    try:
        settings.load_environment(environment(case, path))
    except SettingsError as error:
        refused = error
    assert (refused is not None) == ((case["exit"] == 1) != (case["case"] in TURNED_ROUND))
    if refused is not None and case["exit"] == 1:
        logged = case["log"][0]
        assert refused.summary == logged["msg"]
        assert recorded_name(logged["error"]) in str(refused)


def recorded_name(error: str) -> str:
    """The part of the recorded text that users key on: the key, or the kind of failure."""
    if match := re.match(r"([\w.]+) is required", error):
        return match[0]
    if match := re.match(r"[\w.]+: invalid quantity \"[^\"]*\": .*", error):
        return match[0]
    match = re.match(r"(parsing|reading) controller config file", error)
    assert match is not None
    return match[0]


def write(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return {"SEI_CONTROLLER_CONFIG": str(path)}


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    text = recorded.pack()["config"]
    text = (
        text.replace("nodepoolSeed: pool-seed", "nodepoolSeed: ' '").replace("2000Gi", "huge").replace("40000Gi", "0")
    )
    text += "resources: {archive: {memory: lots}, seed: {cpuRequest: -1}}\n"
    text = text.replace('gold-one: ["sync-a.example:26657"]', "gold-one: x\n    gold-url: ['http://a:1']")
    with pytest.raises(SettingsError) as refused:
        settings.load_environment({**write(tmp_path, text), "SEIOPS_INTERVAL_SCALE": "2"})
    assert {problem.path for problem in refused.value.problems} == {
        "scheduling.nodepoolSeed",
        "storage.sizeDefault",
        "storage.sizeArchive",
        "resources.archive.memory",
        "resources.seed.cpuRequest",
        "stateSync.syncers.gold-one",
        "SEIOPS_INTERVAL_SCALE",
    }
    assert [problem.path for problem in refused.value.warnings] == ["stateSync.syncers.gold-url[0]"]
    assert all(problem.expected for problem in refused.value.problems)


def test_missing_keys_come_in_the_contracts_order(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        settings.load_environment(write(tmp_path, "{}\n"))
    assert [problem.path for problem in refused.value.problems] == [
        "scheduling.nodepoolName",
        "scheduling.nodepoolArchive",
        "scheduling.nodepoolValidator",
        "scheduling.nodepoolSeed",
        "scheduling.tolerationKey",
        "scheduling.serviceAccount",
        "storage.classPerf",
        "storage.classDefault",
        "storage.classArchive",
        "storage.sizeDefault",
        "storage.sizeArchive",
        "snapshot.bucket",
        "snapshot.region",
        "genesis.bucket",
        "genesis.region",
        "images.sidecar",
        "images.kubeRBACProxy",
        "images.cosmosExporter",
    ]


def test_every_wrong_type_is_listed_at_once_with_what_is_missing(tmp_path: Path) -> None:
    text = "scheduling: [1]\ngenesis: {region: [a], bucket: b}\nimages: no\nstateSync: {syncers: {c: x}}\nsnapshot: {bucket: b}\n"
    environ = write(tmp_path, text)
    with pytest.raises(SettingsError) as refused:
        settings.load_environment(environ)
    assert [problem.path for problem in refused.value.problems] == [
        "genesis.region",
        "images",
        "scheduling",
        "stateSync.syncers.c",
        "storage.classPerf",
        "storage.classDefault",
        "storage.classArchive",
        "storage.sizeDefault",
        "storage.sizeArchive",
        "snapshot.region",
    ]
    assert f'parsing controller config file "{environ["SEI_CONTROLLER_CONFIG"]}": ' in str(refused.value)


def test_old_variables_are_not_read_but_named(tmp_path: Path) -> None:
    text = recorded.pack()["config"].replace("sidecar: registry.example/seictl:v1", "sidecar: ''")
    with pytest.raises(SettingsError) as refused:
        settings.load_environment({**write(tmp_path, text), "SEI_SIDECAR_IMAGE": "x:1"})
    assert "images.sidecar is required" in str(refused.value)
    assert "SEI_SIDECAR_IMAGE is no longer read" in str(refused.value)


def test_one_bad_syncer_starts_with_a_warning(tmp_path: Path) -> None:
    text = recorded.pack()["config"].replace('gold-one: ["sync-a.example:26657"]', "gold-one: [26657]")
    loaded = settings.load_environment(write(tmp_path, text))
    assert [warning.path for warning in loaded.warnings] == ["stateSync.syncers.gold-one[0]"]


def test_settings_of_a_good_start(tmp_path: Path) -> None:
    loaded = settings.load_environment({**write(tmp_path, recorded.pack()["config"]), "SEIOPS_INTERVAL_SCALE": "0.1"})
    assert loaded.platform.images.sidecar == "registry.example/seictl:v1"
    assert loaded.interval_scale == 0.1
    assert loaded.environment.token_file == "/var/run/secrets/kubernetes.io/serviceaccount/token"


def test_flags_as_the_manifests_give_them() -> None:
    flags = settings.parse_flags(["--metrics-bind-address=:8080", "--leader-elect", "-health-probe-bind-address", ":1"])
    assert (flags.metrics_bind_address, flags.leader_elect, flags.health_probe_bind_address) == (":8080", True, ":1")
    assert settings.parse_flags(["--leader-elect=false"]).leader_elect is False
    assert settings.parse_flags([]).lease_name == "bc1f5b0a.sei.io"
    assert settings.parse_flags(["--namespaces=a, b,"]).namespace_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such-flag"], "flag provided but not defined: -no-such-flag"),
        (["--leader-elect=maybe"], 'invalid boolean value "maybe" for -leader-elect: parse error'),
        (["--kubeconfig"], "flag needs an argument: -kubeconfig"),
        (["--workers=0"], "expected a number from 1 to 1000"),
        (["--zap-encoder=xml"], "expected one of json, console"),
        (["--zap-log-level=loud"], "expected debug, info, error, panic"),
    ],
)
def test_wrong_flags_are_named(arguments: list[str], message: str) -> None:
    with pytest.raises(FlagError, match=re.escape(message)):
        settings.parse_flags(arguments)


def test_usage_names_every_flag() -> None:
    assert {"  -leader-elect", "  -kubeconfig string", "  -workers int"} <= set(settings.usage().splitlines())


def test_the_configuration_page_is_current() -> None:
    page = Path(__file__).parents[3] / "docs" / "configuration.md"
    regenerate = "python -m seiops.controller.settings --markdown > docs/configuration.md"
    assert page.read_text() == settings.markdown(), f"run: {regenerate}"
