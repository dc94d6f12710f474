"""What is believed of a seidb report, and what is not."""

from __future__ import annotations

import json

import pytest

from seiops.digest.errors import DigestError
from seiops.digest.keys import Bucket
from seiops.digest.model import Backend
from seiops.digest.seidb_report import parse_report
from seiops.digest.side import SideDigest
from support.digest_reports import BUCKETS, CENSUS, FINAL, report


def parse(text: str, backend: Backend = Backend.FLATKV, height: int = 100) -> SideDigest:
    return parse_report(text, backend, height)


def refusal(text: str) -> str:
    with pytest.raises(DigestError) as refused:
        parse(text)
    return str(refused.value)


def test_reads_the_current_report() -> None:
    side = parse(report())
    assert (side.version, side.final, side.count, side.fourth_label) == (100, FINAL, 4, "misc")
    assert {bucket.value: found.digest for bucket, found in side.buckets.items()} == BUCKETS


def test_reads_the_older_label_as_the_same_bucket() -> None:
    side = parse(report(fourth="legacy"))
    assert side.fourth_label == "legacy"
    assert side.buckets[Bucket.MISC].digest == BUCKETS["misc"]


def test_lines_a_later_build_adds_do_not_disturb() -> None:
    text = report().replace("Bucket digests (", CENSUS + "Bucket digests (")
    assert parse(text.replace("source: s", "source: s\nmigration_boundary: x")).final == FINAL


def test_reads_the_one_line_object_of_a_later_build() -> None:
    members = {name: {"count": 1, "digest": digest} for name, digest in BUCKETS.items()}
    line = {"backend": "flatkv", "requested_height": 100, "version": 100, **members}
    text = "narration\n" + json.dumps({**line, "final": {"count": 4, "digest": FINAL}}) + "\n"
    assert parse(text).final == FINAL


def test_an_unknown_backend_name_is_ignored_and_carriage_returns_are_accepted() -> None:
    assert parse(report(backend="x").replace("\n", "\r\n")).final == FINAL


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ("version:", "seidb output missing 'version:' line"),
        ("FINAL_DIGEST", "seidb output missing FINAL_DIGEST line"),
        (
            "storage",
            "seidb output missing a per-bucket digest (account=true code=true storage=false legacy=true fourth=misc)",
        ),
        ("misc", "seidb output missing a per-bucket digest (account=true code=true storage=true legacy=false)"),
    ],
)
def test_half_a_report_is_refused(cut: str, expected: str) -> None:
    text = "".join(line for line in report().splitlines(keepends=True) if not line.startswith(cut))
    assert refusal(text) == expected


def test_a_missing_bucket_of_the_older_report_has_the_recorded_text() -> None:
    lines = report(fourth="legacy").splitlines(keepends=True)
    assert refusal("".join(line for line in lines if not line.startswith("storage"))) == (
        "seidb output missing a per-bucket digest (account=true code=true storage=false legacy=true)"
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (BUCKETS["code"], "", 'code digest "" is not 64 hex digits'),
        (BUCKETS["code"], "xyz", 'code digest "xyz" is not 64 hex digits'),
        (BUCKETS["code"], "0" * 64, "does not follow from the bucket digests"),
        (f"digest={FINAL}", "digest=" + "A" * 64, "does not follow from the bucket digests"),
        ("count=4", "count=5", "FINAL_DIGEST count 5 is not the sum of the bucket counts, 4"),
        ("backend: flatkv", "backend: memiavl", "backend is memiavl, want flatkv"),
        ("requested_height: 100", "requested_height: 99", "requested_height is 99, want 100"),
        ("+misc", "+legacy", "FINAL_DIGEST covers account+code+storage+legacy, but the fourth bucket is misc"),
        ("\nmisc ", f"\nlegacy count=1 bucket_digest={FINAL}\nmisc ", "both a misc and a legacy bucket"),
    ],
)
def test_a_report_that_contradicts_itself_is_refused(old: str, new: str, expected: str) -> None:
    changed = report().replace(old, new)
    assert changed != report()
    assert expected in refusal(changed)


def test_versions_that_disagree_are_refused() -> None:
    assert "'version:' lines disagree (100, 100, 99)" in refusal(report() + "version: 99\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("version:", "seidb output: malformed 'version:' line \"version:\""),
        ("version: 1x", 'parsing version "1x": strconv.ParseInt: parsing "1x": invalid syntax'),
        (f"version: {2**63}", f'parsing version "{2**63}": strconv.ParseInt: parsing "{2**63}": value out of range'),
        ("version: 1_0", 'parsing version "1_0": strconv.ParseInt: parsing "1_0": invalid syntax'),
    ],
)
def test_a_version_that_is_no_number_is_refused(line: str, expected: str) -> None:
    assert refusal(line + "\n" + report()) == expected


def test_a_plus_sign_is_accepted() -> None:
    assert parse(report().replace("version: 100", "version: +100")).version == 100


def test_a_line_without_end_is_refused() -> None:
    assert refusal("x" * (5 * 1024 * 1024)) == "scanning seidb output: token too long"
