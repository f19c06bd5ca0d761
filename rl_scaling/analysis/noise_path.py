"""What the noise scale along a training run says about training with other batch sizes, and with adaptive ones.

McCandlish et al. 2018, appendix D: with s the updates that training without noise would take, and N(s) the noise scale,

    S = integral (1 + N(s)/B(s)) ds,    E = integral (N(s) + B(s)) ds                                          (D.1)

so that S_min = integral ds and E_min = integral N ds, and eq. 2.11 holds for every fixed B however much N changes. An
adaptive batch B = sqrt(r N) (D.3) lies on a lower curve,

    (S/S_min - 1)(E/E_min - 1) = gamma,    gamma = (integral sqrt(N) ds)^2 / (S_min E_min) <= 1           (D.4, D.5)

A run with a known B does du = (1 + N/B) ds updates, so one run with its noise scale gives all three integrals. They are
written here with t = 1/N = |G|^2 / tr(Sigma), which can be estimated without bias and is never infinite: ds =
du t B / (1 + t B) and N ds = du B / (1 + t B). What runs with an adaptive batch did gain is gamma with S and E of the
run, and S_min and E_min fitted to the fixed batch sizes. A fixed batch has 1, and less is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from rl_scaling.analysis.fronts import CELL, Run
from rl_scaling.analysis.noise_scale import NoiseRows
from rl_scaling.estimates import UNKNOWN, Estimate, columns_of
from rl_scaling.statistics.jackknife import RatioEstimate

FloatArray = NDArray[np.float64]

DRAWS = 4000
# The way is cut into the most phases of which each shows a gradient; one with too few rows is joined to the next.
# What is unresolved must not be cut up: 1/N below zero counts as 0, so that many uncertain pieces would seem to show
# one.
PHASES = (8, 4, 2, 1)
FEWEST_ROWS = 6


class Integrals(NamedTuple):
    """integral ds, integral N ds and integral sqrt(N) ds: each (...,)."""

    steps_min: FloatArray
    examples_min: FloatArray
    root: FloatArray

    @property
    def critical_batch(self) -> FloatArray:
        """B_crit = E_min / S_min (2.12): the mean of N over s; infinite where no gradient is seen in the noise."""
        return _over(self.examples_min, self.steps_min)

    @property
    def gamma(self) -> FloatArray:
        """D.5; NaN where no gradient is seen in the noise."""
        return np.where(self.steps_min > 0, _over(self.root**2, self.steps_min * self.examples_min), np.nan)


class ScaleError(Protocol):
    """By which factor the noise scale that decides about batch sizes differs from the one that is measured."""

    @property
    def bias(self) -> float:
        """The factor to expect."""
        ...

    def draws(self, rng: np.random.Generator, count: int) -> FloatArray:
        """(count,) factors that it may be."""
        ...


@dataclass(frozen=True)
class NoisePath:
    """The noise scale in k phases of training, on the way of one or more runs.

    Attributes:
        updates: (runs, k) updates that each run took for each phase.
        batch: (runs, k) its batch size there.
        inverse: (k,) estimates of 1/N, which may be negative.
        standard_error: (k,) of those; infinite where nothing is known.
        freedom: (k,) degrees of freedom of the standard errors.
    """

    updates: FloatArray
    batch: FloatArray
    inverse: FloatArray
    standard_error: FloatArray
    freedom: FloatArray

    @classmethod
    def of(cls, updates: FloatArray, batch: FloatArray, ratios: list[RatioEstimate]) -> NoisePath:
        """From a ratio |G|^2 / tr(Sigma) for each phase."""
        columns = np.array([[r.ratio, r.standard_error, r.degrees_of_freedom] for r in ratios]).reshape(-1, 3).T
        unknown = ~np.isfinite(columns[:2]).all(axis=0) | (columns[1] == 0) & ~np.isfinite(columns[2])
        inverse, error, freedom = np.where(unknown, np.array([[0.0], [np.inf], [1.0]]), columns)
        return cls(updates, batch, inverse, error, np.maximum(freedom, 1.0))

    @property
    def known(self) -> bool:
        """Whether every phase has an estimate with an error."""
        return len(self.inverse) > 0 and bool(np.isfinite(self.standard_error).all())

    @property
    def resolved(self) -> bool:
        """Whether every phase shows a gradient by two standard errors: else N cannot be told from infinity there."""
        return self.known and bool((self.inverse > 2 * self.standard_error).all())

    def corrected(self, error: ScaleError | None) -> Integrals:
        """The integrals with N multiplied by the factor by which it was too small elsewhere."""
        return self.integrals(None if error is None else self.inverse / error.bias)

    def integrals(self, inverse: FloatArray | None = None) -> Integrals:
        """Mean over the runs of the three integrals.

        Args:
            inverse: (..., k) 1/N; None: as estimated. What is negative counts as 0.
        """
        t = np.maximum(self.inverse if inverse is None else inverse, 0.0)[..., None, :]
        updates, batch = self._by_batch
        each = updates / (1 + t * batch)
        terms = (each * t * batch, each * batch, each * np.sqrt(t) * batch)
        return Integrals(*(term.sum(axis=(-2, -1)) for term in terms))

    @cached_property
    def _by_batch(self) -> tuple[FloatArray, FloatArray]:
        """Mean updates and batch sizes, each (different batch sizes, k): the integrals are linear in the updates."""
        batch, place = np.unique(np.round(self.batch, 9), axis=0, return_inverse=True)
        updates = np.zeros_like(batch)
        np.add.at(updates, place.reshape(-1), self.updates / len(self.updates))
        return updates, batch

    def drawn(self, rng: np.random.Generator, draws: int = DRAWS, *, error: ScaleError | None = None) -> Integrals:
        """(draws,) integrals with 1/N drawn about the estimates, by Student's t, and N multiplied by drawn factors."""
        t = rng.standard_t(self.freedom, (draws, len(self.inverse)))
        inverse = self.inverse + self.standard_error * t
        return self.integrals(inverse if error is None else inverse / error.draws(rng, draws)[:, None])


