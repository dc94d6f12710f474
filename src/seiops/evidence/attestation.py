"""Checking an attestation: offline by its signature and shape, and against the objects where they are at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from securesystemslib.signer import Key

from seiops.evidence.dsse import PAYLOAD_TYPE, Envelope
from seiops.evidence.findings import Finding, Name
from seiops.evidence.statement import (
    PREDICATE_TYPE,
    Predicate,
    Statement,
    StatementError,
    Subject,
    parse,
    predicate_of,
)
from seiops.evidence.verify import Verification
from seiops.shadow.manifest import entry_key


@dataclass(slots=True)
class Attested:
    """What an attestation says, as far as it may be believed: nothing is kept of one whose signature does not hold."""

    statement: Statement | None = None
    predicate: Predicate | None = None
    findings: list[Finding] = field(default_factory=list)


def check(envelope: Envelope, key: Key, where: str) -> Attested:
    """Signature, payload type, statement, predicate. `where` names the file in findings."""
    attested = Attested()

    def found(name: Name, text: str) -> Attested:
        attested.findings.append(Finding(name, where, text))
        return attested

    if not envelope.signed_by(key):
        if envelope.names(key):
            return found(Name.SIGNATURE_INVALID, "the signature of this key does not hold: the payload was changed")
        claimed = ", ".join(keyid for keyid, _ in envelope.signatures if keyid) or "no key id"
        return found(
            Name.WRONG_KEY, f"not signed by this key ({key.keyid}), but by {claimed}, or its payload was changed"
        )
    if envelope.payload_type != PAYLOAD_TYPE:
        return found(
            Name.PAYLOAD_TYPE_UNKNOWN, f"the payload is of type {envelope.payload_type!r}, want {PAYLOAD_TYPE!r}"
        )
    try:
        attested.statement = parse(envelope.payload)
        if attested.statement.predicate_type != PREDICATE_TYPE:
            told = attested.statement.predicate_type
            return found(Name.PREDICATE_UNKNOWN, f"its predicate is of type {told!r}, want {PREDICATE_TYPE!r}")
        attested.predicate = predicate_of(attested.statement)
    except StatementError as error:
        found(Name.STATEMENT_INVALID, str(error))
    return attested


def hold_against(statement: Statement, found: Verification) -> tuple[list[Finding], list[str]]:
    """Subjects against the objects of a verification: what differs or is not there, and what is there but not attested."""
    digests = dict(_digests(found))
    findings = [finding for subject in statement.subject for finding in _subject(subject, digests)]
    attested = {subject.name for subject in statement.subject}
    beside = [one.task.full_key for one in found.objects if one.task.full_key not in attested]
    statements = []
    if beside:
        statements.append(f"{len(beside)} objects are not covered by the attestation, the first is {beside[0]}")
    return findings, statements


def _subject(subject: Subject, digests: dict[str, str]) -> Iterable[Finding]:
    digest = digests.get(subject.name)
    if digest is None:
        yield Finding(Name.SUBJECT_MISSING, subject.name, "attested, but not there")
    elif digest.lower() != subject.digest["sha256"].lower():
        text = f"has SHA-256 {digest or 'none (it could not be read)'}, attested was {subject.digest['sha256']}"
        yield Finding(Name.SUBJECT_DIFFERS, subject.name, text)


def _digests(found: Verification) -> Iterable[tuple[str, str]]:
    """SHA-256 of everything an attestation may name: objects as stored, and the entries of manifests."""
    for one in found.objects:
        if not any(finding.name is Name.OBJECT_MISSING for finding in one.findings):
            yield one.task.full_key, one.stored_sha256
    for run in found.runs:
        if run.chain is not None:
            for number, digest in run.chain.digests.items():
                yield run.folder + entry_key(run.run, number), digest
