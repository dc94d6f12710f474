"""Log lines as operators grep them: `time=... level=INFO msg="..." logger=... key=value` or the same as JSON.

Attributes travel in `extra={"attrs": {...}}` and keep their order (docs/contracts/sidecar.md 1.7).
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson

from seiops.seid.quoting import quoted
from seiops.sidecar import clock

ROOT = "seictl"
_LEVEL = re.compile(r"(debug|info|warn|error)([+-]\d+)?", re.IGNORECASE)
# The log library of operators' other tools spaces its levels by four; ours by ten.
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_NAMES = {logging.WARNING: "WARN", logging.CRITICAL: "ERROR"}


def logger(name: str) -> logging.Logger:
    """The logger shown as `seictl/<name>`."""
    return logging.getLogger(f"{ROOT}.{name}")


def configure(environment: Mapping[str, str]) -> None:
    """Points all loggers where SEI_LOG_OUTPUT says. An unusable value warns on stderr and falls back to stdout."""
    stream: TextIO = sys.stdout
    try:
        stream = _output(environment.get("SEI_LOG_OUTPUT", "stdout") or "stdout")
    except (OSError, ValueError) as error:
        print(f"seilog: falling back to stdout: failed to open log output: seilog: {error}", file=sys.stderr)
    handler = logging.StreamHandler(stream)
    with_source = environment.get("SEI_LOG_ADD_SOURCE", "").lower() in ("1", "t", "true")
    as_json = environment.get("SEI_LOG_FORMAT", "").lower() == "json"
    handler.setFormatter(JsonLines(with_source) if as_json else TextLines(with_source))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(_level(environment.get("SEI_LOG_LEVEL", "")))
    logging.captureWarnings(True)


class TextLines(logging.Formatter):
    def __init__(self, with_source: bool) -> None:
        super().__init__()
        self._with_source = with_source

    def format(self, record: logging.LogRecord) -> str:
        moment = (
            datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )
        parts = [f"time={moment}", f"level={_level_name(record)}"]
        if self._with_source:
            parts.append(f"source={_source(record)}")
        parts += [f"msg={_text_value(record.getMessage())}", f"logger={_text_value(_logger_name(record))}"]
        parts += [f"{key}={_text_value(_plain(value))}" for key, value in _attributes(record).items()]
        return " ".join(parts)


class JsonLines(logging.Formatter):
    def __init__(self, with_source: bool) -> None:
        super().__init__()
        self._with_source = with_source

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": clock.to_text(int(record.created * 1e9)), "level": _level_name(record)}
        if self._with_source:
            line["source"] = _source(record)
        line["msg"] = record.getMessage()
        line["logger"] = _logger_name(record)
        line.update(_attributes(record))
        return orjson.dumps(line, default=str).decode()


def _attributes(record: logging.LogRecord) -> dict[str, Any]:
    attributes = dict(getattr(record, "attrs", None) or {})
    if record.exc_info and "stack" not in attributes:
        attributes["stack"] = logging.Formatter().formatException(record.exc_info)
    return attributes


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(str(item) for item in value) + "]"
    return str(value)


def _text_value(text: str) -> str:
    bare = text and all(character.isprintable() and character not in ' ="' for character in text)
    return text if bare else quoted(text)


def _logger_name(record: logging.LogRecord) -> str:
    return record.name.replace(".", "/") if record.name.startswith(ROOT) else record.name


def _level_name(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname)


def _source(record: logging.LogRecord) -> str:
    return f"{record.pathname}:{record.lineno}"


def _level(raw: str) -> int:
    match = _LEVEL.fullmatch(raw.strip())
    if match is None:
        return logging.INFO
    return _LEVELS[match[1].lower()] + round(int(match[2] or 0) * 2.5)


def _output(target: str) -> TextIO:
    if target in ("stdout", "stderr"):
        return sys.stdout if target == "stdout" else sys.stderr
    path = Path(target)
    if not path.is_absolute():
        raise ValueError(f"log file path must be absolute, got {quoted(target)}")
    if ".." in path.parts:
        raise ValueError(f"log file path must not contain '..', got {quoted(target)}")
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"log file path must be a regular file, got {quoted(target)}")
    return os.fdopen(descriptor, "a", buffering=1)
