"""Searches for functions that are cheap to evaluate at many points at once: over a grid, and for a smooth minimum."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.spectrum import FloatArray

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
