"""Naive versions of what `rl_scaling.analysis` computes: slow, and plainly the definition."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.optimize import minimize


def smoothed_episode_by_episode(scores: Sequence[float], episodes: Sequence[int], horizon: float) -> list[float]:
    """The weighted mean over all episodes so far, newest weighing 1, written out anew for each row."""
    seen: list[float] = []
    values = []
    for score, count in zip(scores, episodes, strict=True):
        if math.isfinite(score):
            seen += [score] * count
        weights = [math.exp(-(len(seen) - 1 - j) / horizon) for j in range(len(seen))]
        enough = len(seen) >= horizon / 2 and seen
        values.append(sum(w * s for w, s in zip(weights, seen, strict=True)) / sum(weights) if enough else math.nan)
    return values


def first_crossing(
    updates: Sequence[float], scores: Sequence[float], episodes: Sequence[int], goal: float, horizon: float
) -> float:
    """Updates to a goal for one run, row by row; NaN where it is not reached."""
    values = smoothed_episode_by_episode(scores, episodes, horizon)
    moments = smoothed_episode_by_episode(
        updates, [n if math.isfinite(s) else 0 for s, n in zip(scores, episodes, strict=True)], horizon
    )
    for row, value in enumerate(values):
        if value >= goal:
            if row == 0 or math.isnan(values[row - 1]):
                return moments[row]
            part = (goal - values[row - 1]) / (value - values[row - 1])
            return moments[row - 1] + part * (moments[row] - moments[row - 1])
    return math.nan


def front(
    reached: Mapping[tuple[int, float, int], Mapping[float, float]], goals: Sequence[float]
) -> dict[tuple[float, int], tuple[float, float]]:
    """{(goal, batch size): (learning rate, updates)} from {(batch size, learning rate, seed): {goal: updates}}."""
    found: dict[tuple[float, int], tuple[float, float]] = {}
    for goal in goals:
        by_rate: dict[tuple[int, float], list[float]] = defaultdict(list)
        for (batch, rate, _), hits in reached.items():
            by_rate[batch, rate].append(hits.get(goal, math.inf))
        for (batch, rate), updates in sorted(by_rate.items()):
            mean = math.prod(updates) ** (1 / len(updates))
            if math.isfinite(mean) and mean < found.get((goal, batch), (0.0, math.inf))[1]:
                found[goal, batch] = (rate, mean)
    return found


def fit_by_simplex(steps: np.ndarray, examples: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """(S_min, E_min) by minimising the squared log residuals of eq. 2.11, solved for S, over both numbers at once."""
    batch = examples / steps
    w = np.ones_like(steps) if weights is None else weights

    def loss(logs: np.ndarray) -> float:
        steps_min, examples_min = np.exp(logs)
        return float(w @ (np.log(steps) - np.log(steps_min + examples_min / batch)) ** 2)

    starts = [(math.log(steps.min()) + a, math.log(examples.min()) + b) for a in (-1, 0) for b in (-1, 0)]
    found = [minimize(loss, np.array(x), method="Nelder-Mead", tol=1e-15) for x in starts]
    best = min(found, key=lambda result: float(result.fun))
    return float(math.exp(best.x[0])), float(math.exp(best.x[1]))


def pooled_ratio(rows: pd.DataFrame) -> float:
    """B_simple by loops: sums of weighted tr(Sigma) over sums of weighted |G|^2."""
    trace = squares = 0.0
    for row in rows.to_dict("records"):
        if row["noise_measurements"] > 0 and math.isfinite(row["trace_cov"]) and math.isfinite(row["grad_sq_norm"]):
            weight = row["noise_measurements"] * row["batch_size"]
            trace += weight * row["trace_cov"]
            squares += weight * row["grad_sq_norm"]
    return trace / squares


def can_still_win(
    updates: float, reached: Mapping[float, float], rivals: Iterable[Mapping[float, float]], goals: Iterable[float]
) -> bool:
    """Whether a run can still be the first of its batch size and seed to reach some goal, with one seed.

    False only if every goal that it has not reached was reached by a rival in no more updates than it has already used.

    Args:
        updates: what the run has used so far, `GoalTracker.updates`.
        reached: the goals it has reached.
        rivals: for every other learning rate, the updates at which it reached goals.
        goals: all goals of the task.
    """
    first: dict[float, float] = {}
    for rival in rivals:
        for goal, needed in rival.items():
            first[goal] = min(needed, first.get(goal, math.inf))
    return any(goal not in reached and first.get(goal, math.inf) > updates for goal in goals)
