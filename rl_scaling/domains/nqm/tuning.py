"""The fewest steps to a target risk over learning rates and coefficients: on a grid, and at the true optimum.

The least first hit over all settings is the smallest T at which some setting has a risk at or below the target. So
instead of a search for every setting there is one bisection on T, over the least risk at T. For the optimum over all
real learning rates and coefficients that least risk is a smooth problem in two variables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from rl_scaling.domains.nqm.config import Setting
from rl_scaling.domains.nqm.dynamics import check_settings, diverges, risk_behind, steady_state_risk
from rl_scaling.domains.nqm.hits import MAX_STEPS
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.search import Function, bisect_grid, published_grid, published_hit, smooth_minimum
from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum

GRID_DECADES = 9
# Below this many steps the risk of underdamped settings has many valleys: how many of them are searched.
RIPPLED_STEPS, VALLEYS = 2000, 4
FEW_STEPS, MANY_VALLEYS = 300, 24
LEAST_LAG = 1e-12
# Groups of the spectrum while the optimum is only looked for on a grid.
COARSE_BINS = 48
REACHED, AT_START, DIVERGES = "reached", "reached at the start", "diverges"


@dataclass(frozen=True)
class TunedSteps:
    """The best setting for one batch size.

    Attributes:
        batch_size: examples.
        steps: updates until the risk is first at or below the target (with the published choices: the last update
            at which it is still above); None where no setting gets there.
        learning_rate, coefficient, averaging: of the best setting; NaN where there is none. The last is that of an
            average over momentum's iterates, and 0 elsewhere.
        status: "reached", "reached at the start", "diverges" (every setting does), or "unreachable: ..." with why.
    """

    batch_size: float
    steps: int | None
    learning_rate: float
    coefficient: float
    averaging: float
    status: str


def steps_to_target(
    batch_sizes: ArrayLike,
    *,
    optimizer: str = "sgd",
    power: float = 0.0,
    target: float = Setting.target,
    spectrum: Spectrum | None = None,
    method: str = "optimum",
    grid: tuple[ArrayLike, ...] | None = None,
    max_steps: int = MAX_STEPS,
) -> list[TunedSteps]:
    """The fewest steps to the target risk at each batch size, tuned over learning rate and coefficient.

    - method "optimum": over all real learning rates and coefficients, from the best point of the grid on.
    - method "grid": over a grid. By default learning rates in 9 decades below the stability limit, 40 a decade for SGD
      and 10 for the others, times the coefficients 1 - logspace(-5, 0, 20); 3 times 9 times 10 where momentum is
      averaged. An underdamped point counts with the crossing of the target that bisection finds, which may be
      later than its first (`find_hits`).
    - method "published": with every choice of the published figures (`rl_scaling.domains.nqm.search`), on the
      published grid and, unless another is given, the published spectrum.

    Args:
        batch_sizes: (n,) examples, positive, need not be whole; 1 to 2^40 and beyond.
        optimizer, power: as in `risk`.
        spectrum: None for 1/i with 10^4 dimensions.
        grid: learning rates (k,), coefficients (m,), averaging coefficients (n,) instead of the default ones; as many
            as the optimizer has; not for "published".
        max_steps: the largest number of steps that counts as reached ("published" has its own).

    Returns:
        One row for each batch size, in the order given.

    Raises:
        ValueError: an argument outside its range, no batch size, an unknown optimizer or method.

    >>> steps_to_target([4, 4**10], method="published")[1].steps
    7268
    >>> row, = steps_to_target([4**10], optimizer="momentum")
    >>> row.steps, row.status
    (150, 'reached')
    """
    batches = _check(batch_sizes, target, max_steps, method)
    find_optimizer(optimizer)
    if method == "published" and grid is not None:
        raise ValueError("the published choices include their grid: leave out `grid`")
    if spectrum is None:
        spectrum = Spectrum.published() if method == "published" else Spectrum.power_law()
    if spectrum.initial_risk <= target:
        return [_nothing(batch, AT_START, 0) for batch in batches]
    if method == "published":
        return [_published(spectrum, batch, optimizer, power, target) for batch in batches]
    settings = _all_settings(spectrum.preconditioned(power), optimizer, grid)
    tuner = _Tuner(spectrum, optimizer, power, target, max_steps)
    if method == "grid":
        return [tuner.best_on_grid(batch, settings) for batch in batches]
    coarse = replace(tuner, problem=spectrum.compressed(COARSE_BINS))
    return [tuner.optimum(coarse.best_on_grid(batch, settings)) for batch in batches]


def as_table(rows: Sequence[TunedSteps]) -> pd.DataFrame:
    """One row each with batch_size, steps (infinite where not reached), learning_rate, coefficient, averaging.

    >>> as_table(steps_to_target([4**10], method="published"))["steps"].tolist()
    [7268.0]
    """
    columns = pd.Index(["batch_size", "steps", "learning_rate", "coefficient", "averaging"])
    table = pd.DataFrame([[getattr(row, name) for name in columns] for row in rows], columns=columns)
    return table.assign(steps=table["steps"].astype(np.float64).fillna(math.inf))


@dataclass(frozen=True, eq=False)
class _Tuner:
    """The search for one problem and optimiser. A setting is (learning rate, coefficient, averaging coefficient)."""

    problem: Spectrum
    optimizer: str
    power: float
    target: float
    max_steps: int

    @property
    def tuned(self) -> int:
        """How many of the three numbers of a setting there are to choose."""
        return find_optimizer(self.optimizer).tuned

    def risks(self, steps: int, batch: float, settings: FloatArray, *, for_search: bool = True) -> FloatArray:
        """Risks (...,) of settings (..., 3)."""
        checked = check_settings(settings[..., 0], batch, settings[..., 1], steps, settings[..., 2])
        behind = self.problem.preconditioned(self.power)
        return risk_behind(find_optimizer(self.optimizer), behind, checked, for_search=for_search)

    def best_on_grid(self, batch: float, settings: FloatArray) -> TunedSteps:
        """Bisection over the whole grid at once: for each point the crossing of the target that its bisection finds."""
        own = {"learning_rate": settings[:, 0], "coefficient": settings[:, 1]}
        stable = ~diverges(self.problem, optimizer=self.optimizer, power=self.power, **own)
        if not stable.any():
            return _nothing(batch, DIVERGES)
        settings = settings[stable]

        def reached(points: NDArray[np.intp], steps: int) -> NDArray[np.bool_]:
            return self.risks(steps, batch, settings[points]) <= self.target

        hit = bisect_grid(reached, len(settings), self.max_steps + 1)
        if hit is None:
            return _nothing(batch, self._unreachable(batch, settings))
        return _reached(batch, hit.steps + 1, settings[hit.index])

    def _unreachable(self, batch: float, settings: FloatArray) -> str:
        own = {"learning_rate": settings[:, 0], "coefficient": settings[:, 1], "averaging": settings[:, 2]}
        lowest = steady_state_risk(self.problem, batch_size=batch, optimizer=self.optimizer, power=self.power, **own)
        if lowest.min() >= self.target:
            return f"unreachable: the target {self.target:g} is below the lowest steady state {lowest.min():.3g}"
        return f"unreachable: not within {self.max_steps:,} steps"

    def optimum(self, row: TunedSteps) -> TunedSteps:
        """From a start near it to the smallest T whose least risk over all real settings reaches the target.

        The least risk is interpolated between a T that misses and one that reaches, every fourth time halved.
        """
        if row.steps is None:
            return row
        batch, best = row.batch_size, np.array([row.learning_rate, row.coefficient, row.averaging])
        ends: dict[bool, tuple[int, float]] = {}
        trial, stride, tries = row.steps, max(1, row.steps // 50), 0
        while True:
            found, excess = self._least(trial, batch, best)
            ends[excess <= 0] = trial, excess
            best = found if excess <= 0 or True not in ends else best
            tries += 1
            if True in ends and False in ends:
                (low, above), (high, below) = ends[False], ends[True]
                if high == low + 1:
                    break
                share = 0.5 if tries % 4 == 0 else above / (above - below)
                trial = min(max(math.ceil(low + share * (high - low)), low + 1), high - 1)
            elif True in ends:
                if trial == 1:
                    break
                trial = max(1, trial - stride)
            elif trial > self.max_steps:
                break
            else:
                trial += stride
            stride *= 2
        steps = self._exact(ends[True][0], batch, best) if True in ends else self.max_steps + 1
        if steps > self.max_steps:
            return _nothing(batch, f"unreachable: not within {self.max_steps:,} steps")
        return _reached(batch, steps, best)

    def _exact(self, steps: int, batch: float, setting: FloatArray) -> int:
        """The first hit beside `steps` by the formula that loses no digits, for averages of momentum."""
        while not self.risks(steps, batch, setting, for_search=False) <= self.target:
            steps += 1
        return steps

    def _least(self, steps: int, batch: float, start: FloatArray) -> tuple[FloatArray, float]:
        """The setting of the least risk after `steps` near `start`, and the log of that risk over the target."""
        tuned = self.tuned
        origin = np.append(math.log(start[0]), np.log1p(-start[1:tuned]))

        def settings(points: FloatArray) -> FloatArray:
            lags = np.clip(-np.expm1(points[..., 1:]), 0.0, 1 - LEAST_LAG)
            rest = np.broadcast_to(start[tuned:], (*points.shape[:-1], 3 - tuned))
            return np.concatenate([np.exp(points[..., :1]), lags, rest], axis=-1)

        def excess(points: FloatArray, tuner: _Tuner = self) -> FloatArray:
            return np.log(tuner.risks(steps, batch, settings(points)) / self.target)

        found, value = smooth_minimum(excess, origin)
        if tuned > 1 and steps < RIPPLED_STEPS and value > 0:
            coarse = replace(self, problem=self.problem.compressed(COARSE_BINS))
            for point in self._valleys(lambda points: excess(points, coarse), origin, few=steps < FEW_STEPS):
                other, its = smooth_minimum(excess, point)
                found, value = (other, its) if its < value else (found, value)
                if value <= 0:
                    break
        return settings(found), value

    def _valleys(self, excess: Function, origin: FloatArray, *, few: bool) -> FloatArray:
        """The lowest local minima on a patch around `origin`: within few oscillations the risk has many."""
        rates = np.linspace(-0.6, 0.6, 121) if few else np.linspace(-0.3, 0.3, 41)
        lags = np.linspace(-1.0, 1.0, 81) if few else np.linspace(-0.3, 0.3, 25)
        if self.tuned == 3:
            rates, lags = rates[::4], lags[::4]
        patch = np.stack(np.meshgrid(rates, *[lags] * (self.tuned - 1), indexing="ij"), axis=-1) + origin
        patch[..., 1:] = np.minimum(patch[..., 1:], 0.0)
        values = excess(patch)
        lowest = np.isfinite(values) & (values == ndimage.minimum_filter(values, size=3, mode="nearest"))
        order = np.argsort(np.where(lowest, values, np.inf), axis=None)
        return patch.reshape(-1, self.tuned)[order[: min(MANY_VALLEYS if few else VALLEYS, int(lowest.sum()))]]


def _reached(batch: float, steps: int, setting: FloatArray) -> TunedSteps:
    rate, coefficient, averaging = setting.tolist()
    return TunedSteps(batch, steps, rate, coefficient, averaging, REACHED)


def _nothing(batch: float, status: str, steps: int | None = None) -> TunedSteps:
    """A row without a setting."""
    return TunedSteps(batch, steps, math.nan, math.nan, math.nan, status)


def _published(problem: Spectrum, batch: float, optimizer: str, power: float, target: float) -> TunedSteps:
    hit = published_hit(problem, batch, optimizer=optimizer, power=power, target=target)
    if hit is None:
        return _nothing(batch, "unreachable: not on the published grid and within its steps")
    rates, betas = published_grid(optimizer)
    return TunedSteps(batch, hit.steps, float(rates[hit.index]), float(betas[hit.index]), 0.0, REACHED)


def _all_settings(problem: Spectrum, optimizer: str, grid: Sequence[ArrayLike] | None) -> FloatArray:
    """(k, 3): every combination of the grid's numbers, or the default's; 0 for those the optimiser does not have."""
    tuned = find_optimizer(optimizer).tuned
    if not grid:
        top = math.log10((2 if tuned == 1 else 4) / problem.eigenvalues[0])
        rates = np.logspace(top - GRID_DECADES, top, GRID_DECADES * (40, 10, 3)[tuned - 1], endpoint=False)
        grid = rates, *(1 - np.logspace(-5, 0, size) for size in ((), (20,), (9, 10))[tuned - 1])
    axes = [np.atleast_1d(np.asarray(axis, dtype=np.float64)) for axis in grid[:tuned]]
    axes += [np.zeros(1)] * (3 - len(axes))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _check(batch_sizes: ArrayLike, target: float, max_steps: int, method: str) -> list[float]:
    batches = np.atleast_1d(np.asarray(batch_sizes, dtype=np.float64))
    if method not in ("grid", "optimum", "published"):
        raise ValueError(f"method is {method!r}: choose from grid, optimum, published")
    if batches.size == 0:
        raise ValueError("give at least one batch size")
    if batches.ndim != 1 or not np.all((batches > 0) & np.isfinite(batches)):
        raise ValueError("batch sizes must be positive numbers")
    if not target > 0:
        raise ValueError(f"the target risk is {target}: give a positive number")
    if max_steps < 1:
        raise ValueError(f"max_steps is {max_steps}: give at least 1")
    return [float(batch) for batch in batches]
