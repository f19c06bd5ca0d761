"""Searches over a grid and for a smooth minimum, and the published grid with every choice that the text leaves out.

The functions searched are cheap to evaluate at many points at once. The figures of Zhang et al. 2019 were made with
code (github.com/gd-zhang/noisy-quadratic-model) that differs from the text: eigenvalues are lowered to the edges of
bins; SGD's steady state has 10^-8 added to its denominator; a run counts up to the last step that is still above the
target, found by a bisection that takes the risk to be monotone. Repeating these choices repeats the published numbers;
for the model itself use `rl_scaling.nqm.steps_to_target`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.config import Setting
from rl_scaling.domains.nqm.dynamics import risk
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum

Function = Callable[[FloatArray], FloatArray]
WIDEST, NARROWEST, MOST_CALLS = 0.05, 1e-5, 80


@dataclass(frozen=True)
class GridHit:
    """The best point of a grid: which one, and the last step at which it was still above the target."""

    index: int
    steps: int


def bisect_grid(reached: Callable[[NDArray[np.intp], int], NDArray[np.bool_]], size: int, cap: int) -> GridHit | None:
    """The least result of bisecting every point of a grid for itself, in the time of about one bisection.

    All bisections start from (0, cap) and so ask the same questions until their answers differ. A point that has not
    reached the target at the middle where another has ends above it: it cannot win and is dropped. What is left at
    the end shares the least result; the first of them wins. A cap that not one reached gives None.

    Args:
        reached: of (k,) grid points and a number of steps: which of them are below the target there.
    """
    low, high, points = 0, cap, np.arange(size)
    while low < high - 1:
        middle = (low + high) // 2
        below = reached(points, middle)
        if below.any():
            high, points = middle, points[below]
        else:
            low = middle
    return GridHit(int(points[0]), low) if high < cap else None


def smooth_minimum(function: Function, origin: FloatArray) -> tuple[FloatArray, float]:
    """Newton's method on the quadratic through a 3^d stencil around the best point so far, which shrinks as it settles.

    It needs no gradient, and minds no wall beside the minimum: where the function is not finite the stencil shrinks
    around its best point.

    Args:
        function: of points (..., d) to values (...,), which may be infinite or NaN.
        origin: (d,) where to begin.

    Returns:
        The best point (d,) and its value.

    >>> point, value = smooth_minimum(lambda x: (x[..., 0] - 1) ** 2 + (x[..., 1] + x[..., 0]) ** 4, np.zeros(2))
    >>> bool(abs(point[0] - 1) < 1e-5), bool(value < 1e-9)
    (True, True)
    """
    offsets, quadratic = stencil(len(origin))
    point, value, width = np.array(origin, dtype=np.float64), np.inf, WIDEST
    trial = point
    for _ in range(MOST_CALLS):
        values = np.asarray(function(trial + width * offsets), dtype=np.float64)
        values = np.where(np.isnan(values), np.inf, values)
        best, before = int(values.argmin()), value
        if values[best] < value:
            point, value = trial + width * offsets[best], float(values[best])
        centre = values[len(values) // 2]
        tolerance = 1e-3 * (1 + abs(value))
        if not np.isfinite(values).all() or centre > before + tolerance:
            trial, width = point, max(width / 3, NARROWEST)
        else:
            step = newton_step(quadratic @ (values - centre), len(origin))
            trial = trial + width * step
            size = float(np.abs(step).max())
            width = min(width * (2.0 if size > 1 else max(size, 0.2)), WIDEST)
            if width < NARROWEST:
                break
    last = float(function(trial))
    return (trial, last) if last < value else (point, value)


@cache
def stencil(size: int) -> tuple[FloatArray, FloatArray]:
    """(3^d, d) offsets, and the matrix that gives the coefficients of the quadratic 1, x_i, x_i x_j (i <= j)."""
    offsets = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=size)))
    i, j = np.triu_indices(size)
    columns = np.column_stack([np.ones(len(offsets)), offsets, offsets[:, i] * offsets[:, j]])
    return offsets, np.asarray(np.linalg.pinv(columns), dtype=np.float64)


def newton_step(coefficients: FloatArray, size: int, longest: float = 2.0) -> FloatArray:
    """Towards the quadratic's minimum, or downhill where it has none; at most `longest` stencils far."""
    gradient = coefficients[1 : 1 + size]
    half = np.zeros((size, size))
    half[np.triu_indices(size)] = coefficients[1 + size :]
    sizes, axes = np.linalg.eigh(half + half.T)
    sizes = np.maximum(np.abs(sizes), 1e-3 * max(float(np.abs(sizes).max()), 1e-300))
    step = -axes @ ((axes.T @ gradient) / sizes)
    return step * min(1.0, longest / max(float(np.abs(step).max()), 1e-300))


