"""Schedules of learning rates and batch sizes, one number for every update, and the best piecewise-constant rates.

The best rates of SGD (Zhang et al. 2019, 3.7.2) are K pieces of n updates each. Within a piece eq. 4 holds from the
second moment at its start, so the final risk and its gradient with respect to all log learning rates cost the same as K
settings, whatever n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rl_scaling.domains.nqm.bounds import examples_for_bayes_bound
from rl_scaling.domains.nqm.config import Setting
from rl_scaling.domains.nqm.spectrum import FloatArray, Spectrum

PIECES = 20
# The largest learning rate, as a share of the limit of stability 2 / h_1.
STABILITY_SHARE = 1 - 1e-9


def piecewise_constant(values: Sequence[float] | FloatArray, lengths: Sequence[int] | NDArray[np.int64]) -> FloatArray:
    """Each value for its number of updates.

    >>> piecewise_constant([1.0, 0.1], [2, 1])
    array([1. , 1. , 0.1])
    """
    if len(values) != len(lengths) or any(length < 0 for length in lengths):
        raise ValueError(f"{len(values)} values need as many lengths, none negative; there are {len(lengths)}")
    return np.repeat(np.asarray(values, dtype=np.float64), lengths)


def linear_decay(initial: float, final_fraction: float, decay_steps: int, steps: int) -> FloatArray:
    """Linear decay: initial * (1 - (1 - kappa) t / T) up to t = T, kappa * initial from then on.

    >>> linear_decay(1.0, 0.5, 2, 4)
    array([1.  , 0.75, 0.5 , 0.5 ])
    """
    progress = np.minimum(np.arange(_count(steps)) / _count(decay_steps, least=1), 1.0)
    return initial * (1 - (1 - final_fraction) * progress)


def cosine_decay(initial: float, steps: int, final_fraction: float = 0.0) -> FloatArray:
    """Half a cosine from `initial` at the first update towards final_fraction * initial after the last.

    >>> cosine_decay(1.0, 2)
    array([1. , 0.5])
    """
    falling = (1 + np.cos(np.pi * np.arange(_count(steps)) / max(steps, 1))) / 2
    return initial * (final_fraction + (1 - final_fraction) * falling)


def warmup_stable_decay(peak: float, warmup: int, stable: int, decay: int, final_fraction: float = 0.0) -> FloatArray:
    """A linear rise over `warmup` updates, `peak` for `stable`, a linear fall over `decay` to final_fraction * peak.

    >>> warmup_stable_decay(1.0, 2, 1, 2)
    array([0.5, 1. , 1. , 0.5, 0. ])
    """
    up = np.arange(1, _count(warmup) + 1) / max(warmup, 1)
    down = 1 - (1 - final_fraction) * np.arange(1, _count(decay) + 1) / max(decay, 1)
    return peak * np.concatenate([up, np.ones(_count(stable)), down])


def ramp(first: float, last: float, steps: int, *, geometric: bool = False) -> FloatArray:
    """From `first` to `last` in equal differences, or equal ratios: a ramp of batch sizes, say.

    >>> ramp(1.0, 4.0, 3, geometric=True)
    array([1., 2., 4.])
    """
    if geometric and not (first > 0 and last > 0):
        raise ValueError("a geometric ramp needs positive ends")
    return (np.geomspace if geometric else np.linspace)(first, last, _count(steps))


def _count(steps: int, least: int = 0) -> int:
    if steps < least:
        raise ValueError(f"the number of updates is {steps}: give at least {least}")
    return steps


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
    later = np.cumprod(np.vstack([np.ones_like(h), kept[:0:-1]]), axis=0)[::-1]
    gradient = (later * (kept_slope * (before - limit) + gone * limit_slope)) @ problem.weights
    return float(problem.weights @ moments), gradient


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
    target: float = Setting.target,
    spectrum: Spectrum | None = None,
) -> list[PiecewiseSchedule]:
    """The fewest updates to the target risk with `pieces` equally long pieces, one schedule for each batch size.

    Found by bisection on the length of a piece; the learning rates are the start for the next batch size.

    Args:
        batch_sizes: (n,) positive; in increasing order the warm starts help most.
        spectrum: None for 1/i with 10^4 dimensions.

    Raises:
        ValueError: a target not between 0 and the initial risk, no pieces, batch sizes that are not positive.

    >>> best, = piecewise_steps_to_target([4**10], pieces=2, spectrum=Spectrum.power_law(100), target=0.1)
    >>> best.steps, best.learning_rates.round(1)
    (28, array([2. , 1.8]))
    """
    problem = (Spectrum.power_law() if spectrum is None else spectrum).preconditioned(power)
    batches = np.atleast_1d(np.asarray(batch_sizes, dtype=np.float64))
    problem.check_target(target)
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
        if not high:
            trial = 2 * low
        else:
            middle = round(math.sqrt(low * high)) if low and high > 1.01 * low else (low + high) // 2
            trial = min(max(middle, low + 1), high - 1)
    return PiecewiseSchedule(batch, high * len(start), np.exp(best[1]), best[0])
