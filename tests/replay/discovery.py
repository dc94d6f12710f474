"""Which cases a folder of recordings holds, for areas that no module runs yet: they are counted, not passed over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from replay.context import ReplayContext, iterate_jsonl


def cases(context: ReplayContext, area: str) -> Iterator[str]:
    folder = context.area_dir(area)
    finders = {
        "admission": _admission,
        "objects": case_folders,
        "flows": case_folders,
        "sidecar": _sidecar,
        "stores": _stores,
        "chain": _chain,
    }
    yield from finders[area](folder)


def case_folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def _admission(folder: Path) -> Iterator[str]:
    for line in iterate_jsonl(folder / "cases.jsonl"):
        yield f"{line['n']:03d}-{line['case']}"


def _sidecar(folder: Path) -> Iterator[str]:
    if (folder / "http.jsonl").is_file():
        for line in iterate_jsonl(folder / "http.jsonl"):
            yield f"http/{line['seq']:03d}"
    yield from (f"tasks/{path.stem}" for path in sorted((folder / "tasks").glob("*.json")))
    yield from (f"config/{path.name}" for path in sorted((folder / "config").glob("*")) if path.is_dir())


def _stores(folder: Path) -> Iterator[str]:
    for file in [folder / "expected.json", folder.parent / "chain" / "stores" / "expected.json"]:
        if not file.is_file():
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        for name, store in content.get("stores", {}).items():
            yield from (f"{name}/{index:02d}" for index in range(len(store["commands"])))
        for name, fixture in content.get("fixtures", {}).items():
            yield from (f"chain/{name}/{index:02d}" for index in range(len(fixture["cases"])))


def _chain(folder: Path) -> Iterator[str]:
    if not (folder / "pairs.json").is_file():
        return
    pairs = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
    listed = pairs if isinstance(pairs, list) else pairs.get("pairs", pairs)
    if isinstance(listed, dict):
        yield from listed
    else:
        yield from (
            str(pair.get("name", index)) if isinstance(pair, dict) else str(pair) for index, pair in enumerate(listed)
        )
