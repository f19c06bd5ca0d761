"""How far the critical batch size could have come out otherwise with other seeds: a bootstrap that chooses again.

Seeds are drawn anew within each batch size, all learning rates of a batch size with the same draw; the best learning
rate is chosen again from the draw and the trade-off fitted again, so that the luck in the choice is part of the
interval. From m seeds m - 1 are drawn: the spread of their mean is then that of the mean of m fresh seeds, where
drawing m would make it too small by sqrt((m - 1)/m) (Rao and Wu 1988), a third for two seeds. The percentiles are
stretched about the fit by Student's t over the normal quantile, because a spread known from a few seeds is itself
uncertain; its degrees of freedom are those of the residuals, seeds less batch sizes less the two parameters of the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from rl_scaling.analysis.profile import FloatArray, Profile, minima
from rl_scaling.analysis.tradeoff import LogInterval

SEED = 0
UNKNOWN = math.nan
FAILED = math.inf


@dataclass(frozen=True)
class Cell:
    """All learning rates and seeds of one goal and batch size.

    Attributes:
        log_updates: (rates, seeds) log of the updates to the goal; FAILED where the seed did not reach it, UNKNOWN
            where there is no such run or it is still going.
        best: row of the rate on the front.
    """

    log_updates: FloatArray
    best: int

    @property
    def best_seeds(self) -> int:
        """Seeds of the rate on the front."""
        return int(np.isfinite(self.log_updates[self.best]).sum())

    def resample(self, resamples: int, rng: np.random.Generator) -> FloatArray:
        """(resamples,) log updates of the rate that is best in each draw; NaN where none reached the goal."""
        seeds = self.log_updates.shape[1]
        drawn = self.log_updates[:, rng.integers(0, seeds, (resamples, seeds - 1))]
        known = ~np.isnan(drawn)
        totals = np.where(known, drawn, 0.0).sum(axis=2)
        counts = known.sum(axis=2)
        best = np.where(counts > 0, totals / np.maximum(counts, 1), np.inf).min(axis=0)
        return np.where(np.isfinite(best), best, np.nan)


def degrees_of_freedom(cells: list[Cell]) -> int:
    """What is left of the front's seeds after a mean for each batch size and the two parameters of the fit."""
    return sum(cell.best_seeds - 1 for cell in cells) - 2


def can_resample(cells: list[Cell]) -> bool:
    """Whether every batch size of a front has two seeds or more and something is left to judge their spread by."""
    return all(cell.best_seeds >= 2 for cell in cells) and degrees_of_freedom(cells) >= 1


def seed_interval(profile: Profile, cells: list[Cell], *, confidence: float, resamples: int) -> LogInterval:
    """The interval of log B_crit over resampled seeds; the same for the same data.

    Args:
        profile: the front's points, one per cell, in the order of the cells.
        cells: what the front was chosen from; `can_resample` holds.
        confidence: of the interval.
        resamples: how many draws.
    """
    rng = np.random.default_rng(SEED)
    log_steps = np.stack([cell.resample(resamples, rng) for cell in cells], axis=1)
    x = minima(log_steps, profile.log_batch, profile.weights)
    freedom = degrees_of_freedom(cells)
    tail = 0.5 - confidence / 2
    stretch = float(stdtrit(freedom, 1 - tail) / ndtri(1 - tail))
    low, high = _percentiles(x, tail)
    best = profile.minimum()
    if math.isfinite(best):
        low, high = best - stretch * max(best - low, 0.0), best + stretch * max(high - best, 0.0)
    log_steps_min = _offsets(profile, log_steps, x)
    errors = [_spread(values) for values in (log_steps_min, log_steps_min + x, x)]
    return LogInterval(low, high, *errors)


def _percentiles(x: FloatArray, tail: float) -> tuple[float, float]:
    """Percentiles that take infinities; draws without a fit (NaN) count as beyond either end."""
    low = np.quantile(np.where(np.isnan(x), -np.inf, x), tail, method="inverted_cdf")
    high = np.quantile(np.where(np.isnan(x), np.inf, x), 1 - tail, method="inverted_cdf")
    return float(low), float(high)


def _offsets(profile: Profile, log_steps: FloatArray, x: FloatArray) -> FloatArray:
    """(r,) log S_min for each draw; NaN or infinite where there is no finite fit."""
    there = np.isfinite(log_steps)
    w = np.where(there, profile.weights, 0.0)
    finite = np.where(np.isfinite(x), x, 0.0)
    offset = np.where(there, log_steps, 0.0) - np.logaddexp(0.0, finite[:, None] - profile.log_batch)
    means = (w * offset).sum(axis=1) / np.maximum(w.sum(axis=1), np.finfo(float).tiny)
    return np.where(np.isfinite(x), means, np.nan)


def _spread(values: FloatArray) -> float:
    """Half the width of the middle 68.3 %: the standard error, without being ruled by a few wild draws."""
    known = values[np.isfinite(values)]
    if len(known) < 0.9 * len(values):
        return math.nan
    low, high = np.quantile(known, [float(ndtr(-1.0)), float(ndtr(1.0))])
    return float(high - low) / 2
