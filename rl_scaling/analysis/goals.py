"""When a run reached its goals: the first moment at which its smoothed score was good enough.

McCandlish et al. 2018, A.3, smooth by an exponential moving average before comparing with a goal, so that it is not
reached by one lucky game. Here the average runs over episodes, not over rows or updates: its value depends neither on
how often rows were recorded nor on the batch size. Compared with the present it is late by about its horizon, the same
number of examples at every batch size, which would be added to E_min and so to B_crit. Therefore the totals of updates
and examples are averaged over the same episodes with the same weights, and the smoothed score belongs to that mean
moment; for a score that rises steadily the lag cancels exactly. Between two rows the moment is interpolated linearly,
so that it does not depend on how often rows are recorded. Where the very first smoothed score is already past a goal
there is nothing to interpolate: its own moment counts, and `at_start` says that the run tells little about how long
learning takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_scaling.records import Direction

DEFAULT_HORIZON = 50.0


class ScoreSmoother:
    """A debiased exponential moving average over episodes, fed one row at a time.

    With N episodes seen, of scores s_1 ... s_N, and decay a = exp(-1/horizon), the value is
    sum_j a^(N-j) s_j / sum_j a^(N-j): the weights of a short history add up to one, so that the start has no bias
    towards zero. A row of n episodes counts as n episodes with the row's mean score.

    Args:
        horizon: time constant in episodes (or in whatever the weights count: examples for a loss).
            Before half of it has been seen the value is NaN.

    Raises:
        ValueError: a horizon that is not positive.
    """

    def __init__(self, horizon: float = DEFAULT_HORIZON) -> None:
        self._horizon = _checked(horizon)
        self._total = 0.0
        self._average = 0.0

    @property
    def value(self) -> float:
        """The smoothed score; NaN while fewer episodes than half the horizon have been seen."""
        return self._average if self._total > 0 and self._total >= self._horizon / 2 else math.nan

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


def smooth_together(
    columns: Sequence[NDArray[np.float64]],
    episodes: NDArray[np.float64],
    *,
    horizon: float = DEFAULT_HORIZON,
) -> list[NDArray[np.float64]]:
    """Several columns of one run smoothed over the same episodes, bit for bit as `ScoreSmoother` does row by row.

    Early stopping decides with the incremental form and fits use this one; they must never disagree about a goal.

    Args:
        columns: each (rows,), finite wherever there are episodes.
        episodes: (rows,) weights of the rows.

    Raises:
        ValueError: what `ScoreSmoother` refuses.
    """
    horizon = _checked(horizon)
    if not ((episodes >= 0) & np.isfinite(episodes)).all():
        raise ValueError("a number of episodes is negative or not finite: give 0 or more")
    totals = np.add.accumulate(episodes)
    pairs = zip(episodes.tolist(), totals.tolist(), strict=True)
    shares = [_share(count, total, horizon) if count else 0.0 for count, total in pairs]
    known = (totals > 0) & (totals >= horizon / 2)
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


def _checked(horizon: float) -> float:
    if not (math.isfinite(horizon) and horizon > 0):
        raise ValueError(f"horizon is {horizon}: give a positive number of episodes")
    return float(horizon)


Goals = Mapping[str, Sequence[float]] | Sequence[float]


@dataclass(frozen=True)
class Reach:
    """Where a run reached a goal.

    Attributes:
        updates, examples: totals at that moment.
        row: position of the row by which it was reached.
        at_start: the first smoothed score there was had already reached it.
    """

    updates: float
    examples: float
    row: int
    at_start: bool


def ordered_goals(goals: Iterable[float], direction: Direction = "max") -> tuple[float, ...]:
    """Goals without repeats, the easiest first.

    Raises:
        ValueError: a goal that is not a finite number, or an unknown direction.
    """
    if direction not in ("max", "min"):
        raise ValueError(f'direction is {direction!r}: give "max" for scores or "min" for losses')
    numbers = [float(goal) for goal in goals]
    for goal in numbers:
        if not math.isfinite(goal):
            raise ValueError(f"goal {goal} is not a finite number: leave it out")
    return tuple(sorted(set(numbers), reverse=direction == "min"))


def goals_of(task: str, goals: Goals, direction: Direction = "max") -> tuple[float, ...]:
    """The goals of one task, the easiest first, from goals for all tasks or for each task.

    Raises:
        ValueError: the task has no entry, or what `ordered_goals` refuses.
    """
    if not isinstance(goals, Mapping):
        return ordered_goals(goals, direction)
    if task not in goals:
        raise ValueError(f"no goals for the task {task!r}: give a list of them, or an empty one to leave it out")
    return ordered_goals(goals[task], direction)


class GoalTracker:
    """Follows a run row by row and notes the goals it reaches, exactly as `first_reach` finds them afterwards.

    Args:
        goals: scores to reach.
        direction: "max" where larger is better, "min" for losses.
    """

    def __init__(
        self,
        goals: Iterable[float],
        *,
        direction: Direction = "max",
        horizon: float = DEFAULT_HORIZON,
    ) -> None:
        self._goals = ordered_goals(goals, direction)
        self._direction: Direction = direction
        self._horizon = horizon
        self._open = list(self._goals)
        self._sign = 1.0 if direction == "max" else -1.0
        self._smoothers = [ScoreSmoother(horizon) for _ in range(3)]
        self._before = (math.nan, math.nan, math.nan)
        self._rows = 0
        self.reached: dict[float, Reach] = {}

    def fresh(self) -> GoalTracker:
        """A tracker with the same settings that has seen nothing."""
        return GoalTracker(self._goals, direction=self._direction, horizon=self._horizon)

    @property
    def smoothed(self) -> float:
        """The smoothed score; NaN in the beginning."""
        return self._before[0]

    @property
    def updates(self) -> float:
        """The moment, in updates, of the smoothed score; 0 in the beginning.

        It only grows: a goal that is still open cannot be reached earlier than this.
        """
        return 0.0 if math.isnan(self._before[1]) else self._before[1]

    def update(self, updates: float, examples: float, score: float, episodes: float) -> list[float]:
        """Takes in one row and returns the goals it reached that were open before."""
        observed = episodes if math.isfinite(score) else 0
        row = (score, updates, examples)
        now = [smoother.update(x, observed) for smoother, x in zip(self._smoothers, row, strict=True)]
        point = (now[0], now[1], now[2])
        newly: list[float] = []
        while self._open and point[0] * self._sign >= self._open[0] * self._sign:
            goal = self._open.pop(0)
            self.reached[goal] = _between(self._before, point, goal, self._rows)
            newly.append(goal)
        self._before = point
        self._rows += 1
        return newly


@dataclass(frozen=True)
class Curve:
    """The smoothed score (or the loss) of a run and the moments it belongs to, each (rows,), NaN in the beginning."""

    score: NDArray[np.float64]
    updates: NDArray[np.float64]
    examples: NDArray[np.float64]


def smoothed_curve(
    updates: NDArray[np.float64],
    examples: NDArray[np.float64],
    score: NDArray[np.float64],
    episodes: NDArray[np.float64],
    *,
    horizon: float = DEFAULT_HORIZON,
) -> Curve:
    """Smooths one run, with rows in order: score, updates and examples over the same episodes.

    Args:
        updates: (rows,) total so far.
        examples: (rows,) total so far.
        score: (rows,) mean score of the episodes finished since the row before; NaN where there were none.
        episodes: (rows,) number of those episodes.

    Raises:
        ValueError: what `ScoreSmoother` refuses.
    """
    observed = np.where(np.isfinite(score), episodes, 0)
    return Curve(*smooth_together((score, updates, examples), observed, horizon=horizon))


def exact_curve(updates: NDArray[np.float64], examples: NDArray[np.float64], values: NDArray[np.float64]) -> Curve:
    """One run whose quantity is compared as it is, such as a loss; where it was not measured the row before stands.

    Args:
        updates: (rows,) total so far.
        examples: (rows,) total so far.
        values: (rows,) the quantity; NaN where it was not measured.
    """
    last = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    return Curve(*(np.where(last >= 0, column[last], np.nan) for column in (values, updates, examples)))


def first_reach(curve: Curve, goals: Sequence[float], direction: Direction = "max") -> list[Reach | None]:
    """Where a run reached each of any number of goals; None where it did not."""
    sign = 1.0 if direction == "max" else -1.0
    best = np.maximum.accumulate(np.where(np.isnan(curve.score), -np.inf, sign * curve.score))
    rows = np.searchsorted(best, sign * np.asarray(goals, dtype=np.float64), side="left")
    return [
        _between(_point(curve, row - 1), _point(curve, row), goal, row) if row < len(best) else None
        for row, goal in zip(rows.tolist(), goals, strict=True)
    ]


def _point(curve: Curve, row: int) -> tuple[float, float, float]:
    if row < 0:
        return (math.nan, math.nan, math.nan)
    return (float(curve.score[row]), float(curve.updates[row]), float(curve.examples[row]))


def _between(before: tuple[float, float, float], now: tuple[float, float, float], goal: float, row: int) -> Reach:
    """The crossing on the line between two points (score, updates, examples); the second where the first is unknown."""
    if math.isnan(before[0]):
        return Reach(now[1], now[2], row, at_start=True)
    share = (goal - before[0]) / (now[0] - before[0])
    updates, examples = (start + share * (end - start) for start, end in zip(before[1:], now[1:], strict=True))
    return Reach(updates, examples, row, at_start=False)
