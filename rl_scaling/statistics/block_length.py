"""Contiguous blocks of a series, as long as the dependence between its measurements asks for.

A variance made from the sums of blocks is right if the blocks are long against that dependence, and precise if there
are many of them. How far measurements depend on their neighbours is read off the series itself, as in Politis and White
2004, *Automatic block-length selection for the dependent bootstrap*: independent ones get short blocks, dependent ones
long blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

# More blocks hardly shorten an interval (Student's t: 2.04 at 31 degrees of freedom, 1.96 at infinity), and longer ones
# take care of a dependence too weak to be seen.
MOST_BLOCKS = 32
# With fewer, the trend and the mean leave less than two degrees of freedom.
FEWEST_BLOCKS = 4
# Shorter series can show neither dependence nor a trend: each measurement is a block.
SHORTEST_SERIES = 13
# The length with the least squared error of the variance leaves it too small more often than too large: intervals
# covered more evenly at one and a half times that length.
_LENGTH_FACTOR = 1.5
# This many autocorrelations in a row within this many standard errors of zero count as the end of the dependence.
_BAND = 2.0
_QUIET_LAGS = 5
# The variance that blocks miss is estimated to first order, which holds while it is a modest part of the whole.
_MOST_MISSED = 0.6


@dataclass(frozen=True)
class Blocks:
    """Where blocks begin, and what they leave out.

    Attributes:
        starts: positions of their first measurements.
        missed: the part, 0 to 0.6, of the variance of the series' sum that the sums of the blocks miss because
            neighbouring blocks depend on each other.
    """

    starts: NDArray[np.intp]
    missed: float


def choose_blocks(deviations: FloatArray, weights: FloatArray, most: int = MOST_BLOCKS) -> Blocks:
    """Blocks of about equal weight for the variance of the sum of `deviations`.

    With R(h) the autocovariances of the deviations about a straight line, tapered by the flat-top window, g0 =
    sum R(h) and G = sum |h| R(h), blocks of L measurements find the variance too small by the part (G / g0) / L, and
    the length with the least mean squared error is (n (G / g0)^2)^(1/3). One and a half times that is taken, between 4
    and `most` blocks. The straight line is taken out because a slow trend would pass for a dependence as long as the
    series. For weighted series n is the effective number (sum w)^2 / sum w^2.

    Args:
        deviations: (n,), weighted deviations of the measurements from their mean, in order of time.
        weights: (n,), positive.
        most: the largest number of blocks.

    >>> rng = np.random.default_rng(0)
    >>> independent = rng.standard_normal(640)
    >>> len(choose_blocks(independent, np.ones(640)).starts)
    32
    >>> dependent = np.convolve(independent, np.ones(40), "same")
    >>> len(choose_blocks(dependent, np.ones(640)).starts)
    11
    """
    if len(deviations) < SHORTEST_SERIES:
        return Blocks(block_starts(weights, most), 0.0)
    effective = float(weights.sum() ** 2 / (weights @ weights))
    delay = _delay(without_trend(deviations, trend(weights, np.arange(len(weights)))), effective)
    length = max(1.0, _LENGTH_FACTOR * (effective * delay**2) ** (1 / 3))
    starts = block_starts(weights, min(most, max(FEWEST_BLOCKS, int(effective / length))))
    return Blocks(starts, min(delay * len(starts) / effective, _MOST_MISSED))


def block_starts(weights: FloatArray, blocks: int) -> NDArray[np.intp]:
    """Where contiguous blocks begin: at most `blocks`, none empty, of about equal weight.

    Args:
        weights: (n,), positive.
        blocks: the largest number of blocks.

    >>> block_starts(np.ones(7), 3)
    array([0, 2, 5])
    """
    middles = (np.cumsum(weights) - weights / 2) / weights.sum()
    labels = np.minimum(middles * min(blocks, len(weights)), blocks - 1).astype(np.intp)
    return np.flatnonzero(np.diff(labels, prepend=-1))


def trend(weights: FloatArray, times: NDArray[np.intp] | FloatArray) -> FloatArray:
    """(n,) unit vector: what a quantity that grows evenly in time adds to weighted deviations from its mean.

    >>> trend(np.ones(2), np.array([3.0, 5.0]))
    array([-0.70710678,  0.70710678])
    """
    slope = weights * (times - float(weights @ times) / float(weights.sum()))
    return slope / math.sqrt(float(slope @ slope))


def without_trend(deviations: FloatArray, direction: FloatArray) -> FloatArray:
    """Deviations less their part along the unit vector `direction`, by least squares."""
    return deviations - float(direction @ deviations) * direction


def _delay(residuals: FloatArray, effective: float) -> float:
    """G / g0, in measurements: 0 where no autocorrelation stands out of the noise."""
    autocorrelations = _autocorrelations(residuals, effective)
    last = _last_lag(autocorrelations, _BAND * math.sqrt(math.log10(effective) / effective))
    if last == 0:
        return 0.0
    lags = np.arange(1, min(2 * last, len(autocorrelations)) + 1)
    tapered = np.clip(2 * (1 - lags / (2 * last)), 0, 1) * autocorrelations[: len(lags)]
    # Alternating series have less variance than independent ones; they get the short blocks of those.
    return max(0.0, float(2 * lags @ tapered)) / max(float(1 + 2 * tapered.sum()), effective**-0.5)


def _autocorrelations(residuals: FloatArray, effective: float) -> FloatArray:
    """At the lags 1 to n/2, with what taking out mean and trend costs them, two parts in n, added to first order."""
    n = len(residuals)
    power = np.abs(np.fft.rfft(residuals, 2 * n)) ** 2
    covariances = np.fft.irfft(power)[: n // 2 + 1]
    # Rounding errors of a series without scatter are not a dependence.
    if not covariances[0] > 0:
        return np.zeros(n // 2)
    return covariances[1:] / covariances[0] + 2 / effective * (1 - np.arange(1, n // 2 + 1) / n)


def _last_lag(autocorrelations: FloatArray, band: float) -> int:
    """The last lag before `_QUIET_LAGS` autocorrelations in a row are within the band; 0: from the first on."""
    loud = np.concatenate([[0], 1 + np.flatnonzero(np.abs(autocorrelations) >= band), [np.iinfo(np.intp).max]])
    return int(loud[np.argmax(np.diff(loud) > _QUIET_LAGS)])
