"""`seiops verify URL`: everything a run published, downloaded and proved again from its own content; and attestations."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seiops.cli import verify_views as views
from seiops.cli import verifying
from seiops.cli.verifying import FINDINGS, FINE, NOT_CHECKED, CannotCheckError
from seiops.evidence import attestation, dsse, signing
from seiops.evidence.attestation import Attested
from seiops.evidence.reader import named
from seiops.evidence.verify import unsealed
from seiops.objectstore import StoreError


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


def register(app: typer.Typer) -> None:
    @app.command("verify", cls=verifying.Question)
    def verify(
        url: Annotated[
            str | None,
            typer.Argument(
                help="Prefix or object: s3://bucket/prefix, gs://, az://, file:///dir, or a local directory."
            ),
        ] = None,
        seal: Annotated[
            list[str] | None, typer.Option("--seal", help="KEY=SHA256 as a task result gives it (may be repeated).")
        ] = None,
        result: Annotated[
            Path | None, typer.Option("--result", help="Task result (JSON) whose seals the objects must have.")
        ] = None,
        accept: Annotated[
            list[str] | None,
            typer.Option(
                "--accept", help="A verdict that is no finding: open, indeterminate, gap ... (may be repeated)."
            ),
        ] = None,
        require_seals: Annotated[
            bool,
            typer.Option("--require-seals", help="An object without a seal, of a manifest or given, is a finding."),
        ] = False,
        attested: Annotated[
            Path | None,
            typer.Option("--attestation", help="Check this attestation, and the objects below URL if given."),
        ] = None,
        key: Annotated[
            Path | None, typer.Option("--key", help="Public key (PEM) the attestation must be signed with.")
        ] = None,
        region: Annotated[str | None, typer.Option("--region", help="Region of the bucket.")] = None,
        output: Annotated[Output, typer.Option("--output", "-o", help="table or json.")] = Output.TABLE,
    ) -> None:
        """Check published evidence: seals, manifests, heights, verdicts. Exit 0 fine, 1 could not check, 2 findings."""
        try:
            accepted = verifying.accepted(accept or [])
            seals = verifying.seals(seal or [], result)
            checked = _attestation(attested, key)
            if url is None:
                if checked is None:
                    raise CannotCheckError("nothing to check: give a URL, or --attestation FILE with --key")
                _show_offline(str(attested), checked, output)
                raise typer.Exit(FINDINGS if checked.findings else FINE)
            if checked is not None and named(url) is not None:
                raise CannotCheckError(f"{url} is one object: give the prefix that the attestation speaks of")
            found = asyncio.run(verifying.run(url, region, seals, accepted))
        except (CannotCheckError, StoreError, ValueError, OSError) as error:
            views.fail(error)
            raise typer.Exit(NOT_CHECKED) from None
        if require_seals:
            found.findings += unsealed(found)
        if checked is not None and checked.statement is not None:
            differing, beside = attestation.hold_against(checked.statement, found)
            found.findings += differing
            found.statements += beside
        if output is Output.JSON:
            views.show_json(found, checked)
        else:
            if checked is not None:
                views.show_attestation(str(attested), checked)
            views.show_table(found)
        wrong = bool(found.findings) or (checked is not None and bool(checked.findings))
        raise typer.Exit(FINDINGS if wrong else FINE)


def _attestation(file: Path | None, key: Path | None) -> Attested | None:
    if file is None:
        if key is not None:
            raise CannotCheckError("--key goes with --attestation FILE")
        return None
    if key is None:
        raise CannotCheckError("--attestation needs --key PUBLIC.pem: without a key a signature says nothing")
    public = signing.public_key(key)
    if file.stat().st_size > dsse.LARGEST_ENVELOPE:
        raise CannotCheckError(f"{file}: larger than {dsse.LARGEST_ENVELOPE} bytes, which no attestation is")
    try:
        envelope = dsse.parse(file.read_bytes())
    except dsse.EnvelopeError as error:
        raise CannotCheckError(f"{file}: not a DSSE envelope: {error}") from error
    return attestation.check(envelope, public, str(file))


def _show_offline(file: str, checked: Attested, output: Output) -> None:
    if output is Output.JSON:
        views.show_attestation_json(checked)
    else:
        views.show_attestation(file, checked)
