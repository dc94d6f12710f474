"""snapshot-restore and snapshot-upload(-once): what is restored boots a node, what is uploaded can be restored."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
from collections.abc import AsyncIterable, Callable
from pathlib import Path
from typing import Any

import plyvel  # type: ignore[import-untyped]
import pytest
from sidecar_context import ContextFactory

from seiops.objectstore import Store, StoreError
from seiops.seid.snapshot_metadata import heights_listed
from seiops.sidecar.task import TaskContext, TaskError
from seiops.sidecar.tasks import snapshot_restore, snapshot_upload, snapshot_upload_once
from seiops.sidecar.tasks.snapshot_bucket import open_snapshots

MARKER = ".sei-sidecar-snapshot-done"
Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def folder(name: str) -> Member:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755)


def archive(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


SNAPSHOT = (folder("1000"), folder("1000/1"), entry("1000/1/0", b"chunk0"), entry("1000/1/1", b"chunk1", mode=0o600))


def list_snapshots(path: Path, *heights: int) -> None:
    """A metadata.db as seid keeps it: one row a height, and something that is no snapshot."""
    path.parent.mkdir(exist_ok=True)
    database = plyvel.DB(str(path), create_if_missing=True)
    for height in heights:
        database.put(struct.pack(">cQI", b"\x01", height, 1), b"snapshot %d" % height)
    database.put(b"other", b"x")
    database.close()


def files_of(path: Path, name: str) -> list[Member]:
    return [folder(name)] + [entry(f"{name}/{item.name}", item.read_bytes()) for item in sorted(path.iterdir())]


def bucket(ctx: TaskContext) -> Store:
    return open_snapshots(ctx.settings, role="test")


async def put(ctx: TaskContext, name: str, body: bytes) -> None:
    await bucket(ctx).put(f"golden-1/state-sync/{name}", body)


def names(path: Path) -> list[str]:
    return sorted(item.name for item in path.iterdir())


def clear(path: Path) -> None:
    for item in path.iterdir():
        shutil.rmtree(item)


def tree(path: Path) -> dict[str, bytes]:
    return {str(item.relative_to(path)): item.read_bytes() for item in sorted(path.rglob("*")) if item.is_file()}


@pytest.fixture
def snapshots(home: Path) -> Path:
    return home / "data" / "snapshots"


async def test_the_newest_archive_lands_whole(context: ContextFactory, home: Path, snapshots: Path) -> None:
    ctx = context()
    for name in ("0.tar.gz", "500.tar.gz", "latest.txt", "snapshot_999999_x.tar.gz", "1000.tar.gz.sha256x"):
        await put(ctx, name, b"not an archive")
    await put(ctx, "1000.tar.gz", archive(*SNAPSHOT, entry("metadata.db", b"meta")))
    result = await snapshot_restore.run(ctx, {})
    assert tree(snapshots) == {"1000/1/0": b"chunk0", "1000/1/1": b"chunk1", "metadata.db": b"meta"}
    assert (snapshots / "1000" / "1" / "1").stat().st_mode & 0o777 == 0o600
    assert (home / ".sei-sidecar-snapshot-height").read_text() == "1000"
    assert (home / MARKER).exists()
    assert list((home / "tmp").iterdir()) == []
    assert result is not None
    assert (result["height"], result["checksum"], result["files"]) == (1000, "none", 3)
    assert result["warning"] == "metadata.db is no LevelDB and was passed on as it is"
    assert await snapshot_restore.run(ctx, {}) is None


@pytest.mark.parametrize("target, height", [(0, 3000), (3000, 3000), (2999, 1000), (1000, 1000)])
async def test_the_target_height(target: int, height: int, context: ContextFactory, home: Path) -> None:
    ctx = context()
    for name in (1000, 3000, 2**63):
        await put(ctx, f"{name}.tar.gz", archive(folder(str(name)), entry(f"{name}/x", b"x")))
    await snapshot_restore.run(ctx, {"targetHeight": target})
    assert (home / ".sei-sidecar-snapshot-height").read_text() == str(height)


@pytest.mark.parametrize(
    "params, problem",
    [
        ({"targetHeight": -1}, "snapshot-restore: targetHeight must be >= 0, got -1"),
        ({}, "no snapshots found in memory://{}/golden-1/state-sync/"),
        ({"targetHeight": 7}, "no snapshot found at or below height 7 in memory://{}/golden-1/state-sync/"),
    ],
)
async def test_nothing_to_restore(params: dict[str, int], problem: str, context: ContextFactory, home: Path) -> None:
    with pytest.raises(TaskError) as failure:
        await snapshot_restore.run(context(), params)
    assert str(failure.value) == problem.format(f"{home.name}-snap")


async def test_only_the_restored_height_stays_listed(context: ContextFactory, tmp_path: Path, snapshots: Path) -> None:
    ctx = context()
    list_snapshots(tmp_path / "listed", 500, 1000, 2000)
    await put(ctx, "1000.tar.gz", archive(*SNAPSHOT, *files_of(tmp_path / "listed", "metadata.db")))
    list_snapshots(snapshots / "metadata.db", 42)
    result = await snapshot_restore.run(ctx, {})
    assert heights_listed(snapshots / "metadata.db") == [1000]
    assert result is not None
    assert "warning" not in result
    assert names(snapshots) == ["1000", "metadata.db"]


async def test_a_list_without_the_height_fails(context: ContextFactory, home: Path, tmp_path: Path) -> None:
    ctx = context()
    list_snapshots(tmp_path / "listed", 500, 2000)
    await put(ctx, "1000.tar.gz", archive(*SNAPSHOT, *files_of(tmp_path / "listed", "metadata.db")))
    with pytest.raises(TaskError, match=r"metadata\.db does not list height 1000; it lists: 500, 2000"):
        await snapshot_restore.run(ctx, {})
    assert_untouched(home)


def assert_untouched(home: Path) -> None:
    """No marker, no height, nothing in the snapshot folder, nothing left in the scratch folder."""
    assert not (home / MARKER).exists()
    assert not (home / ".sei-sidecar-snapshot-height").exists()
    assert not (home / "data" / "snapshots").exists()
    assert list((home / "tmp").iterdir()) == []
    assert not list((home / "data").glob("restore-*"))


@pytest.mark.parametrize(
    "members, problem",
    [
        ([entry("../../evil", b"x")], 'tar entry "../../evil" escapes destination directory'),
        ([entry("a/../../evil", b"x")], 'tar entry "a/../../evil" escapes destination directory'),
        ([entry(".hidden", b"x")], 'tar entry ".hidden" escapes destination directory'),
        ([entry("l", type=tarfile.SYMTYPE, linkname="/etc")], 'symlink "l" points outside destination directory'),
        ([entry("l", type=tarfile.SYMTYPE, linkname="../x")], 'symlink "l" points outside destination directory'),
        (
            [folder("d"), entry("d/up", type=tarfile.SYMTYPE, linkname=".."), entry("d/up/x", b"x")],
            'tar entry "d/up/x" passes through a symbolic link of the archive',
        ),
        (
            [
                folder("a"),
                folder("a/b"),
                entry("a/b/up", type=tarfile.SYMTYPE, linkname="../.."),
                entry("sly", type=tarfile.SYMTYPE, linkname="a/b/up/../.."),
            ],
            'symlink "sly" points outside destination directory',
        ),
        ([entry("f", b"x"), entry("h", type=tarfile.LNKTYPE, linkname="f")], 'hard link "h" to "f" is not accepted'),
    ],
)
async def test_an_archive_cannot_leave_the_folder(
    members: list[Member], problem: str, context: ContextFactory, home: Path
) -> None:
    ctx = context()
    before = sorted(str(path) for path in home.parent.rglob("*") if not path.is_relative_to(home))
    await put(ctx, "1000.tar.gz", archive(*SNAPSHOT, *members))
    with pytest.raises(TaskError) as failure:
        await snapshot_restore.run(ctx, {})
    assert str(failure.value) == f"extracting snapshot: {problem}"
    assert_untouched(home)
    assert sorted(str(path) for path in home.parent.rglob("*") if not path.is_relative_to(home)) == before


async def test_harmless_oddities_are_restored(context: ContextFactory, snapshots: Path) -> None:
    ctx = context()
    long_name = "d/" + "n" * 150
    members = [
        entry("/abs/file", b"a"),
        entry("./dot/file", b"b"),
        entry("d/l", type=tarfile.SYMTYPE, linkname="f"),
        entry("d/f", b"x", mode=0o4755),
        entry(long_name, b"long"),
        entry("fifo", type=tarfile.FIFOTYPE),
    ]
    await put(ctx, "1000.tar.gz", archive(*members))
    result = await snapshot_restore.run(ctx, {})
    assert tree(snapshots) == {"abs/file": b"a", "dot/file": b"b", "d/f": b"x", "d/l": b"x", long_name: b"long"}
    assert (snapshots / "d" / "l").readlink() == Path("f")
    assert (snapshots / "d" / "f").stat().st_mode & 0o7777 == 0o755
    assert result is not None
    assert result["skippedEntries"] == 1


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "body, problem",
    [
        (b"plain text", "creating gzip reader: gzip: invalid header"),
        (b"", "creating gzip reader: EOF"),
        (cut(archive(entry("f", os.urandom(5000)))), "unexpected EOF"),
        (archive(*SNAPSHOT)[:-4] + b"\xff\xff\xff\xff", "gzip: "),
    ],
)
async def test_a_broken_archive_leaves_nothing(body: bytes, problem: str, context: ContextFactory, home: Path) -> None:
    ctx = context()
    await put(ctx, "1000.tar.gz", body)
    with pytest.raises(TaskError, match=rf"^extracting snapshot: .*{problem}"):
        await snapshot_restore.run(ctx, {})
    assert_untouched(home)


async def test_garbage_inside_good_gzip(context: ContextFactory, home: Path) -> None:
    import gzip

    ctx = context()
    good = gzip.decompress(archive(*SNAPSHOT))
    # a header in the middle is damaged: what follows must not be taken for the end
    await put(ctx, "1000.tar.gz", gzip.compress(good[:512] + b"\x01" + good[513:]))
    with pytest.raises(TaskError, match=r"reading tar header: archive/tar: invalid tar header$"):
        await snapshot_restore.run(ctx, {})
    assert_untouched(home)


async def test_a_published_checksum_is_verified(context: ContextFactory, home: Path) -> None:
    ctx = context()
    body = archive(*SNAPSHOT)
    await put(ctx, "1000.tar.gz", body)
    await put(ctx, "1000.tar.gz.sha256", b"ab" * 32)
    with pytest.raises(TaskError, match=r"^snapshot-restore: verify-checksum: "):
        await snapshot_restore.run(ctx, {})
    assert_untouched(home)
    await put(ctx, "1000.tar.gz.sha256", hashlib.sha256(body).hexdigest().encode() + b"  1000.tar.gz\n")
    result = await snapshot_restore.run(ctx, {})
    assert result is not None
    assert result["checksum"] == "verified"


async def test_space_is_asked_for_before_and_watched_while(
    context: ContextFactory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context()
    await put(ctx, "1000.tar.gz", archive(folder("1000"), entry("1000/x", bytes(40 << 20))))
    await put(ctx, "1000.tar.gz.size", str(1 << 60).encode())
    with pytest.raises(TaskError, match=f"not enough space at .*needs {1 << 60} bytes"):
        await snapshot_restore.run(ctx, {})
    assert_untouched(home)
    await bucket(ctx).delete("golden-1/state-sync/1000.tar.gz.size")
    real = snapshot_restore.shutil.disk_usage
    asked = 0

    def filling(path: Path) -> Any:
        nonlocal asked
        asked += 1
        return real(path) if asked == 1 else real(path)._replace(free=1)

    monkeypatch.setattr(snapshot_restore.shutil, "disk_usage", filling)
    with pytest.raises(TaskError, match="nearly full; nothing was restored"):
        await snapshot_restore.run(ctx, {})
    assert_untouched(home)


async def test_parts_are_fetched_in_parallel_and_a_failing_one_again(
    context: ContextFactory, snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_restore, "PART_BYTES", 1 << 20)
    ctx = context()
    content = os.urandom(7 << 20)
    await put(ctx, "1000.tar.gz", archive(folder("1000"), entry("1000/x", content)))
    real = Store.get_range
    flying = most = 0
    failures = {3 << 20: 2, 5 << 20: 1}

    async def flaky(self: Store, key: str, start: int, end: int) -> bytes:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        try:
            await asyncio.sleep(0.01)
            if failures.get(start):
                failures[start] -= 1
                raise StoreError("Unknown", "connection reset")
            return await real(self, key, start, end)
        finally:
            flying -= 1

    monkeypatch.setattr(Store, "get_range", flaky)
    reports: list[dict[str, Any]] = []
    ctx.report = reports.append
    await snapshot_restore.run(ctx, {})
    assert (snapshots / "1000" / "x").read_bytes() == content
    assert most == snapshot_restore.PARTS_AT_ONCE
    assert failures == {3 << 20: 0, 5 << 20: 0}
    assert reports[-1]["done"] == reports[-1]["total"]
    assert {"percent", "bytesPerSecond", "etaSeconds", "phase", "unit"} <= reports[0].keys()


async def test_a_refused_part_is_not_asked_again(
    context: ContextFactory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context()
    await put(ctx, "1000.tar.gz", archive(*SNAPSHOT))
    asked = 0

    async def denied(self: Store, key: str, start: int, end: int) -> bytes:
        nonlocal asked
        asked += 1
        raise StoreError("AccessDenied", "access denied to it", hint="ask")

    monkeypatch.setattr(Store, "get_range", denied)
    with pytest.raises(TaskError, match=r"^snapshot-restore: S3: access denied to it \[hint: ask\]$"):
        await snapshot_restore.run(ctx, {})
    assert asked == 1
    assert_untouched(home)


async def test_a_cancelled_restore_unwinds(
    context: ContextFactory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context()
    await put(ctx, "1000.tar.gz", archive(*SNAPSHOT))
    reading = asyncio.Event()

    async def hangs(self: Store, key: str, start: int, end: int) -> bytes:
        reading.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Store, "get_range", hangs)
    running = asyncio.ensure_future(snapshot_restore.run(ctx, {}))
    await asyncio.wait_for(reading.wait(), 20)
    ctx.cancelled.set()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 20)
    assert_untouched(home)


async def test_a_crash_leaves_a_clean_start(context: ContextFactory, home: Path, snapshots: Path) -> None:
    ctx = context()
    await put(ctx, "1000.tar.gz", archive(*SNAPSHOT))
    for leftover in (home / "tmp" / "restore-dead", home / "data" / "restore-dead"):
        (leftover / "content" / "1000").mkdir(parents=True)
    (snapshots / "1000" / "1").mkdir(parents=True)
    (snapshots / "1000" / "1" / "7").write_text("half of an earlier run")
    await snapshot_restore.run(ctx, {})
    assert tree(snapshots) == {"1000/1/0": b"chunk0", "1000/1/1": b"chunk1"}
    assert list((home / "tmp").iterdir()) == []
    assert not list((home / "data").glob("restore-*"))


def take_snapshots(snapshots: Path, *heights: int) -> None:
    for height in heights:
        (snapshots / str(height) / "1").mkdir(parents=True)
        (snapshots / str(height) / "1" / "0").write_text(f"chunk0 of {height}")


async def test_an_upload_can_be_restored(context: ContextFactory, home: Path, snapshots: Path, tmp_path: Path) -> None:
    take_snapshots(snapshots, 1000, 3000, 2000)
    (snapshots / "2000" / "link").symlink_to("1/0")
    list_snapshots(snapshots / "metadata.db", 1000, 2000, 3000)
    ctx = context()
    result = await snapshot_upload_once.run(ctx, {})
    key = "golden-1/state-sync/2000.tar.gz"
    assert result == {"outcome": "uploaded", "height": 2000, "key": key}
    store = bucket(ctx)
    body = await store.get(key)
    assert body[:10].hex() == "1f8b08000000000000ff"
    assert (await store.get(f"{key}.sha256")).decode() == hashlib.sha256(body).hexdigest()
    assert (await store.get("golden-1/state-sync/latest.txt")) == b"2000"
    state = json.loads((home / ".sei-sidecar-last-upload.json").read_bytes())
    assert state["lastUploadedHeight"] == 2000
    assert heights_listed(snapshots / "metadata.db") == [1000, 2000, 3000]
    assert not list((home / "data").glob(".upload-*"))
    again = await snapshot_upload_once.run(ctx, {})
    assert again == {"outcome": "noop", "noopReason": "already-uploaded", "height": 2000}

    clear(snapshots)
    restored = await snapshot_restore.run(ctx, {})
    assert restored is not None
    assert restored["checksum"] == "verified"
    assert (snapshots / "2000" / "1" / "0").read_text() == "chunk0 of 2000"
    assert (snapshots / "2000" / "link").readlink() == Path("1/0")
    assert heights_listed(snapshots / "metadata.db") == [2000]
    size = sum(
        path.lstat().st_size for path in (snapshots / "2000").rglob("*") if path.is_file() and not path.is_symlink()
    )
    assert int(await store.get(f"{key}.size")) >= size


@pytest.mark.parametrize("heights", [(), (1000,)])
async def test_too_few_snapshots(heights: tuple[int, ...], context: ContextFactory, snapshots: Path) -> None:
    take_snapshots(snapshots, *heights)
    assert await snapshot_upload_once.run(context(), {}) == {"outcome": "noop", "noopReason": "fewer-than-2-snapshots"}


@pytest.mark.parametrize(
    "state",
    [
        "",
        "xx",
        "[]",
        '{"lastUploadedHeight":500}',
        '{"lastUploadedHeight":5000,"lastUploadedAt":"yesterday"}',
        '{"lastUploadedHeight":5000.0}',
        '{"lastUploadedHeight":true}',
        '{"lastUploadedHeight":18446744073709551615}',
        "[" * 200_000,
    ],
)
async def test_a_lower_or_unreadable_record_does_not_stop_an_upload(
    state: str, context: ContextFactory, home: Path, snapshots: Path
) -> None:
    take_snapshots(snapshots, 1000, 2000)
    (snapshots / "metadata.db").write_text("META")
    (home / ".sei-sidecar-last-upload.json").write_text(state)
    result = await snapshot_upload_once.run(context(), {})
    assert result is not None
    assert (result["outcome"], result["height"]) == ("uploaded", 1000)
    assert result["warning"] == "metadata.db is no LevelDB and was passed on as it is"


async def test_latest_is_only_ever_raised(context: ContextFactory, snapshots: Path) -> None:
    take_snapshots(snapshots, 1000, 2000)
    ctx = context()
    await put(ctx, "latest.txt", b"5000")
    await snapshot_upload_once.run(ctx, {})
    assert await bucket(ctx).get("golden-1/state-sync/latest.txt") == b"5000"


Put = Callable[[Store, str, AsyncIterable[bytes]], Any]


async def test_a_refused_upload(
    context: ContextFactory, home: Path, snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_snapshots(snapshots, 1000, 2000)

    async def refuse(self: Store, key: str, chunks: AsyncIterable[bytes], **options: object) -> None:
        async for _ in chunks:
            raise StoreError("AccessDenied", "access denied")

    monkeypatch.setattr(Store, "put_stream", refuse)
    with pytest.raises(TaskError, match=r"^uploading golden-1/state-sync/1000\.tar\.gz: access denied$") as failure:
        await snapshot_upload_once.run(context(), {})
    assert failure.value.result == {"outcome": "error"}
    assert not (home / ".sei-sidecar-last-upload.json").exists()
    assert not list((home / "data").glob(".upload-*"))


async def test_an_upload_has_a_deadline(
    context: ContextFactory, snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_snapshots(snapshots, 1000, 2000)

    async def hang(self: Store, key: str, chunks: AsyncIterable[bytes], **options: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Store, "put_stream", hang)
    with pytest.raises(TaskError, match=r"uploading .*1000\.tar\.gz: context deadline exceeded"):
        await snapshot_upload_once.run(context(SEI_SNAPSHOT_UPLOAD_TIMEOUT="200ms"), {})


async def test_a_file_that_shrinks_fails_the_upload(
    context: ContextFactory, snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_snapshots(snapshots, 1000, 2000)
    (snapshots / "1000" / "1" / "big").write_bytes(bytes(3 << 20))
    real = snapshot_restore.Transfer.add

    def shrinks(self: Any, amount: int) -> None:
        real(self, amount)
        if amount == 1 << 20:
            os.truncate(snapshots / "1000" / "1" / "big", 1 << 20)

    monkeypatch.setattr("seiops.sidecar.tasks.transfer_progress.Transfer.add", shrinks)
    ctx = context()
    with pytest.raises(TaskError, match="big shrank while it was being archived"):
        await snapshot_upload_once.run(ctx, {})
    assert [item.key async for item in bucket(ctx).list()] == []


def block(snapshots: Path) -> None:
    snapshots.write_text("not a folder")


def unblock(snapshots: Path) -> None:
    snapshots.unlink()


async def test_the_loop_goes_on_after_a_failure(
    context: ContextFactory, snapshots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = context(SEI_SNAPSHOT_UPLOAD_INTERVAL="10ms")
    reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    ctx.report = reports.put_nowait
    block(snapshots)
    running = asyncio.ensure_future(snapshot_upload.run(ctx, {}))
    first = await asyncio.wait_for(reports.get(), 20)
    assert first["outcome"] == "error"
    unblock(snapshots)
    take_snapshots(snapshots, 1000, 2000)
    async with asyncio.timeout(20):
        while (await reports.get()).get("outcome") != "uploaded":
            pass
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
