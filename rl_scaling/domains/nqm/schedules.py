"""Schedules of learning rates and batch sizes, the best of them, and the fewest examples that any algorithm needs.

A schedule has one number for every update. The best rates of SGD (Zhang et al. 2019, 3.7.2) are K pieces of n updates
each. Within a piece eq. 4 holds from the second moment at its start, so the final risk and its gradient with respect to
all log learning rates cost the same as K settings, whatever n.

What no algorithm can beat: a gradient query on one example is an observation of the optimum with precision h^2 / c in
every dimension, wherever it is made. So after N of them the risk of the best estimator is known exactly (3.6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

from rl_scaling.domains.nqm.config import Setting
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
