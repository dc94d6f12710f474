"""The documentation keeps its word: links lead somewhere, every promise's test exists, every command is one of ours."""

import re
from pathlib import Path

import pytest

from seiops.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
NAMES = [page.name for page in PAGES]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_tests_that_prove_a_promise_exist(page: Path) -> None:
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert (ROOT / file).is_file(), file
        assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_of_ours_exist(page: Path) -> None:
    code = " ; ".join(re.findall(r"^```.*?^```|`[^`\n]+`", page.read_text(), re.MULTILINE | re.DOTALL))
    for command in re.findall(r"(?:^|`|&& |; )(?:seiops|kubectl sei) ([a-z-]+)", code, re.MULTILINE):
        assert command in COMMANDS, command


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_paths_of_the_repository_exist(page: Path) -> None:
    for path in re.findall(r"`(deploy/[\w./-]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for name in NAMES:
        assert name == "index.md" or f"]({name})" in index, name


def test_pages_that_promise_something_name_a_test() -> None:
    for name in ("state-sync.md", "failure-modes.md", "security.md", "takeover.md", "install.md", "peering.md"):
        assert "::test_" in (ROOT / "docs" / name).read_text(), name
