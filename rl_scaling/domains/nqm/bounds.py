"""How many examples the model needs at the least: what no algorithm can beat, and SGD at very small batches.

A gradient query on one example is an observation of the optimum with precision h^2 / c in every dimension, wherever it
is made. So after N of them the risk of the best estimator is known exactly (Zhang et al. 2019, 3.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum


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


@dataclass(frozen=True)
class SmallBatchLimit:
    """The least number of examples to the target, and the learning rate for each example of the batch it takes."""

    examples: float
    learning_rate_per_example: float


def small_batch_limit(spectrum: Spectrum, target: float, *, power: float = 0.0) -> SmallBatchLimit:
    """The limit for B -> 0 of B times the fewest steps of SGD, and of its learning rate divided by B.

    For B -> 0 the best learning rate shrinks with B. With epsilon = alpha / B the risk then depends on N = B t alone,

        1/2 sum_i h_i [ exp(-2 epsilon N h_i) E theta_i(0)^2 + (epsilon c_i / (2 h_i)) (1 - exp(-2 epsilon N h_i)) ],

    the continuous limit of Zhang et al. 2019, eq. 4. The least N is the model's E_min (McCandlish et al. 2018,
    eq. 2.11). The examples of heavy ball and of Nesterov's momentum with a fixed coefficient tend to it too.

    Raises:
        ValueError: a target that is not between 0 and the initial risk, a spectrum without noise, power outside [0, 1].

    >>> limit = small_batch_limit(Spectrum.power_law(), 0.01)
    >>> f"{limit.examples:.4g} {limit.learning_rate_per_example:.3g}"
    '6.02e+06 0.0034'
    """
    problem = spectrum.preconditioned(power)
    problem.check_target(target)
    if not problem.noise.any():
        raise ValueError("a spectrum without noise has no small-batch limit")
    highest = target / (0.25 * float(problem.counts @ problem.noise))

    def log_examples(log_share: float) -> float:
        epsilon = highest * math.exp(log_share)
        return math.log(_time_to_target(problem, target, epsilon)) - math.log(epsilon)

    found = optimize.minimize_scalar(log_examples, bounds=(-12.0, -1e-9), method="bounded", options={"xatol": 1e-9})
    return SmallBatchLimit(math.exp(float(found.fun)), highest * math.exp(float(found.x)))


def _time_to_target(problem: Spectrum, target: float, epsilon: float) -> float:
    """The epsilon * N at which the risk of the limit crosses the target."""
    h, weight = problem.eigenvalues, problem.weights
    level = epsilon * problem.noise / (2 * h)

    def excess(time: float) -> float:
        return float(weight @ (level + np.exp(-2 * time * h) * (problem.initial - level))) - target

    high = 1.0 / h[0]
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, rtol=1e-13))
