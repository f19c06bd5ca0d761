"""The best learning rate against the batch size: linear at first, then flat (McCandlish et al. 2018, A.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

FEWEST_SIZES = 3


@dataclass(frozen=True)
class RateCurve:
    """rate(B) = limit / (1 + turn / B)^power  (A.3).

    Attributes:
        limit: the learning rate of very large batches.
        turn: the batch size at which the curve bends, at most a hundred times the largest and at least a
            hundredth of the smallest batch size: there no bend is seen.
        power: 1 for SGD and momentum, between 0.5 and 1 for Adam and RMSProp; given, not fitted.
        scatter: root mean square of log (measured / curve).
    """

    limit: float
    turn: float
    power: float
    scatter: float

    def __call__(self, batch_sizes: ArrayLike) -> NDArray[np.float64]:
        """The learning rate at each batch size."""
        return self.limit / (1 + self.turn / np.asarray(batch_sizes, dtype=np.float64)) ** self.power


def rate_curve(batch_sizes: ArrayLike, rates: ArrayLike, power: float = 1.0) -> RateCurve | None:
    """Fits A.3 to the best learning rates of several batch sizes, in logs.

    Best rates come from a grid: with a scatter as wide as the grid's spacing the turn is known no better than that.

    Args:
        batch_sizes: (n,) in the task's unit.
        rates: (n,) the best learning rate at each, positive.
        power: see `RateCurve`.

    Returns:
        The curve; None for fewer than three different batch sizes.

    Raises:
        ValueError: numbers that are not positive and finite.

    >>> sizes = np.array([1.0, 4.0, 16.0, 64.0, 256.0])
    >>> curve = rate_curve(sizes, 0.1 / (1 + 32 / sizes))
    >>> round(curve.turn), round(curve.limit, 3)
    (32, 0.1)
    """
    sizes, found = (np.asarray(x, dtype=np.float64) for x in (batch_sizes, rates))
    if not all(np.isfinite(x).all() and (x > 0).all() for x in (sizes, found)):
        raise ValueError("batch sizes and learning rates must be positive and finite")
    if len(np.unique(sizes)) < FEWEST_SIZES:
        return None
    log_rates = np.log(found)

    def residuals(log_turn: float) -> NDArray[np.float64]:
        shape = log_rates + power * np.logaddexp(0, log_turn - np.log(sizes))
        return shape - shape.mean()

    # Beyond a hundred times the batch sizes the turn makes no difference to the shape.
    low, high = math.log(sizes.min() / 100), math.log(sizes.max() * 100)
    grid = np.linspace(low, high, 200)
    start = int(np.argmin([np.sum(residuals(x) ** 2) for x in grid]))
    bracket = (grid[max(start - 1, 0)], grid[min(start + 1, len(grid) - 1)])
    best = minimize_scalar(lambda x: float(np.sum(residuals(x) ** 2)), bounds=bracket, method="bounded")
    log_turn = float(best.x)
    limit = float(np.exp(np.mean(log_rates + power * np.logaddexp(0, log_turn - np.log(sizes)))))
    scatter = float(np.sqrt(np.mean(residuals(log_turn) ** 2)))
    return RateCurve(limit, math.exp(log_turn), power, scatter)
