"""Learning rates: the best against the batch size, linear at first, then flat (McCandlish et al. 2018, A.3).

And which goal shows most of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from rl_scaling.estimates import Estimate
from rl_scaling.records import Direction

FEWEST_SIZES = 3
_GRID = 2001
_CURVE_POINTS = 40
# Best rates lie on a grid a factor 2 apart or so, which scatters them by about a fifth at the least.
_LEAST_VARIANCE = math.log(2) ** 2 / 12


@dataclass(frozen=True)
class RateCurve:
    """rate(B) = limit / (1 + turn / B)^power  (A.3).

    Attributes:
        limit: the learning rate of very large batches.
        turn: the batch size around which the best rate stops growing, in the task's unit, with its profile-likelihood
            interval; 0 where it lies below all batch sizes (the rate stays), infinite where it lies above them.
        power: 1 for SGD and momentum, between 0.5 and 1 for Adam and RMSProp; given, not fitted.
        scatter: standard deviation of log (measured / curve), of at least what a grid of rates allows.
    """

    limit: float
    turn: Estimate
    power: float
    scatter: float
    _drawn_turn: float

    def __call__(self, batch_sizes: ArrayLike) -> NDArray[np.float64]:
        """The learning rate at each batch size."""
        return self.limit / (1 + self._drawn_turn / np.asarray(batch_sizes, dtype=np.float64)) ** self.power


def rate_curve(
    batch_sizes: ArrayLike, rates: ArrayLike, power: float = 1.0, *, confidence: float = 0.95
) -> RateCurve | None:
    """Fits A.3 to the best learning rates of several batch sizes, in logs: the profile over the turn, on a fine grid.

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
    >>> round(curve.turn.value), round(curve.limit, 3)
    (32, 0.1)
    """
    sizes, found = (np.asarray(x, dtype=np.float64) for x in (batch_sizes, rates))
    if not all(np.isfinite(x).all() and (x > 0).all() for x in (sizes, found)):
        raise ValueError("batch sizes and learning rates must be positive and finite")
    if len(np.unique(sizes)) < FEWEST_SIZES:
        return None
    first, last = float(sizes.min()), float(sizes.max())
    turns = np.geomspace(first / 100, last * 100, _GRID)  # beyond, the turn makes no difference to the shape
    log_limits = np.log(found) + power * np.log1p(turns[:, None] / sizes)
    squares = ((log_limits - log_limits.mean(1, keepdims=True)) ** 2).sum(1)
    variance = max(squares.min() / max(len(sizes) - 2, 1), _LEAST_VARIANCE)
    inside = turns[squares <= squares.min() + variance * chi2.ppf(confidence, 1)]
    best = int(squares.argmin())

    def seen(turn: float) -> float:
        return 0.0 if turn < first else math.inf if turn > last else float(turn)

    return RateCurve(
        limit=math.exp(float(log_limits[best].mean())),
        turn=Estimate(seen(turns[best]), seen(inside.min()), seen(inside.max())),
        power=power,
        scatter=math.sqrt(variance),
        _drawn_turn=float(turns[best]),
    )


def curve_of_hardest_goal(
    front: pd.DataFrame, power: float, direction: Direction
) -> tuple[float, pd.DataFrame, RateCurve] | None:
    """A.3 fitted to the best rates of the hardest goal that three batch sizes reached.

    Args:
        front: the task's rows of `SweepFit.fronts`.
        power: see `RateCurve`.
        direction: where goals are reached from.

    Returns:
        The goal, batch_size and learning_rate along the curve, and the curve; None where no goal has three.
    """
    sizes = front.groupby("goal")["batch_size"].nunique()
    enough = sizes.index[sizes >= FEWEST_SIZES]
    if not len(enough):
        return None
    goal = float(enough.max() if direction == "max" else enough.min())
    chosen = front[front["goal"] == goal]
    curve = rate_curve(chosen["batch_size"], chosen["learning_rate"], power)
    if curve is None:
        return None
    at = np.geomspace(float(chosen["batch_size"].min()), float(chosen["batch_size"].max()), _CURVE_POINTS)
    return goal, pd.DataFrame({"batch_size": at, "learning_rate": curve(at)}), curve


def rates_to_goals(learning_rates: pd.DataFrame) -> tuple[float, pd.DataFrame] | None:
    """Updates to every goal by learning rate, the best setting of each.

    Args:
        learning_rates: the task's rows of `SweepFit.learning_rates`.

    Returns:
        The hardest goal among those that the largest number of batch sizes reached, and goal, batch_size,
        learning_rate, setting, updates; None where no goal was reached.
    """
    reached = learning_rates.dropna(subset=["updates"])
    if reached.empty:
        return None
    by_goal = reached.groupby("goal").agg(sizes=("batch_size", "nunique"), updates=("updates", "min"))
    columns = ["goal", "batch_size", "learning_rate", "setting", "updates"]
    table = reached.sort_values("updates").drop_duplicates(columns[:3])[columns].sort_values(columns)
    return float(by_goal.sort_values(["sizes", "updates"]).index[-1]), table


def final_values_by_rate(runs: pd.DataFrame, direction: Direction) -> pd.DataFrame:
    """What runs end with by batch size and learning rate, the best setting of each.

    Args:
        runs: one row per run of one task, `Series.runs`.
        direction: which end is better.

    Returns:
        batch_size, learning_rate, setting, score (mean over seeds), seeds, examples.
    """
    rate = ["batch_size", "learning_rate"]
    grouped = runs.dropna(subset=["final_score"]).groupby([*rate, "setting"], as_index=False)
    means = grouped.agg(score=("final_score", "mean"), seeds=("final_score", "size"), examples=("examples", "mean"))
    best_first = means.sort_values("score", ascending=direction == "min")
    return best_first.drop_duplicates(rate).sort_values(rate)