SGD_DENOMINATOR_FLOOR = 1e-8
SGD_STEP_CAP, OTHER_STEP_CAP = 10**9, 10**7


def published_grid(optimizer: str) -> tuple[FloatArray, FloatArray]:
    """(k,) learning rates and (k,) coefficients, in the order in which the first of equals won.

    >>> [len(published_grid(name)[0]) for name in ("sgd", "momentum")]
    [100, 2000]
    """
    if optimizer == "sgd":
        rates = np.logspace(-5, 0.5, 100)
        return rates, np.zeros_like(rates)
    rates, coefficients = np.logspace(-8, 1, 100), 1 - np.logspace(-5, 0, 20)
    return np.repeat(rates, len(coefficients)), np.tile(coefficients, len(rates))


def published_hit(
    spectrum: Spectrum,
    batch_size: float,
    *,
    optimizer: str = "sgd",
    power: float = 0.0,
    target: float = Setting.target,
    sgd_floor: float = SGD_DENOMINATOR_FLOOR,
) -> GridHit | None:
    """The published result for one batch size; None where no point of the grid got below the target in time.

    Raises:
        ValueError: an average over momentum, for which nothing was published.

    With `sgd_floor` 0 the risk of SGD is exact: at B = 4 that is 1,508,043 steps, not 1,507,367.

    >>> published_hit(Spectrum.published(), 4**10)
    GridHit(index=95, steps=7268)
    """
    rates, coefficients = published_grid(optimizer)
    if find_optimizer(optimizer).averaged:
        raise ValueError(f"there is no published grid for {optimizer}: choose sgd, momentum, nesterov or ema")
    if optimizer == "sgd":
        problem = spectrum.preconditioned(power)

        def risks(points: NDArray[np.intp], steps: int) -> FloatArray:
            return published_sgd_risk(problem, steps, rates[points], batch_size, sgd_floor)
    else:

        def risks(points: NDArray[np.intp], steps: int) -> FloatArray:
            own = {"learning_rate": rates[points], "coefficient": coefficients[points]}
            return risk(spectrum, steps, batch_size=batch_size, optimizer=optimizer, power=power, **own)

    cap = SGD_STEP_CAP if optimizer == "sgd" else OTHER_STEP_CAP
    hit = bisect_grid(lambda points, steps: risks(points, steps) < target, len(rates), cap)
    return GridHit(hit.index, max(hit.steps, 1)) if hit and optimizer == "sgd" else hit


def published_sgd_risk(
    problem: Spectrum, steps: int, learning_rates: FloatArray, batch_size: float, floor: float
) -> FloatArray:
    """(k,) risks of SGD with the published steady state alpha^2 c / B / (1 - (1 - alpha h)^2 + floor).

    The addition guards against a division by zero. It lowers the noise of slow dimensions: by 0.5 % at alpha h = 10^-6.
    """
    rate = learning_rates[:, None] * problem.eigenvalues
    shrink = (1 - rate) ** 2
    with np.errstate(over="ignore", invalid="ignore"):
        limit = learning_rates[:, None] ** 2 * problem.noise / batch_size / (1 - shrink + floor)
        moments = limit + shrink**steps * (problem.initial - limit)
        risks = moments @ problem.weights
    return np.where((shrink < 1).all(axis=1), risks, np.inf)
