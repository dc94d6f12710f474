"""What the checks of digest vectors share: stores laid out from row sets, totals compared, differences told in a line."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seiops.digest.engine import Engine, OpenOptions, ScanHooks
from seiops.digest.engines import engine_named, has_native
from seiops.digest.errors import DigestError
from seiops.digest.keys import Bucket
from seiops.digest.model import Normalization, OpenMode, Totals, Verification
from support.digest_writer import point_current, write_snapshot
from support.digest_writer_flatkv import DATABASES, database_of, write_flatkv_snapshot
from support.digest_writer_pebble import DatabaseShape, Kind, Op

Check = Callable[[], str]
Named = Iterator[tuple[str, Check]]
BULKY_CODE = bytes((7 * index + 3) % 256 for index in range(24576))


def engines() -> list[Engine]:
    return [engine_named("reference"), *([engine_named("native")] if has_native() else [])]


def differ(what: str, expected: object, found: object) -> str:
    return "" if expected == found else f"{what}: recorded {str(expected)[:200]}, got {str(found)[:200]}"


def first(*differences: str) -> str:
    return next((difference for difference in differences if difference), "")


def totals_differ(label: str, expected: dict[str, Any], totals: Totals) -> str:
    """Compare a scan with an `expected` object of the vectors."""
    for name, bucket in expected.get("buckets", {}).items():
        tally = totals.adjusted()[Bucket(name)]
        found = {"count": tally.count, "bucket_digest": tally.hex}
        if difference := differ(f"{label} {name}", bucket, found):
            return difference
    misc = totals.tallies[Bucket.MISC]
    unadjusted = {"count": misc.count, "bucket_digest": misc.hex}
    return first(
        differ(f"{label} misc unadjusted", expected.get("misc_unadjusted", unadjusted), unadjusted),
        differ(f"{label} omitted", expected.get("omitted", []), [marker.decode() for marker in totals.omitted_markers]),
        differ(f"{label} count", expected["total_count"], totals.count),
        differ(f"{label} final", expected["final_digest"], totals.final_hex),
    )


# --- stores -----------------------------------------------------------------------------------------------------------


def content(entry: dict[str, Any]) -> bytes:
    data = bytes.fromhex(entry["hex"]) if "hex" in entry else zlib.decompress(base64.b64decode(entry["zlib_b64"]))
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError(f"{entry.get('path')}: content does not match its sha256")
    return data


def unpack(fixture: dict[str, Any], root: Path) -> Path:
    for entry in fixture["files"]:
        path = root / entry["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(entry))
    for link in fixture.get("symlinks", []):
        path = root / link["path"]
        if not path.is_symlink():
            path.symlink_to(link["target"])
    return root


def value_of(entry: dict[str, Any], name: str = "value") -> bytes:
    return bytes.fromhex(entry[name]) if name in entry else BULKY_CODE


def memiavl_store(root: Path, leaves: list[dict[str, Any]], version: int = 7) -> Path:
    tree = {bytes.fromhex(leaf["key"]): (value_of(leaf), 1) for leaf in leaves}
    write_snapshot(root, version, {"evm": tree})
    point_current(root, version)
    return root


def flatkv_store(root: Path, stored: list[dict[str, Any]], version: int = 7) -> Path:
    histories: dict[str, list[Op]] = {name: [] for name in DATABASES}
    for row in stored:
        key = bytes.fromhex(row["phys_key"])
        history = histories[database_of(key)]
        history.append(Op(10 + len(history), Kind.SET, key, value_of(row)))
    write_flatkv_snapshot(root, version, histories, [DatabaseShape()])
    (root / "current").symlink_to(f"snapshot-{version:020d}")
    return root


def memiavl_totals(
    engine: Engine, root: Path, height: int, mode: OpenMode, normalization: Normalization
) -> tuple[int, Totals]:
    store = engine.open_memiavl(str(root), height, mode, OpenOptions(Verification.FULL))
    try:
        (totals,) = store.digest([normalization], ScanHooks())
        return store.version, totals
    finally:
        store.close()


def flatkv_totals(engine: Engine, root: Path, height: int) -> tuple[int, Totals]:
    store = engine.open_flatkv(str(root), height, OpenOptions(Verification.FULL))
    try:
        return store.version, store.digest(ScanHooks())
    finally:
        store.close()


def every_memiavl(root: Path, height: int, expected: dict[str, Any], modes: list[OpenMode]) -> str:
    for engine in engines():
        for mode in modes:
            for normalization in Normalization:
                version, totals = memiavl_totals(engine, root, height, mode, normalization)
                label = f"{engine.name} {mode} {normalization}"
                difference = first(
                    differ(f"{label} version", expected.get("reported_version", version), version),
                    differ(f"{label} leaves", expected.get("leaves", totals.input_rows), totals.input_rows),
                    totals_differ(label, expected, totals),
                )
                if difference:
                    return difference
    return ""


def every_flatkv(root: Path, height: int, expected: dict[str, Any]) -> str:
    for engine in engines():
        version, totals = flatkv_totals(engine, root, height)
        difference = first(
            differ(f"{engine.name} version", expected.get("reported_version", version), version),
            differ(f"{engine.name} rows", expected.get("rows", totals.input_rows), totals.input_rows),
            totals_differ(engine.name, expected, totals),
        )
        if difference:
            return difference
    return ""


def error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except DigestError as error:
        return str(error)
    return "no error"


# --- model ------------------------------------------------------------------------------------------------------------
