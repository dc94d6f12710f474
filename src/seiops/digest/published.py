"""Checking published digest records: whole, sealed, and with a verdict that follows from their own digests.

A record is believed only as far as it can be recomputed: the seal from the payload, each side's final digest from its
buckets, the verdict from the final digests (docs/contracts/shadow.md 5.5, 6.9, 9.6).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seiops.digest.record import NORMALIZATIONS, is_record_key, record_problems
from seiops.objectstore import Store, StoreError, read_gzip

LARGEST_RECORD = 1024 * 1024


@dataclass(slots=True)
class CheckedRecord:
    """One record as found. `sha256` is its recomputed seal, `expected` the one it was promised to have, if any."""

    key: str
    sha256: str = ""
    expected: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def match(self) -> bool:
        return self.record.get("match") is True

    @property
    def findings(self) -> list[str]:
        """What is wrong with the record, its verdict included."""
        found = [f"{self.key}: {problem}" for problem in self.problems]
        if not self.problems and not self.match:
            found.append(f"{self.key}: the digests of the two stores differ in {', '.join(self.differing)}")
        return found

    @property
    def differing(self) -> list[str]:
        per_bucket = self.record.get("per_bucket", {})
        names = [name for name, entry in per_bucket.items() if not entry["match"]]
        return [f"bucket {name}" for name in names] or ["their final digests"]


async def record_keys(store: Store) -> tuple[list[str], int]:
    """Keys of the digest records below a store's prefix, and how many other objects lie there."""
    keys, others = [], 0
    async for found in store.list():
        if is_record_key(found.key):
            keys.append(found.key)
        else:
            others += 1
    return sorted(keys), others


async def check_record(store: Store, key: str, expected: str) -> CheckedRecord:
    """Read and check one record. Raises StoreError when it cannot be read at all; damage is a problem of the record."""
    checked = CheckedRecord(key, expected=expected.lower())
    payload = bytearray()
    try:
        async for chunk in read_gzip(store, key):
            payload += chunk
            if len(payload) > LARGEST_RECORD:
                checked.problems.append(f"larger than {LARGEST_RECORD} bytes, which no digest record is")
                return checked
    except StoreError as error:
        if error.code != "BadGzip":
            raise
        checked.problems.append(error.message)
        return checked
    examine(checked, bytes(payload))
    return checked


def examine(checked: CheckedRecord, payload: bytes) -> None:
    """Check a record whose payload has been read; what is wrong goes into its problems."""
    key = checked.key
    checked.sha256 = hashlib.sha256(payload).hexdigest()
    if checked.expected and checked.expected != checked.sha256:
        checked.problems.append(f"seal is {checked.sha256}, but {checked.expected} was promised")
    try:
        record = json.loads(payload)
    except ValueError as error:
        checked.problems.append(f"payload is not JSON: {error}")
        return
    checked.problems += record_problems(record)
    if isinstance(record, dict):
        checked.record = record
        checked.problems += _key_problems(key, record)


def _key_problems(key: str, record: Mapping[str, Any]) -> list[str]:
    name = f"endpoint-digest-{record.get('height')}-{record.get('normalization')}.json.gz"
    if key.rpartition("/")[2] == name:
        return []
    return [f"holds height {record.get('height')}, {record.get('normalization')}: its key says otherwise"]


def pair_problems(checked: Sequence[CheckedRecord]) -> list[str]:
    """What records of one height say of each other: both normalizations there, and one FlatKV digest for both."""
    by_height: dict[tuple[str, int], dict[str, CheckedRecord]] = defaultdict(dict)
    for one in checked:
        if not one.problems:
            place = one.key.rpartition("/")[0], one.record["height"]
            by_height[place][one.record["normalization"]] = one
    problems = []
    for (_, height), found in sorted(by_height.items()):
        missing = [name for name in NORMALIZATIONS if name not in found]
        problems += [f"height {height}: no {name} record beside the other" for name in missing]
        if len({one.record["flatkv_digest"].upper() for one in found.values()}) > 1:
            problems.append(f"height {height}: the records disagree on the FlatKV digest")
    return problems
