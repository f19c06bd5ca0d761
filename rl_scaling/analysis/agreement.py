"""How well one cheap statistic, the noise scale, predicts the critical batch size over many tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rl_scaling.analysis.course import UNKNOWN, Estimate

REINFORCEMENT_LEARNING = "Reinforcement learning"
SUPERVISED_LEARNING = "Supervised learning"
QUADRATIC_MODEL = "Noisy quadratic model"
DOMAINS = (QUADRATIC_MODEL, SUPERVISED_LEARNING, REINFORCEMENT_LEARNING)
FEWEST_TASKS = 3
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
    first = runs.drop_duplicates("task").set_index("task")
    return {str(task): _domain(row) for task, row in first.iterrows()}


def _domain(row: pd.Series) -> str:
    if row["unit"] == "frames":
        return REINFORCEMENT_LEARNING
    return QUADRATIC_MODEL if row.get("config.kind") == "nqm" else SUPERVISED_LEARNING


def pairs_of(fits: pd.DataFrame, domains: Mapping[str, str]) -> pd.DataFrame:
    """The goals of which both B_crit and the mean noise scale are known to an order of magnitude, with their domain.

    Known: there is a value, and its interval spans at most a factor of 100 (WIDEST).

    Args:
        fits: `SweepFit.fits`.
        domains: of every task.
    """
    known = pd.Series(True, fits.index)
    for name in _COMPARED:
        value, low, high = (fits[f"{name}{end}"].astype(float) for end in ("", "_low", "_high"))
        known &= np.isfinite(value) & (low > 0) & (high <= WIDEST * low)
    pairs = fits[known]
    return pairs.assign(domain=pairs["task"].map(domains)).reset_index(drop=True)


def agreement(pairs: pd.DataFrame, *, confidence: float = 0.95, draws: int = 4000, seed: int = 0) -> Agreement:
    """Correlation, typical factor of error and bias over tasks, with percentile intervals from a bootstrap over tasks.

    The goals of a task share its runs: whole tasks are drawn, not goals. With fewer than three tasks the intervals say
    nothing and are left out; nor do they say anything of tasks unlike these.

    Args:
        pairs: rows of `pairs_of`.
        confidence: of the intervals.
        draws: of the bootstrap.
        seed: of the draws.

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
        estimates = [Estimate(float(value[0]), *UNKNOWN[1:]) for value in found]
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
        return Estimate(value, *UNKNOWN[1:])
    low, high = np.quantile(known, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high))
