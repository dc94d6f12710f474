"""Texts that hold words of a foreign library: what follows is not contract, so it is not compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# golden flows README and controller-behaviour.md 1.6: the cause names upstream's internal types and its YAML library.
_PARSE_CAUSE = re.compile(r'(.*parsing controller config file "[^"]*": ).*', re.DOTALL)


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The document with every text in it changed; names of members stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: mapped(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [mapped(item, change) for item in value]
    return value


# Which name server was asked is of the machine (golden flows README, "Sidecar stand-in").
_NAME_SERVER = re.compile(r" on \S+:53(?=: no such host)")


def without_foreign_words(value: Any) -> Any:
    return mapped(value, lambda text: _NAME_SERVER.sub("", _PARSE_CAUSE.sub(r"\1<cause>", text)))


def names_refused_endpoint(text: str) -> bool:
    """Our own kind of cause, which the recordings do not have (ruling 10): what the list of differences may turn on."""
    return _PARSE_CAUSE.match(text) is not None and "expected a host:port text" in text
