"""The one command line finds its commands, and imports only the one it runs."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from seiops.cli.main import COMMANDS, app
from support.command import command_environment


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_list_exists_and_explains_itself(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert len(done.output) > 100


def test_the_overview_names_every_command() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for name in COMMANDS:
        assert f" {name} " in done.output


def test_an_unknown_command_is_an_error_that_names_it() -> None:
    done = CliRunner().invoke(app, ["nodse"])
    assert done.exit_code == 2
    assert "nodse" in done.output


def test_the_digest_does_not_wait_for_the_operator_s_libraries() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from seiops.cli.main import app; "
        "CliRunner().invoke(app, ['digest', '--help']); "
        "print(sorted(name for name in ('aiohttp', 'seiops.kube', 'seiops.controller') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=command_environment(), capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
