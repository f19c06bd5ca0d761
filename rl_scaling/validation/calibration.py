"""The estimators of the noise scale on gradients whose noise scale is known: bias and coverage in every setting.

Beside them stands what usual recipes would have answered, each wrong in its own way.
"""

from __future__ import annotations

import math
import multiprocessing
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np

from rl_scaling.noise.clusters import design_effect_of_clusters
from rl_scaling.noise.estimate import estimate_noise_scale
from rl_scaling.validation.calibration_problems import FRAMES_PER_GROUP, PROBLEMS, FloatArray
from rl_scaling.validation.settings import CalibrationPlan

# Repeats that one process draws at a time: bounds its memory, and the order of the work does not change the result.
_CHUNK = 100


@dataclass(frozen=True)
class _Task:
    plan: CalibrationPlan
    problem: str
    groups: int
    correlation: float
    chunk: int


# (repeats, columns) for each batch size; the columns are the names in _COLUMNS.
_COLUMNS = ("relative", "covered", "resolved", "plain", "clamped", "mean_of_ratios")
_Outcome = list[FloatArray]


def calibrate(
    plan: CalibrationPlan, *, workers: int = 1, progress: Callable[[int, int], None] = lambda done, of: None
) -> list[dict[str, float | str]]:
    """One row for each problem, B / B_simple, number of groups and correlation.

    Args:
        progress: called with the simulations done and their number.

    Returns:
        Rows of problem, batch_over_noise_scale, groups, correlation, repeats, measurements and

        - bias, bias_error: mean of b_simple / truth - 1 over the resolved series, and its standard error;
        - coverage, coverage_error: part of all series whose interval or bound holds, and its standard error;
        - unresolved: part of the series;
        - plain_ratio_bias: bias without the correction, over the same series;
        - clamped, mean_of_ratios: medians of these recipes over the truth;
        - shuffled_frames, time_step_groups: these recipes over the truth, for environments; NaN elsewhere.

        NaN where no series is resolved.

    >>> rows = calibrate(CalibrationPlan(repeats=50, measurements=30, groups=(8,), problems=("gaussian",)))
    >>> [round(float(row["unresolved"]), 2) for row in rows]
    [0.96, 0.86, 0.08, 0.0, 0.0, 0.0, 0.0]
    """
    chunks = math.ceil(plan.repeats / _CHUNK)
    tasks = [_Task(plan, *setting, chunk) for setting in _settings(plan) for chunk in range(chunks)]
    outcomes: dict[_Task, _Outcome] = {}
    if workers == 1:
        for task in tasks:
            outcomes[task] = _simulate(task)
            progress(len(outcomes), len(tasks))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            running = {pool.submit(_simulate, task): task for task in tasks}
            for future in as_completed(running):
                outcomes[running[future]] = future.result()
                progress(len(outcomes), len(tasks))
    rows = []
    for start in range(0, len(tasks), chunks):
        parts = [outcomes[task] for task in tasks[start : start + chunks]]
        rows += [
            _row(tasks[start], ratio, np.concatenate([part[place] for part in parts]))
            for place, ratio in enumerate(plan.batch_over_noise_scale)
        ]
    return rows


def _settings(plan: CalibrationPlan) -> Iterator[tuple[str, int, float]]:
    """Problem, groups and correlation of each simulation."""
    for name in plan.problems or PROBLEMS:
        for correlation in plan.correlations if PROBLEMS[name].correlated else (0.0,):
            for groups in plan.groups:
                yield name, groups, correlation


