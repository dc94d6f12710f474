"""A divergence report in Markdown as what its readers rely on: headings, tables and bold labels (docs/contracts/shadow.md 7.4).

The prose around them is free and left out. Cells that upstream shortens stand in full in ours; that is marked, not forgiven.
"""

from __future__ import annotations

import re
from typing import Any

IN_FULL = "<in full>"
_SHORTENED = re.compile(r"(.{8})\.\.\.(.{4})")
_LABEL = re.compile(r"\*\*([^*]+):\*\*\s*([^*]*)")
_BARE_LABEL = re.compile(r"\*\*([^*:]+)\*\*(.*)")
_ESCAPED = re.compile(r"\\([\\|`])")

Section = dict[str, Any]


def beside(recorded: str, produced: str) -> tuple[dict[str, Section], dict[str, Section]]:
    """Both reports, heading to its section; where ours holds in full what the recording shortens, its cell says so."""
    left, right = sections(recorded), sections(produced, escaped=True)
    for heading in left.keys() & right.keys():
        rows = zip(left[heading]["rows"], right[heading]["rows"], strict=False)
        for theirs, ours in rows:
            for name in theirs.keys() & ours.keys():
                short = _SHORTENED.fullmatch(theirs[name])
                full = ours[name]
                if short and len(full) > 16 and full.startswith(short[1]) and full.endswith(short[2]):
                    ours[name] = IN_FULL
    return left, right


def sections(text: str, *, escaped: bool = False) -> dict[str, Section]:
    """Heading (with its `#`) to `place` (its number), `labels`, `head` and `rows` of its table. `escaped`: cells are."""
    found: dict[str, Section] = {}
    section = _section(0)
    for line in text.splitlines():
        if line.startswith("#"):
            section = found.setdefault(line, _section(len(found)))
        elif line.startswith("|"):
            _row(section, line.strip().removeprefix("|").removesuffix("|"), escaped)
        elif bare := _BARE_LABEL.match(line):
            # the words between the label and the error behind the first colon are prose
            section["labels"][bare[1]] = bare[2].partition(": ")[2].strip()
        else:
            section["labels"] |= {name: value.replace("&nbsp;", "").strip() for name, value in _LABEL.findall(line)}
    return found


def _section(place: int) -> Section:
    return {"place": place, "labels": {}, "head": [], "rows": []}


def _row(section: Section, inner: str, escaped: bool) -> None:
    if not inner.strip("-|"):
        return
    cells = [_plain(cell.strip()) if escaped else cell.strip() for cell in inner.split(" | ")]
    if not section["head"]:
        section["head"] = cells
    else:
        names = [*section["head"], *(f"broken {number}" for number in range(len(cells) - len(section["head"])))]
        section["rows"].append(dict(zip(names, cells, strict=False)))


def _plain(cell: str) -> str:
    return _ESCAPED.sub(r"\1", cell.replace("&lt;", "<"))
