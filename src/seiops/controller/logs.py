"""Log lines as the Go controller writes them: one JSON object with level, ts, logger, msg and the rest."""

from __future__ import annotations

import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor

from seiops.controller.settings import Flags

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "error": logging.ERROR, "panic": logging.CRITICAL}


class _Named:
    """Writes lines to stderr and carries the name that `structlog.get_logger` was called with."""

    def __init__(self, name: str = "", stream: TextIO | None = None) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()

    debug = info = warning = error = critical = exception = msg


def configure(flags: Flags) -> None:
    """Sets up logging for the process from the `--zap-*` flags."""
    level = flags.zap_log_level or ("debug" if flags.zap_devel else "info")
    encoder = flags.zap_encoder or ("console" if flags.zap_devel else "json")
    # A number raises the verbosity; everything above info is debug here.
    threshold = _LEVELS.get(level, logging.DEBUG)
    shown: Processor = structlog.dev.ConsoleRenderer(colors=False) if encoder == "console" else _as_json
    structlog.configure(
        processors=[
            structlog.stdlib.add_logger_name,
            structlog.processors.add_log_level,
            _Stamp(flags.zap_time_encoding or ("iso8601" if flags.zap_devel else "epoch")),
            structlog.processors.format_exc_info,
            shown,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=_Named,
        cache_logger_on_first_use=True,
    )


class _Stamp:
    """Adds `ts` in one of zap's encodings."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        event["ts"] = self._now()
        return event

    def _now(self) -> float | int | str:
        now = time.time()
        match self._encoding:
            case "millis":
                return now * 1e3
            case "nano":
                return time.time_ns()
            case "iso8601" | "rfc3339" | "rfc3339nano":
                return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            case _:
                return now


def _as_json(_: Any, __: str, event: EventDict) -> str:
    head = {"level": event.pop("level"), "ts": event.pop("ts")}
    name = event.pop("logger", "")
    if name:
        head["logger"] = name
    head["msg"] = event.pop("event")
    return orjson.dumps({**head, **event}, default=str).decode()
