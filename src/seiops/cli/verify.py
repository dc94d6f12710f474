"""`seiops verify URL`: downloads published digest records and proves their verdict again from their own content."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from seiops.digest.published import CheckedRecord, check_record, pair_problems, record_keys
from seiops.objectstore import Store, StoreError, open_store

FINE, NOT_CHECKED, FINDINGS = 0, 1, 2
CONCURRENT = 8
WIDTH = 110


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


class CannotCheckError(Exception):
    """The question itself cannot be answered; the text says why and what to do."""


def register(app: typer.Typer) -> None:
    @app.command("verify")
    def verify(
        url: Annotated[
            str,
            typer.Argument(
                help="Prefix or object: s3://bucket/prefix, gs://, az://, file:///dir, or a local directory."
            ),
        ],
        seal: Annotated[
            list[str] | None, typer.Option("--seal", help="KEY=SHA256 as the task result gives it (may be repeated).")
        ] = None,
        result: Annotated[
            Path | None, typer.Option("--result", help="Task result (JSON) whose seals the records must have.")
        ] = None,
        region: Annotated[str | None, typer.Option("--region", help="Region of the bucket.")] = None,
        output: Annotated[Output, typer.Option("--output", "-o", help="table or json.")] = Output.TABLE,
    ) -> None:
        """Check published digest records: seals, digests and verdicts. Exit 0 fine, 1 could not check, 2 findings."""
        try:
            seals = _seals(seal or [], result)
            checked, others = asyncio.run(_check(url, region, seals))
        except (CannotCheckError, StoreError, ValueError) as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(NOT_CHECKED) from None
        findings = [finding for one in checked for finding in one.findings]
        if not _names_object(url):
            findings += pair_problems(checked)
        show = _show_json if output is Output.JSON else _show_table
        show(url, checked, findings, others)
        raise typer.Exit(FINDINGS if findings else FINE)


def _seals(given: list[str], result: Path | None) -> dict[str, str]:
    """Promised seals by object key, from flags and from a task result."""
    seals: dict[str, str] = {}
    for pair in given:
        key, separator, value = pair.rpartition("=")
        if not separator or not key:
            raise CannotCheckError(f"--seal {pair}: write KEY=SHA256")
        seals[key] = value
    if result is not None:
        try:
            content = json.loads(result.read_text(encoding="utf-8"))
            records = content.get("result", content)["records"]
            seals |= {entry["key"]: entry["sha256"] for entry in records}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CannotCheckError(f"{result}: not a result of an evm-logical-digest task: {error!r}") from error
    return seals


async def _check(url: str, region: str | None, seals: Mapping[str, str]) -> tuple[list[CheckedRecord], int]:
    """Every record below the URL, checked, and how many other objects lie there."""
    store, keys, others = await _find(url, region)
    promised = {store.prefix + key: key for key in keys}
    unknown = [name for name in seals if name not in promised and name not in keys]
    if unknown:
        raise CannotCheckError(f"no record {unknown[0]} below {url}, although a seal for it was given")
    gate = asyncio.Semaphore(CONCURRENT)

    async def one(key: str) -> CheckedRecord:
        async with gate:
            return await check_record(store, key, seals.get(store.prefix + key) or seals.get(key, ""))

    return list(await asyncio.gather(*map(one, keys))), others


async def _find(url: str, region: str | None) -> tuple[Store, list[str], int]:
    if _names_object(url):
        parent, _, name = url.rpartition("/")
        return _open(parent, region), [name], 0
    store = _open(url, region)
    keys, others = await record_keys(store)
    if not keys:
        beside = f" ({others} other objects are there)" if others else ""
        raise CannotCheckError(f"no digest records below {url}{beside}")
    return store, keys, others


def _names_object(url: str) -> bool:
    return url.endswith(".json.gz")


def _open(url: str, region: str | None) -> Store:
    if (url.startswith("file://") or "://" not in url) and not Path(url.removeprefix("file://")).is_dir():
        raise CannotCheckError(f"{url}: no such directory")
    return open_store(url, region=region)


def _show_table(url: str, checked: list[CheckedRecord], findings: list[str], others: int) -> None:
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    table = Table(title=f"Digest records below {url}")
    for name in ("height", "normalization", "verdict", "FlatKV / memiavl digest", "seal", "engine"):
        table.add_column(name, justify="right" if name == "height" else "left", no_wrap=name != "engine")
    for one in checked:
        table.add_row(*_cells(one))
    console.print(table, soft_wrap=True)
    for finding in findings:
        console.print(f"[bold red]finding[/] {finding}", soft_wrap=True)
    verdict = "[bold green]fine" if not findings else f"[bold red]{len(findings)} findings"
    beside = f", {others} other objects not looked at" if others else ""
    console.print(f"{verdict}[/]: {len(checked)} records, each seal, digest and verdict recomputed{beside}")


def _cells(one: CheckedRecord) -> tuple[str, ...]:
    record = one.record
    if one.problems:
        return str(record.get("height", "?")), str(record.get("normalization", "?")), "[red]invalid", one.key, "", ""
    verdict = "[green]match" if one.match else "[red]mismatch"
    digests = _short(record["flatkv_digest"])
    if not one.match:
        digests += " / " + _short(record["memiavl_digest"])
    seal = f"{one.sha256[:16]}… {'as promised' if one.expected else 'recomputed'}"
    return str(record["height"]), record["normalization"], verdict, digests, seal, str(record.get("engine", "seidb"))


def _short(digest: str) -> str:
    return f"{digest[:16]}…{digest[-8:]}"


def _show_json(url: str, checked: list[CheckedRecord], findings: list[str], others: int) -> None:
    members: dict[str, Any] = {
        "url": url,
        "records": [
            {
                "key": one.key,
                "sha256": one.sha256,
                "sealPromised": bool(one.expected),
                "height": one.record.get("height"),
                "normalization": one.record.get("normalization"),
                "match": one.match,
                "flatkvDigest": one.record.get("flatkv_digest"),
                "memiavlDigest": one.record.get("memiavl_digest"),
                "engine": one.record.get("engine"),
                "problems": one.problems,
            }
            for one in checked
        ],
        "findings": findings,
        "otherObjects": others,
    }
    print(json.dumps(members, indent=2))