def percentiles(value: float, draws: FloatArray, confidence: float) -> Estimate:
    """A value with the percentiles of draws about it; infinite draws count."""
    tail = 0.5 - confidence / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
    return Estimate(value, min(float(low), value), max(float(high), value))


def predicted(
    path: NoisePath,
    of: Callable[[Integrals], FloatArray],
    *,
    confidence: float = 0.95,
    seed: int = 0,
    error: ScaleError | None = None,
) -> Estimate:
    """A number that follows from the integrals, with its interval from the errors of the noise scale."""
    if not path.known:
        return UNKNOWN
    draws = of(path.drawn(np.random.default_rng(seed), error=error))
    return percentiles(float(of(path.corrected(error))), draws, confidence)


def mean_noise_scale(path: NoisePath, *, confidence: float = 0.95) -> Estimate:
    """The noise scale averaged over training, integral N ds / integral ds: the B_crit that it predicts (D.1, 2.12).

    The value is NaN and the upper end infinite where some phase shows no gradient in the noise.

    >>> exact = np.zeros(2), np.full(2, 1e9)
    >>> path = NoisePath(np.ones((1, 2)), np.full((1, 2), 1e6), 1 / np.array([10.0, 30.0]), *exact)
    >>> round(mean_noise_scale(path).value)
    20
    """
    found = predicted(path, lambda integrals: integrals.critical_batch, confidence=confidence)
    if path.resolved and math.isfinite(found.high):
        return found
    return Estimate(math.nan, found.low, math.inf if path.known else math.nan)


