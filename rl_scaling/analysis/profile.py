"""Least squares for the trade-off curve: one parameter searched, the other in closed form.

With B = E / S known for every point, eq. 2.11 of McCandlish et al. 2018 reads S = S_min (1 + B_crit / B), so that

    log S = log S_min + log(1 + B_crit / B).

Given B_crit the best log S_min is a mean of residuals; what is left is a curve over the single number log B_crit, which
is looked at on a grid, so that no local minimum can be mistaken for the best one. At both ends the curve has finite
limits: B_crit -> 0 is a constant number of steps, B_crit -> infinity a constant number of examples.

How far off B_crit could have come out with other seeds is told by a bootstrap that chooses again (`seed_interval`).
Seeds are drawn anew within each batch size, all learning rates of a batch size with the same draw; the best learning
rate is chosen again from the draw and the trade-off fitted again, so that the luck in the choice is part of the
interval. From m seeds m - 1 are drawn: the spread of their mean is then that of the mean of m fresh seeds, where
drawing m would make it too small by sqrt((m - 1)/m) (Rao and Wu 1988), a third for two seeds. The percentiles are
stretched about the fit by Student's t over the normal quantile, because a spread known from a few seeds is itself
uncertain; its degrees of freedom are those of the residuals, seeds less batch sizes less the two parameters of the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit

FloatArray = NDArray[np.float64]

# The grid reaches e^10 = 22,000 times beyond the batch sizes, where the curve is flat, in steps of a twentieth.
REACH, STEP = 10.0, 0.05

SEED = 0
UNKNOWN = math.nan
FAILED = math.inf


@dataclass(frozen=True)
class Profile:
    """Sum of squared residuals of log S as a function of x = log B_crit.

    Attributes:
        log_steps: (n,) log S.
        log_batch: (n,) log B.
        weights: (n,) relative weights, with mean 1.
    """

    log_steps: FloatArray
    log_batch: FloatArray
    weights: FloatArray

    @property
    def degrees_of_freedom(self) -> int:
        return len(self.log_steps) - 2

    @property
    def grid(self) -> FloatArray:
        return np.arange(self.log_batch.min() - REACH, self.log_batch.max() + REACH + STEP, STEP)

    def residuals(self, x: FloatArray | float) -> FloatArray:
        """(..., n) residuals with the best log S_min for each x; x may be minus or plus infinity."""
        shape = self._shape(np.asarray(x, dtype=np.float64)[..., None])
        offset = self.log_steps - shape
        return offset - (offset @ self.weights / self.weights.sum())[..., None]

    def squares(self, x: FloatArray | float) -> FloatArray:
        """(...,) weighted sum of squared residuals."""
        return self.residuals(x) ** 2 @ self.weights

    def log_steps_min(self, x: float) -> float:
        """The best log S_min for a finite x."""
        return float((self.log_steps - self._shape(np.asarray(x))) @ self.weights / self.weights.sum())

    def minimum(self) -> float:
        """The best x; minus or plus infinity where an end of the curve is lowest."""
        grid = self.grid
        squares = self.squares(grid)
        best = int(squares.argmin())
        if best in (0, len(grid) - 1):
            return -math.inf if best == 0 else math.inf
        left, right = float(grid[best - 1]), float(grid[best + 1])
        if self._slope(left) < 0 < self._slope(right):
            return float(brentq(self._slope, left, right, xtol=1e-14, rtol=4 * np.finfo(float).eps))
        return float(grid[best])

    def interval(self, confidence: float) -> tuple[float, float]:
        """The smallest and largest x that an F test (1 and n - 2 degrees of freedom) does not reject.

        With x fixed the model is linear in log S_min, and the ratio (squares(x) - least) / (least / (n - 2)) follows
        F approximately, exactly where the curve is straight in x. An end is infinite where the limit is not rejected.
        """
        best = self.minimum()
        least = float(self.squares(best))
        quantile = float(stdtrit(self.degrees_of_freedom, 0.5 + confidence / 2)) ** 2
        rounding = len(self.log_steps) * (64 * np.finfo(float).eps * (1 + float(np.abs(self.log_steps).max()))) ** 2
        allowed = least * (1 + quantile / self.degrees_of_freedom) + rounding
        return self._end(best, allowed, -1), self._end(best, allowed, 1)

    def standard_errors(self, x: float) -> tuple[float, float, float]:
        """Of log S_min, log E_min and log B_crit at a finite x: Gauss-Newton, residual variance over n - 2."""
        jacobian = np.stack([np.ones_like(self.log_batch), self._shape_slope(x)], axis=1)
        variance = float(self.squares(x)) / self.degrees_of_freedom
        cov = variance * np.linalg.inv(jacobian.T @ (self.weights[:, None] * jacobian))
        steps, batch, both = cov[0, 0], cov[1, 1], cov[0, 1]
        return math.sqrt(steps), math.sqrt(max(steps + batch + 2 * both, 0.0)), math.sqrt(batch)

    def _shape(self, x: FloatArray) -> FloatArray:
        """log(1 + B_crit / B); at plus infinity less x, and log S_min takes up the difference."""
        finite = np.logaddexp(0.0, np.where(np.isfinite(x), x, 0.0) - self.log_batch)
        return np.where(x == np.inf, -self.log_batch, np.where(x == -np.inf, 0.0, finite))

    def _shape_slope(self, x: float) -> FloatArray:
        return 1 / (1 + np.exp(self.log_batch - x))

    def _slope(self, x: float) -> float:
        """Half the derivative of `squares`."""
        return -float(self.residuals(x) @ (self.weights * self._shape_slope(x)))

    def _end(self, best: float, allowed: float, sign: int) -> float:
        """The outermost x on one side where `squares` is `allowed`."""
        if self.squares(sign * math.inf) <= allowed:
            return sign * math.inf
        grid = self.grid[::sign]
        if math.isfinite(best):
            grid = np.insert(grid, np.searchsorted(sign * grid, sign * best), best)
        inside = np.flatnonzero(self.squares(grid) <= allowed)
        if len(inside) == 0:
            return float(grid[0])
        if inside[-1] == len(grid) - 1:
            return float(grid[-1])
        within, beyond = float(grid[inside[-1]]), float(grid[inside[-1] + 1])
        return float(brentq(lambda x: float(self.squares(x)) - allowed, within, beyond, xtol=1e-12))


def minima(log_steps: FloatArray, log_batch: FloatArray, weights: FloatArray) -> FloatArray:
    """The best x of many data sets at once, to about a thousandth: for resampling.

    Args:
        log_steps: (r, n) log S of r data sets; NaN where a point is missing.
        log_batch: (n,) log B.

    Returns:
        (r,) best x, infinite as in `Profile.minimum`; NaN where fewer than three points are there.
    """
    grid = Profile(log_steps[0], log_batch, weights).grid
    shape = np.logaddexp(0.0, grid[:, None] - log_batch)
    there = np.isfinite(log_steps)
    w = np.where(there, weights, 0.0)
    w /= np.maximum(w.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    y = np.where(there, log_steps, 0.0)
    y = y - (w * y).sum(axis=1, keepdims=True)
    mean_shape = w @ shape.T
    # sum w (y - f + mean f)^2, multiplied out: y has weighted mean 0.
    squares = (w * y**2).sum(axis=1, keepdims=True) - 2 * (w * y) @ shape.T + w @ (shape**2).T - mean_shape**2
    best = squares.argmin(axis=1)
    inner = np.clip(best, 1, len(grid) - 2)
    before, at, after = (np.take_along_axis(squares, inner[:, None] + k, axis=1)[:, 0] for k in (-1, 0, 1))
    bend = np.maximum(before - 2 * at + after, np.finfo(float).tiny)
    x = grid[inner] + STEP * np.clip((before - after) / (2 * bend), -1, 1)
    x = np.where(best == 0, -np.inf, np.where(best == len(grid) - 1, np.inf, x))
    return np.where(there.sum(axis=1) >= 3, x, np.nan)


@dataclass(frozen=True)
class LogInterval:
    """An interval of x = log B_crit and standard errors of the logs of the three results."""

    low: float
    high: float
    log_steps_min_se: float
    log_examples_min_se: float
    log_critical_batch_se: float


def residual_interval(profile: Profile, confidence: float) -> LogInterval:
    """The interval that follows from the scatter about the curve."""
    low, high = profile.interval(confidence)
    best = profile.minimum()
    errors = profile.standard_errors(best) if math.isfinite(best) else (math.nan, math.nan, math.nan)
    return LogInterval(low, high, *errors)


@dataclass(frozen=True)
class Cell:
    """All learning rates and seeds of one goal and batch size.

    Attributes:
        log_updates: (rates, seeds) log of the updates to the goal; FAILED where the seed did not reach it, UNKNOWN
            where there is no such run or it is still going.
        best: row of the rate on the front.
    """

    log_updates: FloatArray
    best: int

    @property
    def best_seeds(self) -> int:
        """Seeds of the rate on the front."""
        return int(np.isfinite(self.log_updates[self.best]).sum())

    def resample(self, resamples: int, rng: np.random.Generator) -> FloatArray:
        """(resamples,) log updates of the rate that is best in each draw; NaN where none reached the goal."""
        seeds = self.log_updates.shape[1]
        drawn = self.log_updates[:, rng.integers(0, seeds, (resamples, seeds - 1))]
        known = ~np.isnan(drawn)
        totals = np.where(known, drawn, 0.0).sum(axis=2)
        counts = known.sum(axis=2)
        best = np.where(counts > 0, totals / np.maximum(counts, 1), np.inf).min(axis=0)
        return np.where(np.isfinite(best), best, np.nan)


def degrees_of_freedom(cells: list[Cell]) -> int:
    """What is left of the front's seeds after a mean for each batch size and the two parameters of the fit."""
    return sum(cell.best_seeds - 1 for cell in cells) - 2