def _simulate(task: _Task) -> _Outcome:
    """The outcome at each batch size for some of the repeats; deterministic."""
    plan, problem = task.plan, PROBLEMS[task.problem]
    key = [plan.seed, zlib.crc32(task.problem.encode()), task.groups, round(1e6 * task.correlation), task.chunk]
    repeats = min(_CHUNK, plan.repeats - task.chunk * _CHUNK)
    rng = np.random.default_rng(np.random.SeedSequence(key))
    terms = problem.draw(rng, (repeats, plan.measurements), task.groups, task.correlation)
    weights = problem.weights(plan.measurements)
    outcome = []
    for ratio in plan.batch_over_noise_scale:
        truth = task.groups / ratio
        squares, traces = problem.moments(terms, task.groups, ratio)
        columns = np.empty((repeats, len(_COLUMNS)))
        for row in range(repeats):
            estimate = estimate_noise_scale(squares[row], traces[row], weights=weights)
            holds = estimate.low <= truth <= estimate.high
            columns[row, :3] = estimate.b_simple / truth, holds, estimate.resolved
        for place, recipe in enumerate((plain_ratio, clamped, mean_of_ratios), start=3):
            columns[:, place] = recipe(squares, traces, weights) / truth
        outcome.append(columns)
    return outcome


def _row(task: _Task, batch_over_noise_scale: float, columns: FloatArray) -> dict[str, float | str]:
    relative, covered, resolved, plain, *recipes = columns.T
    known = resolved > 0
    coverage = float(covered.mean())
    row: dict[str, float | str] = {
        "problem": task.problem,
        "batch_over_noise_scale": batch_over_noise_scale,
        "groups": task.groups,
        "correlation": task.correlation,
        "repeats": len(columns),
        "measurements": task.plan.measurements,
        "bias": float(relative[known].mean()) - 1 if known.any() else math.nan,
        "bias_error": float(relative[known].std(ddof=1)) / math.sqrt(known.sum()) if known.sum() > 1 else math.nan,
        "coverage": coverage,
        "coverage_error": math.sqrt(coverage * (1 - coverage) / len(columns)),
        "unresolved": float(1 - resolved.mean()),
        "plain_ratio_bias": float(plain[known].mean()) - 1 if known.any() else math.nan,
    }
    row |= {name: float(np.median(values)) for name, values in zip(_COLUMNS[4:], recipes, strict=True)}
    frames = FRAMES_PER_GROUP
    noise_scale = task.groups * frames / batch_over_noise_scale
    for recipe in (shuffled_frames, time_step_groups):
        answer = recipe(noise_scale, task.groups, frames, task.correlation)
        row[recipe.__name__] = answer if PROBLEMS[task.problem].correlated else math.nan
    return row


def plain_ratio(squares: FloatArray, traces: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean tr(Sigma) over mean |G|^2: right except for the bias of a ratio.

    Args:
        squares: (repeats, measurements) estimates of |G|^2.
        traces: (repeats, measurements) estimates of tr(Sigma).
        weights: (measurements,).
    """
    return (traces @ weights) / (squares @ weights)


def clamped(squares: FloatArray, traces: FloatArray, weights: FloatArray) -> FloatArray:
    """The same with each |G|^2 set to zero where it is negative."""
    return plain_ratio(np.maximum(squares, 0), traces, weights)


def mean_of_ratios(squares: FloatArray, traces: FloatArray, weights: FloatArray) -> FloatArray:
    """The mean of the measurements' own ratios."""
    return (traces / squares) @ weights / weights.sum()


def shuffled_frames(noise_scale: float, groups: int, frames: int, correlation: float) -> float:
    """Groups of frames dealt at random from all environments, in the limit of many measurements, over the truth.

    Frames of different groups come from the same environment with probability (frames - 1) / (groups * frames - 1);
    what they share of their noise is taken for signal.

    Args:
        noise_scale: the true one, of whole environments, in frames, for |G|^2 = 1.
        correlation: of frames of one environment.

    >>> round(2200 * shuffled_frames(2200, groups=64, frames=16, correlation=0.3))
    144
    """
    trace = noise_scale / design_effect_of_clusters([frames], correlation)
    shared = correlation * (frames - 1) / (groups * frames - 1)
    return trace * (1 - shared) / (1 + trace * shared) / noise_scale


def time_step_groups(noise_scale: float, groups: int, frames: int, correlation: float) -> float:
    """Groups of the frames of one time step from all environments; else as `shuffled_frames`.

    >>> round(2200 * time_step_groups(2200, groups=64, frames=16, correlation=0.3))
    97
    """
    trace = noise_scale / design_effect_of_clusters([frames], correlation)
    return trace * (1 - correlation) / (1 + trace * correlation / groups) / noise_scale
