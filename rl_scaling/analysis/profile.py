"""Least squares for the trade-off curve: one parameter searched, the other in closed form.

With B = E / S known for every point, eq. 2.11 of McCandlish et al. 2018 reads S = S_min (1 + B_crit / B), so that

    log S = log S_min + log(1 + B_crit / B).

Given B_crit the best log S_min is a mean of residuals; what is left is a curve over the single number log B_crit, which
is looked at on a grid, so that no local minimum can be mistaken for the best one. At both ends the curve has finite
limits: B_crit -> 0 is a constant number of steps, B_crit -> infinity a constant number of examples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

FloatArray = NDArray[np.float64]

# The grid reaches e^10 = 22,000 times beyond the batch sizes, where the curve is flat, in steps of a twentieth.
REACH, STEP = 10.0, 0.05


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
        weights: (n,) relative weights.

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
