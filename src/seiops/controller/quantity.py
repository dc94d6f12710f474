"""Kubernetes quantities (`256Gi`, `500m`, `1e3`).

Sizes come from the app-config file and from `spec.sidecar.resources`, and the API server stores them in one
canonical form. A template that is to equal the stored one field for field has to be rendered in that form, and a
claim can only be compared with a requirement by value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal, localcontext
from enum import Enum

# The wire message users see for a malformed quantity (docs/contracts/controller-behaviour.md 1.6, golden start-ups).
_FORMAT_WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_SUFFIX_WRONG = "unable to parse quantity's suffix"
_NUMBER_WRONG = "unable to parse numeric part of quantity"

_SHAPE = re.compile(r"([+-]?[0-9.]*)([eEinumkKMGTP]*)([-+]?[0-9]*)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", re.ASCII)
_DECIMAL_EXPONENTS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIXES = {exponent: suffix for suffix, exponent in _DECIMAL_EXPONENTS.items()}
_BINARY_SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_NANO = Decimal(1).scaleb(-9)
# More digits or larger exponents than any storage array will ever need; bounds the arithmetic below.
_LONGEST = 64
_LARGEST = Decimal(2**63 - 1)


class QuantityError(ValueError):
    """Text that is no quantity. The message is the cause alone, as the API server words it."""


class _Form(Enum):
    BINARY = "binary"
    DECIMAL = "decimal"
    EXPONENT = "exponent"


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount and the notation it was given in; compares by amount."""

    amount: Decimal
    _form: _Form

    def __str__(self) -> str:
        """The form in which the API server stores it: largest suffix that leaves a whole number."""
        if self._form is _Form.BINARY and abs(self.amount) >= 1024 and self.amount == self.amount.to_integral_value():
            return _binary_text(int(self.amount))
        return _decimal_text(self.amount, _Form.DECIMAL if self._form is _Form.BINARY else self._form)


def parse(text: str) -> Quantity:
    """Quantity for its text. Raises QuantityError with the API server's wording of the cause."""
    shape = _SHAPE.fullmatch(text)
    if shape is None or not text or len(text) > _LONGEST:
        raise QuantityError(_FORMAT_WRONG)
    number, letters, digits = shape.groups()
    if number.lstrip("+-").count(".") > 1:
        raise QuantityError(_FORMAT_WRONG)
    form, factor = _scale(letters, digits)
    if _NUMBER.fullmatch(number) is None:
        raise QuantityError(_NUMBER_WRONG if letters or digits else _FORMAT_WRONG)
    with localcontext() as context:
        context.prec = 2 * _LONGEST
        amount = Decimal(number) * factor
        # Finer than nano is rounded away from zero, beyond 2^63-1 is capped: the API server's limits.
        amount = amount.quantize(_NANO, rounding=ROUND_UP) if abs(amount) < _LARGEST else amount
        return Quantity(max(-_LARGEST, min(_LARGEST, amount)), form)


def canonical(value: object) -> str:
    """A quantity as JSON or YAML hold it (text or number) in its stored form. Raises QuantityError."""
    return str(parse(str(value).strip()))


def _scale(letters: str, digits: str) -> tuple[_Form, Decimal]:
    if letters in ("e", "E") and digits not in ("", "+", "-"):
        exponent = int(digits)
        if abs(exponent) > _LONGEST:
            raise QuantityError(_SUFFIX_WRONG)
        return _Form.EXPONENT, Decimal(1).scaleb(exponent)
    if digits:
        raise QuantityError(_SUFFIX_WRONG if letters else _FORMAT_WRONG)
    if letters in _DECIMAL_EXPONENTS:
        return _Form.DECIMAL, Decimal(1).scaleb(_DECIMAL_EXPONENTS[letters])
    if letters in _BINARY_SUFFIXES:
        return _Form.BINARY, Decimal(1024 ** _BINARY_SUFFIXES.index(letters))
    raise QuantityError(_SUFFIX_WRONG)


def _binary_text(amount: int) -> str:
    power = 0
    while amount % 1024 == 0 and power < len(_BINARY_SUFFIXES) - 1:
        amount, power = amount // 1024, power + 1
    return f"{amount}{_BINARY_SUFFIXES[power]}"


def _decimal_text(amount: Decimal, form: _Form) -> str:
    mantissa, exponent = int(amount.scaleb(9)), -9
    if mantissa == 0:
        return "0"
    while mantissa % 1000 == 0 and exponent < max(_DECIMAL_SUFFIXES):
        mantissa, exponent = mantissa // 1000, exponent + 3
    if form is _Form.EXPONENT:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    return f"{mantissa}{_DECIMAL_SUFFIXES[exponent]}"