def can_resample(cells: list[Cell]) -> bool:
    """Whether every batch size of a front has two seeds or more and something is left to judge their spread by."""
    return all(cell.best_seeds >= 2 for cell in cells) and degrees_of_freedom(cells) >= 1


def seed_interval(profile: Profile, cells: list[Cell], *, confidence: float, resamples: int) -> LogInterval:
    """The interval of log B_crit over resampled seeds; the same for the same data.

    Args:
        profile: the front's points, one per cell, in the order of the cells.
        cells: what the front was chosen from; `can_resample` holds.
    """
    rng = np.random.default_rng(SEED)
    log_steps = np.stack([cell.resample(resamples, rng) for cell in cells], axis=1)
    x = minima(log_steps, profile.log_batch, profile.weights)
    freedom = degrees_of_freedom(cells)
    tail = 0.5 - confidence / 2
    stretch = float(stdtrit(freedom, 1 - tail) / ndtri(1 - tail))
    low, high = _percentiles(x, tail)
    best = profile.minimum()
    if math.isfinite(best):
        low, high = best - stretch * max(best - low, 0.0), best + stretch * max(high - best, 0.0)
    log_steps_min = _offsets(profile, log_steps, x)
    errors = [_spread(values) for values in (log_steps_min, log_steps_min + x, x)]
    return LogInterval(low, high, *errors)


