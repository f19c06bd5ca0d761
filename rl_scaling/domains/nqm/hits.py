"""When the risk reaches a target: the first time, and for good.

The risk of an underdamped optimiser goes up and down, so a bisection can miss the first hit. Here ranges of steps are
cut in two until bounds on the risk decide every part: the answers are exact for every setting, in a few hundred
evaluations whatever the number of steps. S_t, the noise, never falls, so its bounds are its values at the ends of a
range. Those of d_t^2, the start, follow from its closed form: for real roots |d_t| falls steadily, or stays below a
known envelope; for complex roots d_t = rho^t A cos(t phi - psi) is bounded by its ends and by whether the phase passes
a zero or a peak between them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.dynamics import check_settings
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.response import Modes
from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum

MAX_STEPS = 10**12
# Relative slack of the bounds, far above their rounding errors.
MARGIN = 1e-9


@dataclass(frozen=True)
class Hits:
    """Steps after which the risk is at or below the target.

    Attributes:
        first: the first such step; None where there is none up to the largest number of steps looked at.
        sustained: the first step from which the risk stays there; None where it never does.
    """

    first: int | None
    sustained: int | None


def find_hits(
    spectrum: Spectrum,
    target: float,
    *,
    learning_rate: float,
    batch_size: float,
    optimizer: str = "sgd",
    coefficient: float = 0.0,
    power: float = 0.0,
    max_steps: int = MAX_STEPS,
) -> Hits:
    """First and sustained hit of one setting, exact to the step; arguments as in `risk`.

    A diverging setting has neither (0 steps where the initial risk is low enough already). Averages of momentum are
    left out: of their three roots no bounds over ranges of steps are known here.

    >>> settings = {"optimizer": "momentum", "learning_rate": 1.0, "coefficient": 0.5, "batch_size": 100}
    >>> find_hits(Spectrum.power_law(100), 0.1, **settings)
    Hits(first=32, sustained=32)
    """
    if not target > 0:
        raise ValueError(f"the target risk is {target}: give a positive number")
    check_settings(learning_rate, batch_size, coefficient)
    found, problem = find_optimizer(optimizer), spectrum.preconditioned(power)
    if found.averaged:
        raise ValueError(f"hits of {optimizer} are not known for sure: take sgd, momentum, nesterov or ema")
    modes = found.modes(learning_rate * problem.eigenvalues, np.asarray(coefficient, dtype=np.float64))
    noise = learning_rate**2 / batch_size * problem.weights * problem.noise * modes.gain
    track = _Track(modes, found.moments, problem.weights * problem.initial, noise)
    first = 0 if problem.initial_risk <= target else None
    if not modes.stable.all():
        return Hits(first, None)
    if first is None:
        first = _leftmost(lambda begin, end: track.bounds(begin, end)[0] <= target, 1, max_steps)
    if first is None or track.limit > target:
        return Hits(first, None)
    return Hits(first, _sustained_hit(track, target, first, max_steps))


@dataclass(frozen=True, eq=False)
class _Track:
    """The risk of one setting as a function of the steps: start @ d_t^2 + noise @ S_t."""

    modes: Modes
    moments: Callable[[Modes, FloatArray], tuple[FloatArray, FloatArray]]
    start: FloatArray
    noise: FloatArray

    @property
    def limit(self) -> float:
        return float(self.noise @ (self.modes.steady_state() / self.modes.gain))

    def bounds(self, first: FloatArray, last: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Numbers below and above the risk on each range; where first = last both are the risk."""
        (d_first, s_first), (d_last, s_last) = (self.moments(self.modes, t[:, None]) for t in (first, last))
        low, high = start_bounds(self.modes, first[:, None], last[:, None], d_first, d_last)
        single = first == last
        low, high = np.where(single[:, None], d_first, low), np.where(single[:, None], d_first, high)
        return low @ self.start + s_first @ self.noise, high @ self.start + s_last @ self.noise


def _sustained_hit(track: _Track, target: float, first_hit: int, max_steps: int) -> int | None:
    """One more than the last step above the target; by then the envelope alone must keep the risk below it."""
    end = max(first_hit, 1)
    while not _settled(track, target, end):
        end *= 2
        if end > max_steps:
            return None

    def above(first: FloatArray, last: FloatArray) -> NDArray[np.bool_]:
        return track.bounds(end - last, end - first)[1] > target

    back = _leftmost(above, 0, end - first_hit)
    return first_hit if back is None else end - back + 1


