"""Bounds on d_t^2 over a whole range of steps, from the closed form: what makes a search for hits exact.

For real roots |d_t| falls steadily, or stays below a known envelope. For complex roots d_t = rho^t A cos(t phi - psi)
is bounded by its ends and by whether the phase passes a zero or a peak between them. (S_t, the noise, never falls: its
bounds are its values at the ends.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.response import Modes

FloatArray = NDArray[np.float64]
MARGIN = 1e-9
"""Relative slack of the bounds, far above their rounding errors."""


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
