"""SGD with a constant learning rate on the noisy quadratic model (Zhang et al. 2019, eq. 2 to 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.response import Modes

FloatArray = NDArray[np.float64]


def sgd_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """SGD: theta' = (1 - alpha h) theta + noise: one root 1 - alpha h, the other 0.

    Args:
        rate: alpha h, learning rate times eigenvalue.
        coefficient: not used; its shape counts.
    """
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
