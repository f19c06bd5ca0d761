"""The fewest steps to a target risk over learning rates and coefficients: on a grid, and at the true optimum.

The least first hit over all settings is the smallest T at which some setting has a risk at or below the target. So
instead of a search for every setting there is one bisection on T, over the least risk at T. For the optimum over all
real learning rates and coefficients that least risk is a smooth problem in two variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize

from rl_scaling.nqm.dynamics import diverges, find_optimizer, risk, steady_state_risk
from rl_scaling.nqm.hits import MAX_STEPS
from rl_scaling.nqm.published import PUBLISHED_TARGET, bisect_grid, published_grid, published_hit
from rl_scaling.nqm.spectrum import Spectrum

FloatArray = NDArray[np.float64]
GRID_DECADES = 9
RIPPLED_STEPS, VALLEYS = 2000, 3
COARSE_BINS = 48
"""Groups of the spectrum while the optimum is only looked for on a grid."""
REACHED, AT_START, DIVERGES = "reached", "reached at the start", "diverges"


@dataclass(frozen=True)
class TunedSteps:
    """The best setting for one batch size.

    Attributes:
        batch_size: examples.
        steps: updates until the risk is first at or below the target (with the published choices: the last update
            at which it is still above); None where no setting gets there.
        learning_rate, coefficient: of the best setting; NaN where there is none.
        status: "reached", "reached at the start", "diverges" (every setting does), or "unreachable: ..." with why.
    """

    batch_size: float
    steps: int | None
    learning_rate: float
    coefficient: float
    status: str


def steps_to_target(
    batch_sizes: ArrayLike,
    *,
    optimizer: str = "sgd",
    power: float = 0.0,
    target: float = PUBLISHED_TARGET,
    spectrum: Spectrum | None = None,
    method: str = "optimum",
    grid: tuple[ArrayLike, ArrayLike] | None = None,
    max_steps: int = MAX_STEPS,
) -> list[TunedSteps]:
    """The fewest steps to the target risk at each batch size, tuned over learning rate and coefficient.

    - method "optimum": over all real learning rates and coefficients, from the best point of the grid on.
    - method "grid": over a grid. By default learning rates in 9 decades below the stability limit, 40 a decade for SGD
      and 10 for the others, times the coefficients 1 - logspace(-5, 0, 20). An underdamped point counts with the
      crossing of the target that bisection finds, which may be later than its first (`rl_scaling.nqm.find_hits`).
    - method "published": as in the published figures (`rl_scaling.nqm.published`), but with the exact risk of SGD (no
      floor in its denominator), on the published grid and, unless
      another is given, the published spectrum.

    Args:
        batch_sizes: (n,) examples, positive, need not be whole; 1 to 2^40 and beyond.
        optimizer: sgd, momentum, nesterov or ema.
        power: of the preconditioner, in [0, 1].
        target: risk to reach.
        spectrum: None for 1/i with 10^4 dimensions.
        grid: learning rates (k,) and coefficients (m,) instead of the default ones; not for "published".
        max_steps: the largest number of steps that counts as reached ("published" has its own).

    Returns:
        One row for each batch size, in the order given.

    Raises:
        ValueError: an argument outside its range, an unknown optimizer or method.

    >>> steps_to_target([4, 4**10], method="published")[1].steps
    7268
    >>> row, = steps_to_target([4**10], optimizer="momentum")
    >>> row.steps, row.status
    (150, 'reached')
    """
    batches = _check(batch_sizes, target, max_steps, method)
    find_optimizer(optimizer)
    if method == "published":
        if grid is not None:
            raise ValueError("the published choices include their grid: leave out `grid`")
        problem = Spectrum.published() if spectrum is None else spectrum
        return [_published(problem, batch, optimizer, power, target) for batch in batches]
    problem = Spectrum.power_law() if spectrum is None else spectrum
    rates, betas = _pairs(optimizer, *(grid or _default_grid(problem.preconditioned(power), optimizer)))
    tuner = _Tuner(problem, optimizer, power, target, max_steps)
    if method == "grid":
        return [tuner.best_on_grid(batch, rates, betas) for batch in batches]
    coarse = replace(tuner, problem=problem.compressed(COARSE_BINS))
    return [tuner.optimum(coarse.best_on_grid(batch, rates, betas)) for batch in batches]


def as_table(rows: Sequence[TunedSteps]) -> pd.DataFrame:
    """One row each with batch_size, steps (infinite where not reached), learning_rate and coefficient.

    >>> as_table(steps_to_target([4**10], method="published"))["steps"].tolist()
    [7268.0]
    """
    table = pd.DataFrame(
        [(row.batch_size, row.steps, row.learning_rate, row.coefficient) for row in rows],
        columns=pd.Index(["batch_size", "steps", "learning_rate", "coefficient"]),
    )
    return table.assign(steps=table["steps"].astype(np.float64).fillna(math.inf))


class _Setting(NamedTuple):
    learning_rate: float
    coefficient: float
    risk: float


@dataclass(frozen=True, eq=False)
class _Tuner:
    """The search for one problem and optimiser."""

    problem: Spectrum
    optimizer: str
    power: float
    target: float
    max_steps: int

    def risks(self, steps: ArrayLike, batch: float, rates: ArrayLike, betas: ArrayLike) -> FloatArray:
        settings = {"optimizer": self.optimizer, "power": self.power, "coefficient": betas, "learning_rate": rates}
        return risk(self.problem, steps, batch_size=batch, **settings)

    def best_on_grid(self, batch: float, rates: FloatArray, betas: FloatArray) -> TunedSteps:
        """Bisection over the whole grid at once: for each point the crossing of the target that its bisection finds."""
        if self.problem.initial_risk <= self.target:
            return TunedSteps(batch, 0, math.nan, math.nan, AT_START)
        common = {"optimizer": self.optimizer, "power": self.power}
        stable = ~diverges(self.problem, learning_rate=rates, coefficient=betas, **common)
        if not stable.any():
            return TunedSteps(batch, None, math.nan, math.nan, DIVERGES)
        rates, betas = rates[stable], betas[stable]

        def reached(points: NDArray[np.intp], steps: int) -> NDArray[np.bool_]:
            return self.risks(steps, batch, rates[points], betas[points]) <= self.target

        hit = bisect_grid(reached, len(rates), self.max_steps + 1)
        if hit is None:
            lowest = steady_state_risk(self.problem, learning_rate=rates, coefficient=betas, batch_size=batch, **common)
            return TunedSteps(batch, None, math.nan, math.nan, self._unreachable(float(lowest.min())))
        return TunedSteps(batch, hit.steps + 1, float(rates[hit.index]), float(betas[hit.index]), REACHED)

    def _unreachable(self, lowest: float) -> str:
        if lowest >= self.target:
            return f"unreachable: the target {self.target:g} is below the lowest steady state {lowest:.3g}"
        return f"unreachable: not within {self.max_steps:,} steps"

    def optimum(self, row: TunedSteps) -> TunedSteps:
        """From a start near it to the smallest T whose least risk over all real settings reaches the target."""
        if row.steps is None or row.steps == 0:
            return row
        best, low, high = row, 0, 0
        trial = row.steps
        stride = max(1, trial // 50)
        while not high or low < high - 1:
            found = self._least_risk(trial, best)
            if found.risk <= self.target:
                best = replace(best, steps=trial, learning_rate=found.learning_rate, coefficient=found.coefficient)
                high = trial
            else:
                low = trial
            trial = (low + high) // 2 if low and high else max(1, high - stride) if high else low + stride
            stride *= 2
        if high > self.max_steps:
            return TunedSteps(
                row.batch_size, None, math.nan, math.nan, f"unreachable: not within {self.max_steps:,} steps"
            )
        return best

    def _least_risk(self, steps: int, start: TunedSteps) -> _Setting:
        """The setting of the least risk after `steps`, searched for from `start`."""
        tuned = bool(find_optimizer(self.optimizer).coefficient_name)
        origin = [math.log(start.learning_rate)] + [math.log1p(-start.coefficient)] * tuned

        def settings(point: Sequence[float] | FloatArray) -> tuple[float, float]:
            return math.exp(point[0]), min(max(-math.expm1(point[1]), 0.0), 1 - 1e-12) if tuned else start.coefficient

        def excess(point: FloatArray) -> float:
            value = float(self.risks(steps, start.batch_size, *settings(point)))
            return math.log(value) if math.isfinite(value) else 700.0 + abs(float(point[0]))

        origins = [origin]
        if tuned and steps < RIPPLED_STEPS:
            origins = self._valleys(steps, start.batch_size, origin)
        rate, beta = settings(min((_minimum(excess, point) for point in origins), key=excess))
        return _Setting(rate, beta, float(self.risks(steps, start.batch_size, rate, beta)))

    def _valleys(self, steps: int, batch: float, origin: list[float]) -> list[list[float]]:
        """The lowest local minima on a patch around `origin`: within few oscillations the risk has many."""
        rates, betas = np.linspace(-0.3, 0.3, 41), np.linspace(-0.3, 0.3, 25)
        patch = np.stack(np.meshgrid(origin[0] + rates, np.minimum(origin[1] + betas, 0.0), indexing="ij"), axis=-1)
        risks = self.risks(steps, batch, np.exp(patch[..., 0]), np.minimum(-np.expm1(patch[..., 1]), 1 - 1e-12))
        lowest = np.isfinite(risks) & (risks == ndimage.minimum_filter(risks, size=3, mode="nearest"))
        order = np.argsort(np.where(lowest, risks, np.inf), axis=None)[: min(VALLEYS, int(lowest.sum()))]
        return patch.reshape(-1, 2)[order].tolist() or [origin]


def _minimum(function: Callable[[FloatArray], float], origin: list[float]) -> FloatArray:
    """Nelder and Mead's simplex from `origin`: it needs no gradient and minds no wall of divergence beside it.

    In two dimensions it can stop short of a narrow valley's end; a second simplex from there goes on.
    """
    point = np.array(origin)
    for width in (0.05, -0.2)[: len(point)]:
        simplex = np.vstack([point, point + width * np.eye(len(point))])
        found = optimize.minimize(
            function,
            point,
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "xatol": 1e-7, "fatol": 1e-12, "maxfev": 400},
        )
        point = np.asarray(found.x)
    return point


def _published(problem: Spectrum, batch: float, optimizer: str, power: float, target: float) -> TunedSteps:
    hit = published_hit(problem, batch, optimizer=optimizer, power=power, target=target)
    if hit is None:
        return TunedSteps(
            batch, None, math.nan, math.nan, "unreachable: not on the published grid and within its steps"
        )
    rates, betas = published_grid(optimizer)
    return TunedSteps(batch, hit.steps, float(rates[hit.index]), float(betas[hit.index]), REACHED)


def _default_grid(problem: Spectrum, optimizer: str) -> tuple[FloatArray, FloatArray]:
    tuned = bool(find_optimizer(optimizer).coefficient_name)
    top = math.log10((4 if tuned else 2) / problem.eigenvalues[0])
    rates = np.logspace(top - GRID_DECADES, top, GRID_DECADES * (10 if tuned else 40), endpoint=False)
    return rates, 1 - np.logspace(-5, 0, 20) if tuned else np.zeros(1)


def _pairs(optimizer: str, learning_rates: ArrayLike, coefficients: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """All pairs of learning rates and coefficients, (k * m,) each; SGD knows no coefficients."""
    tuned = bool(find_optimizer(optimizer).coefficient_name)
    rates = np.atleast_1d(np.asarray(learning_rates, dtype=np.float64))
    betas = np.atleast_1d(np.asarray(coefficients, dtype=np.float64)) if tuned else np.zeros(1)
    return np.repeat(rates, len(betas)), np.tile(betas, len(rates))


def _check(batch_sizes: ArrayLike, target: float, max_steps: int, method: str) -> list[float]:
    batches = np.atleast_1d(np.asarray(batch_sizes, dtype=np.float64))
    if method not in ("grid", "optimum", "published"):
        raise ValueError(f"method is {method!r}: choose from grid, optimum, published")
    if batches.ndim != 1 or not np.all((batches > 0) & np.isfinite(batches)):
        raise ValueError("batch sizes must be positive numbers")
    if not target > 0:
        raise ValueError(f"the target risk is {target}: give a positive number")
    if max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}: give at least 1")
    return [float(batch) for batch in batches]
