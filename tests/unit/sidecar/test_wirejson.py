"""The JSON that callers write and read (docs/contracts/sidecar.md 2.4, 2.5)."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seiops.sidecar import wirejson

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
# A whole double beyond 2**53 reads back as the integer that its shortest digits spell.
EXACT = NUMBERS.filter(lambda number: abs(number) < 2**53 or not number.is_integer())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | EXACT | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def slow(value: bytes):
    """What the reader that keeps everything makes of a value."""
    return wirejson.decode_members(b'{"v":' + value + b"} trailing", ("v",))[0][1]


@given(VALUES)
def test_what_is_encoded_reads_back_as_the_same_value(value):
    text = wirejson.encode(value, sort_keys=True)
    assert json.loads(text) == value
    assert wirejson.decode_document(text.encode()) == value


@given(VALUES)
def test_the_slow_reader_agrees_with_the_fast_one(value):
    data = json.dumps(value).encode()
    assert slow(data) == wirejson.decode_document(data)


@given(NUMBERS)
def test_doubles_keep_their_value_and_have_no_useless_digits(number):
    text = wirejson.format_double(number)
    assert float(text) == number
    assert not text.endswith(".0")
    assert ("e" in text) == (number != 0 and not 1e-6 <= abs(number) < 1e21)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.0, "1"),
        (-0.0, "-0"),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (18446744073709551616.0, "18446744073709552000"),
        (0.000001, "0.000001"),
        (123.456, "123.456"),
    ],
)
def test_recorded_spellings_of_doubles(number, text):
    assert wirejson.format_double(number) == text


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_refused(number):
    with pytest.raises(ValueError):
        wirejson.encode({"a": number})


@pytest.mark.parametrize(
    "body",
    [b"", b"hello", b"{", b'{"a":01}', b'{"a":1,}', b"{'a':1}", b'{"a":NaN}', b'{"a":1e400}', b'"\x01"', b'"\\x"',
     b'"\\u12"', b"\xef\xbb\xbf{}", b'{"a" 1}', b"{1:2}", b"tru", b"-", b"[" * 10_001 + b"]" * 10_001],
)  # fmt: skip
def test_what_is_no_json_is_refused(body):
    with pytest.raises(wirejson.JsonError):
        slow(body)


def test_nesting_up_to_ten_thousand_levels_is_read_and_written_back():
    body = b"[" * 9_999 + b"]" * 9_999  # one level more with the object around it
    assert wirejson.encode(slow(body)) == body.decode()


def test_trailing_bytes_are_ignored_only_where_one_value_is_asked_for():
    assert wirejson.decode_members(b'{"a":1} trailing', ("a",)) == [("a", 1)]
    with pytest.raises(wirejson.JsonError):
        wirejson.decode_document(b'{"a":1} trailing')


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'"\ud800"', "\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (b'"\xe2\x82"', "\ufffd\ufffd"),
        (rb'"\ud800x"', "\ufffdx"),
    ],
)
def test_broken_text_is_replaced_and_pairs_are_joined(body, text):
    assert slow(body) == text


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({"TYPE": "a"}, "a"),
        ({"type": "a", "Type": "b"}, "b"),
        ({"type": "a", "TYPE": None}, "a"),
        ({}, None),
        (None, None),
    ],
)
def test_members_match_in_any_case_and_the_later_one_wins(document, value):
    assert wirejson.member(document, "type") == value


def test_a_member_of_something_else_than_an_object_is_refused():
    with pytest.raises(wirejson.JsonError):
        wirejson.member([1], "type")


def test_markup_is_escaped_as_ever():
    assert wirejson.encode({"b": 1, "a": "<&>\u2028\u2029"}, sort_keys=True) == (
        '{"a":"\\u003c\\u0026\\u003e\\u2028\\u2029","b":1}'
    )


def test_integers_keep_all_their_digits():
    assert wirejson.encode(slow(b'{"a":9007199254740993,"b":2.0}')) == '{"a":9007199254740993,"b":2}'
