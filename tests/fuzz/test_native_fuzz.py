"""Mutated real files through the kernel's Python face: whatever the bytes, an answer or a refusal, soon and in little memory.

A few seconds a kind of file; SEIOPS_FUZZ_SECONDS lengthens it. The deep search is cargo-fuzz on native/fuzz.
"""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from seiops.digest.engine import OpenOptions, ScanHooks
from seiops.digest.errors import DigestError
from seiops.digest.model import Normalization, OpenMode, Verification
from seiops.digest.native import NativeEngine
from support.digest_mutation import history, mutated
from support.digest_stores import BASE, History, write_flatkv_store, write_memiavl_store

SECONDS = float(os.environ.get("SEIOPS_FUZZ_SECONDS", "2"))
SLOWEST = 5.0
MEMORY = 600 << 10
"""Growth of the process a run may cause, KiB: blocks of tables are refused beyond 256 MiB."""
ENGINE = NativeEngine()


def memiavl(root: Path, threads: int) -> None:
    options = OpenOptions(Verification.FULL if threads == 2 else Verification.CHEAP, threads)
    for mode, height in ((OpenMode.SNAPSHOT, BASE), (OpenMode.REPLAY, 0), (OpenMode.REPLAY, BASE + 2)):
        store = ENGINE.open_memiavl(str(root), height, mode, options)
        store.digest([Normalization.SEMANTIC], ScanHooks())
        for _ in store.rows(sorted(store.shard_tree(Normalization.SEMANTIC), key=str), Normalization.TRANSLATOR):
            pass


def flatkv(root: Path, threads: int) -> None:
    options = OpenOptions(Verification.FULL if threads == 2 else Verification.CHEAP, threads)
    for height in (BASE, 0, BASE + 2):
        store = ENGINE.open_flatkv(str(root), height, options)
        store.digest(ScanHooks())
        store.migration_state()
        for _ in store.rows(sorted(store.shard_tree(), key=str)):
            pass


KINDS: dict[str, tuple[Callable[[Path, History], None], Callable[[Path, int], None], tuple[str, ...]]] = {
    "memiavl snapshot": (write_memiavl_store, memiavl, ("*/evm/*", "*/__metadata")),
    "memiavl changelog": (write_memiavl_store, memiavl, ("changelog/*",)),
    "tables": (write_flatkv_store, flatkv, ("*/*/*.sst",)),
    "manifests and logs": (write_flatkv_store, flatkv, ("*/*/MANIFEST-*", "*/*/*.log")),
    "state log": (write_flatkv_store, flatkv, ("changelog/*",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    write, read, patterns = KINDS[kind]
    seed = int(os.environ.get("SEIOPS_FUZZ_SEED", time.time_ns()))
    draw = random.Random(seed)
    root = tmp_path / "store"
    write(root, history(draw))
    paths = sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
    paths = [path for path in paths if not path.parent.is_symlink() and "current" not in path.parts]
    contents = {path: path.read_bytes() for path in paths}
    read(root, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end = time.monotonic() + SECONDS
    refused = runs = 0
    while time.monotonic() < end:
        path = draw.choice(paths)
        path.write_bytes(mutated(contents[path], contents[draw.choice(paths)], draw))
        began = time.process_time()
        try:
            read(root, draw.choice([1, 2]))
        except DigestError:
            refused += 1
        except BaseException:
            pytest.fail(f"seed {seed}, run {runs}: {path.relative_to(root)} brings the kernel down")
        assert time.process_time() - began < SLOWEST, f"seed {seed}, run {runs}: {path.relative_to(root)} is slow"
        path.write_bytes(contents[path])
        runs += 1
    assert refused > 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < MEMORY, f"seed {seed}: {grown} KiB more"
