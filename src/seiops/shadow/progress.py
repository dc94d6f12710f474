"""How far a run has come, on disk: written whole, after the page it speaks of was stored (docs/contracts/shadow.md 4.2, 4.6).

Upstream keeps one file for every prefix, mode and task of a node; it is kept for whoever reads it. Ours is keyed by
bucket, prefix and mode, so that a second run does not continue where a first one stopped (D-14).
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from seiops.seid.files import write_atomic
from seiops.shadow.manifest import ChainHead

LEGACY_FILE = ".sei-sidecar-last-export.json"
SNAPSHOT_FILE = ".sei-sidecar-snapshot-height"
_OWN_FILES = ".sei-sidecar-export-*.json"
_HEIGHT = re.compile(r"[+-]?[0-9]+", re.ASCII)


class ProgressError(Exception):
    """A progress file says something no run can have written; names the file and what to do."""


@dataclass(frozen=True, slots=True)
class RunKey:
    """What makes two submissions the same run. `mode` is `export` or `compare`."""

    bucket: str
    prefix: str
    mode: str

    @property
    def file_name(self) -> str:
        text = "\0".join((self.bucket, self.prefix, self.mode))
        return f".sei-sidecar-export-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@dataclass(slots=True)
class Progress:
    """The own file of a run. `last`: the last height whose page is stored, None before the first.

    `counts` are the verdicts over all stored pages, so that totals survive a restart without counting anything twice.
    `undecided`: heights on them that a second pass may settle, each with its verdict; `rechecks`: objects the second pass
    has stored; `settled`: what it changed in the number of each verdict.
    """

    key: RunKey
    task_id: str = ""
    last: int | None = None
    first: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    pages: int = 0
    manifest: ChainHead = field(default_factory=ChainHead)
    undecided: dict[int, str] = field(default_factory=dict)
    rechecks: int = 0
    settled: dict[str, int] = field(default_factory=dict)

    @property
    def after_rechecks(self) -> dict[str, int]:
        """The verdicts with those of the second pass in the place of the ones they settled."""
        names = [*self.counts, *(name for name in self.settled if name not in self.counts)]
        return {name: self.counts.get(name, 0) + self.settled.get(name, 0) for name in names}


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins and why. `after_snapshot`: the height right above a restored snapshot, 0 when not known."""

    height: int
    progress: Progress
    after_snapshot: int = 0
    warning: str = ""


def load(home: Path, key: RunKey) -> Progress:
    """The own file, or a fresh one where there is none that can be read."""
    try:
        raw = json.loads((home / key.file_name).read_bytes())
    except (OSError, ValueError):
        return Progress(key)
    return _decode(raw, key) if isinstance(raw, dict) else Progress(key)


def _decode(raw: dict[str, Any], key: RunKey) -> Progress:
    head = raw.get("manifest")
    return Progress(
        key,
        task_id=str(raw.get("taskId", "")),
        last=_int_or_none(raw.get("lastHeight")),
        first=_int_or_none(raw.get("firstHeight")),
        counts=_numbers(raw.get("counts")),
        pages=_int_or_none(raw.get("pages")) or 0,
        manifest=ChainHead(str(head.get("run", "")), int(head.get("seq", 0)), str(head.get("sha256", "")))
        if isinstance(head, dict)
        else ChainHead(),
        undecided=_heights(raw.get("undecided")),
        rechecks=_int_or_none(raw.get("rechecks")) or 0,
        settled=_numbers(raw.get("settled")),
    )


def _numbers(value: Any) -> dict[str, int]:
    return {name: one for name, one in value.items() if isinstance(one, int)} if isinstance(value, dict) else {}


def _heights(value: Any) -> dict[int, str]:
    return (
        {int(height): str(one) for height, one in value.items() if height.isdigit()} if isinstance(value, dict) else {}
    )


def _int_or_none(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def save(home: Path, progress: Progress) -> None:
    """Writes the own file, and the shared one where a height was reached. Raises OSError."""
    own = {
        "bucket": progress.key.bucket,
        "prefix": progress.key.prefix,
        "mode": progress.key.mode,
        "taskId": progress.task_id,
        "firstHeight": progress.first,
        "lastHeight": progress.last,
        "counts": progress.counts,
        "pages": progress.pages,
        "manifest": asdict(progress.manifest),
        "undecided": progress.undecided,
        "rechecks": progress.rechecks,
        "settled": progress.settled,
    }
    path = home / progress.key.file_name
    write_atomic(path, json.dumps(own, separators=(",", ":")).encode(), prefix=f"{path.name}.tmp-")
    if progress.last is not None:
        shared = json.dumps({"lastExportedHeight": progress.last}, separators=(",", ":"))
        write_atomic(home / LEGACY_FILE, shared.encode(), prefix=f"{LEGACY_FILE}.tmp-")


def begin(home: Path, key: RunKey, *, asked: int | None) -> Start:
    """The first height of this run (docs/contracts/shadow.md 4.2, 4.6): its own progress, else the height asked for, else
    the shared file where no other run of ours wrote it, else the snapshot. Raises ProgressError.
    """
    progress = load(home, key)
    snapshot = _snapshot_height(home)
    after_snapshot = snapshot + 1 if snapshot > 0 else 0
    if progress.last is not None and (asked is None or progress.first == asked):
        return Start(progress.last + 1, progress, after_snapshot)
    if asked is not None:
        return Start(asked, _fresh(progress, asked), after_snapshot)
    legacy = _legacy_height(home)
    others = [path.name for path in home.glob(_OWN_FILES) if path.name != key.file_name]
    bottom = after_snapshot or 1
    if legacy is None:
        return Start(bottom, _fresh(progress, bottom), after_snapshot)
    if not others:
        return Start(legacy + 1, _fresh(progress, legacy + 1), after_snapshot)
    warning = (
        f"{LEGACY_FILE} says {legacy}, but that is the progress of another run ({others[0]}); this run starts at {bottom}, "
        "give startHeight to start elsewhere"
    )
    return Start(bottom, _fresh(progress, bottom), after_snapshot, warning)


def _fresh(progress: Progress, first: int) -> Progress:
    progress.first, progress.last, progress.counts, progress.pages = first, None, {}, 0
    # the number of rechecks goes on: it is part of their keys, and another run below this prefix may have used it
    progress.undecided, progress.settled = {}, {}
    return progress


def _legacy_height(home: Path) -> int | None:
    """None for a file that is missing, unreadable or no JSON object; raises ProgressError for an impossible height."""
    try:
        raw = json.loads((home / LEGACY_FILE).read_bytes())
    except (OSError, ValueError):
        return None
    height = _int_or_none(raw.get("lastExportedHeight", 0)) if isinstance(raw, dict) else None
    if height is not None and height < 0:
        raise ProgressError(f"{LEGACY_FILE} holds the height {height}; remove the file or give startHeight")
    return height


def _snapshot_height(home: Path) -> int:
    """The height a snapshot was restored at; 0 for none."""
    try:
        text = (home / SNAPSHOT_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return 0
    return max(int(text), 0) if _HEIGHT.fullmatch(text) else 0
