"""The record: frozen members, and a verdict that can be recomputed from it."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seiops.cli.main import app
from seiops.digest.keys import Bucket
from seiops.digest.model import Backend
from seiops.digest.published import check_record, pair_problems, record_keys
from seiops.digest.record import Provenance, build_record, is_record_key, record_key, record_problems
from seiops.digest.seidb_report import parse_report
from seiops.digest.side import BucketDigest, SideDigest, disagreement, recomputed_final
from seiops.objectstore import open_store
from seiops.objectstore.records import document
from support.digest_reports import report

FROZEN = [
    "height",
    "normalization",
    "flatkv_digest",
    "memiavl_digest",
    "per_bucket",
    "match",
    "axes_proved",
    "generated_at",
]
Change = Callable[[dict[str, Any]], Any]


def side() -> SideDigest:
    return parse_report(report(), Backend.FLATKV, 100)


def other_side() -> SideDigest:
    """The same state but for its storage."""
    buckets = {**side().buckets, Bucket.STORAGE: BucketDigest("0" * 64, 0)}
    return SideDigest(100, buckets, recomputed_final(buckets), 3)


def record(memiavl: SideDigest | None = None, normalization: str = "semantic") -> dict[str, Any]:
    provenance = Provenance("native", {"native": "0.1.0"})
    return build_record(100, normalization, side(), memiavl or side(), "2026-01-01T00:00:00Z", provenance)


def test_frozen_members_come_first_and_in_order() -> None:
    built = record()
    assert list(built)[: len(FROZEN)] == FROZEN
    assert list(built["per_bucket"]) == ["account", "code", "legacy", "storage"]
    assert built["axes_proved"] == ["nonce", "code", "code_hash", "storage", "legacy"]
    assert built["match"] is True
    assert record_problems(built) == []


def test_a_mismatch_says_which_axes_still_match() -> None:
    built = record(other_side())
    assert built["match"] is False
    assert built["per_bucket"]["storage"]["match"] is False
    assert built["axes_matched"] == ["nonce", "code", "code_hash", "legacy"]
    assert "balance" not in built["axes_proved"]
    assert record_problems(built) == []


def set_path(*path: str, value: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_path("match", value=False), "match is False"),
        (set_path("flatkv_digest", value="A" * 64), "flatkv_digest AAAA"),
        (set_path("memiavl_digest", value="short"), "memiavl_digest is not 64 hex digits"),
        (set_path("per_bucket", "code", "memiavl", value="B" * 64), "memiavl_digest"),
        (set_path("per_bucket", "code", "match", value=False), "per_bucket.code.match is False"),
        (set_path("per_bucket", value=None), "per_bucket is missing"),
        (set_path("axes_proved", value=["nonce", "balance"]), "claims more than the method proves"),
        (set_path("height", value=0), "height is 0"),
        (set_path("normalization", value="independent"), "want semantic or translator"),
    ],
)
def test_a_record_that_was_changed_is_found_out(change: Change, expected: str) -> None:
    changed = copy.deepcopy(record())
    change(changed)
    assert any(expected in problem for problem in record_problems(changed))


def test_engines_are_compared_bucket_by_bucket() -> None:
    assert disagreement(side(), side()) is None
    assert disagreement(side(), other_side()) == (f"storage {side().buckets[Bucket.STORAGE].digest} against {'0' * 64}")


def test_record_keys() -> None:
    assert record_key("a/", 7, "semantic") == "a/endpoint-digest-7-semantic.json.gz"
    assert is_record_key("x/endpoint-digest-7-translator.json.gz")
    assert not is_record_key("x/1-1000.ndjson.gz")


def put(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / record_key("", content["height"], content["normalization"])
    path.write_bytes(gzip.compress(document(content)))
    return path


async def test_records_below_a_prefix_are_found_and_checked(tmp_path: Path) -> None:
    put(tmp_path, record())
    (tmp_path / "1-1000.ndjson.gz").write_bytes(b"")
    store = open_store(tmp_path.as_uri())
    keys, others = await record_keys(store)
    checked = [await check_record(store, key, "") for key in keys]
    assert (len(keys), others) == (1, 1)
    assert checked[0].findings == []
    assert pair_problems(checked) == ["height 100: no translator record beside the other"]


async def test_a_cut_object_is_a_finding_of_that_record(tmp_path: Path) -> None:
    path = put(tmp_path, record())
    path.write_bytes(path.read_bytes()[:-4])
    checked = await check_record(open_store(tmp_path.as_uri()), path.name, "")
    assert "the gzip stream is cut" in checked.findings[0]


def run(*arguments: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(app, ["verify", *arguments])
    return outcome.exit_code, outcome.output


def test_verify_is_fine_with_sealed_matching_records(tmp_path: Path) -> None:
    for normalization in ("semantic", "translator"):
        put(tmp_path, record(normalization=normalization))
    status, output = run(tmp_path.as_uri(), "--output", "json")
    found = json.loads(output)
    assert (status, found["findings"], len(found["records"])) == (0, [], 2)
    seal = found["records"][0]["sha256"]
    key = found["records"][0]["key"]
    assert run(tmp_path.as_uri(), "--seal", f"{key}={seal}")[0] == 0


def test_verify_reports_a_broken_seal_and_a_mismatch(tmp_path: Path) -> None:
    name = put(tmp_path, record(other_side())).name
    put(tmp_path, record(normalization="translator"))
    status, output = run(tmp_path.as_uri(), "--seal", f"{name}={'0' * 64}", "--output", "json")
    findings = json.loads(output)["findings"]
    assert status == 2
    assert "was promised" in findings[0]
    status, output = run(tmp_path.as_uri(), "--output", "json")
    assert (status, json.loads(output)["findings"]) == (
        2,
        [f"{name}: the digests of the two stores differ in bucket storage"],
    )


def test_verify_cannot_check_what_is_not_there(tmp_path: Path) -> None:
    assert run(tmp_path.as_uri())[0] == 1
    assert run((tmp_path / "nowhere").as_uri())[0] == 1
    put(tmp_path, record())
    assert run(tmp_path.as_uri(), "--seal", "other.json.gz=00")[0] == 1
