"""`seiops controller` and `seiops controller check-config FILE`."""

import json
from pathlib import Path

import typer
import yaml
from typer.testing import CliRunner

from seiops.cli import controller
from support.controlled import CONFIG

app = typer.Typer()
app.command("other")(lambda: None)
controller.register(app)
runner = CliRunner()


def _check(file: Path, *options: str) -> tuple[int, str]:
    result = runner.invoke(app, ["controller", "check-config", str(file), *options])
    return result.exit_code, result.output


def test_a_good_file_passes(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    code, output = _check(tmp_path / "c.yaml")
    assert (code, "no problems" in output) == (0, True)


def test_every_problem_is_listed_with_path_value_and_what_belongs_there(tmp_path: Path) -> None:
    bad = {**CONFIG, "storage": {**CONFIG["storage"], "sizeDefault": "huge"}, "images": {}}
    bad["stateSync"] = {"syncers": {"one": ["http://a.example:1", "b.example:1"]}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(bad), encoding="utf-8")
    code, output = _check(tmp_path / "c.yaml", "--output", "json")
    findings = {finding["path"]: finding for finding in json.loads(output)}
    assert code == 1
    assert {"storage.sizeDefault", "images.sidecar", "images.kubeRBACProxy", "images.cosmosExporter"} < set(findings)
    assert findings["storage.sizeDefault"]["value"] == "huge"
    assert findings["storage.sizeDefault"]["effect"] == "refuses to start"
    chain = next(finding for path, finding in findings.items() if path.startswith("stateSync.syncers.one"))
    assert chain["effect"] == "blocks the chain's nodes"
    assert "storage.sizeDefault" in _check(tmp_path / "c.yaml")[1]


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    code, output = _check(tmp_path / "nowhere.yaml", "--output", "json")
    assert code == 1
    assert [finding["expected"] for finding in json.loads(output)] == ["a file"]


def test_an_unknown_flag_exits_with_2_and_a_bad_start_with_1(tmp_path: Path) -> None:
    assert runner.invoke(app, ["controller", "--no-such-flag"]).exit_code == 2
    kubeconfig = tmp_path / "kc"
    kubeconfig.write_text("- 1", encoding="utf-8")
    assert runner.invoke(app, ["controller", f"--kubeconfig={kubeconfig}"]).exit_code == 1


def test_help_lists_the_flags() -> None:
    result = runner.invoke(app, ["controller", "--help"])
    assert result.exit_code == 0
    assert "-leader-elect" in result.output and "check-config" in result.output
