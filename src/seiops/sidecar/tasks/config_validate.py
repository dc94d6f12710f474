"""Reads the node's two config files and says what is wrong with them (docs/contracts/sidecar.md 5.4)."""

from __future__ import annotations

from typing import Any

from seiops.seid.quoting import compact_json
from seiops.seid.reading import ReadError
from seiops.seid.schema import CURRENT_VERSION
from seiops.seid.validation import errors
from seiops.sidecar.task import Params, TaskContext, TaskError
from seiops.sidecar.tasks.config_files import config_files, log_warnings


async def run(ctx: TaskContext, params: Params) -> dict[str, Any] | None:
    try:
        values, findings = await ctx.blocking(config_files(ctx).validate)
    except ReadError as error:
        raise TaskError(f"config-validate: reading config: {error}", retryable=False) from None
    verdict: dict[str, Any] = {
        "valid": not errors(findings),
        "version": CURRENT_VERSION,
        "mode": values["mode"],
        "diagnostics": [finding.wire() for finding in findings],
    }
    if not verdict["valid"]:
        # an object here, an array in config-apply and config-reload: callers tell them apart by it
        raise TaskError(f"config validation failed: {compact_json(verdict)}", retryable=False)
    log_warnings(ctx.log, findings)
    ctx.log.info("config valid", extra={"attrs": {"mode": values["mode"], "findings": len(findings)}})
    return verdict
