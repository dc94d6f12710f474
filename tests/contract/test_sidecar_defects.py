"""Every registered defect of the Go sidecar has a row: fixed with a test, or kept with a reason."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "sidecar-defects.md").read_text()


def registered() -> set[str]:
    contract = (ROOT / "docs" / "contracts" / "sidecar.md").read_text()
    section = contract[contract.index("## 9. Defects") : contract.index("## 10. ")]
    return set(re.findall(r"^\| (D-\d+) \|", section, re.MULTILINE))


def listed() -> set[str]:
    first_cells = re.findall(r"^\| ([^|]*D-\d[^|]*) \|", PAGE, re.MULTILINE)
    found = {name for cell in first_cells for name in re.findall(r"D-\d+", cell)}
    for cell in first_cells:
        for first, last in re.findall(r"D-(\d+) to D-(\d+)", cell):
            found |= {f"D-{number}" for number in range(int(first), int(last) + 1)}
    return found


def test_every_registered_defect_has_a_row() -> None:
    assert len(registered()) > 60
    assert registered() - listed() == set()


def test_every_fixed_defect_names_a_test_and_a_place() -> None:
    fixed = PAGE[: PAGE.index("## Kept as")]
    for line in re.findall(r"^\| D-.*$", fixed, re.MULTILINE):
        _, name, where, test, _ = (cell.strip() for cell in line.split("|"))
        assert re.search(r"`tests/[\w/]+\.py", test), name
        for place in re.findall(r"`([\w/]+(?:\.py)?)`", where):
            path = ROOT / "src" / "seiops" / place
            assert path.exists() or ("/" not in place and place != "objectstore"), f"{name}: {place}"
