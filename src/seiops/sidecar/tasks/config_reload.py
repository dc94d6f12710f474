"""Changes the keys that may change on a running node (docs/contracts/sidecar.md 5.5).

Only the files change: seid has no signal to read them again, so the new values count from its next start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seiops.seid.config import ConfigFiles
from seiops.seid.intent import Intent, IntentError, resolve_incremental
from seiops.seid.quoting import quoted
from seiops.seid.reading import ReadError
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.config_files import config_files, validation_failure


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    fields = Decoder(params).text_map("fields")
    if not fields:
        raise TaskError("config-reload: at least one field is required", retryable=False)
    files = config_files(ctx)
    _refuse_cold(files, fields)
    await ctx.blocking(_reload, files, fields)
    ctx.log.info("config files changed; seid reads them at its next start", extra={"attrs": {"fields": sorted(fields)}})
    return None


def _refuse_cold(files: ConfigFiles, fields: Mapping[str, str]) -> None:
    known = files.schema.fields
    for key in sorted(fields):
        if key not in known:
            raise TaskError(f"config-reload: unknown field {quoted(key)}", retryable=False)
    cold = [key for key in sorted(fields) if not known[key].hot_reload]
    if cold:
        raise TaskError(
            f"config-reload: fields [{' '.join(cold)}] are not hot-reloadable and require a restart", retryable=False
        )


def _reload(files: ConfigFiles, fields: Mapping[str, str]) -> None:
    try:
        current = files.read()
    except ReadError as error:
        raise TaskError(f"config-reload: reading config: {error}", retryable=False) from None
    try:
        resolution = resolve_incremental(files.schema, Intent(overrides=fields), current)
    except IntentError as error:
        reason = str(error).removeprefix("applying incremental overrides: ")
        raise TaskError(f"config-reload: applying fields: {reason}", retryable=False) from None
    if resolution.values is None:
        raise validation_failure(resolution.findings)
    try:
        files.write_changes(resolution.values)
    except (OSError, ReadError) as error:
        raise TaskError(f"config-reload: writing config: {error}") from error