def _settled(track: _Track, target: float, begin: int) -> bool:
    """Whether the envelope of d_t^2 from `begin` on and the noise's limit lie below the target together."""
    first, last = np.array([float(begin)]), np.array([np.inf])
    at_first = track.moments(track.modes, first)[0]
    high = start_bounds(track.modes, first, last, at_first, at_first)[1]
    return float(high @ track.start) + track.limit <= target


def _leftmost(possible: Callable[[FloatArray, FloatArray], NDArray[np.bool_]], low: int, high: int) -> int | None:
    """The smallest whole number in low .. high at which `possible(t, t)` holds, or None.

    `possible(first, last)` may be true of a range without a solution, but must be true of every range with one. Ranges
    grow by doubling from the left end and are cut into eight parts; the leftmost that is possible is always next.
    """
    parts = 8
    waiting: list[tuple[int, int]] = []
    begin, length = low, 1
    while begin <= high or waiting:
        if not waiting:
            waiting.append((begin, min(begin + length - 1, high)))
            begin, length = begin + length, length * 2
        first, last = waiting.pop()
        edges = np.unique(np.linspace(first, last + 1, min(parts, last - first + 1) + 1).round())
        starts, stops = edges[:-1], edges[1:] - 1
        kept = np.flatnonzero(possible(starts, stops))
        if len(kept) and starts[kept[0]] == stops[kept[0]]:
            return math.floor(starts[kept[0]])
        waiting.extend((int(starts[i]), int(stops[i])) for i in reversed(kept))
    return None


def start_bounds(
    modes: Modes, first: FloatArray, last: FloatArray, at_first: FloatArray, at_last: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Numbers below and above d_t^2 for all first <= t <= last.

    Args:
        modes: stable.
        first, last: steps, at least 1; broadcast with the modes.
        at_first, at_last: d_t^2 there, of the modes' shape.
    """
    with np.errstate(all="ignore"):
        low, high = _real_bounds(modes, first, last, at_first, at_last)
        if modes.oscillates.any():
            turning = _turning_bounds(modes, first, last)
            low = np.where(modes.oscillates, turning[0], low)
            high = np.where(modes.oscillates, turning[1], high)
    return low * (1 - MARGIN), high * (1 + MARGIN)


def _real_bounds(
    modes: Modes, first: FloatArray, last: FloatArray, at_first: FloatArray, at_last: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Positive sum of roots: d_t = 1 - g (u_1 + ... + u_t) with u_k >= 0 falls, and stays positive.

    Negative sum: |d_t| = r1^t + (r2 (1 - r1) + 2 delta) u_t need not fall, but u_t <= t r1^(t - 1) puts it below
    r1^t (1 + s t), whose maximum is at -1 / log r1 - 1 / s.
    """
    r1, r2, slow = modes.real_roots
    slope = np.abs(r2) * (slow / r1 + 2)
    peak = np.clip(-1 / modes.log_radius - 1 / slope, first, last)
    rising = modes.flipped & (slope > 0)
    high = np.where(rising, np.exp(2 * peak * modes.log_radius) * (1 + slope * peak) ** 2, at_first)
    return np.where(rising, 0.0, at_last), high


def _turning_bounds(modes: Modes, first: FloatArray, last: FloatArray) -> tuple[FloatArray, FloatArray]:
    angle, lead, amplitude = modes.phase
    begin, end = first * angle - lead, last * angle - lead
    slack = MARGIN + 1e-14 * end
    cosines = np.abs(np.cos(begin)), np.abs(np.cos(end))
    zero = np.floor(end / np.pi - 0.5 + slack) > np.floor(begin / np.pi - 0.5 - slack)
    peak = np.floor(end / np.pi + slack) > np.floor(begin / np.pi - slack)
    least = np.where(zero, 0.0, np.maximum(np.minimum(*cosines) - slack, 0.0))
    most = np.where(peak, 1.0, np.minimum(np.maximum(*cosines) + slack, 1.0))
    low = np.exp(2 * last * modes.log_radius) * (amplitude * least) ** 2
    return low, np.exp(2 * first * modes.log_radius) * (amplitude * most) ** 2
