"""Numbers as people write them."""

from __future__ import annotations

import math

import pandas as pd

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """A value rounded to significant digits, thousands separated; a dash for NaN.

    From ten million on it is written in millions or billions; what is larger still, or below a thousandth, with a power
    of ten.
    """
    if math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else MINUS + "∞"
    for word, size in (("billion", 1e9), ("million", 1e6)):
        if max(size, 1e7) <= abs(value) < 1e13:
            return f"{number(value / size, digits)} {word}"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    exponent = int(power)
    if value != 0 and not -3 <= exponent < 7:
        text = f"{_without_zeros(mantissa)} \N{MULTIPLICATION SIGN} 10{str(exponent).translate(_SUPERSCRIPTS)}"
    else:
        decimals = max(0, digits - 1 - exponent)
        text = _without_zeros(f"{float(f'{mantissa}e{power}'):,.{decimals}f}")
    return text.replace("-", MINUS)


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def interval(low: float, high: float, digits: int = 3) -> str:
    """An interval as "low - high", with a dash of the right length."""
    return f"{number(low, digits)} {DASH} {number(high, digits)}"


def count_of(count: int, noun: str) -> str:
    """A count and its noun: 1 run, 1,200 runs."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def percent(fits: pd.DataFrame) -> str:
    """The confidence of the intervals in `SweepFit.fits`, with a space that does not break."""
    return f"{100 * fits['confidence'].iloc[0]:g}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds)} s"
