"""What the Dockerfile promises to the manifests. It is not built here: that needs a container engine."""

import re
import subprocess
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
STAGES = re.split(r"^FROM ", TEXT, flags=re.MULTILINE)[1:]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
MANAGER = yaml.safe_load((ROOT / "deploy/manager/deployment.yaml").read_text())["spec"]["template"]["spec"]


def copied() -> list[str]:
    """Sources of every COPY that come from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", TEXT, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in copied():
        assert (ROOT / source).exists(), source
        assert source in let_in, source


def test_every_member_of_the_workspace_is_copied() -> None:
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    assert set(members) <= set(copied())


def test_the_tool_that_builds_is_pinned_with_its_hashes() -> None:
    (command,) = re.findall(r"(sed -n '.*?') requirements-dev.txt", TEXT)
    found = subprocess.run(
        ["/bin/sh", "-c", f"{command} requirements-dev.txt"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert found[0].startswith("maturin==")
    assert all(line.strip().startswith("--hash=sha256:") for line in found[1:])
    assert len(found) > 5 and not found[-1].endswith("\\")


def test_it_runs_as_the_deployment_says() -> None:
    user = f"{MANAGER['securityContext']['runAsUser']}:{MANAGER['securityContext']['runAsGroup']}"
    assert f"USER {user}" in STAGES[-1]
    (container,) = MANAGER["containers"]
    program, _, module = container["command"]
    assert program == "python" and "PATH=/opt/seiops/bin:$PATH" in STAGES[-1]
    assert (ROOT / "src" / module.replace(".", "/") / "__main__.py").is_file()


def test_the_names_that_run_in_it_are_installed() -> None:
    (entry,) = re.findall(r'^ENTRYPOINT \["(\w+)"\]', STAGES[-1], re.MULTILINE)
    assert entry in SCRIPTS
    # The Pod template runs `seictl serve`.
    assert "seictl" in SCRIPTS


def test_bases_are_named_with_a_version_and_stages_exist() -> None:
    names = {stage.split(" AS ")[1].split()[0] for stage in STAGES if " AS " in stage.splitlines()[0]}
    for stage in STAGES:
        assert re.match(r"[\w./-]+:\d", stage), stage.splitlines()[0]
    assert set(re.findall(r"--from=(\w+)", TEXT)) <= names


def test_the_wheel_needs_no_newer_python_than_the_image_has() -> None:
    version = re.match(r"python:(\d+)\.(\d+)", STAGES[-1])
    assert version is not None and (int(version[1]), int(version[2])) >= (3, 11)
    assert "abi3-py311" in (ROOT / "native/Cargo.toml").read_text()
