"""Merges patches into TOML files of the config folder, in seid's own spelling of keys (docs/contracts/sidecar.md 5.2).

No schema is involved, except for one trap: a state-commit write mode that seid would ignore is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seiops.seid.config import ConfigFiles, patch_file
from seiops.seid.editing import EditError, merge
from seiops.seid.quoting import quoted
from seiops.seid.reading import ReadError
from seiops.seid.schema import APP_TOML
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.config_files import config_files

_STATE_COMMIT = "state-commit"
_WRITE_MODE = "sc-write-mode"
_AUTOMATIC = "sc-write-mode-enable-auto"


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    patches = Decoder(params).object_map("files")
    if not patches:
        raise TaskError("config-patch: at least one file is required", retryable=False)
    for name in patches:
        _refuse_escaping(name)
    files = config_files(ctx)
    for name in sorted(patches):
        await ctx.blocking(_patch, files, name, patches[name])
        ctx.log.info("config file patched", extra={"attrs": {"file": name}})
    return None


def _refuse_escaping(name: str) -> None:
    """Only a plain `<name>.toml` inside the config folder may be named."""
    if Path(name).name != name or not name.endswith(".toml") or name.startswith(".") or "\0" in name:
        raise TaskError(
            f"config-patch: file name {quoted(name)} must be a plain name ending in .toml, without a path",
            retryable=False,
        )


def _patch(files: ConfigFiles, name: str, patch: dict[str, Any]) -> None:
    path = files.folder / name
    if name == APP_TOML and files.schema.pins_write_mode:
        _refuse_ineffective(path, patch)
    try:
        patch_file(path, patch)
    except (ReadError, EditError) as error:
        raise TaskError(f"config-patch {name}: {error}", retryable=False) from None
    except OSError as error:
        raise TaskError(f"config-patch {name}: {error}") from error


def _refuse_ineffective(path: Path, patch: Mapping[str, Any]) -> None:
    """A write mode without the switch that makes seid obey it leaves a node on the mode it had (seid-config.md 17a)."""
    changed = patch.get(_STATE_COMMIT)
    if not isinstance(changed, dict) or not changed.get(_WRITE_MODE):
        return
    present: dict[str, Any] = {}
    if path.exists():
        try:
            present = tomllib.loads(path.read_text())
        except (OSError, ValueError):
            return  # the patch itself reports it
    merged = merge(present.get(_STATE_COMMIT, {}), changed)
    if merged.get(_AUTOMATIC) is not False:
        raise TaskError(
            f"config-patch {path.name}: {_WRITE_MODE} = {quoted(str(changed[_WRITE_MODE]))} has no effect while "
            f"{_AUTOMATIC} is on; set {_AUTOMATIC} = false in the same patch",
            retryable=False,
        )
