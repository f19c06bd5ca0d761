"""What no algorithm can beat: lower bounds on the risk after N examples (Zhang et al. 2019, 3.6).

A gradient query on one example is an observation of the optimum with precision h^2 / c in every dimension, wherever it
is made. So after N of them the risk of the best estimator is known exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rl_scaling.domains.nqm.spectrum import Spectrum

FloatArray = NDArray[np.float64]


def estimation_bound(spectrum: Spectrum, examples: ArrayLike) -> FloatArray:
    """sum_i c_i / (2 N h_i), which is d / (2 N) for C = H: the bound for an estimator that knows nothing of theta(0).

    The optimisers of this package start from a known distribution and can be better: see `bayes_bound`.

    >>> float(estimation_bound(Spectrum.power_law(), 500_000).round(6))
    0.01
    """
    total = float(np.sum(spectrum.counts * spectrum.noise / spectrum.eigenvalues))
    return total / (2 * _positive(examples))


def bayes_bound(spectrum: Spectrum, examples: ArrayLike) -> FloatArray:
    """1/2 sum_i h_i / (1 / E theta_i(0)^2 + N h_i^2 / c_i): the Bayes risk of a normal start with these moments.

    With C = H and theta(0) ~ N(0, I) this is 1/2 sum h / (1 + N h). Exact for the groups of the spectrum.

    >>> bayes_bound(Spectrum.power_law(bins=10_000), [495_016, 495_017]) > 0.01
    array([ True, False])
    """
    n = _positive(examples)[..., None]
    h, c, start = spectrum.eigenvalues, spectrum.noise, spectrum.initial
    return 0.5 * np.sum(spectrum.counts * h * start * c / (c + n * h**2 * start + (c == 0)), axis=-1)


def examples_for_bayes_bound(spectrum: Spectrum, target: float) -> float:
    """The number of examples N, not rounded, below which no algorithm reaches the target risk.

    Raises:
        ValueError: a target that is not positive.

    >>> round(examples_for_bayes_bound(Spectrum.power_law(bins=10_000), 0.01), 2)
    495016.17
    """
    if not target > 0:
        raise ValueError(f"the target risk is {target}: give a positive number")
    high = 1.0
    if spectrum.initial_risk <= target or not spectrum.noise.any():
        return 0.0
    while bayes_bound(spectrum, high) > target:
        high *= 2
    return float(optimize.brentq(lambda n: float(bayes_bound(spectrum, n)) - target, 1e-300, high, rtol=1e-14))


def _positive(examples: ArrayLike) -> FloatArray:
    n = np.asarray(examples, dtype=np.float64)
    if not np.all(n > 0):
        raise ValueError("the number of examples must be positive")
    return n
