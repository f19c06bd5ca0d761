"""Scores smoothed over finished episodes, so that a goal is not reached by one lucky game.

McCandlish et al. 2018, A.3, smooth by an exponential moving average before comparing with a goal. Here the average
runs over episodes (for losses: over examples), not over rows or updates: its value depends neither on how often rows
were recorded nor on the batch size. It lags behind the newest episode by about `horizon` episodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

DEFAULT_HORIZON = 50.0


class ScoreSmoother:
    """A debiased exponential moving average over episodes, fed one row at a time.

    With N episodes seen, of scores s_1 ... s_N, and decay a = exp(-1/horizon), the value is
    sum_j a^(N-j) s_j / sum_j a^(N-j): the weights of a short history add up to one, so that the start has no bias
    towards zero. A row of n episodes counts as n episodes with the row's mean score.

    Args:
        horizon: time constant in episodes (or in whatever the weights count: examples for a loss).
        minimum: episodes needed before there is a value; before that it is NaN. None: half the horizon.

    Raises:
        ValueError: a horizon that is not positive, or a negative minimum.
    """

    def __init__(self, horizon: float = DEFAULT_HORIZON, minimum: float | None = None) -> None:
        self._horizon, self._minimum = _checked(horizon, minimum)
        self._total = 0.0
        self._average = 0.0

    @property
    def value(self) -> float:
        """The smoothed score; NaN while fewer than `minimum` episodes have been seen."""
        return self._average if self._total > 0 and self._total >= self._minimum else math.nan

    def update(self, score: float, episodes: float) -> float:
        """Takes in one row and returns the smoothed score.

        Args:
            score: mean score of the row's episodes; a row whose score is not finite counts as not observed.
            episodes: episodes the row averages over; 0 leaves the value as it is.

        Raises:
            ValueError: a negative or non-finite number of episodes.
        """
        if not 0 <= episodes < math.inf:
            raise ValueError(f"episodes is {episodes}: give 0 or more")
        if episodes == 0 or not math.isfinite(score):
            return self.value
        self._total += episodes
        self._average += _share(episodes, self._total, self._horizon) * (score - self._average)
        return self.value


def smooth(
    scores: ArrayLike | Sequence[float],
    episodes: ArrayLike | Sequence[float],
    *,
    horizon: float = DEFAULT_HORIZON,
    minimum: float | None = None,
) -> NDArray[np.float64]:
    """The smoothed score after every row of one run, bit for bit what `ScoreSmoother` gives row by row.

    Early stopping decides with the incremental form and fits use this one; they must never disagree about a goal.

    Args:
        scores: (rows,) mean score of the episodes finished since the row before; NaN where there were none.
        episodes: (rows,) number of those episodes.

    Returns:
        (rows,) smoothed scores, NaN until `minimum` episodes have been seen.

    Raises:
        ValueError: arguments of different lengths, or what `ScoreSmoother` refuses.
    """
    values = np.asarray(scores, dtype=np.float64)
    counts = np.asarray(episodes, dtype=np.float64)
    if values.shape != counts.shape or values.ndim != 1:
        raise ValueError(f"scores {values.shape}, episodes {counts.shape}: give one of each per row")
    return smooth_together([values], np.where(np.isfinite(values), counts, 0), horizon=horizon, minimum=minimum)[0]


def smooth_together(
    columns: Sequence[NDArray[np.float64]],
    episodes: NDArray[np.float64],
    *,
    horizon: float = DEFAULT_HORIZON,
    minimum: float | None = None,
) -> list[NDArray[np.float64]]:
    """Several columns of one run smoothed over the same episodes.

    Args:
        columns: each (rows,), finite wherever there are episodes.
        episodes: (rows,) weights of the rows.

    Raises:
        ValueError: what `ScoreSmoother` refuses.
    """
    horizon, minimum = _checked(horizon, minimum)
    if not ((episodes >= 0) & np.isfinite(episodes)).all():
        raise ValueError("a number of episodes is negative or not finite: give 0 or more")
    totals = np.add.accumulate(episodes)
    pairs = zip(episodes.tolist(), totals.tolist(), strict=True)
    shares = [_share(count, total, horizon) if count else 0.0 for count, total in pairs]
    known = (totals > 0) & (totals >= minimum)
    return [np.where(known, _averages(np.where(episodes > 0, column, 0.0), shares), np.nan) for column in columns]


def _averages(values: NDArray[np.float64], shares: list[float]) -> list[float]:
    average = 0.0
    found: list[float] = []
    for value, share in zip(values.tolist(), shares, strict=True):
        average += share * (value - average)
        found.append(average)
    return found


def _share(episodes: float, total: float, horizon: float) -> float:
    """The weight of the newest n of N episodes, (1 - a^n) / (1 - a^N); expm1 keeps it exact for n << horizon."""
    return math.expm1(-episodes / horizon) / math.expm1(-total / horizon)


def _checked(horizon: float, minimum: float | None) -> tuple[float, float]:
    if not (math.isfinite(horizon) and horizon > 0):
        raise ValueError(f"horizon is {horizon}: give a positive number of episodes")
    least = horizon / 2 if minimum is None else minimum
    if not least >= 0:
        raise ValueError(f"minimum is {minimum}: give 0 or more episodes")
    return float(horizon), float(least)
