"""The targets of tests/fuzz/atheris with plain mutations of good inputs: part of a second each, without coverage guidance.

SEIOPS_FUZZ_SECONDS lengthens it, SEIOPS_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from support.digest_mutation import history, mutated
from support.digest_stores import write_flatkv_store, write_memiavl_store

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE / "atheris")]

import digest_seeds  # noqa: E402
import targets  # noqa: E402

SECONDS = float(os.environ.get("SEIOPS_FUZZ_SECONDS", "0.3"))
SLOWEST = 5.0


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    root = tmp_path_factory.mktemp("seeds")
    made = history(random.Random(1))
    write_memiavl_store(root / "memiavl", made)
    write_flatkv_store(root / "flatkv", made)
    found: dict[str, list[bytes]] = defaultdict(list)
    inputs = digest_seeds.texts()
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            inputs += digest_seeds.inputs_of(path)
    for target, data in inputs:
        found[target].append(data)
    return found


@pytest.mark.parametrize("name", targets.TARGETS)
def test_any_bytes_are_read_or_refused(name: str, seeds: dict[str, list[bytes]]) -> None:
    target = targets.TARGETS[name]
    seed = int(os.environ.get("SEIOPS_FUZZ_SEED", time.time_ns()))
    draw = random.Random(seed)
    end = time.monotonic() + SECONDS
    runs = 0
    with targets.trusted_checksums():
        for data in seeds[name]:
            target(data)
        while time.monotonic() < end:
            data = mutated(draw.choice(seeds[name]), draw.choice(seeds[name]), draw)
            began = time.process_time()
            try:
                target(data)
            except Exception as error:
                pytest.fail(f"seed {seed}, run {runs}: {data[:2000]!r}: {error!r}")
            assert time.process_time() - began < SLOWEST, f"seed {seed}, run {runs} is slow"
            runs += 1
    assert runs > 0
