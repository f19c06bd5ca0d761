"""When a run reached its goals: the first moment at which its smoothed score was good enough.

McCandlish et al. 2018, A.3. A smoothed score is an average over episodes of the past: compared with the present it is
late by about the smoothing's horizon, the same number of examples at every batch size, which would be added to
E_min and so to B_crit. Therefore the totals of updates and examples are averaged over the same episodes with the
same weights, and the smoothed score belongs to that mean moment; for a score that rises steadily the lag cancels
exactly. Between two rows the moment is interpolated linearly, so that it does not depend on how often rows are
recorded. Where the very first smoothed score is already past a goal there is nothing to interpolate: its own moment
counts, and `at_start` says that the run tells little about how long learning takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.analysis.smoothing import DEFAULT_HORIZON, ScoreSmoother, smooth_together
from rl_scaling.records import Direction

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
    """Follows a run row by row and notes the goals it reaches, exactly as `reach` finds them afterwards.

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
        minimum: float | None = None,
    ) -> None:
        self._goals = ordered_goals(goals, direction)
        self._direction: Direction = direction
        self._smoothing = (horizon, minimum)
        self._open = list(self._goals)
        self._sign = 1.0 if direction == "max" else -1.0
        self._smoothers = [ScoreSmoother(horizon, minimum) for _ in range(3)]
        self._before = (math.nan, math.nan, math.nan)
        self._rows = 0
        self.reached: dict[float, Reach] = {}

    def fresh(self) -> GoalTracker:
        """A tracker with the same settings that has seen nothing."""
        horizon, minimum = self._smoothing
        return GoalTracker(self._goals, direction=self._direction, horizon=horizon, minimum=minimum)

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
    minimum: float | None = None,
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
    return Curve(*smooth_together((score, updates, examples), observed, horizon=horizon, minimum=minimum))


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


def reach(
    run: pd.DataFrame,
    goals: Sequence[float],
    *,
    direction: Direction = "max",
    horizon: float = DEFAULT_HORIZON,
    minimum: float | None = None,
) -> pd.DataFrame:
    """Where one run reached each goal.

    Args:
        run: rows of one run in order, with the columns updates, examples, score and episodes.
        goals: scores to reach.
        direction: "max" where larger is better, "min" for losses.
        minimum: episodes before there is a smoothed score; None: half the horizon.

    Returns:
        One row per goal, the easiest first: goal, updates and examples (NaN where not reached), at_start.

    Raises:
        ValueError: what `ordered_goals` or `ScoreSmoother` refuse.
    """
    wanted = ordered_goals(goals, direction)
    updates, examples, score, episodes = (
        run[name].to_numpy(np.float64) for name in ("updates", "examples", "score", "episodes")
    )
    curve = smoothed_curve(updates, examples, score, episodes, horizon=horizon, minimum=minimum)
    found = first_reach(curve, wanted, direction)
    return pd.DataFrame(
        {
            "goal": np.array(wanted, dtype=np.float64),
            "updates": np.array([math.nan if r is None else r.updates for r in found], dtype=np.float64),
            "examples": np.array([math.nan if r is None else r.examples for r in found], dtype=np.float64),
            "at_start": np.array([r is not None and r.at_start for r in found], dtype=bool),
        }
    )


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
