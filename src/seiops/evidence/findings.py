"""What a check found, by name: names are stable, so that scripts and people can look them up (docs/verify.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

KEPT_PER_OBJECT = 5


class Name(StrEnum):
    """Every kind of finding. First about the evidence itself, then about an attestation, then about what the evidence says."""

    ENTRY_MISSING = "entry-missing"
    CHAIN_BROKEN = "chain-broken"
    ENTRY_UNREADABLE = "entry-unreadable"
    ENTRY_CONTRADICTS = "entry-contradicts"
    AFTER_END = "after-end"
    OBJECT_MISSING = "object-missing"
    OBJECT_DAMAGED = "object-damaged"
    SEAL_DIFFERS = "seal-differs"
    SIZE_DIFFERS = "size-differs"
    CONTENT_INVALID = "content-invalid"
    HEIGHTS_DIFFER = "heights-differ"
    COUNTS_DIFFER = "counts-differ"
    VERDICT_CONTRADICTS = "verdict-contradicts"
    HEIGHT_GAP = "height-gap"
    HEIGHT_OVERLAP = "height-overlap"
    RANGE_SHORT = "range-short"
    REPORT_MISSING = "report-missing"
    REPORT_CONTRADICTS = "report-contradicts"
    UNFINISHED_OBJECT = "unfinished-object"
    FOREIGN_OBJECT = "foreign-object"
    RECORD_INVALID = "record-invalid"
    RECORDS_DISAGREE = "records-disagree"
    UNSEALED = "unsealed"

    PAYLOAD_TYPE_UNKNOWN = "payload-type-unknown"
    WRONG_KEY = "wrong-key"
    SIGNATURE_INVALID = "signature-invalid"
    STATEMENT_INVALID = "statement-invalid"
    PREDICATE_UNKNOWN = "predicate-unknown"
    SUBJECT_MISSING = "subject-missing"
    SUBJECT_DIFFERS = "subject-differs"

    RUN_OPEN = "run-open"
    NOT_CLEAN = "not-clean"
    STORES_DIFFER = "stores-differ"


ACCEPTABLE = ("open", "vacuous", "gap", "indeterminate", "diverged", "mismatch")
"""Verdicts a caller may accept: the evidence is whole and says this."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`where`: an object's key, a run, or heights. `verdict`: one of ACCEPTABLE where the evidence is whole and says so."""

    name: Name
    where: str
    text: str
    verdict: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" if self.where else self.text


def cut(findings: list[Finding]) -> list[Finding]:
    """The first few of many findings of one object, and how many there were."""
    if len(findings) <= KEPT_PER_OBJECT:
        return findings
    kept = findings[:KEPT_PER_OBJECT]
    last = findings[KEPT_PER_OBJECT]
    return [*kept, Finding(last.name, last.where, f"and {len(findings) - KEPT_PER_OBJECT} more findings like these")]


def split(findings: Iterable[Finding], accepted: frozenset[str]) -> tuple[list[Finding], list[Finding]]:
    """Findings that stand, and those the caller accepts as what the evidence says."""
    standing: list[Finding] = []
    taken: list[Finding] = []
    for finding in findings:
        (taken if finding.verdict and finding.verdict in accepted else standing).append(finding)
    return standing, taken
