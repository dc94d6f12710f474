"""Quantities are stored in canonical form and compared by value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seiops.controller import quantity
from seiops.controller.quantity import QuantityError


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("256Gi", "256Gi"),
        ("1024Mi", "1Gi"),
        ("40000Gi", "40000Gi"),
        ("2048Gi", "2Ti"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.1Gi", "107374182400m"),
        ("8", "8"),
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1000k", "1M"),
        ("1e3", "1e3"),
        ("1000e0", "1e3"),
        ("1073741824", "1073741824"),
        ("0Gi", "0"),
        ("+1", "1"),
        ("-1.5", "-1500m"),
        ("1n", "1n"),
        ("0.1n", "1n"),
    ],
)
def test_canonical_form(text: str, stored: str) -> None:
    assert quantity.canonical(text) == stored


def test_numbers_are_quantities() -> None:
    assert quantity.canonical(1073741824) == "1073741824"
    assert quantity.canonical(0.5) == "500m"


@pytest.mark.parametrize(
    "text", ["", "lots", "8x", "8kk", "1.2.3", "m", "1e", "e3", "--1", "8 Gi", "٣", "1" * 100, "1e999"]
)
def test_refused(text: str) -> None:
    with pytest.raises(QuantityError):
        quantity.parse(text)


@given(st.integers(0, 2**62), st.sampled_from(["", "k", "M", "Ki", "Mi", "m", "e3"]))
def test_canonical_form_is_stable_and_keeps_the_value(number: int, suffix: str) -> None:
    parsed = quantity.parse(f"{number}{suffix}")
    again = quantity.parse(str(parsed))
    assert again.amount == parsed.amount
    assert str(again) == str(parsed)
