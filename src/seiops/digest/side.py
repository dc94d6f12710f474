"""What one run over one store proved, whoever ran it: the currency of the task, the record and the comparison of engines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seiops.digest.errors import DigestError
from seiops.digest.keys import BUCKETS, Bucket
from seiops.digest.model import Totals, final_digest

FOURTH = "misc"


@dataclass(frozen=True, slots=True)
class BucketDigest:
    """Uppercase hex digest of a bucket and its row count, None where a report does not say it."""

    digest: str
    count: int | None = None


@dataclass(frozen=True, slots=True)
class SideDigest:
    """Digests of one store at the version it was opened at. `fourth_label` is what the fourth bucket was called."""

    version: int
    buckets: Mapping[Bucket, BucketDigest]
    final: str
    count: int | None = None
    fourth_label: str = FOURTH
    seconds: float = field(default=0.0, compare=False)

    def wire(self) -> dict[str, Any]:
        """Plain JSON form, the inverse of `from_wire`."""
        return {
            "version": self.version,
            "final": self.final,
            "count": self.count,
            "fourth": self.fourth_label,
            "seconds": round(self.seconds, 3),
            "buckets": {
                bucket: {"digest": found.digest, "count": found.count} for bucket, found in self.buckets.items()
            },
        }


def from_totals(totals: Totals, version: int, seconds: float) -> SideDigest:
    buckets = {bucket: BucketDigest(tally.hex, tally.count) for bucket, tally in totals.adjusted().items()}
    return SideDigest(version, buckets, totals.final_hex, totals.count, FOURTH, seconds)


def from_wire(members: Mapping[str, Any]) -> SideDigest:
    """Raises DigestError when a member is missing or of the wrong kind."""
    try:
        buckets = {
            bucket: BucketDigest(str(members["buckets"][bucket]["digest"]), int(members["buckets"][bucket]["count"]))
            for bucket in BUCKETS
        }
        return SideDigest(
            int(members["version"]),
            buckets,
            str(members["final"]),
            int(members["count"]),
            str(members["fourth"]),
            float(members["seconds"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DigestError(f"digest result does not read: {error!r}") from error


def recomputed_final(buckets: Mapping[Bucket, BucketDigest]) -> str:
    """Final digest that follows from the bucket digests, uppercase hex."""
    return final_digest({bucket: bytes.fromhex(buckets[bucket].digest) for bucket in BUCKETS}).hex().upper()


def disagreement(ours: SideDigest, theirs: SideDigest) -> str | None:
    """The first thing in which two engines' results for the same store differ, or None."""
    if ours.version != theirs.version:
        return f"version {ours.version} against {theirs.version}"
    for bucket in BUCKETS:
        mine, other = ours.buckets[bucket], theirs.buckets[bucket]
        if mine.digest != other.digest:
            return f"{bucket} {mine.digest} against {other.digest}"
        if None not in (mine.count, other.count) and mine.count != other.count:
            return f"{bucket} count {mine.count} against {other.count}"
    return None if ours.final == theirs.final else f"final digest {ours.final} against {theirs.final}"
