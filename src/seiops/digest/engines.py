"""Choosing an engine by name, or by the size of the stores."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TypeVar

from seiops.digest.engine import Engine
from seiops.digest.errors import DigestError, ReferenceOnlyError
from seiops.digest.reference import ReferenceEngine

T = TypeVar("T")
NATIVE_MODULE = "seiops.digest.native"
SMALL_STORE_BYTES = 64 * 1024 * 1024


class EngineName(StrEnum):
    AUTO = "auto"
    NATIVE = "native"
    REFERENCE = "reference"


def engine_named(name: str, roots: Sequence[str] = ()) -> Engine:
    """The engine of that name.

    `auto` takes the native one where this installation has it and the stores below `roots` are worth it: a small store
    is read in a second or two either way, and the reference engine tells damage in seidb's exact words.
    """
    if name not in list(EngineName):
        raise DigestError(f'unknown --engine "{name}" (want auto|native|reference)')
    if name == EngineName.NATIVE and not has_native():
        raise DigestError("--engine native: this installation has no native digest engine; use --engine reference")
    if name == EngineName.REFERENCE or not has_native():
        return ReferenceEngine()
    if name == EngineName.AUTO and all(_is_small(root) for root in roots if root):
        return ReferenceEngine()
    engine: Engine = importlib.import_module(NATIVE_MODULE).NativeEngine()
    return engine


def with_engine(name: str, roots: Sequence[str], run: Callable[[Engine], T]) -> T:
    """Run something on the engine of that name; where `auto` chose the native one and it declines a store, on the reference."""
    engine = engine_named(name, roots)
    try:
        return run(engine)
    except ReferenceOnlyError:
        if name != EngineName.AUTO:
            raise
        return run(ReferenceEngine())


def has_native() -> bool:
    return importlib.util.find_spec(NATIVE_MODULE) is not None


def _is_small(root: str) -> bool:
    """Whether everything below a store's root is less than SMALL_STORE_BYTES; stops counting at the limit."""
    total = 0
    for directory, _, files in os.walk(root):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118
            except FileNotFoundError:
                continue
            if total >= SMALL_STORE_BYTES:
                return False
    return True
