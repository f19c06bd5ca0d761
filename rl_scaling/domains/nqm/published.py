"""Steps to the target with every choice of the published figures, also where the text leaves it out.

The figures of Zhang et al. 2019 were made with code (github.com/gd-zhang/noisy-quadratic-model) that differs from the
text: eigenvalues are lowered to the edges of bins; SGD's steady state has 10^-8 added to its denominator; a run counts
up to the last step that is still above the target, found by a bisection that takes the risk to be monotone. Repeating
these choices repeats the published numbers; for the model itself use `rl_scaling.nqm.steps_to_target`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rl_scaling.domains.nqm.config import Setting
from rl_scaling.domains.nqm.dynamics import risk
from rl_scaling.domains.nqm.optimizers import find_optimizer
from rl_scaling.domains.nqm.search import GridHit, bisect_grid
from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum

SGD_DENOMINATOR_FLOOR = 1e-8
SGD_STEP_CAP, OTHER_STEP_CAP = 10**9, 10**7


def published_grid(optimizer: str) -> tuple[FloatArray, FloatArray]:
    """(k,) learning rates and (k,) coefficients, in the order in which the first of equals won.

    >>> [len(published_grid(name)[0]) for name in ("sgd", "momentum")]
    [100, 2000]
    """
    if optimizer == "sgd":
        rates = np.logspace(-5, 0.5, 100)
        return rates, np.zeros_like(rates)
    rates, coefficients = np.logspace(-8, 1, 100), 1 - np.logspace(-5, 0, 20)
    return np.repeat(rates, len(coefficients)), np.tile(coefficients, len(rates))


def published_hit(
    spectrum: Spectrum,
    batch_size: float,
    *,
    optimizer: str = "sgd",
    power: float = 0.0,
    target: float = Setting.target,
    sgd_floor: float = SGD_DENOMINATOR_FLOOR,
) -> GridHit | None:
    """The published result for one batch size; None where no point of the grid got below the target in time.

    Raises:
        ValueError: an average over momentum, for which nothing was published.

    With `sgd_floor` 0 the risk of SGD is exact: at B = 4 that is 1,508,043 steps, not 1,507,367.

    >>> published_hit(Spectrum.published(), 4**10)
    GridHit(index=95, steps=7268)
    """
    rates, coefficients = published_grid(optimizer)
    if find_optimizer(optimizer).averaged:
        raise ValueError(f"there is no published grid for {optimizer}: choose sgd, momentum, nesterov or ema")
    if optimizer == "sgd":
        problem = spectrum.preconditioned(power)

        def risks(points: NDArray[np.intp], steps: int) -> FloatArray:
            return published_sgd_risk(problem, steps, rates[points], batch_size, sgd_floor)
    else:

        def risks(points: NDArray[np.intp], steps: int) -> FloatArray:
            own = {"learning_rate": rates[points], "coefficient": coefficients[points]}
            return risk(spectrum, steps, batch_size=batch_size, optimizer=optimizer, power=power, **own)

    cap = SGD_STEP_CAP if optimizer == "sgd" else OTHER_STEP_CAP
    hit = bisect_grid(lambda points, steps: risks(points, steps) < target, len(rates), cap)
    return GridHit(hit.index, max(hit.steps, 1)) if hit and optimizer == "sgd" else hit


def published_sgd_risk(
    problem: Spectrum, steps: int, learning_rates: FloatArray, batch_size: float, floor: float
) -> FloatArray:
    """(k,) risks of SGD with the published steady state alpha^2 c / B / (1 - (1 - alpha h)^2 + floor).

    The addition guards against a division by zero. It lowers the noise of slow dimensions: by 0.5 % at alpha h = 10^-6.
    """
    rate = learning_rates[:, None] * problem.eigenvalues
    shrink = (1 - rate) ** 2
    with np.errstate(over="ignore", invalid="ignore"):
        limit = learning_rates[:, None] ** 2 * problem.noise / batch_size / (1 - shrink + floor)
        moments = limit + shrink**steps * (problem.initial - limit)
        risks = moments @ problem.weights
    return np.where((shrink < 1).all(axis=1), risks, np.inf)
