"""`digest-vectors.json` as cases: every key of the file is checked, on every engine this installation has.

Row sets are laid out as real stores first (by the test writer, which is written from the format description and not from
our readers), fixtures are unpacked, so what is judged is the engines and not their helpers.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from seiops.digest.boundary import decode_boundary
from seiops.digest.changes import decode_entry, pairs
from seiops.digest.engine import Engine, InspectQuery, OpenOptions, ScanHooks
from seiops.digest.engines import engine_named, has_native
from seiops.digest.errors import DigestError
from seiops.digest.flatkv import lthash
from seiops.digest.flatkv.blocks import decode_payload
from seiops.digest.flatkv.seiwal import read_records
from seiops.digest.flatkv.store import open_at_height
from seiops.digest.flatkv.values import decode_row, payload_of
from seiops.digest.keys import Bucket, RawKind, physical_bucket, physical_key, raw_kind
from seiops.digest.memiavl.avl import Tree, root_hash
from seiops.digest.memiavl.changelog import frames
from seiops.digest.model import Normalization, OpenMode, Tally, Totals, Verification, entry_hash
from seiops.digest.pebble.batch import LogContent, apply_entries
from seiops.digest.pebble.block import rows
from seiops.digest.pebble.bloom import bloom_hash
from seiops.digest.pebble.checksum import masked_crc32c
from seiops.digest.pebble.database import Database
from seiops.digest.pebble.directory import BYTEWISE, LogFile
from seiops.digest.pebble.records import RecordReader
from seiops.digest.pebble.table import Table
from seiops.digest.seidb_cli import main as seidb
from support.digest_writer import point_current, write_snapshot
from support.digest_writer_flatkv import DATABASES, database_of, write_flatkv_snapshot
from support.digest_writer_pebble import DatabaseShape, Kind, Op

Check = Callable[[], str]
Named = Iterator[tuple[str, Check]]
BULKY_CODE = bytes((7 * index + 3) % 256 for index in range(24576))


def cases(path: Path, scratch: Path) -> Named:
    """(name, check) of every vector; a check returns the first difference, or an empty text."""
    vectors = json.loads(path.read_text(encoding="utf-8"))
    finders: dict[str, Callable[[Any, Path], Named]] = {
        "entry_hash": _entry_hashes,
        "core_set": _core_set,
        "empty_state": _empty_state,
        "bucket_xor": _bucket_xor,
        "value_encoding": _value_encoding,
        "key_classification": _key_classification,
        "migration_boundary": _migration_boundary,
        "marker_adjustment": _marker_adjustment,
        "semantic_errors": _semantic_errors,
        "fixture_memiavl": _fixture_memiavl,
        "fixture_flatkv": _fixture_flatkv,
        "fixture_flatkv_v66": _fixture_flatkv,
        "framing": _framing,
        "memiavl_root_hashes": _root_hashes,
        "lthash": _lthash,
        "pebble_real": _pebble_real,
        "pebble_sst": _pebble_sst,
        "pebble_synthetic": _pebble_synthetic,
    }
    whole: dict[str, Callable[[dict[str, Any], Path], Named]] = {
        "composite": _composite,
        "inspect": _inspect,
        "reports": _reports,
    }
    for key in vectors:
        found: Named
        if key in finders:
            found = finders[key](vectors[key], scratch / key)
        elif key in whole:
            found = whole[key](vectors, scratch / key)
        elif key in ("provenance", "history"):
            continue
        else:
            found = iter([("", lambda: "no rule to check this kind of vector")])
        for name, check in found:
            yield f"{key}/{name}" if name else key, _guarded(check)


def _guarded(check: Check) -> Check:
    def guarded() -> str:
        try:
            return check()
        except (DigestError, ValueError, OSError, LookupError) as error:
            return f"{type(error).__name__}: {error}"

    return guarded


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


def _entry_hashes(vectors: dict[str, Any], scratch: Path) -> Named:
    for number, vector in enumerate(vectors["vectors"]):
        key, logical = bytes.fromhex(vector["phys_key"]), value_of(vector, "logical")
        found = entry_hash(key, logical).hex().upper()
        yield f"{number:02d}", lambda v=vector, f=found: differ(v["name"], v["entry_hash"], f)  # type: ignore[misc]


def _core_set(vectors: dict[str, Any], scratch: Path) -> Named:
    modes = [OpenMode.SNAPSHOT, OpenMode.REPLAY]
    yield (
        "memiavl",
        lambda: every_memiavl(memiavl_store(scratch / "m", vectors["memiavl_leaves"]), 7, vectors["expected"], modes),
    )
    yield (
        "flatkv",
        lambda: every_flatkv(flatkv_store(scratch / "f", vectors["flatkv_rows"]), 7, vectors["expected"]),
    )


def _empty_state(vectors: dict[str, Any], scratch: Path) -> Named:
    yield "totals", lambda: totals_differ("empty", vectors["expected"], Totals())
    yield "memiavl", lambda: every_memiavl(memiavl_store(scratch, []), 7, vectors["expected"], list(OpenMode))


def _bucket_xor(vectors: dict[str, Any], scratch: Path) -> Named:
    def xor() -> str:
        once, twice = Tally(), Tally()
        for row_hash in vectors["entry_hashes"]:
            once.add(bytes.fromhex(row_hash))
        for row_hash in vectors["duplicate_case"]["added"]:
            twice.add(bytes.fromhex(row_hash))
        hunt = vectors["find_hash_case"]
        target = int(hunt["bucket_digest_a"], 16) ^ int(hunt["bucket_digest_b"], 16)
        return first(
            differ("digest", vectors["bucket_digest"], once.hex),
            differ("count", vectors["count"], once.count),
            differ("twice", vectors["duplicate_case"]["bucket_digest"], twice.hex),
            differ("twice count", vectors["duplicate_case"]["count"], twice.count),
            differ("hunted", hunt["xor_is_target"], f"{target:064X}"),
        )

    yield "", xor


def _value_encoding(vectors: dict[str, Any], scratch: Path) -> Named:
    def valid(vector: dict[str, Any]) -> str:
        row = decode_row(Bucket(vector["bucket"]), b"evm/k", value_of(vector, "hex"))
        return first(
            differ("height", vector["block_height"], row.height),
            differ("logical", value_of(vector, "logical").hex(), row.payload.hex()),
        )

    def invalid(vector: dict[str, Any]) -> str:
        found = error_of(lambda: payload_of(Bucket(vector["bucket"]), bytes.fromhex(vector["hex"])))
        return differ("error", vector["error"], found)

    for number, vector in enumerate(vectors["valid"]):
        yield f"valid-{number}", lambda v=vector: valid(v)  # type: ignore[misc]
    for number, vector in enumerate(vectors["invalid"]):
        yield f"invalid-{number}", lambda v=vector: invalid(v)  # type: ignore[misc]


def _key_classification(vectors: dict[str, Any], scratch: Path) -> Named:
    def memiavl(vector: dict[str, Any]) -> str:
        key = bytes.fromhex(vector["key"])
        kind = raw_kind(key)
        found = "" if kind is RawKind.EMPTY else physical_key(key).hex()
        return first(differ("kind", vector["kind"], str(kind)), differ("key", vector.get("phys_key") or found, found))

    def flatkv(vector: dict[str, Any]) -> str:
        bucket = physical_bucket(bytes.fromhex(vector["phys_key"]))
        return first(
            differ("included", vector["included"], bucket is not None),
            differ("bucket", vector["bucket"] if vector["included"] else None, bucket),
        )

    for number, vector in enumerate(vectors["memiavl"]):
        yield f"memiavl-{number:02d}", lambda v=vector: memiavl(v)  # type: ignore[misc]
    for number, vector in enumerate(vectors["flatkv"]):
        yield f"flatkv-{number:02d}", lambda v=vector: flatkv(v)  # type: ignore[misc]


def _migration_boundary(vectors: dict[str, Any], scratch: Path) -> Named:
    def migrated(vector: dict[str, Any]) -> str:
        boundary = decode_boundary(bytes.fromhex(vector["boundary"]))
        found = boundary.is_migrated(vector["module"].encode(), bytes.fromhex(vector["key"]))
        return differ("migrated", vector["migrated"], found)

    for number, vector in enumerate(vectors["valid"]):
        data = bytes.fromhex(vector["hex"])
        yield f"valid-{number}", lambda v=vector, d=data: differ("text", v["string"], str(decode_boundary(d)))  # type: ignore[misc]
    for number, vector in enumerate(vectors["invalid"]):
        found = error_of(lambda v=vector: decode_boundary(bytes.fromhex(v["hex"])))  # type: ignore[misc]
        yield f"invalid-{number}", lambda v=vector, f=found: differ("error", v["error"], f)  # type: ignore[misc]
    yield "is-migrated", lambda: first(*map(migrated, vectors["is_migrated"]))


def _marker_adjustment(vectors: list[dict[str, Any]], scratch: Path) -> Named:
    for number, vector in enumerate(vectors):
        root = scratch / str(number)
        yield (
            str(number),
            lambda v=vector, r=root: every_flatkv(flatkv_store(r, v["flatkv_rows"]), 7, v["expected"]),  # type: ignore[misc]
        )


def _semantic_errors(vectors: list[dict[str, Any]], scratch: Path) -> Named:
    def check(vector: dict[str, Any], root: Path) -> str:
        memiavl_store(root, [vector])
        for engine in engines():
            found = error_of(partial(memiavl_totals, engine, root, 7, OpenMode.SNAPSHOT, Normalization.SEMANTIC))
            if difference := differ(f"{engine.name} error", vector["error"], found):
                return difference
        return ""

    for number, vector in enumerate(vectors):
        yield str(number), lambda v=vector, r=scratch / str(number): check(v, r)  # type: ignore[misc]


# --- fixtures ---------------------------------------------------------------------------------------------------------


def _fixture_memiavl(vectors: dict[str, Any], scratch: Path) -> Named:
    root = unpack(vectors, scratch)

    def roots(expected: dict[str, Any]) -> str:
        return first(
            *(
                differ(
                    f"root of {name}",
                    (expected["height"], wanted),
                    _shown(root_hash(str(root), expected["height"], name)),
                )
                for name, wanted in expected.get("tree_root_hashes", {}).items()
            )
        )

    for expected in vectors["expected"]:
        height = expected["height"]
        modes = list(OpenMode) if expected["mode"] == "snapshot" else [OpenMode.REPLAY]
        yield f"digest-{height}", lambda e=expected, m=modes: every_memiavl(root, e["height"], e, m)  # type: ignore[misc]
        yield f"root-{height}", lambda e=expected: roots(e)  # type: ignore[misc]


def _shown(reached: tuple[int, bytes]) -> tuple[int, str]:
    return reached[0], reached[1].hex()


def _fixture_flatkv(vectors: dict[str, Any], scratch: Path) -> Named:
    root = unpack(vectors, scratch)

    def hashes(expected: dict[str, Any]) -> str:
        opened = open_at_height(str(root), expected["height"], Verification.FULL)
        sums = {name: lthash.LtHash() for name in DATABASES}
        stats: dict[str, dict[str, list[int]]] = {name: {} for name in DATABASES}
        for key, value in opened.rows():
            sums[database_of(key)].add(key, value)
            entry = stats[database_of(key)].setdefault(key.partition(b"/")[0].decode(), [0, 0])
            entry[0] += 1
            entry[1] += len(key) + len(value)
        opened.close()
        whole = lthash.LtHash()
        for one in sums.values():
            whole.add_hash(one.digest())
        per_database = {name: lthash.checksum(one.digest()).hex() for name, one in sums.items()}
        return first(
            differ("global", expected["lthash_global_checksum"], lthash.checksum(whole.digest()).hex()),
            differ("databases", expected["lthash_per_db_checksum"], per_database),
            differ("stats", expected["module_stats"], stats),
        )

    for expected in vectors["expected"]:
        yield f"digest-{expected['height']}", lambda e=expected: every_flatkv(root, e["height"], e)  # type: ignore[misc]
        if "lthash_global_checksum" in expected:
            yield f"lthash-{expected['height']}", lambda e=expected: hashes(e)  # type: ignore[misc]
    last = vectors["expected"][-1]
    yield "latest", lambda: every_flatkv(root, 0, last)

    def beyond() -> str:
        wanted = f"requested {last['height'] + 1}, reached {last['height']}"
        for engine in engines():
            found = error_of(partial(flatkv_totals, engine, root, last["height"] + 1))
            if wanted not in found:
                return f"{engine.name}: recorded an error with {wanted!r}, got {found!r}"
        return ""

    yield "beyond", beyond


def _composite(vectors: dict[str, Any], scratch: Path) -> Named:
    for number, vector in enumerate(vectors["composite"]):
        yield str(number), lambda v=vector, r=scratch / str(number): _one_composite(vectors, v, r)  # type: ignore[misc]


def _one_composite(vectors: dict[str, Any], vector: dict[str, Any], scratch: Path) -> str:
    info = vector["info"]
    flat_root = _composite_flatkv(vectors, vector, scratch)
    if isinstance(vector["memiavl_leaves"], str):
        mem_root, mem_height, mode = unpack(vectors["fixture_memiavl"], scratch / "m"), 6, OpenMode.REPLAY
    else:
        mem_root, mem_height, mode = memiavl_store(scratch / "m", vector["memiavl_leaves"]), 7, OpenMode.SNAPSHOT
    for engine in engines():
        flatkv = engine.open_flatkv(str(flat_root), 0, OpenOptions())
        memiavl = engine.open_memiavl(str(mem_root), mem_height, mode, OpenOptions())
        state = flatkv.migration_state()
        totals = engine.composite(flatkv, memiavl).digest(ScanHooks())
        memiavl.close()
        flatkv.close()
        counts = {"flatkv_rows": totals.input_rows, "consumed_unmigrated": totals.consumed_rows}
        if info["leaves"]:
            counts["leaves"] = totals.memiavl_rows
        difference = first(
            differ(f"{engine.name} boundary", info["boundary"], str(state.boundary)),
            differ(f"{engine.name} known", info["version_known"], state.version_known),
            differ(f"{engine.name} version", info["migration_version"], state.version),
            *(differ(f"{engine.name} {name}", info[name], found) for name, found in counts.items()),
            totals_differ(engine.name, vector["expected"], totals),
        )
        if difference:
            return difference
    return ""


def _composite_flatkv(vectors: dict[str, Any], vector: dict[str, Any], scratch: Path) -> Path:
    stored = vector["flatkv_rows"]
    if not isinstance(stored, str):
        return flatkv_store(scratch / "f", stored)
    opened = open_at_height(str(unpack(vectors["fixture_flatkv"], scratch / "source")), 6, Verification.CHEAP)
    every = [{"phys_key": key.hex(), "value": value.hex()} for key, value in opened.rows()]
    opened.close()
    marker = {"phys_key": b"migration/migration-version".hex(), "value": (bytes(9) + struct.pack(">Q", 1)).hex()}
    return flatkv_store(scratch / "f", [*every, marker])


def _inspect(vectors: dict[str, Any], scratch: Path) -> Named:
    def check(vector: dict[str, Any]) -> str:
        root = unpack(vectors["fixture_flatkv"], scratch)
        prefix = bytes.fromhex(vector["key_prefix"])
        query = InspectQuery(Bucket(vector["bucket"]), vector["key_offset"], prefix, vector["shard_next_bytes"])
        for engine in engines():
            store = engine.open_flatkv(str(root), 6, OpenOptions())
            outcome = store.inspect(query, None)
            store.close()
            shards = [
                {"shard": key.hex(), "count": tally.count, "bucket_digest": tally.hex}
                for key, tally in sorted(outcome.shards.items())
            ]
            found = {"matched": outcome.matched, "shards": shards}
            if difference := differ(engine.name, vector["expected"], found):
                return difference
        return ""

    for number, vector in enumerate(vectors["inspect"]):
        yield str(number), lambda v=vector: check(v)  # type: ignore[misc]


def _reports(vectors: dict[str, Any], scratch: Path) -> Named:
    def check(report: dict[str, Any], folder: Path) -> str:
        args = report["args"]
        roots = {"MEMDIR": folder / "m", "FLATDIR": folder / "f"}
        if report["fixture"].startswith("composite"):
            vector = vectors["composite"][0]
            flatkv_store(roots["FLATDIR"], vector["flatkv_rows"], 6)
            memiavl_store(roots["MEMDIR"], vector["memiavl_leaves"], 6)
        else:
            unpack(vectors[report["fixture"]], roots["MEMDIR" if "memiavl" in report["fixture"] else "FLATDIR"])
        out = io.StringIO()
        argv = [str(roots.get(word, word)) for word in args.split()]
        seidb(argv, out, io.StringIO())
        text = out.getvalue()
        for name, root in roots.items():
            text = text.replace(str(root), name)
        return first(*(differ(f"line {n + 1}", a, b) for n, (a, b) in enumerate(zip(report["stdout"], text.splitlines(), strict=False))),
                     differ("lines", len(report["stdout"]), len(text.splitlines())))  # fmt: skip

    for number, report in enumerate(vectors["reports"]["reports"]):
        yield str(number), lambda r=report, f=scratch / str(number): check(r, f)  # type: ignore[misc]


# --- formats ----------------------------------------------------------------------------------------------------------


def _framing(vectors: dict[str, Any], scratch: Path) -> Named:
    hexed = bytes.fromhex

    def crc() -> str:
        return first(
            *(differ(v["data"], int(v["masked"], 16), masked_crc32c(hexed(v["data"]))) for v in vectors["crc32c"])
        )

    def record(name: str) -> str:
        vector = vectors[name]
        reader = RecordReader(hexed(vector["chunk"]), vector.get("log_number"))
        return differ(name, [vector["payload"]], [found.hex() for found in reader])

    def batch() -> str:
        vector, found = vectors["pebble_batch"], LogContent()
        apply_entries(found, hexed(vector["hex"]), vector["seq"], LogFile(0, 0, Path("vector")))
        kinds = {"set": 1, "del": 0}
        wanted = {
            hexed(op[1]): (vector["seq"] + index, kinds[op[0]], hexed(op[2]) if len(op) > 2 else b"")
            for index, op in enumerate(vector["ops"])
        }
        return differ("batch", wanted, found.points)

    def internal_key() -> str:
        vector = vectors["pebble_internal_key"]
        wanted = (hexed(vector["user_key"]), vector["seq"], vector["kind"])
        for name in ("hex", "obsolete_variant"):
            key = hexed(vector[name])
            trailer = int.from_bytes(key[-8:], "little")
            if difference := differ(name, wanted, (key[:-8], trailer >> 8, trailer & 0xBF)):
                return difference
        return ""

    def block() -> str:
        vector = vectors["pebble_row_block"]
        found = [[key.hex(), value.hex()] for key, value in rows(hexed(vector["hex"]))]
        return differ("rows", vector["entries"], found)

    def seiwal() -> str:
        one, whole = vectors["seiwal_record"], vectors["seiwal_file"]
        single = read_records(b"SEIWL\x01" + hexed(one["hex"]))
        found = read_records(hexed(whole["hex"]))
        return first(
            differ("record", [(one["index"], hexed(one["payload"]))], single.records),
            differ("file", [(index, hexed(payload)) for index, payload in whole["records"]], found.records),
        )

    def payload() -> str:
        sets = decode_payload(hexed(vectors["state_wal_payload"]["hex"]))
        return differ("module", ["evm"], [name for name, _ in sets])

    def tidwall() -> str:
        data = hexed(vectors["tidwall_entry"]["hex"])
        found = [data[start:end].hex() for start, end in frames(data, len(data), True)]
        return differ("entries", [vectors["tidwall_entry"]["data"]], found)

    def changelog() -> str:
        data = hexed(vectors["changelog_entry"]["hex"])
        entry = decode_entry(data, 0, len(data))
        written = {name: list(pairs(data, span)) for name, span in entry.changesets}
        return first(
            differ("version", vectors["changelog_entry"]["version"], entry.version),
            differ("upgrades", ["newmod"], [upgrade.name for upgrade in entry.upgrades]),
            differ("newmod", [(b"k", b"v")], written["newmod"]),
            differ("evm", [None, (9).to_bytes(8, "big")], [value for _, value in written["evm"]]),
        )

    def bloom() -> str:
        return first(
            *(differ(v["key"], int(v["hash"], 16), bloom_hash(hexed(v["key"]))) for v in vectors["bloom_hash"])
        )

    yield "crc32c", crc
    yield "pebble_record_legacy", lambda: record("pebble_record_legacy")
    yield "pebble_record_recyclable", lambda: record("pebble_record_recyclable")
    yield "pebble_batch", batch
    yield "pebble_internal_key", internal_key
    yield "pebble_row_block", block
    yield "seiwal", seiwal
    yield "state_wal_payload", payload
    yield "tidwall_entry", tidwall
    yield "changelog_entry", changelog
    yield "bloom_hash", bloom


def _root_hashes(vectors: dict[str, Any], scratch: Path) -> Named:
    def check() -> str:
        tree = Tree()
        if difference := differ("empty tree", vectors["empty_tree"], tree.root_hash.hex()):
            return difference
        for step in vectors["steps"]:
            for pair in step["pairs"]:
                if pair.get("delete"):
                    tree.delete(pair["key"].encode(), step["version"])
                else:
                    tree.set(pair["key"].encode(), pair["value"].encode(), step["version"])
            if difference := differ(f"version {step['version']}", step["root_hash"], tree.root_hash.hex()):
                return difference
        return ""

    yield "", check


def _lthash(vectors: dict[str, Any], scratch: Path) -> Named:
    def check() -> str:
        total = lthash.LtHash()
        for row in vectors["rows"]:
            key, value = bytes.fromhex(row["key"]), bytes.fromhex(row["value"])
            one = lthash.row_hash(key, value)
            difference = first(
                differ("row", row["first_32_bytes"], one[:32].hex()),
                differ("row checksum", row["checksum"], lthash.checksum(one).hex()),
            )
            if difference:
                return difference
            total.add(key, value)
        return first(
            differ("identity", vectors["identity_checksum"], lthash.checksum(lthash.IDENTITY).hex()),
            differ("sum", vectors["sum_checksum"], lthash.checksum(total.digest()).hex()),
            differ("sum bytes", vectors["sum_first_32_bytes"], total.digest()[:32].hex()),
        )

    yield "", check


TEST_COMPARERS = frozenset((BYTEWISE, "pebble.internal.testkeys"))
"""Pebble's own test databases name a comparer that orders their keys as bytes do."""