def _percentiles(x: FloatArray, tail: float) -> tuple[float, float]:
    """Percentiles that take infinities; draws without a fit (NaN) count as beyond either end."""
    low = np.quantile(np.where(np.isnan(x), -np.inf, x), tail, method="inverted_cdf")
    high = np.quantile(np.where(np.isnan(x), np.inf, x), 1 - tail, method="inverted_cdf")
    return float(low), float(high)


def _offsets(profile: Profile, log_steps: FloatArray, x: FloatArray) -> FloatArray:
    """(r,) log S_min for each draw; NaN or infinite where there is no finite fit."""
    there = np.isfinite(log_steps)
    w = np.where(there, profile.weights, 0.0)
    finite = np.where(np.isfinite(x), x, 0.0)
    offset = np.where(there, log_steps, 0.0) - np.logaddexp(0.0, finite[:, None] - profile.log_batch)
    means = (w * offset).sum(axis=1) / np.maximum(w.sum(axis=1), np.finfo(float).tiny)
    return np.where(np.isfinite(x), means, np.nan)


def _spread(values: FloatArray) -> float:
    """Half the width of the middle 68.3 %: the standard error, without being ruled by a few wild draws."""
    known = values[np.isfinite(values)]
    if len(known) < 0.9 * len(values):
        return math.nan
    low, high = np.quantile(known, [float(ndtr(-1.0)), float(ndtr(1.0))])
    return float(high - low) / 2
