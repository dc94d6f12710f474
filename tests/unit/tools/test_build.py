"""Obtaining the servers: cached, atomic, one builder at a time, and a sentence for each thing that can be missing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seidev import build
from seidev.processes import ToolError, module_environment
from support.waiting import until

# Answers like Go as far as the builder asks; `build` takes as long as the file `slow` exists and counts its runs.
_GO = """#!/bin/sh
state={state}
case "$1" in
env) [ -f $state/old ] && echo go1.20.1 || echo go1.26.1; echo linux; echo amd64 ;;
list) [ -f $state/offline ] && {{ echo "dial tcp: lookup proxy: no such host"; exit 1; }}; echo a; echo b ;;
build)
  echo run >> $state/runs
  while [ -f $state/slow ]; do sleep 0.05; done
  while [ "$1" != "-o" ]; do shift; done
  printf '#!/bin/sh\\n' > "$2"; chmod +x "$2" ;;
esac
"""


class World:
    """A machine with a pretended Go and a cache of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state = root / "state"
        self.state.mkdir()
        self.bin = root / "bin"
        self.bin.mkdir()
        go = self.bin / "go"
        go.write_text(_GO.format(state=self.state))
        go.chmod(0o755)

    def flag(self, name: str) -> Path:
        path = self.state / name
        path.touch()
        return path

    @property
    def runs(self) -> int:
        path = self.state / "runs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def cache(self) -> Path:
        return self.root / "cache" / "seiops" / "tools"

    def builder(self) -> "subprocess.Popen[str]":
        """Another process that wants the servers too."""
        program = "from seidev import build; print(build.obtain(build.SERVERS))"
        return subprocess.Popen(
            [sys.executable, "-c", program],
            env=module_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)
    monkeypatch.setenv("PATH", f"{world.bin}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return world


def test_programs_are_built_once_and_found_again(world: World) -> None:
    programs = build.kubernetes_programs()
    assert build.kubernetes_programs() == programs
    assert world.runs == 1
    assert all(
        os.access(path, os.X_OK)
        for path in (programs.etcd, programs.api_server, programs.controller_manager, programs.kubectl)
    )
    assert programs.etcd.parent.parent == world.cache


def test_two_builders_build_once(world: World) -> None:
    slow = world.flag("slow")
    builders = [world.builder(), world.builder()]
    until(lambda: world.runs == 1)
    slow.unlink()
    outputs = [builder.communicate(timeout=60)[0] for builder in builders]
    assert outputs[0] == outputs[1] != ""
    assert world.runs == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_interrupted_build_leaves_room_for_a_second_try(world: World, number: signal.Signals) -> None:
    slow = world.flag("slow")
    builder = world.builder()
    until(lambda: world.runs == 1)
    builder.send_signal(number)
    builder.communicate(timeout=60)
    assert not [path for path in world.cache.iterdir() if path.name.startswith("servers-")]
    slow.unlink()
    build.obtain(build.SERVERS)
    assert world.runs == 2
    assert not list(world.cache.glob(".*.partial"))


def test_missing_go_is_told_with_what_to_do(world: World) -> None:
    (world.bin / "go").unlink()
    with pytest.raises(ToolError, match=r"Go toolchain was not found.*install Go 1\.25.*KUBEBUILDER_ASSETS"):
        build.obtain(build.SERVERS)


def test_finished_build_is_used_without_go(world: World) -> None:
    directory = build.obtain(build.SERVERS)
    (world.bin / "go").unlink()
    assert build.obtain(build.SERVERS) == directory


def test_old_go_is_named(world: World) -> None:
    world.flag("old")
    with pytest.raises(ToolError, match=r"go1\.20\.1 is too old: install Go 1\.25"):
        build.obtain(build.SERVERS)


def test_unreachable_modules_are_told_as_such(world: World) -> None:
    world.flag("offline")
    with pytest.raises(ToolError, match="modules could not be fetched: check the network"):
        build.obtain(build.SERVERS)


def test_given_assets_are_used_and_what_they_lack_is_built(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    with pytest.raises(ToolError, match=r"has no executable etcd"):
        build.kubernetes_programs()
    for name in ("etcd", "kube-apiserver", "kubectl"):
        (assets / name).write_text("#!/bin/sh\n")
        (assets / name).chmod(0o755)
    programs = build.kubernetes_programs()
    assert (programs.etcd, programs.kubectl) == (assets / "etcd", assets / "kubectl")
    assert programs.controller_manager.parent.parent == world.cache
