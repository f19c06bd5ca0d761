"""How well one cheap statistic, the noise scale, predicts the critical batch size over many tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.analysis.fronts import measure_of, tasks_of
from rl_scaling.estimates import UNKNOWN, Estimate, columns_of

REINFORCEMENT_LEARNING = "Reinforcement learning"
SUPERVISED_LEARNING = "Supervised learning"
QUADRATIC_MODEL = "Noisy quadratic model"
# The domains of `Identity` for people, in the order of the page.
_NAMES = {"nqm": QUADRATIC_MODEL, "supervised": SUPERVISED_LEARNING, "rl": REINFORCEMENT_LEARNING}
DOMAINS = tuple(_NAMES.values())
ALL = "All domains"
FEWEST_TASKS = 3
NAN = math.nan
# Logs of equal numbers may differ in their last digit.
_NO_SPREAD = 1e-20

# An interval that spans more than this factor leaves the order of magnitude open.
WIDEST = 100.0
_COMPARED = ("critical_batch", "noise_scale_mean")


@dataclass(frozen=True)
class Agreement:
    """B_simple against B_crit over the goals of several tasks, both in logs.

    Attributes:
        pairs: goals for which both are known.
        tasks: of how many tasks.
        correlation: Pearson's, of log B_simple and log B_crit.
        factor: typical factor of error, exp of the root mean square of log (B_crit / B_simple); 1 is a perfect
            prediction.
        bias: geometric mean of B_crit / B_simple.
    """

    pairs: int
    tasks: int
    correlation: Estimate
    factor: Estimate
    bias: Estimate


def domains_of(runs: pd.DataFrame) -> dict[str, str]:
    """The domain of every task in a table of `rl_scaling.store.load_runs`: one of `DOMAINS`."""
    return {str(task): _NAMES[domain] for task, domain in tasks_of(runs)["domain"].items()}


def pairs_of(fits: pd.DataFrame, domains: Mapping[str, str]) -> pd.DataFrame:
    """The goals of which both B_crit and the mean noise scale are known to an order of magnitude, with their domain.

    Known: there is a value, and its interval spans at most a factor of 100 (WIDEST).
    """
    known = pd.Series(True, fits.index)
    for name in _COMPARED:
        value, low, high = (fits[column].astype(float) for column in columns_of(name))
        known &= np.isfinite(value) & (low > 0) & (high <= WIDEST * low)
    pairs = fits[known]
    return pairs.assign(domain=pairs["task"].map(domains)).reset_index(drop=True)


def agreement(pairs: pd.DataFrame, *, confidence: float = 0.95, draws: int = 4000, seed: int = 0) -> Agreement:
    """Correlation, typical factor of error and bias over tasks, with percentile intervals from a bootstrap over tasks.

    The goals of a task share its runs: whole tasks are drawn, not goals. With fewer than three tasks the intervals say
    nothing and are left out; nor do they say anything of tasks unlike these.

    Args:
        pairs: rows of `pairs_of`.

    >>> pairs = pd.DataFrame({"task": ["a", "b"], "critical_batch": [20.0, 100.0], "noise_scale_mean": [10.0, 50.0]})
    >>> round(agreement(pairs).factor.value, 3)
    2.0
    """
    if pairs.empty:
        return Agreement(0, 0, UNKNOWN, UNKNOWN, UNKNOWN)
    simple, crit = (np.log(pairs[name].to_numpy(np.float64)) for name in ("noise_scale_mean", "critical_batch"))
    _, task = np.unique(pairs["task"].to_numpy(dtype=str), return_inverse=True)
    tasks = int(task.max()) + 1
    found = _statistics(np.ones((1, len(simple))), simple, crit)
    if tasks < FEWEST_TASKS:
        estimates = [Estimate(float(value[0]), NAN, NAN) for value in found]
    else:
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=draws)[:, task].astype(np.float64)
        estimates = [
            _with_interval(float(value[0]), drawn, confidence)
            for value, drawn in zip(found, _statistics(weights, simple, crit), strict=True)
        ]
    return Agreement(len(pairs), tasks, *estimates)


def _statistics(
    weights: NDArray[np.float64], simple: NDArray[np.float64], crit: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Correlation, factor and bias (draws,) for weights (draws, pairs); NaN where they are not defined."""
    with np.errstate(invalid="ignore", divide="ignore"):
        w = weights / weights.sum(axis=1, keepdims=True)
        error = crit - simple
        spread_s, spread_c = simple - (w @ simple)[:, None], crit - (w @ crit)[:, None]
        variances = np.sum(w * spread_s**2, axis=1) * np.sum(w * spread_c**2, axis=1)
        covariance = np.sum(w * spread_s * spread_c, axis=1)
        correlation = np.where(variances > _NO_SPREAD, covariance / np.sqrt(variances), np.nan)
        return correlation, np.exp(np.sqrt(w @ error**2)), np.exp(w @ error)


