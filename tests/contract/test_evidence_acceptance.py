"""Every item of the acceptance checklist has a row that names the tests which show it, and no row speaks of anything else.

That the named tests exist is held for all pages by `test_docs.py`.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CHECKLIST = re.compile(r"### 10\.3 Acceptance checklist.*?\n(.*?)\n---", re.DOTALL)
AREA = re.compile(r"^([A-Z]\w+): (.*)\.$", re.MULTILINE)


def items() -> list[tuple[str, str]]:
    """Area and text of each item; a semicolon inside brackets divides nothing."""
    section = CHECKLIST.search((ROOT / "docs" / "contracts" / "shadow.md").read_text())
    assert section is not None
    found = []
    for area, text in AREA.findall(section[1]):
        found += [(area, item.strip().replace("**", "")) for item in re.split(r";(?![^()]*\))", text)]
    return found


def rows() -> list[tuple[str, str, str]]:
    text = (ROOT / "docs" / "evidence-acceptance.md").read_text()
    area, found = "", []
    for line in text.splitlines():
        if line.startswith("## "):
            area = line[3:]
        elif area and line.startswith("| ") and not line.startswith("| Demand"):
            demand, tests = (cell.strip() for cell in line.strip("|").split(" | "))
            found.append((area, demand.strip(), tests))
    return found


def test_checklist_is_read_whole() -> None:
    assert {area for area, _ in items()} == {"RPC", "Comparator", "Keys", "Export", "Loop", "Digest", "CLI"}
    assert len(items()) > 60


def test_every_item_has_its_row_and_every_row_its_item() -> None:
    assert [(area, demand) for area, demand, _ in rows()] == items()


def test_every_row_names_a_test() -> None:
    for area, demand, tests in rows():
        assert re.search(r"`tests/[\w/]+\.py::test_\w+`", tests), (area, demand)
