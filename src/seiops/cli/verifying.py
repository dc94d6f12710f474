"""What `verify` and `attest` share: the question put to a store, and the errors of a question that cannot be answered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from seiops.cli.verify_views import Bar
from seiops.evidence import verify as evidence
from seiops.evidence.findings import ACCEPTABLE
from seiops.evidence.reader import named
from seiops.evidence.verify import Verification
from seiops.objectstore import Store, open_store

_SEAL = re.compile(r"[0-9a-fA-F]{64}")
FINE, NOT_CHECKED, FINDINGS = 0, 1, 2


class Question(TyperCommand):
    """A command whose exit code 2 means findings: a question that was asked wrongly ends with 1, as one that got no answer."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # typer does not export the class of its usage errors; their exit code tells them
            if getattr(error, "exit_code", None) == FINDINGS:
                vars(error)["exit_code"] = NOT_CHECKED
            raise


class CannotCheckError(Exception):
    """The question itself cannot be answered; the text says why and what to do."""


def accepted(names: list[str]) -> frozenset[str]:
    """Raises CannotCheckError for a verdict there is none of."""
    for name in names:
        if name not in ACCEPTABLE:
            raise CannotCheckError(f"--accept {name}: use one of {', '.join(ACCEPTABLE)}")
    return frozenset(names)


async def run(url: str, region: str | None, seals: Mapping[str, str], accept: frozenset[str]) -> Verification:
    """Raises CannotCheckError, StoreError, ValueError."""
    with Bar() as bar:
        if named(url) is not None:
            parent, _, name = url.rpartition("/")
            return await evidence.verify_object(
                _open(parent or ".", region), name, url, bar, seals=seals, accept=accept
            )
        found = await evidence.verify(_open(url, region), url, bar, seals=seals, accept=accept)
    if found.empty:
        beside = f" ({found.others} other objects are there)" if found.others else ""
        raise CannotCheckError(f"no pages, records or manifests below {url}{beside}")
    return found


def _open(url: str, region: str | None) -> Store:
    if (url.startswith("file://") or "://" not in url) and not Path(url.removeprefix("file://")).is_dir():
        raise CannotCheckError(f"{url}: no such directory")
    return open_store(url, region=region)


def seals(given: list[str], result: Path | None) -> dict[str, str]:
    """Promised seals by object key, from flags and from a task result. Raises CannotCheckError."""
    found: dict[str, str] = {}
    for pair in given:
        key, separator, value = pair.rpartition("=")
        if not separator or not key or _SEAL.fullmatch(value) is None:
            raise CannotCheckError(f"--seal {pair}: write KEY=SHA256, the latter as 64 hexadecimal digits")
        found[key] = value
    if result is not None:
        try:
            content = json.loads(result.read_text(encoding="utf-8"))
            content = content.get("result", content)
            objects = content["records"] if "records" in content else content.get("published") or [content]
            found |= {str(entry["key"]): str(entry["sha256"]) for entry in objects}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CannotCheckError(f"{result}: not the result of a task that published something: {error!r}") from error
    return found
