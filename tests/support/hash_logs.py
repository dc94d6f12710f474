"""Hash logs as seid writes them, for any heights and engine, with planted differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write(path: Path, heights: range, *, engine: str = "flatKV/root", changed: dict[int, str] | None = None) -> Path:
    """Columns in an order of the engine's own."""
    order = ["block_number", "changeset", engine, "resultHash", "blockHash"]
    if engine.startswith("mem"):
        order = ["block_number", "blockHash", engine, "changeset", "resultHash"]
    lines = [",".join(order)]
    for height in heights:
        row = {"block_number": str(height), "changeset": f"{height:016x}", "resultHash": f"{height:064x}",
               "blockHash": f"{height * 7:064x}", engine: engine[:3]}  # fmt: skip
        if changed and height in changed:
            row[changed[height]] = "f" * 16
        lines.append(",".join(row[name] for name in order))
    path.write_text("\n".join(lines) + "\n")
    return path


def folder(path: Path, **given: Any) -> Path:
    path.mkdir()
    write(path / "0-1-40-unknown.hlog", range(1, 41), **given)
    write(path / "1-41-80-unknown.hlog", range(41, 81), **given)
    write(path / "2-unknown.hlog.u", range(80, 101), **given)
    return path
