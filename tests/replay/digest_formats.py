"""Vectors of single formats: framings, root hashes, LtHash, Pebble files."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

from replay.digest_judging import (
    Named,
    content,
    differ,
    first,
    unpack,
)
from seiops.digest.changes import decode_entry, pairs
from seiops.digest.flatkv import lthash
from seiops.digest.flatkv.blocks import decode_payload
from seiops.digest.flatkv.seiwal import read_records
from seiops.digest.memiavl.avl import Tree
from seiops.digest.memiavl.changelog import frames
from seiops.digest.pebble.batch import LogContent, apply_entries
from seiops.digest.pebble.block import rows
from seiops.digest.pebble.bloom import bloom_hash
from seiops.digest.pebble.checksum import masked_crc32c
from seiops.digest.pebble.database import Database
from seiops.digest.pebble.directory import BYTEWISE, LogFile
from seiops.digest.pebble.records import RecordReader
from seiops.digest.pebble.table import Table


def framing(vectors: dict[str, Any], scratch: Path) -> Named:
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


def root_hashes(vectors: dict[str, Any], scratch: Path) -> Named:
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


def lattice_hashes(vectors: dict[str, Any], scratch: Path) -> Named:
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


def pebble_real(vectors: dict[str, Any], scratch: Path) -> Named:
    for vector in vectors["databases"]:
        root = unpack(vector, scratch / vector["name"])

        def check(vector: dict[str, Any] = vector, root: Path = root) -> str:
            live = [
                {"level": meta.level, "file": meta.file_number}
                for meta in Database(root, TEST_COMPARERS).version.tables.values()
            ]
            return first(differ("live tables", vector["live_tables"], live), _rows_differ(root, vector["rows"]))

        yield vector["name"], check


def pebble_synthetic(vectors: dict[str, Any], scratch: Path) -> Named:
    yield "", lambda: _rows_differ(unpack(vectors, scratch), vectors["rows"])


def pebble_sst(vectors: dict[str, Any], scratch: Path) -> Named:
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
