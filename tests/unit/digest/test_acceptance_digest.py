"""Acceptance, digest: two normalizations of one run, versions of both sides, defaults (docs/contracts/shadow.md 10.3)."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from seiops.sidecar.task import TaskError
from seiops.sidecar.tasks.evm_logical_digest import run
from support.digest_reports import BUCKETS, FINAL, report
from support.task_context import context_for


def _other_storage() -> str:
    """A report that holds together, with other storage."""
    storage = "AB" * 32
    joined = BUCKETS["account"] + BUCKETS["code"] + storage + BUCKETS["misc"]
    final = hashlib.sha256(bytes.fromhex(joined)).hexdigest().upper()
    return report("memiavl").replace(BUCKETS["storage"], storage).replace(FINAL, final)


async def _run(root: Path, flatkv: str, semantic: str, translator: str, **params: Any) -> dict[str, Any]:
    for name, text in (("f", flatkv), ("s", semantic), ("t", translator)):
        (root / name).write_text(text)
    (root / "flat").mkdir()
    program = root / "seidb-stand-in"
    program.write_text(
        f'#!/bin/bash\ncase "$*" in *"--backend flatkv"*) cat {root}/f;; *semantic*) cat {root}/s;; *) cat {root}/t;; esac\n'
    )
    program.chmod(0o755)
    given = {"flatkvDir": str(root / "flat"), "memiavlDir": "/no/mem", "height": 100, "bucket": f"file://{root}/bucket",
             "region": "r", "seidbPath": str(program)}  # fmt: skip
    context = context_for(root / "home", kind="evm-logical-digest", SEI_SIDECAR_SEIDB_ALLOW=str(program))
    result = await run(context, given | params)
    assert result is not None
    return result


def _records(root: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted((root / "bucket").rglob("endpoint-digest-*-*r.json.gz")) + sorted(
        (root / "bucket").rglob("*-semantic.json.gz")
    ):
        record = json.loads(gzip.decompress(path.read_bytes()))
        found[record["normalization"]] = record
    return found


async def test_semantic_match_and_translator_mismatch_in_one_run(tmp_path: Path) -> None:
    result = await _run(tmp_path, report("flatkv"), report("memiavl"), _other_storage())
    assert result["match"] is False
    assert [(entry["normalization"], entry["match"]) for entry in result["records"]] == [
        ("semantic", True),
        ("translator", False),
    ]
    records = _records(tmp_path)
    assert (records["semantic"]["match"], records["translator"]["match"]) == (True, False)
    buckets = records["translator"]["per_bucket"]
    assert {name for name, one in buckets.items() if not one["match"]} == {"storage"}
    for record in records.values():
        assert "balance" not in record["axes_proved"]


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        ((99, 100, 100), "evm-logical-digest: flatkv opened version 99 != requested height 100"),
        ((100, 99, 100), "evm-logical-digest: memiavl opened version 99 != requested height 100 (semantic)"),
        ((100, 100, 101), "evm-logical-digest: memiavl opened version 101 != requested height 100 (translator)"),
    ],
)
async def test_version_mismatch_on_either_side_publishes_nothing(
    versions: tuple[int, int, int], text: str, tmp_path: Path
) -> None:
    flatkv, semantic, translator = versions
    texts = report("memiavl", version=semantic), report("memiavl", version=translator)
    with pytest.raises(TaskError) as failed:
        await _run(tmp_path, report("flatkv", version=flatkv), *texts)
    assert text in str(failed.value)
    assert _records(tmp_path) == {}


async def test_both_normalizations_are_the_default(tmp_path: Path) -> None:
    result = await _run(tmp_path, report("flatkv"), report("memiavl"), report("memiavl"), normalizations=[])
    assert [entry["normalization"] for entry in result["records"]] == ["semantic", "translator"]
