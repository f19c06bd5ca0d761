"""Numbers as people write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.estimates import DASH, MINUS, UNKNOWN, Estimate, count_of, duration, interval, number

_SUPERSCRIPT = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def _read(text: str) -> float:
    """The value a reader takes from the text."""
    plain = text.replace(MINUS, "-").replace(",", "")
    for word, size in (("billion", 1e9), ("million", 1e6)):
        if plain.endswith(word):
            return float(plain.removesuffix(word)) * size
    mantissa, times, power = plain.partition(" \N{MULTIPLICATION SIGN} 10")
    return float(mantissa) * 10 ** int(power.translate(_SUPERSCRIPT)) if times else float(plain)


_VALUES = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False).filter(
    lambda v: v == 0 or abs(v) > 1e-300
)


@given(_VALUES, st.integers(1, 5))
def test_what_is_read_is_the_rounded_value(value: float, digits: int) -> None:
    assert _read(number(value, digits)) == pytest.approx(float(f"{value:.{digits - 1}e}"), rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (640.4, "640"),
        (12345.0, "12,300"),
        (999.6, "1,000"),
        (0.25, "0.25"),
        (0.0, "0"),
        (1e7, "10 million"),
        (54_321_000.0, "54.3 million"),
        (3.2e9, "3.2 billion"),
        (-16.0, MINUS + "16"),
        (math.nan, DASH),
        (math.inf, "∞"),
    ],
)
def test_examples(value: float, text: str) -> None:
    assert number(value) == text


def test_words() -> None:
    assert interval(410, 980.4) == f"410{DASH}980"
    assert [count_of(n, "run") for n in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
    assert [duration(s) for s in (30, 119, 120, 7199, 7200)] == ["30 s", "119 s", "2 min", "120 min", "2 h"]


def test_whole_digits_are_kept_where_they_are_asked_for() -> None:
    assert number(229_433.4, whole=True) == "229,433"
    assert number(87.14, whole=True) == "87.1"
    assert Estimate(7_351.0, 7_347.0, 7_354.0).text(whole=True) == f"7,351 (7,347{DASH}7,354)"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(382.0, 230.0, 1500.0), f"382 (230{DASH}1,500)"),
        (Estimate(5.0, 5.0, 5.0), "5"),
        (Estimate(5.0, math.nan, math.nan), "5"),
        (Estimate(math.nan, 100.0, 1000.0), f"100{DASH}1,000"),
        (Estimate(math.nan, 210.0, math.inf), "at least 210"),
        (Estimate(math.nan, 0.0, 40.0), "at most 40"),
        (Estimate(math.nan, 0.0, math.inf), DASH),
        (UNKNOWN, DASH),
    ],
)
def test_an_estimate_says_what_is_known(estimate: Estimate, text: str) -> None:
    assert estimate.text(above="at least ", below="at most ") == text


def test_columns_come_back() -> None:
    estimate = Estimate(2.0, 1.0, math.inf)
    assert Estimate.of(estimate.columns("x"), "x") == estimate