def predicted_gamma(path: NoisePath, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The gamma of D.5 with its interval.

    Errors of the noise scale look like changes of it, which gamma takes for something to be gained: it comes out too
    small. Drawing errors once more shows by how much, and that is taken out; the interval is that of a normal
    distribution with the spread of the draws, ended at 0 and 1. (Percentiles of the draws, as they are or turned round,
    cover less.) With one phase gamma would be 1 by definition: that is unknown.

    >>> s = (np.arange(1000) + 0.5) / 1000
    >>> noise_scale = np.sqrt(s)
    >>> exact = np.full(1000, 1e-9), np.full(1000, 9.0)
    >>> path = NoisePath((1 + noise_scale)[None], np.ones((1, 1000)), 1 / noise_scale, *exact)
    >>> round(predicted_gamma(path).value, 3)  # 24/25
    0.96
    """
    if not path.known or len(path.inverse) < 2:
        return UNKNOWN
    found = float(path.integrals().gamma)
    draws = path.drawn(np.random.default_rng(seed)).gamma
    draws = draws[np.isfinite(draws)]
    if not (math.isfinite(found) and len(draws)):
        return UNKNOWN
    value = min(2 * found - float(draws.mean()), 1.0)
    half_width = float(ndtri(0.5 + confidence / 2) * draws.std())
    return Estimate(value, max(value - half_width, 0.0), min(value + half_width, 1.0))


def _over(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    found = np.full(np.shape(denominator), np.inf)
    return np.divide(numerator, denominator, out=found, where=np.asarray(denominator) > 0)


def path_to_goal(noise: NoiseRows, runs: Sequence[Run], reached: pd.DataFrame, goal: float) -> NoisePath:
    """The noise scale on the way to a goal, pooled over runs that are equally far.

    How far a run is, is told by the goals it has reached, and between two goals by its updates: what runs of other
    batch sizes have in common there is the score, not the number of updates.

    Args:
        reached: rows of `fronts.reaches` of one task, of those runs alone that are to be pooled.
        goal: all of them have reached it.
    """
    row = reached.loc[reached["goal"] == goal].groupby("run")["row"].max()
    before = reached[reached["run"].isin(row.index) & (reached["row"] >= 0)]
    before = before[before["row"] <= before["run"].map(row)].sort_values(["run", "updates"])
    common = before["goal"].value_counts()
    marks = before[before["goal"].isin(common.index[common == len(row)])]
    marked = [part[["updates", "examples", "row"]].to_numpy(np.float64) for _, part in marks.groupby("run")]
    if not marked:
        return NoisePath.of(np.zeros((0, 0)), np.zeros((0, 0)), [])
    numbers = [int(number) for number in marks["run"].unique()]
    return _finest(noise, [runs[number] for number in numbers], marked)


def _finest(noise: NoiseRows, runs: list[Run], marked: list[FloatArray]) -> NoisePath:
    """The most phases that are resolved; one where there are none.

    Args:
        marked: for each run (m, 3) updates, examples and row at moments in which all runs are equally far.
    """
    path = None
    for phases in PHASES:
        # From the start of training, where row -1 would be.
        edges = np.stack([_places(np.vstack([[0.0, 0.0, -1.0], marks]), phases) for marks in marked])
        path = _joined(noise, runs, edges)
        if path.resolved:
            break
    assert path is not None
    return path


def _places(marks: FloatArray, phases: int) -> FloatArray:
    """(phases + 1, 3) updates, examples and row where phases begin, evenly spaced over the marks (m, 3)."""
    at = np.linspace(0, len(marks) - 1, phases + 1)
    return np.stack([np.interp(at, np.arange(len(marks)), column) for column in marks.T], axis=1)


def _joined(noise: NoiseRows, runs: list[Run], edges: FloatArray) -> NoisePath:
    """Phases with enough rows, from (runs, phases + 1, 3) edges."""
    rows = np.floor(edges[:, :, 2]).astype(np.intp) + 1
    kept, pooled = [0], []
    for last in range(1, edges.shape[1]):
        inside = [run.rows[ends[kept[-1]] : ends[last]] for run, ends in zip(runs, rows, strict=True)]
        usable = noise.usable(np.concatenate(inside))
        if len(usable) >= FEWEST_ROWS:
            kept.append(last)
            pooled.append(usable)
    if not pooled:
        return NoisePath.of(np.zeros((0, 0)), np.zeros((0, 0)), [])
    if kept[-1] != edges.shape[1] - 1:  # too few rows are left behind: they belong to the last phase
        kept[-1] = edges.shape[1] - 1
        first = [ends[kept[-2]] for ends in rows]
        inside = [run.rows[a : ends[-1]] for run, a, ends in zip(runs, first, rows, strict=True)]
        pooled[-1] = noise.usable(np.concatenate(inside))
    updates, examples = (np.diff(edges[:, kept, column], axis=1) for column in (0, 1))
    examples = examples * np.array([[run.uses] for run in runs])
    sizes = np.array([[float(run.batch_size)] for run in runs])
    batch = np.divide(examples, updates, out=np.broadcast_to(sizes, updates.shape).copy(), where=updates > 0)
    return NoisePath.of(updates, batch, [noise.ratio(found) for found in pooled])


def path_of_run(noise: NoiseRows, run: Run, updates: FloatArray) -> NoisePath:
    """The noise scale over all of a run, in phases of equally many rows.

    Args:
        updates: (rows of the table,) total updates at each row.
    """
    marks = np.stack([updates[run.rows], run.examples, np.arange(len(run.rows), dtype=np.float64)], axis=1)
    return _finest(noise, [run], [marks])


ADAPTIVE_COLUMNS = [
    *(*CELL[:2], *CELL[3:], "seeds", "batch_size", "updates", "examples"),
    *(*columns_of("gamma_observed"), *columns_of("gamma_predicted")),
]


def observed_gamma(updates: float, examples: float, fit: pd.Series, *, confidence: float = 0.95) -> Estimate:
    """(S/S_min - 1)(E/E_min - 1) of a run, with the interval that the errors of S_min and E_min give it.

    Where the run needed fewer updates than S_min, or fewer examples than E_min, it is 0. Its own scatter over seeds is
    not in the interval.

    Args:
        updates, examples: S and E.
        fit: a row of `SweepFit.fits`; what was not fitted makes the answer NaN.
    """
    logs = np.log([fit["steps_min"], fit["examples_min"]])
    steps, both, batch = (fit[f"log_{name}_se"] ** 2 for name in ("steps_min", "examples_min", "critical_batch"))
    if not np.isfinite(logs).all():
        return UNKNOWN
    value = float(_product(np.log([updates, examples]) - logs))
    if not math.isfinite(steps + both + batch):
        return Estimate(value, math.nan, math.nan)
    shared = (steps + both - batch) / 2  # log B_crit is the difference of the two
    draws = np.random.default_rng(0).multivariate_normal(logs, [[steps, shared], [shared, both]], DRAWS, "ignore")
    return percentiles(value, _product(np.log([updates, examples]) - draws), confidence)


def _product(log_excess: FloatArray) -> FloatArray:
    return np.maximum(np.expm1(log_excess), 0).prod(axis=-1)


def gamma_of_runs(path: NoisePath, runs: Sequence[Run], *, confidence: float) -> Estimate:
    """`predicted_gamma` of runs that used every example once.

    D.5 is about updates from fresh examples. Where they are used again the noise scale of their first use is not that
    of most updates, and nothing is predicted.
    """
    return predicted_gamma(path, confidence=confidence) if all(run.uses == 1 for run in runs) else UNKNOWN


def adaptive_table(
    noise: NoiseRows, runs: Sequence[Run], reached: pd.DataFrame, rates: pd.DataFrame, fits: pd.DataFrame
) -> pd.DataFrame:
    """One row for each goal and setting of an adaptive batch that reached it: ADAPTIVE_COLUMNS.

    As on a front the learning rate counts that reached the goal in the fewest updates.

    Args:
        reached: of the adaptive runs.
        rates: their `rate_table`.
        fits: of the fixed batch sizes, `SweepFit.fits`.

    Returns:
        task, goal, learning_rate (at the start), setting (how it was steered), seeds, batch_size (mean over updates),
        updates and examples (geometric means over seeds), gamma_observed and gamma_predicted (from the noise scale of
        these very runs) with their intervals, NaN where not known.
    """
    by_goal, of_setting = fits.set_index(["task", "goal"]), ["task", "goal", "setting"]
    found: list[dict[str, object]] = []
    ordered = rates[rates["status"] == "reached"].sort_values([*of_setting, "updates"])
    for cell in ordered.drop_duplicates(of_setting).to_dict("records"):
        fit = by_goal.loc[(cell["task"], cell["goal"])]
        same = (reached[[CELL[0], *CELL[3:]]] == [cell[CELL[0]], *(cell[name] for name in CELL[3:])]).all(axis=1)
        confidence = float(fit["confidence"])
        path = path_to_goal(noise, runs, reached[same], float(cell["goal"]))
        observed = observed_gamma(cell["updates"], cell["examples"], fit, confidence=confidence)
        predicted = gamma_of_runs(path, [run for run in runs if run.task == cell["task"]], confidence=confidence)
        row: dict[str, object] = {str(name): value for name, value in cell.items() if name in ADAPTIVE_COLUMNS}
        uses = max(run.uses for run in runs if run.task == cell["task"])
        row |= {"batch_size": uses * cell["examples"] / cell["updates"]}
        row |= observed.columns("gamma_observed") | predicted.columns("gamma_predicted")
        found.append(row)
    return pd.DataFrame(found, columns=pd.Index(ADAPTIVE_COLUMNS))


def path_of_kept_weights(updates: float, batch_size: float, measured: pd.DataFrame) -> NoisePath:
    """The noise scale on the way of a run, from measurements with its weights kept: each stands for what is nearest.

    Args:
        updates: of the way.
        batch_size: of the run.
        measured: one row for each measurement, at least one: of_updates (how far the run was) and noise_scale with its
            interval (NaN and infinite above while unresolved), at the level `confidence`.
    """
    ordered = measured.sort_values("of_updates")
    at = np.minimum(ordered["of_updates"].to_numpy(np.float64), updates)
    edges = np.concatenate([[0.0], (at[1:] + at[:-1]) / 2, [updates]])
    value, low, high = (ordered[name].to_numpy(np.float64) for name in columns_of("noise_scale"))
    most, least = 1 / low, np.where(np.isfinite(high), 1 / high, 0.0)
    inverse = np.where(np.isfinite(value), 1 / value, (most + least) / 2)
    error = (most - least) / (2 * ndtri(0.5 + ordered["confidence"].to_numpy(np.float64) / 2))
    batch = np.full((1, len(at)), float(batch_size))
    return NoisePath(np.diff(edges)[None], batch, inverse, error, np.full(len(at), 1e9))
