"""The list of snapshots that travels in archives, read and written by seid's own LevelDB library (sidecar.md D-66)."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from seidev import build
from seidev.processes import ToolError
from seiops.seid.snapshot_metadata import MetadataError, heights_listed, is_database, keep_only


@pytest.fixture(scope="module")
def goleveldb() -> Path:
    if shutil.which("go") is None and build._any_ready(build.LEVELDB) is None:
        pytest.skip("needs Go to build seid's LevelDB library")
    try:
        return build.goleveldb()
    except ToolError as error:
        pytest.skip(str(error))


def key(height: int, number: int = 1) -> str:
    return (b"\x01" + struct.pack(">QI", height, number)).hex()


def value(height: int) -> str:
    """A snapshot as it is recorded there: protobuf fields height, format, chunks, hash."""
    return (b"\x08" + _varint(height) + b"\x10\x01\x18\x02\x22\x20" + bytes([height % 256]) * 32).hex()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


def printed(program: Path, folder: Path) -> dict[str, str]:
    answer = subprocess.run([program, "print", folder], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return dict(line.split() for line in answer.stdout.splitlines())


def apply(program: Path, folder: Path, *changes: str) -> None:
    answer = subprocess.run(
        [program, "apply", folder], input="\n".join(changes) + "\n", capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr


def grown(program: Path, folder: Path, heights: range, last: str) -> None:
    """A list as years of snapshots leave it: entries come, are pruned, tables are compacted between restarts."""
    for height in heights:
        changes = [f"put {key(height)} {value(height)}", f"put 02{height:016x} 00"]
        if height - 2 * heights.step in heights:
            changes.append(f"delete {key(height - 2 * heights.step)}")
        apply(program, folder, *changes, *(["compact"] if height % 3 == 0 else []), last)


@pytest.mark.parametrize("last", ["compact", "die"], ids=["closed", "killed"])
def test_a_list_of_seids_is_filtered_and_goes_on_in_seid(goleveldb: Path, tmp_path: Path, last: str) -> None:
    source, target = tmp_path / "source.db", tmp_path / "metadata.db"
    grown(goleveldb, source, range(1000, 1020), last)
    assert is_database(source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}

    filtered = keep_only(source, 1018, target)

    assert (filtered.kept, filtered.dropped, filtered.note) == (1, (1019,), "")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert printed(goleveldb, target) == {key(1018): value(1018)}
    # the restored node takes its next snapshots and prunes the one it came from
    apply(goleveldb, target, f"put {key(1020)} {value(1020)}", "compact")
    apply(goleveldb, target, f"put {key(1030)} {value(1030)}", f"delete {key(1018)}", "die")
    assert printed(goleveldb, target) == {key(height): value(height) for height in (1020, 1030)}
    assert heights_listed(target) == [1020, 1030]


def test_a_list_may_be_filtered_where_it_lies(goleveldb: Path, tmp_path: Path) -> None:
    folder = tmp_path / "metadata.db"
    grown(goleveldb, folder, range(5, 9), "compact")
    apply(goleveldb, folder, f"put {key(8, 2)} {value(8)}")
    keep_only(folder, 8, folder)
    assert printed(goleveldb, folder) == {key(8): value(8), key(8, 2): value(8)}
    with pytest.raises(MetadataError, match=r"does not list height 7; it lists: 8$"):
        keep_only(folder, 7, folder)
    assert printed(goleveldb, folder) == {key(8): value(8), key(8, 2): value(8)}
