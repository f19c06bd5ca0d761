"""Piecewise-constant learning rates that are best for a number of steps, and the fewest steps with them.

Zhang et al. 2019, section 3.7.2: within a piece the risk follows eq. 4 from where the piece before left it; the rates
are found by quasi-Newton steps on log rates with gradients in closed form. Pieces have equal length, which need not be
a whole number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from rl_scaling.nqm.closed_form import Model

FloatArray = NDArray[np.float64]
PIECES = 50
_LARGEST = 1.999  # of alpha h_1, which must stay below 2
_SMALLEST = 1e-9
_PRECISION = 3e-3


@dataclass(frozen=True)
class Schedule:
    """Learning rates that are best for a number of steps.

    Attributes:
        steps: how many, over all pieces.
        rates: (pieces,) one after the other.
        risk: at the end.
    """

    steps: float
    rates: FloatArray
    risk: float


def risk_and_slopes(
    model: Model, rates: FloatArray, steps: float, batch_size: float, power: float = 0.0
) -> tuple[float, FloatArray]:
    """The risk after a schedule and its derivatives.

    Args:
        model: the model.
        rates: (pieces,) learning rates, each below 2 / h_1^(1 - power).
        steps: over all pieces.
        batch_size: examples per step.
        power: of the preconditioner.

    Returns:
        The risk, and (pieces,) its derivatives by the rates.
    """
    h, c = model.preconditioned(power)
    length = steps / len(rates)
    gap = 1 - rates[:, None] * h
    size = np.maximum(np.abs(gap), 1e-300)
    kept = size ** (2 * length)
    steady = rates[:, None] * c / (2 * batch_size * (2 - rates[:, None] * h))
    states = np.empty((len(rates) + 1, len(h)))
    states[0] = model.curvature / 2
    for k in range(len(rates)):
        states[k + 1] = kept[k] * states[k] + (1 - kept[k]) * steady[k]
    # What one unit of risk after piece k still weighs at the end.
    weights = model.count * np.cumprod(np.vstack([np.ones(len(h)), kept[:0:-1]]), axis=0)[::-1]
    kept_slope = -2 * length * h * kept / size * np.sign(gap)
    steady_slope = c / (batch_size * (2 - rates[:, None] * h) ** 2)
    slopes = (weights * (kept_slope * (states[:-1] - steady) + (1 - kept) * steady_slope)).sum(axis=1)
    return float(model.count @ states[-1]), slopes


def best_schedule(
    model: Model, steps: float, batch_size: float, power: float = 0.0, start: FloatArray | None = None
) -> Schedule:
    """The learning rates with the least risk after `steps`.

    Args:
        model: the model.
        steps: over all pieces.
        batch_size: examples per step.
        power: of the preconditioner.
        start: (pieces,) rates to begin with; None: `PIECES` pieces that fall, or all as large as may be.
    """
    largest = _LARGEST / float(model.preconditioned(power)[0].max())
    if start is None:
        starts = np.geomspace(1.0, max(1 / steps, _SMALLEST), PIECES), np.full(PIECES, 0.99 * largest)
        return min((best_schedule(model, steps, batch_size, power, s) for s in starts), key=lambda found: found.risk)

    def objective(logs: FloatArray) -> tuple[float, FloatArray]:
        rates = np.exp(logs)
        risk, slopes = risk_and_slopes(model, rates, steps, batch_size, power)
        return float(np.log(risk)), slopes * rates / risk

    bounds = [(np.log(_SMALLEST), np.log(largest))] * len(start)
    logs = np.log(np.clip(start, _SMALLEST, largest))
    found = minimize(
        objective,
        logs,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 1000, "maxcor": 20, "ftol": 1e-12, "gtol": 1e-8},
    )
    return Schedule(steps, np.exp(found.x), float(np.exp(found.fun)))


def shortest_schedule(
    model: Model, batch_size: float, target: float, constant_steps: float, power: float = 0.0
) -> Schedule:
    """The fewest steps with which some schedule reaches a target, to 0.3 %.

    Args:
        model: the model.
        batch_size: examples per step.
        target: risk to reach.
        constant_steps: what the best constant rate needs; no schedule needs more.
        power: of the preconditioner.
    """
    low, high = 1.0, max(2.0, 1.01 * constant_steps)
    best = best_schedule(model, high, batch_size, power)
    while high / low > 1 + _PRECISION:
        middle = float(np.sqrt(low * high))
        candidates = (best_schedule(model, middle, batch_size, power, start) for start in (best.rates, None))
        tried = min(candidates, key=lambda found: found.risk)
        if tried.risk < target:
            best, high = tried, middle
        else:
            low = middle
    return best
