"""Heavy-ball and Nesterov momentum with constant rates on the noisy quadratic model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.response import Modes

FloatArray = NDArray[np.float64]


def heavy_ball_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """Heavy ball: m' = beta m + h theta + noise, theta' = theta - alpha m' (Zhang et al. 2019, eq. 5, 6).

    The roots are those of x^2 - (1 - alpha h + beta) x + beta. They coincide at beta = (1 - sqrt(alpha h))^2,
    so the discriminant is written as a product that is exact to rounding there.

    Args:
        rate: alpha h.
        coefficient: beta in [0, 1).
    """
    damping, root = 1 - coefficient, np.sqrt(rate)
    discriminant = (damping + rate - 2 * root) * (damping + rate + 2 * root)
    return Modes(damping + 0 * rate, rate + 0 * damping, 2 + 2 * coefficient - rate, discriminant, 1 + 0 * discriminant)


def nesterov_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """Nesterov: v' = beta v - alpha g(theta + beta v), theta' = theta + v' (Sutskever et al. 2013), with noise in g.

    theta(t + 1) = (1 - alpha h)((1 + beta) theta(t) - beta theta(t - 1)) + noise. The risk is that of theta, not of the
    point theta + beta v ahead of it. Stable while alpha h < (2 + 2 beta) / (1 + 2 beta), less than for heavy ball.

    Args:
        rate: alpha h.
        coefficient: beta in [0, 1).
    """
    lag = 1 - coefficient
    root = np.sqrt(rate) * (1 + coefficient)
    discriminant = (1 - rate) * (lag - root) * (lag + root)
    far_gap = 2 + 2 * coefficient - rate * (1 + 2 * coefficient)
    return Modes(lag + rate * coefficient, rate + 0 * lag, far_gap, discriminant, 1 + 0 * discriminant)
