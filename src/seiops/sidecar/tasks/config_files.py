"""The config folder as the configuration tasks see it, and the wire form of what validation finds."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from seiops.seid.config import ConfigFiles
from seiops.seid.quoting import compact_json
from seiops.seid.schema import DEFAULT_PROFILE, load_schema
from seiops.seid.validation import WARNING, Finding
from seiops.sidecar.task import TaskContext, TaskError


def config_files(ctx: TaskContext) -> ConfigFiles:
    """The node's files under the schema profile that SEI_SIDECAR_CONFIG_PROFILE chose at the start."""
    return ConfigFiles(load_schema(ctx.settings.config_profile or DEFAULT_PROFILE), ctx.config_dir)


def validation_failure(findings: Iterable[Finding]) -> TaskError:
    """The array form of docs/contracts/sidecar.md 5.3: all findings, warnings too."""
    listed = compact_json([finding.wire() for finding in findings])
    return TaskError(f"config validation failed: {listed}", retryable=False)


def log_warnings(log: logging.Logger, findings: Iterable[Finding]) -> None:
    for finding in findings:
        if finding.severity == WARNING:
            log.warning("config warning", extra={"attrs": {"field": finding.field, "message": finding.message}})
