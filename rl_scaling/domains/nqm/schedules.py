"""Schedules of learning rates and batch sizes: one number for every update, as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def piecewise_constant(values: Sequence[float] | FloatArray, lengths: Sequence[int] | NDArray[np.int64]) -> FloatArray:
    """Each value for its number of updates.

    >>> piecewise_constant([1.0, 0.1], [2, 1])
    array([1. , 1. , 0.1])
    """
    if len(values) != len(lengths) or any(length < 0 for length in lengths):
        raise ValueError(f"{len(values)} values need as many lengths, none negative; there are {len(lengths)}")
    return np.repeat(np.asarray(values, dtype=np.float64), lengths)


def linear_decay(initial: float, final_fraction: float, decay_steps: int, steps: int) -> FloatArray:
    """Linear decay: initial * (1 - (1 - kappa) t / T) up to t = T, kappa * initial from then on.

    >>> linear_decay(1.0, 0.5, 2, 4)
    array([1.  , 0.75, 0.5 , 0.5 ])
    """
    progress = np.minimum(np.arange(_count(steps)) / _count(decay_steps, least=1), 1.0)
    return initial * (1 - (1 - final_fraction) * progress)


def cosine_decay(initial: float, steps: int, final_fraction: float = 0.0) -> FloatArray:
    """Half a cosine from `initial` at the first update towards final_fraction * initial after the last.

    >>> cosine_decay(1.0, 2)
    array([1. , 0.5])
    """
    falling = (1 + np.cos(np.pi * np.arange(_count(steps)) / max(steps, 1))) / 2
    return initial * (final_fraction + (1 - final_fraction) * falling)


def warmup_stable_decay(peak: float, warmup: int, stable: int, decay: int, final_fraction: float = 0.0) -> FloatArray:
    """A linear rise over `warmup` updates, `peak` for `stable`, a linear fall over `decay` to final_fraction * peak.

    >>> warmup_stable_decay(1.0, 2, 1, 2)
    array([0.5, 1. , 1. , 0.5, 0. ])
    """
    up = np.arange(1, _count(warmup) + 1) / max(warmup, 1)
    down = 1 - (1 - final_fraction) * np.arange(1, _count(decay) + 1) / max(decay, 1)
    return peak * np.concatenate([up, np.ones(_count(stable)), down])


def ramp(first: float, last: float, steps: int, *, geometric: bool = False) -> FloatArray:
    """From `first` to `last` in equal differences, or equal ratios: a ramp of batch sizes, say.

    >>> ramp(1.0, 4.0, 3, geometric=True)
    array([1., 2., 4.])
    """
    if geometric and not (first > 0 and last > 0):
        raise ValueError("a geometric ramp needs positive ends")
    return (np.geomspace if geometric else np.linspace)(first, last, _count(steps))


def _count(steps: int, least: int = 0) -> int:
    if steps < least:
        raise ValueError(f"the number of updates is {steps}: give at least {least}")
    return steps
