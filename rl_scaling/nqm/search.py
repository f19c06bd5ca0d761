"""The fewest steps to a target risk over learning rates and coefficients (Zhang et al. 2019, section 3.7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from rl_scaling.nqm.closed_form import Model, published, second_moments

FloatArray = NDArray[np.float64]
LONGEST = 1e9  # steps that are looked at

PUBLISHED_RATES = {"sgd": np.logspace(-5, 0.5, 100), "other": np.logspace(-8, 1, 100)}
PUBLISHED_COEFFICIENTS = 1 - np.logspace(-5, 0, 20)


def steps_to_target(
    batch_sizes: ArrayLike,
    optimizer: str = "sgd",
    *,
    power: float = 0.0,
    target: float = 0.01,
    model: Model | None = None,
    as_published: bool = False,
) -> pd.DataFrame:
    """The fewest steps to a risk below `target` over learning rates and coefficients.

    Args:
        batch_sizes: (n,) in examples, any positive numbers.
        optimizer: "sgd", "momentum", "nesterov" or "ema".
        power: p of the preconditioner.
        target: risk to reach.
        model: None: the published one.
        as_published: the published grids and count of steps (the last step above the target) instead of an optimum
            found by refining grids.

    Returns:
        One row per batch size: batch_size, steps (infinite where not reached), learning_rate, coefficient.

    Raises:
        ValueError: a target that is not between 0 and the initial risk, batch sizes that are not positive, or an
            unknown optimizer.
    """
    model = model or published()
    sizes = np.atleast_1d(np.asarray(batch_sizes, dtype=np.float64))
    if not ((sizes > 0) & np.isfinite(sizes)).all():
        raise ValueError("batch sizes must be positive and finite")
    if not 0 < target < model.initial_risk:
        raise ValueError(f"target is {target}: give a risk between 0 and {model.initial_risk:.4g}, where it starts")
    rates = PUBLISHED_RATES["sgd" if optimizer == "sgd" else "other"]
    coefficients = np.zeros(1) if optimizer == "sgd" else PUBLISHED_COEFFICIENTS
    search = _Search(model, optimizer, power, target)
    rows = search.best(sizes, rates, coefficients)
    if as_published:
        least = 1.0 if optimizer == "sgd" else 0.0
        rows = [(max(steps - 1, least), rate, coefficient) for steps, rate, coefficient in rows]
    else:
        rows = [search.refined(size, row, rates, coefficients) for size, row in zip(sizes, rows, strict=True)]
    found = pd.DataFrame(rows, columns=pd.Index(["steps", "learning_rate", "coefficient"]))
    found.insert(0, "batch_size", sizes)
    return found


_Row = tuple[float, float, float]


@dataclass(frozen=True)
class _Search:
    """The fewest steps to a target on grids of learning rates and coefficients."""

    model: Model
    optimizer: str
    power: float
    target: float

    def best(self, sizes: FloatArray, rates: FloatArray, coefficients: FloatArray) -> list[_Row]:
        """Steps, learning rate and coefficient of the best on a grid, for every batch size.

        By doubling the steps, which serves all batch sizes together, and then halving for those that may still win.
        """
        rate, beta = (x.ravel() for x in np.meshgrid(rates, coefficients, indexing="ij"))
        within = np.full((len(sizes), len(rate)), np.inf)
        steps = 1.0
        while steps < 2 * LONGEST:
            left, noise = self._parts(np.full(len(rate), steps), rate, beta)
            hit = left + noise / sizes[:, None] < self.target
            # Who needs more than twice the steps of the best cannot win.
            open_sizes = ~np.isfinite(within).any(axis=1)
            within[open_sizes] = np.where(hit[open_sizes], steps, np.inf)
            if np.isfinite(within).any(axis=1).all():
                break
            steps *= 2
        return [self._halve(size, row, rate, beta) for size, row in zip(sizes, within, strict=True)]

    def refined(self, size: float, row: _Row, rates: FloatArray, coefficients: FloatArray) -> _Row:
        """The optimum near the best of a grid, by finer and finer grids around it."""
        span, spread = float(np.log(rates[1] / rates[0])), float(np.log(10) * 5 / 19)
        for _ in range(3):
            steps, rate, coefficient = row
            if not np.isfinite(steps):
                return row
            around = rate * np.exp(np.linspace(-2, 2, 13) * span)
            factors = np.exp(np.linspace(-1.2, 1.2, 9) * spread)
            near = coefficients if self.optimizer == "sgd" else 1 - np.minimum((1 - coefficient) * factors, 1.0)
            row = min(row, self.best(np.array([size]), around, np.unique(near))[0])
            span, spread = span / 3, spread / 3
        return row

    def _parts(self, steps: FloatArray, rate: FloatArray, beta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(g,) the start's part of the risk and the noise's at batch size 1; infinite where it diverges."""
        arrays = (steps[:, None], rate[:, None], beta[:, None])
        with np.errstate(invalid="ignore", over="ignore"):
            parts = [
                part @ self.model.count for part in second_moments(self.model, self.optimizer, *arrays, self.power)
            ]
        left, noise = (np.where(np.isfinite(part), part, np.inf) for part in parts)
        return left, noise

    def _halve(self, size: float, within: FloatArray, rate: FloatArray, beta: FloatArray) -> _Row:
        rows = np.flatnonzero(np.isfinite(within))
        if len(rows) == 0:
            return np.inf, np.nan, np.nan
        low, high = np.floor(within[rows] / 2), within[rows]
        while (high - low).max() > 1:
            middle = np.floor((low + high) / 2)
            left, noise = self._parts(middle, rate[rows], beta[rows])
            hit = left + noise / size < self.target
            high, low = np.where(hit, middle, high), np.where(hit, low, middle)
            alive = low < high.min()
            rows, low, high = rows[alive], low[alive], high[alive]
        best = int(high.argmin())
        return float(high[best]), float(rate[rows[best]]), float(beta[rows[best]])
