"""Fresh copies of the recorded stores of tests/data/digest."""

from __future__ import annotations

from pathlib import Path

from replay.stores import Store, unpack


class Unpacker:
    """`unpacked("tiny")` is a folder with the directories MEMDIR and FLATDIR of that store."""

    def __init__(self, recorded: dict[str, Store], target: Path) -> None:
        self._recorded = recorded
        self._target = target

    def __call__(self, name: str) -> Path:
        folder = self._target / name
        return folder if folder.is_dir() else unpack(self._recorded[name], self._target / name)
