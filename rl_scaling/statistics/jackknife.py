"""The ratio of two means with an interval from a delete-one-block jackknife, its blocks as long as dependence asks for.

Used for theta = |G|^2 / tr(Sigma) = 1 / B_simple (McCandlish et al. 2018, eq. 2.9): both means can be estimated without
bias, theta stays finite where B_simple does not, and an interval of theta that reaches zero says that the
measurements cannot tell B_simple from infinity.

A variance made from the sums of contiguous blocks is right if the blocks are long against the dependence between
measurements, and precise if there are many of them. How far measurements depend on their neighbours is read off the
series itself, as in Politis and White 2004, *Automatic block-length selection for the dependent bootstrap*: independent
ones get short blocks, dependent ones long blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, stdtrit

from rl_scaling.estimates import Estimate

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


# Estimates of this many standard errors have a reciprocal without bias, to double precision.
_NEGLIGIBLE_ERROR = 1e8


@dataclass(frozen=True)
class RatioEstimate:
    """theta = mean(numerator) / mean(denominator), with the interval ratio - half_width to ratio + half_width.

    Attributes:
        ratio: the plain ratio; NaN where the mean denominator is not positive (infinite where it is exactly zero).
        half_width: half the length of the interval; infinite where nothing is known.
        standard_error: jackknife standard error of the ratio.
        degrees_of_freedom: of the standard error; the number of blocks less one when all blocks weigh the same.
        bias: jackknife estimate of the ratio's bias. It is reported and not subtracted: both numerator and
            denominator are skewed to the right, and with the subtraction intervals covered the truth less often. Nor
            does it matter: it is far below the bias of the reciprocal, which `invert` takes out.
    """

    ratio: float
    half_width: float
    standard_error: float
    degrees_of_freedom: float
    bias: float

    @property
    def low(self) -> float:
        return self.ratio - self.half_width if math.isfinite(self.half_width) else -math.inf

    @property
    def high(self) -> float:
        return self.ratio + self.half_width if math.isfinite(self.half_width) else math.inf


def ratio_of_means(
    numerators: Sequence[float] | FloatArray,
    denominators: Sequence[float] | FloatArray,
    weights: Sequence[float] | FloatArray | None = None,
    *,
    blocks: int = MOST_BLOCKS,
    confidence: float = 0.95,
) -> RatioEstimate:
    """The ratio of two weighted means over a series of measurements, and its interval.

    The series is cut into contiguous blocks of about equal weight, as long as the dependence between its measurements
    asks for (`choose_blocks`). With W the sum of the weights, w_j the weight of block j and theta_(-j) the ratio
    without that block, the influence of the block is

        d_j = (1 - w_j / W) (theta - theta_(-j)),

    to first order the block's share of the error of theta. Its square sums to the variance of theta, up to a factor
    that makes the variance of a weighted mean exactly unbiased for independent measurements of equal variance;
    the degrees of freedom of Student's t are Satterthwaite's for that sum of squares. With g blocks of equal weights
    this is the ordinary jackknife, variance (g - 1) / g * sum_j (theta_(-j) - theta)^2 and g - 1 degrees of freedom.
    For unequal blocks it differs from the delete-m_j jackknife of Busing, Meijer and van der Leeden 1999 in one point:
    they take the variance of a block's mean to be inversely proportional to its weight, which holds for counts but
    not for the weights of a moving average, where their variance comes out too small.

    From 13 measurements on, a straight line is taken out of the influences: an even drift of theta is no error of its
    mean. A drift that is not straight counts as variation between blocks, and the interval is longer than it need be.

    Args:
        numerators: (n,), one per measurement, in order of time.
        denominators: (n,), one per measurement.
        weights: (n,), positive; None: all alike.
        blocks: the largest number of blocks; fewer measurements than that are each a block of their own at most.
        confidence: probability that the interval covers the true ratio.

    Raises:
        ValueError: no measurements, shapes that differ, weights that are not positive, fewer than two blocks, or a
            confidence outside (0, 1).

    >>> estimate = ratio_of_means([1.0, 2.0, 3.0, 2.0], [4.0, 4.0, 4.0, 4.0])
    >>> print(f"{estimate.ratio:.3f}: {estimate.low:.3f} to {estimate.high:.3f}")
    0.500: 0.175 to 0.825
    """
    _check_options(blocks, confidence)
    num, den, w = _checked(numerators, denominators, weights)
    total_num, total_den = float(w @ num), float(w @ den)
    ratio = _divide(total_num, total_den)
    if len(num) < 2 or not math.isfinite(ratio):
        return _without_interval(ratio, noise_free=len(num) > 1 and ratio == math.inf and not den.any())
    chosen = choose_blocks(w * (num - ratio * den), w, blocks)
    if (influences := _influences(w * num, w * den, w, chosen.starts)) is None:
        return _without_interval(ratio)
    shares, line = np.add.reduceat(w, chosen.starts) / w.sum(), None
    bias = -float(influences.sum())
    if len(num) >= SHORTEST_SERIES and len(shares) >= FEWEST_BLOCKS:
        line = trend(shares, np.add.reduceat(w * np.arange(len(w)), chosen.starts) / shares)
        influences = without_trend(influences, line)
    factor, freedom = _calibration(shares, np.add.reduceat(w * w, chosen.starts), line)
    error = math.sqrt(factor * float(influences @ influences) / (1 - chosen.missed))
    quantile = float(stdtrit(freedom, 0.5 + confidence / 2))
    return RatioEstimate(ratio, quantile * error, error, freedom, bias)


def _influences(
    numerators: FloatArray, denominators: FloatArray, weights: FloatArray, starts: NDArray[np.intp]
) -> FloatArray | None:
    """d_j of each block, from weighted terms; None where a ratio without some block does not exist."""
    num, den, total = numerators.sum(), denominators.sum(), weights.sum()
    left_den = den - np.add.reduceat(denominators, starts)
    if len(starts) < 2 or np.any(left_den <= 0):
        return None
    left_out = (num - np.add.reduceat(numerators, starts)) / left_den
    return (1 - np.add.reduceat(weights, starts) / total) * (num / den - left_out)


def _check_options(blocks: int, confidence: float) -> None:
    if blocks < 2:
        raise ValueError(f"blocks is {blocks}: an interval needs 2 or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")


def invert(estimate: RatioEstimate) -> Estimate:
    """The estimate and interval of 1 / theta, for a theta that is known not to be negative.

    Resolved if the interval of theta lies above zero; then 1 / theta has the interval 1 / high to 1 / low. Otherwise
    only a lower bound is known, 1 / (max(theta, 0) + half width): where chance made the estimate of theta
    negative, the bound rests on how precisely theta could be measured and not on how far below zero it fell. That
    makes it conservative: it fails less often than the interval of theta does.

    A reciprocal is convex, so 1 / estimate is too large on average, by the squared relative error of the estimate to
    first order. For a normal estimate x of a positive mean with standard error s

        R(x / s) / s,   R(z) = (1 - Phi(z)) / phi(z)   (Mills' ratio)   = 1 / x (1 - s^2 / x^2 + ...)

    has exactly the mean 1 / theta (Voinov 1985, *Unbiased estimation of powers of the inverse of mean and related
    problems*); that is the value. The interval is not moved: it is right for theta, and so for 1 / theta.

    >>> round(invert(ratio_of_means([1.0, 2.0, 3.0, 2.0], [4.0, 4.0, 4.0, 4.0])).value, 3)
    1.925
    >>> invert(ratio_of_means([1.0, -1.0, 3.0, -2.0], [4.0, 4.0, 4.0, 4.0])).resolved
    False
    """
    if estimate.low > 0:
        low, high = 1 / estimate.high, 1 / estimate.low
        value = max(low, _unbiased_inverse(estimate.ratio, estimate.standard_error))
        return Estimate(value, low, high)
    reach = math.inf if math.isnan(estimate.ratio) else max(estimate.ratio, 0.0) + estimate.half_width
    return Estimate(math.nan, 1 / reach if reach > 0 else 0.0, math.inf, "its inverse cannot be told from zero")


def _unbiased_inverse(estimate: float, standard_error: float) -> float:
    if standard_error == 0 or estimate / standard_error > _NEGLIGIBLE_ERROR:
        return 1 / estimate
    return math.sqrt(math.pi / 2) * float(erfcx(estimate / standard_error / math.sqrt(2))) / standard_error


def _calibration(shares: FloatArray, block_sq_weights: FloatArray, line: FloatArray | None) -> tuple[float, float]:
    """(factor, degrees of freedom) for the sum of squared influences.

    For independent measurements of unit variance the weighted block sums have the variances q_j, and the influences
    of a weighted mean are those sums less their shares of the total, less their straight line: covariance
    P diag(q) P' with P = (I - line line') (I - share 1').
    """
    projection = np.eye(len(shares)) - shares[:, None]
    if line is not None:
        projection -= np.outer(line, line @ projection)
    covariance = (projection * block_sq_weights) @ projection.T
    trace = float(np.trace(covariance))
    return float(block_sq_weights.sum()) / trace, trace**2 / float(np.sum(covariance**2))


def _without_interval(ratio: float, *, noise_free: bool = False) -> RatioEstimate:
    width = 0.0 if noise_free else math.inf
    return RatioEstimate(ratio, width, width, 0.0, math.nan)


def _divide(numerator: float, denominator: float) -> float:
    if denominator > 0:
        return numerator / denominator
    return math.inf if denominator == 0 and numerator > 0 else math.nan


def _checked(
    numerators: Sequence[float] | FloatArray,
    denominators: Sequence[float] | FloatArray,
    weights: Sequence[float] | FloatArray | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    num = np.asarray(numerators, dtype=np.float64)
    den = np.asarray(denominators, dtype=np.float64)
    w = np.ones_like(num) if weights is None else np.asarray(weights, dtype=np.float64)
    if num.ndim != 1 or not num.shape == den.shape == w.shape:
        raise ValueError(f"numerators {num.shape}, denominators {den.shape} and weights {w.shape} must be one (n,)")
    if len(num) == 0:
        raise ValueError("no measurements: a ratio of means needs at least one")
    if not np.all(w > 0):
        raise ValueError("weights must be positive")
    return num, den, w
