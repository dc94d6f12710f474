"""Times, durations, quoted values and ids as the wire has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seiops.seid.durations import format_duration, parse_duration
from seiops.seid.quoting import quoted
from seiops.sidecar import clock
from seiops.sidecar.engine import is_uuid


@given(st.integers(0, 4_000_000_000 * 10**9))
def test_a_time_survives_its_text(nanoseconds):
    text = clock.to_text(nanoseconds)
    assert clock.from_text(text) == nanoseconds
    assert text.endswith("Z")
    assert not text[:-1].endswith("0") or "." not in text


@pytest.mark.parametrize(
    ("text", "again"),
    [
        ("2026-03-26T20:24:29.500000000Z", "2026-03-26T20:24:29.5Z"),
        ("2026-03-26T20:24:29Z", "2026-03-26T20:24:29Z"),
        ("2026-03-26T22:24:29.25+02:00", "2026-03-26T20:24:29.25Z"),
        ("2026-03-26T20:24:29.123456789Z", "2026-03-26T20:24:29.123456789Z"),
    ],
)
def test_fractions_are_trimmed_and_offsets_removed(text, again):
    assert clock.to_text(clock.from_text(text)) == again


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01T00:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00"]
)
def test_what_is_no_time_is_refused_and_shown(text):
    with pytest.raises(ValueError, match="RFC 3339"):
        clock.from_text(text)


def test_no_two_submissions_have_the_same_time():
    times = [now() for now in [clock.Clock().now] for _ in range(10_000)]
    assert len(set(times)) == len(times)
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1h30m", 5_400_000_000_000), ("500ms", 500_000_000), ("-2.5s", -2_500_000_000), ("1us", 1000),
     ("+1h", 3_600_000_000_000), (".5s", 500_000_000), ("168h0m0s", 604_800_000_000_000)],
)  # fmt: skip
def test_durations_are_read(text, nanoseconds):
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7d", 'time: unknown unit "d" in duration "7d"'),
        ("5", 'time: missing unit in duration "5"'),
        ("", 'time: invalid duration ""'),
        ("x", 'time: invalid duration "x"'),
        ("1h-5m", 'time: unknown unit "h-" in duration "1h-5m"'),
        ("9999999999h", 'time: invalid duration "9999999999h"'),
    ],
)
def test_bad_durations_get_the_known_text(text, message):
    with pytest.raises(ValueError) as caught:
        parse_duration(text)
    assert str(caught.value) == message


@given(st.integers(-(2**62), 2**62))
def test_a_duration_survives_its_text(nanoseconds):
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(90, "1m30s"), (300, "5m0s"), (604_800, "168h0m0s"), (0.5, "500ms"), (0, "0s"), (1.055, "1.055s")],
)
def test_known_duration_texts(seconds, text):
    assert format_duration(round(seconds * 1e9)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        ('a"b\\', '"a\\"b\\\\"'),
        ("\n\x01\x7f", '"\\n\\x01\\x7f"'),
        ("é☃", '"é☃"'),
        ("\u00a0", '"\\u00a0"'),
    ],
)
def test_quoting(value, text):
    assert quoted(value) == text


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a11", True),
        ("3F2B8C1E-9D4A-4B6F-8A2E-1C5D7E9F0A11", True),
        ("00000000-0000-0000-0000-000000000000", True),
        ("{3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a12}", True),
        ("(3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a12)", True),
        ("URN:UUID:3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a14", True),
        ("3f2b8c1e9d4a4b6f8a2e1c5d7e9f0a16", True),
        ("3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a1", False),
        ("gf2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a11", False),
        ("3f2b8c1e-9d4a-4b6f-8a2e-1c5d7e9f0a1é", False),
        ("zzz", False),
    ],
)
def test_accepted_spellings_of_ids(text, valid):
    assert is_uuid(text) is valid
