"""Renders the node's configuration from an intent, in full or over what is on disk (docs/contracts/sidecar.md 5.3).

A full apply replaces both files byte for byte as upstream renders them. An incremental one keeps comments, order and keys
the schema does not know.
"""

from __future__ import annotations

from typing import Any

from seiops.seid.config import ConfigFiles
from seiops.seid.intent import Intent, IntentError, Resolution, resolve, resolve_incremental
from seiops.seid.reading import ReadError
from seiops.seid.schema import Host
from seiops.sidecar.task import Decoder, Params, TaskContext, TaskError
from seiops.sidecar.tasks.config_files import config_files, log_warnings, validation_failure


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    decoder = Decoder(params)
    intent = Intent(
        mode=decoder.text("mode"),
        overrides=decoder.text_map("overrides"),
        target_version=decoder.integer("targetVersion"),
        incremental=decoder.flag("incremental"),
    )
    files = config_files(ctx)
    apply = _apply_incremental if intent.incremental else _apply_full
    resolution = await ctx.blocking(apply, files, intent)
    log_warnings(ctx.log, resolution.findings)
    attrs = {"mode": resolution.mode, "version": resolution.version, "incremental": intent.incremental}
    ctx.log.info("config applied", extra={"attrs": attrs})
    return None


def _apply_full(files: ConfigFiles, intent: Intent) -> Resolution:
    try:
        resolution = resolve(files.schema, intent, Host.current())
    except IntentError as error:
        raise TaskError(f"config-apply: {error}", retryable=False) from None
    if resolution.values is None:
        raise validation_failure(resolution.findings)
    try:
        files.write_full(resolution.values)
    except OSError as error:
        raise TaskError(f"config-apply: writing config to {files.folder}: {error}") from error
    return resolution


def _apply_incremental(files: ConfigFiles, intent: Intent) -> Resolution:
    try:
        current = files.read()
    except ReadError as error:
        raise TaskError(f"config-apply incremental: reading current config: {error}", retryable=False) from None
    try:
        resolution = resolve_incremental(files.schema, intent, current)
    except IntentError as error:
        raise TaskError(f"config-apply incremental: {error}", retryable=False) from None
    if resolution.values is None:
        raise validation_failure(resolution.findings)
    try:
        files.write_changes(resolution.values)
    except (OSError, ReadError) as error:
        raise TaskError(f"config-apply incremental: writing config: {error}") from error
    return resolution
