"""The endpoint digest record: what is published of a pair of digests, and how a reader checks it.

Member names and order are frozen, `legacy` included; what we add stands behind them (docs/contracts/shadow.md 5.5, 6.8).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seiops.digest.keys import Bucket
from seiops.digest.side import BucketDigest, SideDigest, recomputed_final

AXES = ("nonce", "code", "code_hash", "storage", "legacy")
NORMALIZATIONS = ("semantic", "translator")
_WIRE_BUCKETS = {
    "account": Bucket.ACCOUNT,
    "code": Bucket.CODE,
    "legacy": Bucket.MISC,
    "storage": Bucket.STORAGE,
}
_AXES_OF_BUCKET = {
    "account": ("nonce", "code_hash"),
    "code": ("code",),
    "legacy": ("legacy",),
    "storage": ("storage",),
}
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_KEY = re.compile(r"endpoint-digest-(\d+)-(semantic|translator)\.json\.gz")


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which engine ran: its name, and the version of each program behind it."""

    engine: str
    versions: Mapping[str, str] = field(default_factory=dict)


def record_key(prefix: str, height: int, normalization: str) -> str:
    """Object key below a normalised prefix (docs/contracts/shadow.md 5.1)."""
    return f"{prefix}endpoint-digest-{height}-{normalization}.json.gz"


def tree_key(prefix: str, height: int, side: str) -> str:
    """Object key of a side's shard tree, beside the records of its height."""
    return f"{prefix}endpoint-digest-{height}-{side}.tree.json.gz"


def is_record_key(key: str) -> bool:
    return _KEY.fullmatch(key.rpartition("/")[2]) is not None


def build_record(
    height: int,
    normalization: str,
    flatkv: SideDigest,
    memiavl: SideDigest,
    generated_at: str,
    provenance: Provenance,
    trees: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The record of one normalization; `generated_at` is UTC to the second, `trees` the seal of each side's shard tree."""
    per_bucket = {
        name: {
            "flatkv": flatkv.buckets[bucket].digest,
            "memiavl": memiavl.buckets[bucket].digest,
            "match": _same(flatkv.buckets[bucket].digest, memiavl.buckets[bucket].digest),
        }
        for name, bucket in _WIRE_BUCKETS.items()
    }
    matched = {axis for name, axes in _AXES_OF_BUCKET.items() if per_bucket[name]["match"] for axis in axes}
    return {
        "height": height,
        "normalization": normalization,
        "flatkv_digest": flatkv.final,
        "memiavl_digest": memiavl.final,
        "per_bucket": per_bucket,
        "match": _same(flatkv.final, memiavl.final),
        "axes_proved": list(AXES),
        "generated_at": generated_at,
        "axes_matched": [axis for axis in AXES if axis in matched],
        "fourth_bucket_label": flatkv.fourth_label,
        "rows": {"flatkv": flatkv.count, "memiavl": memiavl.count},
        "engine": provenance.engine,
        "engine_versions": dict(provenance.versions),
        **({"shard_trees": dict(trees)} if trees else {}),
    }


def _same(one: str, other: str) -> bool:
    return one.upper() == other.upper()


def record_problems(record: object) -> list[str]:
    """What is wrong with a record read back, in sentences; empty when its verdict follows from its digests."""
    if not isinstance(record, dict):
        return ["not a JSON object"]
    problems = _shape_problems(record)
    if problems:
        return problems
    for side in ("flatkv", "memiavl"):
        buckets = {bucket: BucketDigest(record["per_bucket"][name][side]) for name, bucket in _WIRE_BUCKETS.items()}
        expected = recomputed_final(buckets)
        if not _same(record[f"{side}_digest"], expected):
            problems.append(f"{side}_digest {record[f'{side}_digest']} does not follow from its buckets ({expected})")
    for name in _WIRE_BUCKETS:
        entry = record["per_bucket"][name]
        if entry["match"] is not _same(entry["flatkv"], entry["memiavl"]):
            problems.append(f"per_bucket.{name}.match is {entry['match']}, but its digests say otherwise")
    if record["match"] is not _same(record["flatkv_digest"], record["memiavl_digest"]):
        problems.append(f"match is {record['match']}, but the final digests say otherwise")
    return problems


def _shape_problems(record: dict[str, Any]) -> list[str]:
    problems = []
    height = record.get("height")
    if not isinstance(height, int) or isinstance(height, bool) or height <= 0:
        problems.append(f"height is {height!r}, want a positive number")
    if record.get("normalization") not in NORMALIZATIONS:
        problems.append(f"normalization is {record.get('normalization')!r}, want {' or '.join(NORMALIZATIONS)}")
    for name in ("flatkv_digest", "memiavl_digest"):
        if not _is_digest(record.get(name)):
            problems.append(f"{name} is not 64 hex digits")
    if not isinstance(record.get("match"), bool):
        problems.append("match is not true or false")
    axes = record.get("axes_proved")
    if not isinstance(axes, list) or not set(axes) <= set(AXES):
        problems.append(f"axes_proved is {axes!r}, which claims more than the method proves")
    per_bucket = record.get("per_bucket")
    if not isinstance(per_bucket, dict):
        return [*problems, "per_bucket is missing"]
    if "misc" in per_bucket and "legacy" not in per_bucket:
        per_bucket["legacy"] = per_bucket["misc"]
    for name in _WIRE_BUCKETS:
        entry = per_bucket.get(name)
        if not isinstance(entry, dict) or not isinstance(entry.get("match"), bool):
            problems.append(f"per_bucket.{name} is missing or has no match")
        elif not (_is_digest(entry.get("flatkv")) and _is_digest(entry.get("memiavl"))):
            problems.append(f"per_bucket.{name} has a digest that is not 64 hex digits")
    return problems


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None
