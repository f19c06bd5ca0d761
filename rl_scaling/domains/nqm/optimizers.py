"""The optimisers of the model: the recursion each obeys with constant rates in one direction (Zhang et al. 2019).

SGD, heavy ball, Nesterov's momentum and the average of SGD's iterates have two roots and the closed form of
`rl_scaling.domains.nqm.response`. An average over a momentum has three, which leave no short closed form: it is
followed exactly by repeated squaring, and for the search of an optimum by partial fractions. All take `rate`, which is
alpha h, learning rate times eigenvalue, and coefficients in [0, 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rl_scaling.domains.nqm.config import OPTIMIZERS
from rl_scaling.domains.nqm.response import Modes, second_moments
from rl_scaling.domains.nqm.spectrum import FloatArray

_APART = 1e-4


def sgd_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """SGD: theta' = (1 - alpha h) theta + noise, roots 1 - alpha h and 0; only the coefficient's shape counts."""
    rate = rate + 0 * coefficient
    one = np.ones_like(rate)
    return Modes(one, rate, 2 - rate, (1 - rate) ** 2, one)


def sgd_second_moments(modes: Modes, steps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(1 - alpha h)^(2t) and sum_{k<t} (1 - alpha h)^(2k): eq. 4, as `second_moments` gives it, but faster.

    >>> rate = np.array([0.25])
    >>> sgd_second_moments(sgd_modes(rate, 0 * rate), np.array([2.0]))
    (array([0.31640625]), array([1.5625]))
    """
    exponent = 2 * steps * modes.log_radius
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return np.exp(exponent), -np.expm1(exponent) / (modes.gap * modes.far_gap)


def heavy_ball_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """Heavy ball: m' = beta m + h theta + noise, theta' = theta - alpha m' (Zhang et al. 2019, eq. 5, 6).

    The roots are those of x^2 - (1 - alpha h + beta) x + beta. They coincide at beta = (1 - sqrt(alpha h))^2,
    so the discriminant is written as a product that is exact to rounding there.
    """
    damping, root = 1 - coefficient, np.sqrt(rate)
    discriminant = (damping + rate - 2 * root) * (damping + rate + 2 * root)
    return Modes(damping + 0 * rate, rate + 0 * damping, 2 + 2 * coefficient - rate, discriminant, 1 + 0 * discriminant)


def nesterov_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """Nesterov: v' = beta v - alpha g(theta + beta v), theta' = theta + v' (Sutskever et al. 2013), with noise in g.

    theta(t + 1) = (1 - alpha h)((1 + beta) theta(t) - beta theta(t - 1)) + noise. The risk is that of theta, not of the
    point theta + beta v ahead of it. Stable while alpha h < (2 + 2 beta) / (1 + 2 beta), less than for heavy ball.
    """
    lag = 1 - coefficient
    root = np.sqrt(rate) * (1 + coefficient)
    discriminant = (1 - rate) * (lag - root) * (lag + root)
    far_gap = 2 + 2 * coefficient - rate * (1 + 2 * coefficient)
    return Modes(lag + rate * coefficient, rate + 0 * lag, far_gap, discriminant, 1 + 0 * discriminant)


def averaged_sgd_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """The average over SGD's theta: average' = gamma average + (1 - gamma) theta', average(0) = theta(0).

    The roots are 1 - alpha h and gamma. The risk is that of the average.
    """
    fresh = 1 - coefficient
    damping = fresh + coefficient * rate
    return Modes(damping, rate * fresh, (2 - rate) * (1 + coefficient), (fresh - rate) ** 2, fresh**2 + 0 * rate)


@dataclass(frozen=True)
class Optimizer:
    """An optimiser's recursion.

    Attributes:
        modes: its roots from alpha h and the coefficient.
        moments: how they are evaluated after a number of steps.
        tuned: how many of learning rate, coefficient and averaging coefficient there are to choose. With three the risk
            is that of the moving average of these iterates.
    """

    modes: Callable[[FloatArray, FloatArray], Modes]
    moments: Callable[[Modes, FloatArray], tuple[FloatArray, FloatArray]] = second_moments
    tuned: int = 2

    @property
    def averaged(self) -> bool:
        """Whether a momentum's iterates are averaged."""
        return self.tuned == 3


_TWO_ROOTS = {
    "sgd": Optimizer(sgd_modes, sgd_second_moments, tuned=1),
    "momentum": Optimizer(heavy_ball_modes),
    "nesterov": Optimizer(nesterov_modes),
    "ema": Optimizer(averaged_sgd_modes),
}


