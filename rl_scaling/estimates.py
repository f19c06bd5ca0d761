"""A number with its interval, and numbers as people write them: the one type and the one formatter of the project."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Estimate:
    """A measured number and its interval.

    Attributes:
        value: NaN while unresolved.
        low: lower end of the interval; while unresolved, what the quantity exceeds. NaN where nothing is known.
        high: upper end; infinite where it is open.
        reason: why there is no value, in a few words; empty where there is one.

    >>> print(Estimate(382.0, 230.0, 1500.0))
    382 (230–1,500)
    >>> print(Estimate(math.nan, 210.0, math.inf))
    > 210
    """

    value: float
    low: float
    high: float
    reason: str = ""

    @classmethod
    def of(cls, row: Mapping[Any, Any], name: str) -> Estimate:
        """From a row's columns `name`, `name`_low and `name`_high."""
        value, low, high = (float(row[column]) for column in columns_of(name))
        return cls(value, low, high)

    def columns(self, name: str) -> dict[str, float]:
        """As the columns `name`, `name`_low and `name`_high."""
        return dict(zip(columns_of(name), (self.value, self.low, self.high), strict=True))

    @property
    def resolved(self) -> bool:
        """Whether there is a value."""
        return math.isfinite(self.value)

    def __str__(self) -> str:
        return self.text()

    def text(self, digits: int = 3, *, whole: bool = False, above: str = "> ", below: str = "< ") -> str:
        """The value with its interval, the side that is known, or a dash.

        Args:
            digits, whole: see `number`.
            above, below: what goes before a bound.
        """
        value, low, high = (number(x, digits, whole=whole) for x in (self.value, self.low, self.high))
        known_low, known_high = math.isfinite(self.low) and self.low > 0, math.isfinite(self.high)
        if self.resolved and (self.low == self.high or math.isnan(self.low) or math.isnan(self.high)):
            return value
        if self.resolved:
            return f"{value} ({low}{DASH}{high})"
        if known_low and known_high:
            return f"{low}{DASH}{high}"
        if known_low:
            return above + low
        return below + high if known_high else DASH


def columns_of(name: str) -> tuple[str, str, str]:
    """The columns of an estimate in a table.

    >>> columns_of("noise_scale")
    ('noise_scale', 'noise_scale_low', 'noise_scale_high')
    """
    return (name, f"{name}_low", f"{name}_high")


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def number(value: float, digits: int = 3, *, whole: bool = False) -> str:
    """A value rounded to significant digits, thousands separated; a dash for NaN. `whole` keeps every whole digit.

    From ten million on it is written in millions or billions; what is larger still, or below a thousandth, with a power
    of ten.

    >>> number(12345.6), number(12345.6, whole=True), number(2.5e7)
    ('12,300', '12,346', '25 million')
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
        rounded = value if whole else float(f"{mantissa}e{power}")
        text = _without_zeros(f"{rounded:,.{decimals}f}")
    return text.replace("-", MINUS)


def _without_zeros(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def interval(low: float, high: float, digits: int = 3) -> str:
    """An interval as "low–high", or "low to high" where a minus would run into the dash.

    >>> print(interval(230.0, 1500.0), "and", interval(-0.5, 1.0).replace(MINUS, "-"))
    230–1,500 and -0.5 to 1
    """
    return f"{number(low, digits)}{' to ' if low < 0 else DASH}{number(high, digits)}"


def digits_apart(low: float, high: float) -> int:
    """Significant digits, 2 to 8, that show how wide an interval is; 3 where it has no width.

    >>> digits_apart(230.0, 1500.0), digits_apart(0.12321, 0.12369)
    (2, 4)
    """
    return 3 if high <= low else min(max(2, 1 + math.ceil(math.log10(high / (high - low)))), 8)


def count_of(count: int, noun: str) -> str:
    """A count and its noun.

    >>> count_of(1, "run"), count_of(1200, "run")
    ('1 run', '1,200 runs')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(61), duration(3 * 3600)
    ('61 s', '3 h')
    """
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds)} s"
