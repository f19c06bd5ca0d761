"""Exact response of a second-order linear recursion: the closed form behind every optimiser with constant rates.

In one dimension SGD, heavy ball, Nesterov's momentum and the moving average of SGD all obey

    y(t + 1) = tau y(t) - delta y(t - 1) + noise,      y(-1) = y(0),

whose characteristic roots r1, r2 have the sum tau and the product delta. With u_t = (r1^t - r2^t) / (r1 - r2),

    y(t) = d_t y(0) + sum_{k=1..t} u_k noise(t - k),   d_t = u_{t+1} - delta u_t,   S_t = sum_{k=1..t} u_k^2,

and E y(t)^2 = d_t^2 E y(0)^2 + S_t Var(noise): equations 4, 5 and 11 of Zhang et al. 2019, exact. This module shows how
to evaluate d_t and S_t so that no digit is lost where the roots coincide, where a root is within rounding of 1, or for
t in the billions. Three things make it work. All numbers are made from the distances of the roots from 1, never from
the roots. S_t does not change when both roots change sign, so that the larger root may be taken as positive. And S_t is
evaluated by one of three formulas, each where its terms do not cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.spectrum import FloatArray

SERIES_TERMS = 20
_TINY = 2.0**-53


@dataclass(frozen=True, eq=False)
class Modes:
    """The recursion's coefficients for many dimensions and settings at once; all arrays broadcast to one shape.

    Attributes:
        damping: q = 1 - delta.
        gap: g = 1 + delta - tau = (1 - r1)(1 - r2).
        far_gap: 1 + delta + tau = (1 + r1)(1 + r2).
        discriminant: tau^2 - 4 delta = (r1 - r2)^2.
        gain: variance of the recursion's noise, for steps (learning rate times gradient) with noise of variance 1.
    """

    damping: FloatArray
    gap: FloatArray
    far_gap: FloatArray
    discriminant: FloatArray
    gain: FloatArray

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Both roots lie inside the unit circle."""
        return (self.gap > 0) & (self.far_gap > 0) & (self.damping > 0)

    @cached_property
    def delta(self) -> FloatArray:
        return 1 - self.damping

    @cached_property
    def log_radius(self) -> FloatArray:
        """The log of the larger |root|, without loss of digits where it is close to 1; NaN where unstable.

        In the end the risk's excess over its steady state shrinks by the square of that root at each step.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            real = np.log1p(-np.minimum(self.slow_distance, 1 - _TINY))
            return np.where(self.oscillates, np.log1p(-self.damping) / 2, real)

    def steady_state(self) -> FloatArray:
        """The limit gain * S_infinity = gain (1 + delta) / (q g (1 + delta + tau)); infinite where unstable."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            total = self.gain * (1 + self.delta) / (self.damping * self.gap * self.far_gap)
        return np.where(self.stable, total, np.inf)

    @cached_property
    def flipped(self) -> NDArray[np.bool_]:
        """The sum of the roots is negative: both roots change sign, so that the larger becomes positive."""
        return self.far_gap < self.gap

    @cached_property
    def oscillates(self) -> NDArray[np.bool_]:
        """The roots are complex: the mode is underdamped."""
        return (self.discriminant < 0) & (self.damping < 1)

    @property
    def real_roots(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The numbers r1, r2 and 1 - r1 of the flipped modes, for real roots: r1 > 0 and r1 >= |r2|."""
        r1 = np.maximum(1 - self.slow_distance, _TINY)
        return r1, self.delta / r1, self.slow_distance

    @cached_property
    def phase(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The numbers phi, psi and A in d_t = rho^t A cos(t phi - psi), for complex roots rho exp(+-i phi)."""
        angle, sine = _angle(self)
        lag = (self.damping - self.gap) / (2 * np.sqrt(np.maximum(self.delta, _TINY)) * sine)
        return np.where(self.flipped, np.pi - angle, angle), np.arctan(lag), np.hypot(1.0, lag)

    @cached_property
    def near_gap(self) -> FloatArray:
        """(1 - r1)(1 - r2) of the flipped modes."""
        return np.minimum(self.gap, self.far_gap)

    @cached_property
    def root_difference(self) -> FloatArray:
        """|r1 - r2|."""
        return np.sqrt(np.where(self.oscillates, -self.discriminant, np.maximum(self.discriminant, 0.0)))

    @cached_property
    def fast_distance(self) -> FloatArray:
        """The larger z2 = 1 - r2 of real roots, from z1 + z2 = q + g without cancellation."""
        return (self.damping + self.near_gap + self.root_difference) / 2

    @cached_property
    def slow_distance(self) -> FloatArray:
        """The smaller z1 = 1 - r1, from z1 z2 = g."""
        return self.near_gap / self.fast_distance


def second_moments(modes: Modes, steps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """d_t^2 and S_t for whole numbers of steps t >= 0, which broadcast with the modes.

    Every element costs the same whatever t. Rounding errors stay at a few dozen units of the last place of the
    larger term, times t * |angle| for underdamped roots far out in their oscillation, where the phase t * angle is
    itself only known to that accuracy. Unstable modes give meaningless numbers: see `Modes.stable`.

    >>> one = np.array([0.25])
    >>> sgd = Modes(1 + 0 * one, one, 2 - one, (1 - one) ** 2, one)
    >>> second_moments(sgd, np.array([2.0]))     # (3/4)^4 and 1 + (3/4)^2
    (array([0.31640625]), array([1.5625]))
    """
    t = np.asarray(steps, dtype=np.float64)
    with np.errstate(all="ignore"):
        u, d = _impulse(modes, t)
        spread = np.where(modes.oscillates, np.sqrt(modes.near_gap), modes.fast_distance)
        near = (2 * spread * t < 1) & (t > 0)
        total = np.where(_turns(modes), _spectral_sum(modes, t), _balance_sum(modes, t, u, d))
        if near.any():
            shape = np.broadcast_shapes(near.shape, total.shape)
            near, total = np.broadcast_to(near, shape), np.broadcast_to(total, shape).copy()
            total[near] = _series_sum(modes, near, t)
        actual = np.where(modes.flipped, d + 2 * modes.delta * u, d) ** 2
    return np.where(t > 0, actual, 1.0), np.where(t > 0, total, 0.0)


def _impulse(modes: Modes, t: FloatArray) -> tuple[FloatArray, FloatArray]:
    """u_t and d_t of the flipped modes.

    Real roots: u_t = r1^(t-1) (1 - x^t) / (1 - x) with x = r2 / r1, and d_t = r1^t + r2 (1 - r1) u_t.
    Complex roots rho exp(+-i phi): u_t = rho^(t-1) sin(t phi) / sin phi, d_t = rho^t cos(t phi) + (q - g) u_t / 2.
    """
    power = np.exp(t * modes.log_radius)
    u_real, d_real = _real_impulse(modes, t, power)
    if not modes.oscillates.any():
        return u_real, d_real
    angle, sine = _angle(modes)
    u = power * np.sin(t * angle) / (np.sqrt(modes.delta) * sine)
    d = power * np.cos(t * angle) + (modes.damping - modes.near_gap) * u / 2
    return np.where(modes.oscillates, u, u_real), np.where(modes.oscillates, d, d_real)


def _real_impulse(modes: Modes, t: FloatArray, power: FloatArray) -> tuple[FloatArray, FloatArray]:
    r1, r2, slow = modes.real_roots
    shrink = np.minimum(modes.root_difference / r1, 2.0)
    alternating = (1 - np.power(r2 / r1, t)) / shrink
    log_ratio = np.log1p(-np.minimum(shrink, 1 - _TINY))
    ratio = np.where(shrink < 1, np.where(shrink > 0, np.expm1(t * log_ratio) / -shrink, t), alternating)
    u = power / r1 * ratio
    return u, power + r2 * slow * u


def _angle(modes: Modes) -> tuple[FloatArray, FloatArray]:
    """The angle phi in (0, pi / 2] of the flipped complex roots, and its sine."""
    tau = 2 - modes.damping - modes.near_gap
    angle = np.arctan2(modes.root_difference, tau)
    return angle, modes.root_difference / (2 * np.sqrt(np.maximum(modes.delta, _TINY)))


def _turns(modes: Modes) -> NDArray[np.bool_]:
    """Complex roots that turn faster than they decay: phi > -log rho, nearly."""
    return modes.oscillates & (modes.root_difference > modes.damping)


def _spectral_sum(modes: Modes, t: FloatArray) -> FloatArray:
    """S_t = (sum_k delta^(k-1) - Re sum_k delta^(k-1) exp(2 i k phi)) / (2 sin^2 phi), both sums geometric."""
    if not modes.oscillates.any():
        return np.broadcast_to(np.float64(0), np.broadcast_shapes(t.shape, modes.gap.shape))
    angle, sine = _angle(modes)
    delta, cosine = modes.delta, np.cos(angle)
    power = np.exp(2 * t * modes.log_radius)
    plain = -np.expm1(2 * t * modes.log_radius) / modes.damping
    # exp(2 i phi) (1 - z) / (1 - delta exp(2 i phi)) with z = delta^t exp(2 i t phi)
    z = power * np.exp(2j * t * angle)
    turn = (cosine + 1j * sine) ** 2
    below = (modes.damping + 2 * delta * sine**2) - 2j * delta * sine * cosine
    return (plain - (turn * (1 - z) / below).real) / (2 * sine**2)


def _balance_sum(modes: Modes, t: FloatArray, u: FloatArray, d: FloatArray) -> FloatArray:
    """S_t from the stationary balance q (1 + delta + tau) S_t = (1 + delta)(1 + d_t) U - 2 delta u_t u_{t+1}.

    U = sum_{k=1..t} u_k = (1 - d_t) / g; for real roots U = (sum_{k<t} r1^k - r2 u_t) / (1 - r2), without cancellation.
    """
    z1, z2 = modes.slow_distance, modes.fast_distance
    geometric = -np.expm1(t * modes.log_radius) / z1
    step = np.where(modes.oscillates, (1 - d) / modes.near_gap, (geometric - modes.real_roots[1] * u) / z2)
    next_u = d + modes.delta * u
    wide = np.maximum(modes.gap, modes.far_gap)
    return ((1 + modes.delta) * (1 + d) * step - 2 * modes.delta * u * next_u) / (modes.damping * wide)


def _series_sum(modes: Modes, where: NDArray[np.bool_], t: FloatArray) -> FloatArray:
    """S_t for roots so close to 1 that t times their distance is small: a series in that product.

    The generating function of u_k^2 has the poles r1^2, delta, r2^2, that of its sums also 1. So S_t is the third
    divided difference of x^(t+2) + delta x^(t+1) over these four points; expanding x^n = (1 - z)^n gives
    sum_m C(n, m + 3) (-1)^m h_m with h_m the complete symmetric polynomials of the points' distances z from 1.
    """
    q, g, disc, n = (
        np.broadcast_to(x, where.shape)[where] for x in (modes.damping, modes.near_gap, modes.discriminant, t)
    )
    total = q + g
    # distances: w1 + w2 and w1 w2 of 1 - r1^2, 1 - r2^2, and q = 1 - delta
    both = 2 * total - (total * total + disc) / 2
    product = g * (4 - 2 * total + g)
    e1, e2, e3 = both + q, product + both * q, product * q
    h = [np.ones_like(q), e1, e1 * e1 - e2]
    upper, lower = _binomial_start(n + 2), _binomial_start(n + 1)
    result = np.zeros_like(q)
    for m in range(SERIES_TERMS):
        result += (-1) ** m * h[0] * (upper + (1 - q) * lower)
        upper = upper * (n - 1 - m) / (m + 4)
        lower = lower * (n - 2 - m) / (m + 4)
        h = [h[1], h[2], e1 * h[2] - e2 * h[1] + e3 * h[0]]
    return result


def _binomial_start(n: FloatArray) -> FloatArray:
    return n * (n - 1) * (n - 2) / 6
