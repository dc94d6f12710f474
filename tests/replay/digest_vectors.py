"""`digest-vectors.json` as cases: every key of the file is checked, on every engine this installation has.

Row sets are laid out as real stores first (by the test writer, which is written from the format description and not from
our readers), fixtures are unpacked, so what is judged is the engines and not their helpers.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from replay import digest_formats as formats
from replay.digest_judging import (
    Check,
    Named,
    differ,
    engines,
    error_of,
    every_flatkv,
    every_memiavl,
    first,
    flatkv_store,
    flatkv_totals,
    memiavl_store,
    memiavl_totals,
    totals_differ,
    unpack,
    value_of,
)
from seiops.digest.boundary import decode_boundary
from seiops.digest.engine import InspectQuery, OpenOptions, ScanHooks
from seiops.digest.errors import DigestError
from seiops.digest.flatkv import lthash
from seiops.digest.flatkv.store import open_at_height
from seiops.digest.flatkv.values import decode_row, payload_of
from seiops.digest.keys import Bucket, RawKind, physical_bucket, physical_key, raw_kind
from seiops.digest.memiavl.avl import root_hash
from seiops.digest.model import Normalization, OpenMode, Tally, Totals, Verification, entry_hash
from seiops.digest.seidb_cli import main as seidb
from support.digest_writer_flatkv import DATABASES, database_of


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
        "framing": formats.framing,
        "memiavl_root_hashes": formats.root_hashes,
        "lthash": formats.lattice_hashes,
        "pebble_real": formats.pebble_real,
        "pebble_sst": formats.pebble_sst,
        "pebble_synthetic": formats.pebble_synthetic,
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
