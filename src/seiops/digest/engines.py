"""Choosing an engine by name."""

from __future__ import annotations

import importlib
import importlib.util
from enum import StrEnum

from seiops.digest.engine import Engine
from seiops.digest.errors import DigestError
from seiops.digest.reference import ReferenceEngine

NATIVE_MODULE = "seiops.digest.native"


class EngineName(StrEnum):
    AUTO = "auto"
    NATIVE = "native"
    REFERENCE = "reference"


def engine_named(name: str) -> Engine:
    """The engine of that name; `auto` is the native one where this installation has it, else the reference."""
    if name == EngineName.REFERENCE:
        return ReferenceEngine()
    if name not in list(EngineName):
        raise DigestError(f'unknown --engine "{name}" (want auto|native|reference)')
    if has_native():
        engine: Engine = importlib.import_module(NATIVE_MODULE).NativeEngine()
        return engine
    if name == EngineName.NATIVE:
        raise DigestError("--engine native: this installation has no native digest engine; use --engine reference")
    return ReferenceEngine()


def has_native() -> bool:
    return importlib.util.find_spec(NATIVE_MODULE) is not None
