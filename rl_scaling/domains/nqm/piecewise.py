"""Piecewise-constant learning rates for SGD, optimised (Zhang et al. 2019, 3.7.2).

K pieces of n updates each. Within a piece eq. 4 holds from the second moment at its start, so the final risk and its
gradient with respect to all log learning rates cost the same as K settings, whatever n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rl_scaling.domains.nqm.bounds import examples_for_bayes_bound
from rl_scaling.domains.nqm.spectrum import Spectrum

FloatArray = NDArray[np.float64]
PIECES = 20
STABILITY_SHARE = 1 - 1e-9
"""The largest learning rate, as a share of the limit of stability 2 / h_1."""


@dataclass(frozen=True, eq=False)
class PiecewiseSchedule:
    """The best schedule found for one batch size.

    Attributes:
        batch_size: examples.
        steps: updates in all, a multiple of the number of pieces.
        learning_rates: (K,), each for steps / K updates.
        risk: after the last update.
    """

    batch_size: float
    steps: int
    learning_rates: FloatArray
    risk: float


def final_risk(problem: Spectrum, log_rates: FloatArray, updates: float, batch_size: float) -> tuple[float, FloatArray]:
    """Expected risk after K pieces of `updates` updates each, and its gradient (K,) in the log learning rates.

    With f = (1 - alpha h)^(2n) a piece maps the second moment s to f s + (1 - f) alpha c / (h B (2 - alpha h)); the
    gradient follows the pieces backwards. For a preconditioner give `Spectrum.preconditioned`.

    Args:
        log_rates: (K,) logarithms of learning rates below 2 / h_1.
        updates: of one piece; need not be whole.

    >>> risk, gradient = final_risk(Spectrum.power_law(100), np.log([1.0, 0.1]), 50, 64)
    >>> round(risk, 6), gradient.round(6)
    (0.100291, array([-0.143643, -0.016802]))
    """
    rates = np.exp(log_rates)[:, None]
    h = problem.eigenvalues
    scaled = rates * h
    log_shrink = np.log(np.maximum(np.abs(1 - scaled), 1e-300))
    log_shrink = np.where(scaled < 0.5, np.log1p(-np.minimum(scaled, 0.5)), log_shrink)
    kept, gone = np.exp(2 * updates * log_shrink), -np.expm1(2 * updates * log_shrink)
    limit = rates * problem.noise / (h * batch_size * (2 - scaled))
    shrink = np.where(np.abs(1 - scaled) < 1e-150, 1e-150, 1 - scaled)
    kept_slope = -2 * updates * scaled * kept / shrink
    limit_slope = limit * 2 / (2 - scaled)
    before = np.empty_like(scaled)
    moments = problem.initial
    for piece in range(len(rates)):
        before[piece] = moments
        moments = kept[piece] * moments + gone[piece] * limit[piece]
    weight = 0.5 * problem.counts * h
    later = np.cumprod(np.vstack([np.ones_like(h), kept[:0:-1]]), axis=0)[::-1]
    gradient = (later * (kept_slope * (before - limit) + gone * limit_slope)) @ weight
    return float(weight @ moments), gradient


def best_rates(problem: Spectrum, updates: int, batch_size: float, start: FloatArray) -> tuple[float, FloatArray]:
    """The least final risk over K learning rates, each at most 2 / h_1, by BFGS on their logarithms from `start` (K,).

    Minimises the logarithm of the risk. Returns the risk and the (K,) log learning rates.
    """
    highest = math.log(2 * STABILITY_SHARE / problem.eigenvalues[0])

    def objective(point: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = final_risk(problem, point, updates, batch_size)
        return math.log(value), gradient / value

    found = optimize.minimize(
        objective,
        np.minimum(start, highest),
        jac=True,
        method="L-BFGS-B",
        bounds=[(None, highest)] * len(start),
        options={"maxiter": 500, "ftol": 1e-11, "gtol": 1e-7},
    )
    return math.exp(float(found.fun)), np.asarray(found.x)


def piecewise_steps_to_target(
    batch_sizes: ArrayLike,
    *,
    pieces: int = PIECES,
    power: float = 0.0,
    target: float = 0.01,
    spectrum: Spectrum | None = None,
) -> list[PiecewiseSchedule]:
    """The fewest updates to the target risk with `pieces` equally long pieces, at each batch size.

    The number is found by bisection on the length of a piece, from the interval that the result for the previous
    batch size leaves; its learning rates are the start for the next.

    Args:
        batch_sizes: (n,) positive; in increasing order the warm starts help most.
        spectrum: None for 1/i with 10^4 dimensions.

    Returns:
        One schedule for each batch size, in the order given.

    Raises:
        ValueError: a target not between 0 and the initial risk, no pieces, batch sizes that are not positive.

    >>> best, = piecewise_steps_to_target([4**10], pieces=2, spectrum=Spectrum.power_law(100), target=0.1)
    >>> best.steps, best.learning_rates.round(1)
    (28, array([2. , 1.8]))
    """
    problem = (Spectrum.power_law() if spectrum is None else spectrum).preconditioned(power)
    batches = np.atleast_1d(np.asarray(batch_sizes, dtype=np.float64))
    if not 0 < target < problem.initial_risk:
        raise ValueError(f"the target risk is {target}: give a number between 0 and {problem.initial_risk:.4g}")
    if pieces < 1 or not np.all((batches > 0) & np.isfinite(batches)):
        raise ValueError("give at least one piece, and batch sizes that are positive")
    rows = []
    start = np.full(pieces, math.log(0.5 / problem.eigenvalues[0]))
    for batch in batches:
        guess = math.ceil(examples_for_bayes_bound(problem, target) / batch / pieces)
        rows.append(_fewest(problem, float(batch), target, start, max(guess, 1)))
        start = np.log(rows[-1].learning_rates)
    return rows


def _fewest(problem: Spectrum, batch: float, target: float, start: FloatArray, guess: int) -> PiecewiseSchedule:
    """Bisection between a length of pieces that misses the target (or 0) and one that reaches it."""
    low, high, best, trial = 0, 0, (math.inf, start), guess
    while not high or low < high - 1:
        value, rates = best_rates(problem, trial, batch, best[1])
        if value <= target:
            high, best = trial, (value, rates)
        else:
            low = trial
            best = best if high else (value, rates)
        trial = (
            round(math.sqrt(low * high))
            if low and high and high > 1.01 * low
            else (low + high) // 2
            if high
            else 2 * low
        )
        trial = min(max(trial, low + 1), high - 1) if high else trial
    return PiecewiseSchedule(batch, high * len(start), np.exp(best[1]), best[0])
