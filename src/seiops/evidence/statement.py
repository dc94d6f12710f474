"""What an attestation says: an in-toto Statement v1 whose subjects are the objects and whose predicate is the verdict.

A subject's digest is over the object as it is stored, so that any tool can check a plain download; the seal (over the
payload) stands beside it. The shapes are documented in docs/attestations.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import msgspec

from seiops.evidence.runs import Run
from seiops.evidence.verify import Verification
from seiops.shadow.manifest import entry_key

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:seiops:attestation:evidence:v1"
_ORDER = ("diverged", "mismatch", "indeterminate", "gap", "vacuous", "nothing-compared")


class StatementError(ValueError):
    """A payload that is no statement; says why."""


class Subject(msgspec.Struct, omit_defaults=True):
    name: str
    digest: dict[str, str]
    annotations: dict[str, Any] = {}


class Heights(msgspec.Struct):
    start: int
    end: int


class Head(msgspec.Struct):
    """Where a run's manifest ends: `entry` is its last entry's key, `sha256` over that entry, `entries` their number."""

    entry: str
    sha256: str
    entries: int


class AttestedRun(msgspec.Struct, rename="camel", omit_defaults=True):
    kind: str
    sealed: bool
    finished: bool
    verdict: str
    objects: int
    run: str = ""
    folder: str = ""
    heights: Heights | None = None
    counts: dict[str, int] = {}
    after_rechecks: dict[str, int] = {}
    reason: str = ""
    manifest: Head | None = None
    params: dict[str, Any] = {}
    preflight: list[dict[str, Any]] = []


class AttestedDigest(msgspec.Struct, rename="camel", omit_defaults=True):
    key: str
    height: int
    normalization: str
    match: bool
    flatkv_digest: str
    memiavl_digest: str
    seal: str
    axes_matched: list[str] = []
    engine: str = ""
    engine_versions: dict[str, str] = {}


class Predicate(msgspec.Struct, rename="camel"):
    """`accepted`: verdicts other than clean that whoever attested took knowingly."""

    chain: str
    source: str
    verified_at: str
    verifier: dict[str, str]
    verdict: str
    accepted: list[str]
    heights: Heights | None
    counts: dict[str, int]
    runs: list[AttestedRun]
    digests: list[AttestedDigest]
    objects: int
    payload_bytes: int
    statements: list[str]


class Statement(msgspec.Struct):
    type_: str = msgspec.field(name="_type")
    subject: list[Subject]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: msgspec.Raw = msgspec.Raw(b"{}")


_statement = msgspec.json.Decoder(Statement)
_predicate = msgspec.json.Decoder(Predicate)


def chains_named(found: Verification) -> set[str]:
    """The chains the manifests name."""
    return {str(run.info["chain"]) for run in found.runs if run.info.get("chain")}


def build(found: Verification, chain: str, accepted: frozenset[str]) -> bytes:
    """The statement of a verification without findings; its payload for an envelope."""
    runs = [_run(run) for run in found.runs]
    spans = [run.heights for run in runs if run.heights is not None]
    counts: dict[str, int] = {}
    for run in runs:
        for verdict, number in (run.after_rechecks or run.counts).items():
            counts[verdict] = counts.get(verdict, 0) + number
    predicate = Predicate(
        chain=chain,
        source=found.url,
        verified_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        verifier={"name": "seiops", "version": version("seiops")},
        verdict=verdict_of(run.verdict for run in runs),
        accepted=sorted(accepted),
        heights=Heights(min(span.start for span in spans), max(span.end for span in spans)) if spans else None,
        counts=counts,
        runs=runs,
        digests=[_digest(one.record, one.key, one.sha256) for one in found.records],
        objects=len(found.objects),
        payload_bytes=sum(one.payload_bytes for one in found.objects),
        statements=found.statements,
    )
    statement = Statement(
        STATEMENT_TYPE, list(_subjects(found)), PREDICATE_TYPE, msgspec.Raw(msgspec.json.encode(predicate))
    )
    return msgspec.json.encode(statement)


def verdict_of(verdicts: Iterable[str]) -> str:
    """The worst of the runs' verdicts, else `clean`; `exported` where nothing was compared at all."""
    told = set(verdicts)
    return next(
        (verdict for verdict in _ORDER if verdict in told), "clean" if told & {"clean", "match"} else "exported"
    )


def _subjects(found: Verification) -> Iterable[Subject]:
    for one in found.objects:
        annotations = {"seal": one.sha256, "payloadBytes": one.payload_bytes}
        yield Subject(one.task.full_key, {"sha256": one.stored_sha256}, annotations)
    for run in found.runs:
        if (head := _head(run)) is not None:
            yield Subject(head.entry, {"sha256": head.sha256})


def _head(run: Run) -> Head | None:
    if run.chain is None or not run.chain.entries:
        return None
    head = run.chain.head
    return Head(run.folder + entry_key(run.run, head.seq), head.sha256, len(run.chain.entries))


def _run(run: Run) -> AttestedRun:
    return AttestedRun(
        kind=run.kind,
        sealed=run.sealed,
        finished=run.finished,
        verdict=run.verdict,
        objects=len(run.objects),
        run=run.run,
        folder=run.folder,
        heights=Heights(run.start, run.end) if run.start is not None and run.end is not None else None,
        counts=run.counts,
        after_rechecks=run.after if run.after != run.counts else {},
        reason=run.reason,
        manifest=_head(run),
        params=run.info.get("params") or {},
        preflight=run.info.get("preflight") or [],
    )


def _digest(record: dict[str, Any], key: str, seal: str) -> AttestedDigest:
    return AttestedDigest(
        key=key,
        height=record["height"],
        normalization=record["normalization"],
        match=record["match"],
        flatkv_digest=record["flatkv_digest"],
        memiavl_digest=record["memiavl_digest"],
        seal=seal,
        axes_matched=record.get("axes_matched") or [],
        engine=record.get("engine") or "",
        engine_versions=record.get("engine_versions") or {},
    )


def parse(payload: bytes) -> Statement:
    """The statement inside an envelope, its predicate not yet looked at. Raises StatementError."""
    try:
        found = _statement.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise StatementError(f"not an in-toto statement: {error}") from None
    if found.type_ != STATEMENT_TYPE:
        raise StatementError(f"_type is {found.type_!r}, want {STATEMENT_TYPE!r}")
    if not found.subject:
        raise StatementError("it has no subject: it is about nothing")
    for one in found.subject:
        if len(one.digest.get("sha256", "")) != 64:
            raise StatementError(f"subject {one.name!r} has no sha256")
    return found


def predicate_of(statement: Statement) -> Predicate:
    """Raises StatementError; the type of the predicate has to be ours."""
    try:
        return _predicate.decode(statement.predicate)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise StatementError(f"predicate: {error}") from None
