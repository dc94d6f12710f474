"""`seiops attest URL`: verify, and sign what was found; nothing is signed that does not hold."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from seiops.cli import verify_views as views
from seiops.cli import verifying
from seiops.cli.verifying import FINDINGS, FINE, NOT_CHECKED, CannotCheckError
from seiops.evidence import dsse, signing, statement
from seiops.evidence.reader import named
from seiops.evidence.verify import Verification
from seiops.objectstore import StoreError
from seiops.seid.files import write_atomic


def register(app: typer.Typer) -> None:
    @app.command("attest", cls=verifying.Question)
    def attest(
        url: Annotated[
            str, typer.Argument(help="Prefix: s3://bucket/prefix, gs://, az://, file:///dir, or a local directory.")
        ],
        key: Annotated[
            str,
            typer.Option(
                "--key",
                help="Private key file (PEM), or hsm:2?label=TOKEN, awskms:ID, gcpkms:NAME, azurekms:VAULT/KEY.",
            ),
        ],
        out: Annotated[
            Path | None, typer.Option("--out", help="Where to write the attestation; standard output if not given.")
        ] = None,
        chain: Annotated[
            str | None, typer.Option("--chain", help="Chain id, where the manifests do not name it.")
        ] = None,
        accept: Annotated[
            list[str] | None,
            typer.Option(
                "--accept", help="Attest this verdict, too: open, indeterminate, gap, diverged ... (may be repeated)."
            ),
        ] = None,
        secret_env: Annotated[
            str, typer.Option("--secret-env", help="Environment variable with the key's passphrase or the token's PIN.")
        ] = signing.SECRET,
        region: Annotated[str | None, typer.Option("--region", help="Region of the bucket.")] = None,
    ) -> None:
        """Verify everything below URL and sign the verdict (in-toto, DSSE). Exit 0 signed, 1 could not check, 2 findings."""
        try:
            signer = signing.signer(key, secret_env)
            accepted = verifying.accepted(accept or [])
            if named(url) is not None:
                raise CannotCheckError(f"{url} is one object: a verdict is of a whole run, give its prefix")
            found = asyncio.run(verifying.run(url, region, {}, accepted))
            if found.findings:
                _refuse(found)
            payload = statement.build(found, _chain(found, chain), accepted)
            _write(out, dsse.sealed(payload, signer))
        except (CannotCheckError, StoreError, ValueError, OSError) as error:
            views.fail(error)
            raise typer.Exit(NOT_CHECKED) from None
        place = str(out) if out is not None else "standard output"
        print(
            f"attested {len(found.objects)} objects, signed by key {signer.public_key.keyid}: {place}", file=sys.stderr
        )
        raise typer.Exit(FINE)


def _refuse(found: Verification) -> None:
    views.show_refusal(found)
    raise typer.Exit(FINDINGS)


def _chain(found: Verification, given: str | None) -> str:
    """The chain the evidence is of. Raises CannotCheckError when nobody says, or when it is said differently."""
    told = statement.chains_named(found)
    if given:
        told.add(given)
    if len(told) > 1:
        raise CannotCheckError(f"the evidence is of several chains: {', '.join(sorted(told))}; attest them one by one")
    if not told:
        raise CannotCheckError("no manifest names the chain: give it with --chain")
    return told.pop()


def _write(out: Path | None, envelope: bytes) -> None:
    if out is None:
        sys.stdout.write(envelope.decode())
    else:
        write_atomic(out, envelope)