def _rows_differ(root: Path, wanted: list[dict[str, str]]) -> str:
    database = Database(root, TEST_COMPARERS)
    found = [{"key": key.hex(), "value": value.hex()} for key, value in database.rows()]
    looked_up = [{"key": row["key"], "value": (database.get(bytes.fromhex(row["key"])) or b"").hex()} for row in wanted]
    database.close()
    return first(differ("rows", wanted, found), differ("looked up", wanted, looked_up))


def _pebble_real(vectors: dict[str, Any], scratch: Path) -> Named:
    for vector in vectors["databases"]:
        root = unpack(vector, scratch / vector["name"])

        def check(vector: dict[str, Any] = vector, root: Path = root) -> str:
            live = [
                {"level": meta.level, "file": meta.file_number}
                for meta in Database(root, TEST_COMPARERS).version.tables.values()
            ]
            return first(differ("live tables", vector["live_tables"], live), _rows_differ(root, vector["rows"]))

        yield vector["name"], check


def _pebble_synthetic(vectors: dict[str, Any], scratch: Path) -> Named:
    yield "", lambda: _rows_differ(unpack(vectors, scratch), vectors["rows"])


def _pebble_sst(vectors: dict[str, Any], scratch: Path) -> Named:
    def check(vector: dict[str, Any]) -> str:
        path = scratch / f"{vector['name']}.sst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(vector))
        table = Table(path)
        points = list(table.points())
        whole = hashlib.sha256()
        for key, negated, kind, value in points:
            whole.update(struct.pack(">I", len(key)) + key + struct.pack(">QB", -negated, kind))
            whole.update(struct.pack(">I", len(value)) + value)
        difference = first(
            differ("family", vector["footer_family"], table.footer.family),
            differ("version", vector["table_version"], table.footer.version),
            differ("two level", vector["two_level_index"], table.two_level),
            differ("checksum type", vector["checksum_type"], table.footer.checksum_type),
            differ("metaindex", vector["metaindex_entries"], sorted(name.decode() for name in table.metaindex)),
            differ("points", vector["points"], len(points)),
            differ("first", (vector["first_key"], vector["first_value"]), (points[0].key.hex(), points[0].value.hex())),
            differ("last", vector["last_key"], points[-1].key.hex()),
            differ("all points", vector["points_sha256"], whole.hexdigest()),
            differ("range deletions", vector["range_deletions"],
                   [[start.hex(), end.hex(), sequence] for start, end, sequence in table.range_deletions]),
        )  # fmt: skip
        table.close()
        return difference

    for vector in vectors["tables"]:
        yield vector["name"], lambda v=vector: check(v)  # type: ignore[misc]