def find_optimizer(name: str) -> Optimizer:
    """The optimiser of a name in `OPTIMIZERS`; raises ValueError for any other."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer is {name!r}: choose from {', '.join(OPTIMIZERS)}")
    iterates = name.removesuffix("-ema")
    return _TWO_ROOTS[name] if name == iterates else replace(_TWO_ROOTS[iterates], tuned=3)


def averaged_momentum_moments(
    rate: FloatArray, momentum: FloatArray, averaging: FloatArray, steps: FloatArray, *, nesterov: bool
) -> tuple[FloatArray, FloatArray]:
    """Squared weight of the start, and second moment from steps of unit noise variance, of the average after t steps.

    The state (theta, v, average), with the last step v = theta(t) - theta(t - 1), obeys x' = (I + Y) x + b noise, and
    t steps are made of log2(t) doublings:

        Y_{2n} = 2 Y_n + Y_n^2,      P_{2n} = P_n + (I + Y_n) P_n (I + Y_n)',

    with P the second moments that noise of unit variance has built up. Kept as the difference Y from the identity,
    slow modes lose no digits (the matrix form of expm1), and P only ever grows by positive terms.

    Cost: log2(t) products of 3 x 3 matrices for every element; use it for checks and single curves. Rates, momentum
    beta, averaging gamma and whole numbers of steps t broadcast to one shape.

    >>> one = np.array(0.5)
    >>> start, noise = averaged_momentum_moments(one, 0 * one, one, np.array(1.0), nesterov=False)
    >>> float(start), float(noise)      # (1/2 + 1/4)^2, (1/2)^2
    (0.5625, 0.25)
    """
    rate, momentum, averaging, steps = np.broadcast_arrays(rate, momentum, averaging, steps)
    step = _one_step(rate, momentum, averaging, nesterov=nesterov)
    injected = np.stack([np.ones_like(rate), np.ones_like(rate), 1 - averaging], axis=-1)
    grown, spread = step, injected[..., :, None] * injected[..., None, :]
    total, noise = np.zeros_like(step), np.zeros_like(spread)
    left = steps.astype(np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        while left.any():
            odd = (left % 2 == 1)[..., None, None]
            noise = np.where(odd, _carried(grown, noise) + spread, noise)
            total = np.where(odd, total + grown + grown @ total, total)
            spread = spread + _carried(grown, spread)
            grown = 2 * grown + grown @ grown
            left = left // 2
    weight = 1 + total[..., 2, 0] + total[..., 2, 2]
    return np.square(weight), noise[..., 2, 2]


def close_averaged_momentum_moments(
    modes: Modes, averaging: FloatArray, steps: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The same two numbers from partial fractions, in a twentieth of the time, for the search of an optimum.

    The average's response to a unit of noise is (1 - gamma) sum_i r_i^(k+1) / prod_{j != i} (r_i - r_j) over the roots
    r_1, r_2 of the momentum and r_3 = gamma. Roots that coincide are moved apart by a ten-thousandth of their
    distance from 1, and digits are lost nearby: what is reported must come from `averaged_momentum_moments`. The modes
    are those of the momentum.
    """
    with np.errstate(all="ignore"):
        middle = (modes.damping + modes.gap) / 2
        root = np.sqrt(modes.discriminant + 0j) / 2
        far = np.where(middle < 0, middle - root, middle + root)
        z = np.stack(np.broadcast_arrays(far, modes.gap / far, (1 - averaging) + 0j))
        z[1] = np.where(abs(z[0] - z[1]) < _APART * abs(z[0]), z[1] * (1 - _APART), z[1])
        z[2] = np.where((abs(z[:2] - z[2]) < _APART * abs(z[2])).any(axis=0), z[2] * (1 + 3j * _APART), z[2])
        fresh, r = z[2], 1 - z
        power = np.exp(steps * np.log(np.where(r == 0, 1e-300, r)))
        own = [r[0] * z[1] / (z[1] - z[0]), -r[1] * z[0] / (z[1] - z[0])]  # weights of r_1^k and r_2^k in d_k
        passed = [own[i] * r[i] * (power[i] - power[2]) / (z[2] - z[i]) for i in (0, 1)]
        weight = power[2] + fresh * (passed[0] + passed[1])
        gaps = [(z[(i + 1) % 3] - z[i]) * (z[(i + 2) % 3] - z[i]) for i in range(3)]
        lead = [fresh * r[i] ** 2 / gaps[i] for i in range(3)]
        total = sum(
            (2 - (i == j)) * lead[i] * lead[j] * (1 - power[i] * power[j]) / (z[i] + z[j] - z[i] * z[j])
            for i in range(3)
            for j in range(i + 1)
        )
        return np.square(weight.real), np.where(steps > 0, np.maximum(np.real(total), 0.0), 0.0)


def _carried(grown: FloatArray, moments: FloatArray) -> FloatArray:
    """(I + Y) P (I + Y)'."""
    half = moments + grown @ moments
    return half + half @ np.swapaxes(grown, -1, -2)


def _one_step(rate: FloatArray, momentum: FloatArray, averaging: FloatArray, *, nesterov: bool) -> FloatArray:
    """Y of one step: theta' - theta, v' - v and average' - average from (theta, v, average)."""
    keep = momentum * (1 - rate) if nesterov else momentum
    lag = (1 - momentum) + rate * momentum if nesterov else 1 - momentum
    fresh = 1 - averaging
    zero = np.zeros_like(rate)
    rows = [[-rate, keep, zero], [-rate, -lag, zero], [fresh * (1 - rate), fresh * keep, -fresh]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
