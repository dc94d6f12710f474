"""Names in the snapshot bucket and in the snapshot folder, common to upload and restore (docs/contracts/sidecar.md 5.20, 6.2)."""

from __future__ import annotations

import re
from pathlib import Path

from seiops.objectstore import Store
from seiops.sidecar.settings import Settings
from seiops.sidecar.tasks.buckets import open_bucket

CHECKSUM_SUFFIX = ".sha256"
"""Beside an archive: SHA-256 of its bytes, lower-case hex."""
SIZE_SUFFIX = ".size"
"""Beside an archive: bytes of its content once unpacked, decimal."""
HIGHEST = 2**63 - 1
_ARCHIVE = re.compile(r"/(\d+)\.tar\.gz$", re.ASCII)


def prefix(chain_id: str) -> str:
    return f"{chain_id}/state-sync/"


def archive_key(chain_id: str, height: int) -> str:
    return f"{prefix(chain_id)}{height}.tar.gz"


def archive_height(key: str) -> int:
    """The height in an archive's key, 0 for any other key."""
    found = _ARCHIVE.search(key)
    return (_height(found.group(1)) or 0) if found else 0


def open_snapshots(settings: Settings, *, role: str) -> Store:
    return open_bucket(settings.snapshot_bucket, settings.snapshot_region, role=role)


def snapshot_folder(home: Path) -> Path:
    return home / "data" / "snapshots"


def local_heights(folder: Path) -> list[int]:
    """Heights of the snapshots on disk, ascending; none without a folder. Raises OSError."""
    try:
        names = [entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except FileNotFoundError:
        return []
    heights = (_height(name) for name in names if name.isascii() and name.isdecimal())
    return sorted(height for height in heights if height is not None)


def _height(digits: str) -> int | None:
    """None for what is beyond any height."""
    height = int(digits) if len(digits) < 64 else None
    return None if height is None or height > HIGHEST else height
