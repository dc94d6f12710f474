"""What the node remembers of its last snapshot upload (docs/contracts/sidecar.md 5.20.2); read at start-up and by uploads."""

from __future__ import annotations

from pathlib import Path

from seiops.sidecar import wirejson

STATE_FILE = ".sei-sidecar-last-upload.json"


def read_upload_state(home: Path) -> tuple[int, int]:
    """(height, seconds since the epoch) of the last recorded upload; zeros where the record is missing or damaged."""
    try:
        state = wirejson.decode_document((home / STATE_FILE).read_bytes())
        height, moment = (wirejson.member(state, name) or 0 for name in ("lastUploadedHeight", "lastUploadedAt"))
    except (OSError, wirejson.JsonError):
        return 0, 0
    return (height, moment) if _is_count(height) and _is_count(moment) else (0, 0)


def _is_count(value: object) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63
