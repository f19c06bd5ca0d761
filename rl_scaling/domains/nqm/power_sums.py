"""Sums of powers over ranges of integers, without listing them: sum of i^-a for i = first .. last."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
LISTED = 64
"""Below this index terms are added one by one; above it the Euler-Maclaurin remainder is below rounding error."""


_EULER_MACLAURIN = ((1, 1 / 12), (3, -1 / 720), (5, 1 / 30_240), (7, -1 / 1_209_600), (9, 1 / 47_900_160))
"""Orders of the derivatives, and B_2k / (2k)!."""


def power_sums(edges: NDArray[np.int64], exponent: float) -> FloatArray:
    """Sums of i^-exponent over the ranges edges[j] <= i < edges[j + 1].

    From index 64 on by the Euler-Maclaurin formula with five correction terms, below rounding for exponents up to 12:
    memory and time do not depend on the largest index.

    Args:
        edges: (n + 1,), increasing, the first at least 1; every range lies on one side of 64 or is cut there.
        exponent: a, any real number.

    Returns:
        (n,) sums.

    >>> power_sums(np.array([1, 3, 5]), 1.0)
    array([1.5       , 0.58333333])
    """
    edges = np.asarray(edges, dtype=np.int64)
    listed = np.append(np.arange(1, LISTED, dtype=np.float64) ** -exponent, 0.0)
    starts = np.minimum(edges, LISTED) - 1
    small = np.where(np.diff(starts) > 0, np.add.reduceat(listed, starts)[:-1], 0.0)
    return small + _euler_maclaurin(np.maximum(edges[:-1], LISTED), np.maximum(edges[1:], LISTED), exponent)


def _euler_maclaurin(start: NDArray[np.int64], stop: NDArray[np.int64], a: float) -> FloatArray:
    """Sum over start <= i < stop: integral + (f(start) - f(stop)) / 2 + sum_k B_2k / (2k)! (f^(2k-1)(stop) - ...)."""
    m, n = start.astype(np.float64), stop.astype(np.float64)
    ratio = np.log1p((n - m) / m)
    growth = np.expm1((1 - a) * ratio) / (1 - a) if a != 1 else ratio
    total = m ** (1 - a) * growth + (m**-a - n**-a) / 2
    rising = a
    for power, weight in _EULER_MACLAURIN:
        total = total + weight * rising * (m ** -(a + power) - n ** -(a + power))
        rising *= (a + power) * (a + power + 1)
    return np.where(n > m, total, 0.0)
