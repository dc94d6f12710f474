"""Recorded stores and vectors of tests/data/digest, laid out as the replay harness expects recordings."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import zstandard

from replay.context import ReplayContext
from replay.differences import DifferenceBook
from replay.stores import Store, read_stores
from support.digest_recorded import Unpacker

DATA = Path(__file__).resolve().parents[2] / "data" / "digest"


def decompressed(name: str) -> bytes:
    return zstandard.ZstdDecompressor().decompress((DATA / name).read_bytes(), max_output_size=1 << 26)


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of recordings made of our own copies."""
    root = tmp_path_factory.mktemp("golden")
    stores = root / "stores"
    stores.mkdir()
    (stores / "expected.json").write_bytes(decompressed("expected.json.zst"))
    (root / "digest-vectors.json").write_bytes(decompressed("digest-vectors.json.zst"))
    for archive in DATA.glob("*.tar.zst"):
        shutil.copy(archive, stores)
    return root


@pytest.fixture(scope="session")
def context(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> ReplayContext:
    return ReplayContext(golden, DifferenceBook.load(), tmp_path_factory.mktemp("scratch"))


@pytest.fixture(scope="session")
def recorded(context: ReplayContext) -> dict[str, Store]:
    return {store.name: store for store in read_stores(context)}


@pytest.fixture
def unpacked(recorded: dict[str, Store], tmp_path: Path) -> Unpacker:
    return Unpacker(recorded, tmp_path)
