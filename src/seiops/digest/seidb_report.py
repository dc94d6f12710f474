"""Reading what seidb printed, and believing it only if it is consistent with itself.

Lines are picked by their first token, so that log lines, banners and whatever later builds add cannot disturb
(docs/contracts/shadow.md 6.5, 6.7). The older label of the fourth bucket, `legacy`, is read as well as `misc`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from seiops.digest.arguments import quoted
from seiops.digest.errors import DigestError
from seiops.digest.keys import BUCKETS, Bucket
from seiops.digest.model import Backend
from seiops.digest.side import BucketDigest, SideDigest, recomputed_final

LABELS = {
    "account": Bucket.ACCOUNT,
    "code": Bucket.CODE,
    "storage": Bucket.STORAGE,
    "legacy": Bucket.MISC,
    "misc": Bucket.MISC,
}
LONGEST_LINE = 4 * 1024 * 1024
_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")
_DECIMAL = re.compile(r"[+-]?[0-9]+", re.ASCII)
_INT64 = range(-(2**63), 2**63)


@dataclass(slots=True)
class _Seen:
    """Everything picked out of one report; a repeated line replaces the earlier one."""

    versions: list[int] = field(default_factory=list)
    backends: set[str] = field(default_factory=set)
    heights: set[str] = field(default_factory=set)
    buckets: dict[str, BucketDigest] = field(default_factory=dict)
    final: BucketDigest | None = None
    final_labels: str = ""

    def fourth(self) -> BucketDigest | None:
        return self.buckets.get("misc") or self.buckets.get("legacy")


def parse_report(text: str, backend: Backend, height: int) -> SideDigest:
    """The digests of a report for `backend` at `height`.

    Raises DigestError when the report is incomplete (upstream's texts) or contradicts itself or the question; the opened
    version is the caller's to judge.
    """
    for line in text.splitlines():
        if line.startswith('{"') and '"final"' in line:
            return _from_json(line, backend, height)
    seen = _collect(text)
    _require_complete(seen)
    _require_consistent(seen, backend, height)
    fourth_label = "misc" if "misc" in seen.buckets else "legacy"
    final = seen.final
    fourth = seen.fourth()
    assert final is not None
    assert fourth is not None
    buckets = {bucket: seen.buckets[bucket] if bucket is not Bucket.MISC else fourth for bucket in BUCKETS}
    return SideDigest(seen.versions[-1], buckets, final.digest, final.count, fourth_label)


def _collect(text: str) -> _Seen:
    seen = _Seen()
    for line in text.split("\n"):
        if len(line) > LONGEST_LINE:
            raise DigestError("scanning seidb output: token too long")
        tokens = line.split()
        if tokens:
            _take(seen, line, tokens)
    return seen


def _take(seen: _Seen, line: str, tokens: list[str]) -> None:
    first = tokens[0]
    if first == "version:":
        if len(tokens) < 2:
            raise DigestError(f"seidb output: malformed 'version:' line {quoted(line)}")
        seen.versions.append(_version(tokens[1]))
    elif first == "backend:" and len(tokens) > 1:
        seen.backends.add(tokens[1])
    elif first == "requested_height:" and len(tokens) > 1:
        seen.heights.add(tokens[1])
    elif first in LABELS:
        digest = _member(tokens, "bucket_digest=")
        if digest is not None:
            seen.buckets[first] = BucketDigest(digest, _count(tokens))
    elif first == "FINAL_DIGEST":
        digest = _member(tokens, "digest=")
        if digest is not None:
            seen.final = BucketDigest(digest, _count(tokens))
            seen.final_labels = tokens[1] if "+" in tokens[1] else ""


def _version(token: str) -> int:
    if not _DECIMAL.fullmatch(token):
        raise DigestError(f"parsing version {quoted(token)}: strconv.ParseInt: parsing {quoted(token)}: invalid syntax")
    value = int(token)
    if value not in _INT64:
        raise DigestError(
            f"parsing version {quoted(token)}: strconv.ParseInt: parsing {quoted(token)}: value out of range"
        )
    return value


def _member(tokens: list[str], name: str) -> str | None:
    return next((token[len(name) :] for token in tokens if token.startswith(name)), None)


def _count(tokens: list[str]) -> int | None:
    value = _member(tokens, "count=")
    return int(value) if value is not None and _DECIMAL.fullmatch(value) else None


def _require_complete(seen: _Seen) -> None:
    if not seen.versions:
        raise DigestError("seidb output missing 'version:' line")
    if seen.final is None:
        raise DigestError("seidb output missing FINAL_DIGEST line")
    present = {name: name in seen.buckets for name in ("account", "code", "storage")}
    present["legacy"] = seen.fourth() is not None
    if not all(present.values()):
        listed = " ".join(f"{name}={str(found).lower()}" for name, found in present.items())
        label = " fourth=misc" if "misc" in seen.buckets else ""
        raise DigestError(f"seidb output missing a per-bucket digest ({listed}{label})")


def _require_consistent(seen: _Seen, backend: Backend, height: int) -> None:
    """Checks beyond completeness; each guards against a report that would prove something it does not say."""
    for problem in _contradictions(seen, backend, height):
        raise DigestError(f"seidb output: {problem}")


def _contradictions(seen: _Seen, backend: Backend, height: int) -> Iterator[str]:
    assert seen.final is not None
    named = seen.backends.intersection(list(Backend))
    if named - {backend}:
        yield f"backend is {', '.join(sorted(named))}, want {backend}"
    if seen.heights - {str(height)}:
        yield f"requested_height is {', '.join(sorted(seen.heights))}, want {height}"
    if len(set(seen.versions)) > 1:
        yield f"'version:' lines disagree ({', '.join(map(str, seen.versions))})"
    if "misc" in seen.buckets and "legacy" in seen.buckets:
        yield "both a misc and a legacy bucket are printed"
    for label, found in (*seen.buckets.items(), ("FINAL_DIGEST", seen.final)):
        if not _DIGEST.fullmatch(found.digest):
            yield f"{label} digest {quoted(found.digest)} is not 64 hex digits"
    fourth = "misc" if "misc" in seen.buckets else "legacy"
    if seen.final_labels not in ("", f"account+code+storage+{fourth}"):
        yield f"FINAL_DIGEST covers {seen.final_labels}, but the fourth bucket is {fourth}"
    buckets = {LABELS[label]: found for label, found in seen.buckets.items()}
    yield from _sums(buckets, seen.final)


def _sums(buckets: Mapping[Bucket, BucketDigest], final: BucketDigest) -> Iterator[str]:
    expected = recomputed_final(buckets)
    if final.digest.upper() != expected:
        yield f"FINAL_DIGEST {final.digest} does not follow from the bucket digests, which give {expected}"
    counts = [found.count for found in buckets.values()]
    if final.count is not None and None not in counts:
        total = sum(count for count in counts if count is not None)
        if total != final.count:
            yield f"FINAL_DIGEST count {final.count} is not the sum of the bucket counts, {total}"


def _from_json(line: str, backend: Backend, height: int) -> SideDigest:
    """The one-line object that later builds print with `--json` (docs/contracts/shadow.md 6.7.5)."""
    try:
        report: dict[str, Any] = json.loads(line)
        version = int(report["version"])
        heights = {str(int(report["requested_height"]))}
        found = {
            name: BucketDigest(report[name]["digest"], int(report[name]["count"]))
            for name in ("account", "code", "storage", "misc", "final")
        }
        seen = _Seen([version], {str(report["backend"])}, heights, found, found.pop("final"))
    except (KeyError, TypeError, ValueError) as error:
        raise DigestError(f"seidb output: the JSON report does not read: {error!r}") from error
    _require_consistent(seen, backend, height)
    assert seen.final is not None
    buckets = {bucket: seen.buckets[bucket] for bucket in BUCKETS}
    return SideDigest(version, buckets, seen.final.digest, seen.final.count)
