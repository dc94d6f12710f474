"""Upload and restore against the real S3 server: multipart, ranges, and answers of S3's own."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from sidecar_context import ContextFactory

from seidev.s3 import Bucket
from seiops.sidecar.task import TaskError
from seiops.sidecar.tasks import configure_genesis, snapshot_restore, snapshot_upload_once

BIG = 40 << 20


@pytest.fixture
def buckets(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    region = s3.env["AWS_REGION"]
    return {
        "SEI_SNAPSHOT_BUCKET": s3.name,
        "SEI_SNAPSHOT_REGION": region,
        "SEI_GENESIS_BUCKET": s3.name,
        "SEI_GENESIS_REGION": region,
    }


def take(home: Path) -> str:
    """Two snapshots, the older one large and incompressible; the digest of its chunk."""
    snapshots = home / "data" / "snapshots"
    (snapshots / "1000" / "1").mkdir(parents=True)
    (snapshots / "2000").mkdir()
    digest = hashlib.sha256()
    with (snapshots / "1000" / "1" / "0").open("wb") as file:
        for _ in range(BIG >> 20):
            block = os.urandom(1 << 20)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def drop(home: Path) -> None:
    shutil.rmtree(home / "data" / "snapshots")


def restored(home: Path) -> str:
    return hashlib.sha256((home / "data" / "snapshots" / "1000" / "1" / "0").read_bytes()).hexdigest()


async def test_a_large_snapshot_there_and_back(
    context: ContextFactory, home: Path, s3: Bucket, buckets: dict[str, str]
) -> None:
    digest = take(home)
    result = await snapshot_upload_once.run(context(**buckets), {})
    assert result is not None
    assert result["outcome"] == "uploaded"
    key = "golden-1/state-sync/1000.tar.gz"
    assert s3.keys() == [
        "golden-1/state-sync/1000.tar.gz",
        f"{key}.sha256",
        f"{key}.size",
        "golden-1/state-sync/latest.txt",
    ]
    assert s3.read(f"{key}.sha256").decode() == hashlib.sha256(s3.read(key)).hexdigest()
    drop(home)
    back = await snapshot_restore.run(context(**buckets), {})
    assert back is not None
    assert (back["checksum"], back["height"]) == ("verified", 1000)
    assert restored(home) == digest


async def test_what_s3_refuses_is_classified(context: ContextFactory, home: Path, buckets: dict[str, str]) -> None:
    with pytest.raises(TaskError) as failure:
        await configure_genesis.run(context(**buckets), {})
    assert str(failure.value) == (
        f'configure-genesis: S3: object "golden-1/genesis.json" not found in s3://{buckets["SEI_GENESIS_BUCKET"]} '
        "[hint: the snapshot or genesis file may not have been uploaded yet]"
    )
    with pytest.raises(TaskError, match=r'^configure-genesis: S3: bucket "nowhere-at-all" does not exist in region '):
        await configure_genesis.run(context(**{**buckets, "SEI_GENESIS_BUCKET": "nowhere-at-all"}), {})
    with pytest.raises(TaskError, match=r'^snapshot-restore: S3: bucket "nowhere-at-all" does not exist'):
        await snapshot_restore.run(context(**{**buckets, "SEI_SNAPSHOT_BUCKET": "nowhere-at-all"}), {})
    take(home)
    with pytest.raises(TaskError, match=r"^uploading golden-1/state-sync/1000\.tar\.gz: bucket .* does not exist"):
        await snapshot_upload_once.run(context(**{**buckets, "SEI_SNAPSHOT_BUCKET": "nowhere-at-all"}), {})
