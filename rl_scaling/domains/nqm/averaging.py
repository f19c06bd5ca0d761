"""The exponential moving average of SGD's iterates, closed form (Zhang et al. 2019, eq. 11 and 12)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.response import Modes

FloatArray = NDArray[np.float64]


def averaged_sgd_modes(rate: FloatArray, coefficient: FloatArray) -> Modes:
    """The average over SGD's theta: average' = gamma average + (1 - gamma) theta', average(0) = theta(0).

    The roots are 1 - alpha h and gamma. The risk is that of the average.

    Args:
        rate: alpha h.
        coefficient: gamma in [0, 1).
    """
    fresh = 1 - coefficient
    damping = fresh + coefficient * rate
    return Modes(damping, rate * fresh, (2 - rate) * (1 + coefficient), (fresh - rate) ** 2, fresh**2 + 0 * rate)