def _with_interval(value: float, draws: NDArray[np.float64], confidence: float) -> Estimate:
    """Percentiles of the draws that are defined."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return Estimate(value, NAN, NAN)
    low, high = np.quantile(known, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high))


class Farthest(NamedTuple):
    """The task of which the noise scale says least, and what holds for the others."""

    task: str
    bias: float
    without: Agreement


def farthest_task(pairs: pd.DataFrame, *, confidence: float = 0.95) -> Farthest | None:
    """The task of `pairs_of` that is farthest from B_crit = B_simple; None with fewer than three tasks."""
    ratios = pairs["critical_batch"].astype(float) / pairs["noise_scale_mean"].astype(float)
    each = ratios.map(math.log).groupby(pairs["task"]).mean()
    if len(each) < FEWEST_TASKS:
        return None
    task = str(each.abs().idxmax())
    return Farthest(task, math.exp(each[task]), agreement(pairs[pairs["task"] != task], confidence=confidence))


def agreements(pairs: pd.DataFrame, *, confidence: float = 0.95) -> dict[str, Agreement]:
    """Of all domains together, without the task that is farthest off, and of each domain that has pairs."""
    farthest = farthest_task(pairs, confidence=confidence)
    found = {ALL: agreement(pairs, confidence=confidence)}
    if farthest is not None:
        found[f"All but {farthest.task}"] = farthest.without
    for name in DOMAINS:
        part = pairs[pairs["domain"] == name]
        if len(part):
            found[name] = agreement(part, confidence=confidence)
    return found


def agreement_rows(found: Mapping[str, Agreement]) -> pd.DataFrame:
    """What `agreements` returns as a table: domain, goals, tasks and the estimates of correlation, factor and bias."""
    rows = [
        {"domain": name, "goals": one.pairs, "tasks": one.tasks}
        | one.correlation.columns("correlation")
        | one.factor.columns("factor")
        | one.bias.columns("bias")
        for name, one in found.items()
    ]
    return pd.DataFrame(rows)


# Of the first and of the last goal that a task reached: the names here, the column of the fits and the place.
SCALES = {
    "critical_batch_first": ("critical_batch", 0),
    "critical_batch_last": ("critical_batch", -1),
    "noise_scale_first": ("noise_scale", 0),
    "noise_scale_mean": ("noise_scale_mean", -1),
}
SCALE_COLUMNS = ("domain", "task", "unit", "first_goal", "last_goal", *(c for name in SCALES for c in columns_of(name)))


def scales(fits: pd.DataFrame, domains: Mapping[str, str]) -> pd.DataFrame:
    """Critical batch sizes and noise scales early and late in training.

    Returns:
        One row per task that reached a goal, SCALE_COLUMNS: first is the easiest goal that was reached, last the
        hardest. Batch sizes are in the task's unit; an upper end is infinite where only a lower bound is known, and
        the value NaN.
    """
    rows: list[dict[str, object]] = []
    for task, found in fits[fits["status"] != "not reached"].groupby("task"):
        ordered = easiest_first(found)
        first, last = (ordered["goal"].iloc[place] for place in (0, -1))
        row = {"domain": domains[str(task)], "task": task, "unit": found["unit"].iloc[0]}
        row |= {"first_goal": first, "last_goal": last}
        for name, (column, place) in SCALES.items():
            row |= Estimate.of(ordered.iloc[place].to_dict(), column).columns(name)
        rows.append(row)
    rows.sort(key=lambda row: (DOMAINS.index(str(row["domain"])), str(row["task"])))
    return pd.DataFrame(rows, columns=pd.Index(SCALE_COLUMNS))


def easiest_first(fits: pd.DataFrame) -> pd.DataFrame:
    """The goals of one task in the order in which training reaches them."""
    return fits.sort_values("goal", ascending=measure_of(fits).direction == "max")
