"""SGD at very small and very large batches: the two ends of the trade-off between steps and examples.

For B -> 0 the best learning rate shrinks with B. With epsilon = alpha / B the risk then depends on N = B t alone,

    1/2 sum_i h_i [ exp(-2 epsilon N h_i) E theta_i(0)^2 + (epsilon c_i / (2 h_i)) (1 - exp(-2 epsilon N h_i)) ],

the continuous limit of Zhang et al. 2019, eq. 4. The least N is the model's E_min (McCandlish et al. 2018, eq. 2.11).
The examples of heavy ball and of Nesterov's momentum with a fixed coefficient tend to it too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from rl_scaling.domains.nqm.spectrum import Spectrum


@dataclass(frozen=True)
class SmallBatchLimit:
    """The least number of examples to the target, and the learning rate for each example of the batch it takes."""

    examples: float
    learning_rate_per_example: float


def small_batch_limit(spectrum: Spectrum, target: float, *, power: float = 0.0) -> SmallBatchLimit:
    """The limit for B -> 0 of B times the fewest steps of SGD, and of its learning rate divided by B.

    Raises:
        ValueError: a target that is not between 0 and the initial risk, a spectrum without noise, power outside [0, 1].

    >>> limit = small_batch_limit(Spectrum.power_law(), 0.01)
    >>> f"{limit.examples:.4g} {limit.learning_rate_per_example:.3g}"
    '6.02e+06 0.0034'
    """
    problem = spectrum.preconditioned(power)
    if not 0 < target < problem.initial_risk:
        raise ValueError(f"the target risk is {target}: give a number between 0 and {problem.initial_risk:.4g}")
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
    h, weight = problem.eigenvalues, 0.5 * problem.counts * problem.eigenvalues
    level = epsilon * problem.noise / (2 * h)

    def excess(time: float) -> float:
        return float(weight @ (level + np.exp(-2 * time * h) * (problem.initial - level))) - target

    high = 1.0 / h[0]
    while excess(high) > 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, rtol=1e-13))
