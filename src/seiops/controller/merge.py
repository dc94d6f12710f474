"""The JSON merge patch that turns one document into another (RFC 7386)."""

from __future__ import annotations

from typing import Any


def merge_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Fields that are gone become null; lists are replaced whole. Empty if nothing differs."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before:
            patch[name] = value
        elif isinstance(value, dict) and isinstance(before[name], dict):
            inner = merge_patch(before[name], value)
            if inner:
                patch[name] = inner
        elif value != before[name]:
            patch[name] = value
    return patch
