"""The trade-off of steps against examples and its critical batch size (McCandlish et al. 2018, eqs. 2.11, 2.12)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from rl_scaling.analysis.profile import FloatArray, LogInterval, Profile, residual_interval

Status = Literal[
    "ok",  # both ends of the interval are finite and the batch sizes come near the turn
    "too few batch sizes",  # fewer than three distinct ones
    "all below the turn",  # steps still fall about as 1/B at the largest: only a lower bound is known
    "all above the turn",  # steps hardly fall any more at the smallest: only an upper bound is known
    "no trade-off",  # steps rise with the batch size
    "unresolved",  # the points scatter too much for either bound
    "not reached",  # of a goal: no run reached it
]

NAN, INF = math.nan, math.inf
# Batch sizes that differ by less than this factor (in logs) are one: masked examples make E / S vary a little.
_SAME = 0.05
# The turn counts as seen if the batch sizes come within this factor of it (there S = 3 S_min or E = 3 E_min).
_NEAR = 2.0


@dataclass(frozen=True)
class TradeoffFit:
    """A fit of (S/S_min - 1)(E/E_min - 1) = 1; what is not known is NaN, and then `status` says why.

    Attributes:
        steps_min: S_min, optimiser steps needed however large the batch.
        examples_min: E_min, examples needed however small the batch.
        critical_batch: B_crit = E_min / S_min, in examples per step.
        critical_batch_low: lower end of its interval; 0 where it is open, NaN where there is no interval at all.
        critical_batch_high: upper end of its interval; infinite where it is open.
        log_steps_min_se: standard error of log S_min.
        log_examples_min_se: standard error of log E_min.
        log_critical_batch_se: standard error of log B_crit.
        batch_sizes: distinct batch sizes among the points.
        status: see `Status`; the numbers above but the interval are NaN unless it is "ok".
        message: what the status means here, one sentence.
    """

    steps_min: float
    examples_min: float
    critical_batch: float
    critical_batch_low: float
    critical_batch_high: float
    log_steps_min_se: float
    log_examples_min_se: float
    log_critical_batch_se: float
    batch_sizes: int
    confidence: float
    status: Status
    message: str


def fit_tradeoff(
    steps: ArrayLike | Sequence[float],
    examples: ArrayLike | Sequence[float],
    *,
    weights: ArrayLike | Sequence[float] | None = None,
    confidence: float = 0.95,
) -> TradeoffFit:
    """Fits eq. 2.11 of McCandlish et al. 2018 to the steps and examples that reached one goal at several batch sizes.

    At a fixed batch size the examples are E = B S, so steps and examples carry one error, not two: with B = E/S known
    the curve is log S = log S_min + log(1 + B_crit/B), fitted by least squares in log S (the best estimate for
    relative errors that are alike). The interval is made of all B_crit that an F test does not reject, with the
    scatter about the curve taken from the residuals; it may be open on a side. Where it is, or where no batch
    size comes within a factor 2 of the fitted B_crit, the fit says on which side of the turn the points lie and gives
    only the bound (no less cautious than the outermost batch size).

    Args:
        steps: (n,) optimiser steps to the goal, of the best run at each batch size; several runs per size are welcome.
        examples: (n,) examples to the goal, of the same runs.
        weights: (n,) relative weights of the points, inversely proportional to the variance of log S; None: alike.
        confidence: probability that the interval covers the true B_crit.

    Raises:
        ValueError: lengths that differ, numbers that are not positive and finite, or a confidence outside (0, 1).

    >>> batch = [20, 80, 320, 1280]
    >>> steps = [1000 * (1 + 200 / b) for b in batch]
    >>> fit = fit_tradeoff(steps, [b * s for b, s in zip(batch, steps)])
    >>> print(fit.status, round(fit.steps_min), round(fit.examples_min), round(fit.critical_batch))
    ok 1000 200000 200
    >>> fit_tradeoff([4000, 2000, 1000], [80_000, 80_000, 80_000]).status
    'all below the turn'
    """
    profile = _profile(steps, examples, weights)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a number between 0 and 1, such as 0.95")
    if distinct_batch_sizes(profile.log_batch) < 3:
        return unfitted(profile, confidence)
    return describe(profile, residual_interval(profile, confidence), confidence)


def distinct_batch_sizes(log_batch: FloatArray) -> int:
    """How many batch sizes there are, of which none is within 5 % of another."""
    count, last = 0, -INF
    for value in np.sort(log_batch).tolist():
        if value > last + _SAME:
            count, last = count + 1, value
    return count


def unfitted(profile: Profile, confidence: float) -> TradeoffFit:
    """What can be said of fewer than three batch sizes."""
    sizes = distinct_batch_sizes(profile.log_batch)
    message = f"{sizes} batch size{'s' if sizes != 1 else ''} reached the goal, and a fit needs 3 or more"
    return _blank(sizes, confidence, "too few batch sizes", message)


def not_reached(confidence: float, *, by_some: bool = False) -> TradeoffFit:
    """What can be said of a goal that no learning rate reached, though some of its seeds may have."""
    message = "no learning rate reached the goal with all its seeds" if by_some else "no run reached the goal"
    return _blank(0, confidence, "not reached", message)


def _blank(
    sizes: int, confidence: float, status: Status, message: str, low: float = NAN, high: float = NAN
) -> TradeoffFit:
    """Nothing but what bounds B_crit, if anything does."""
    return TradeoffFit(NAN, NAN, NAN, low, high, NAN, NAN, NAN, sizes, confidence, status, message)


def describe(profile: Profile, interval: LogInterval, confidence: float) -> TradeoffFit:
    """Puts the best fit and an interval, wherever it comes from, into numbers and a status."""
    best = profile.minimum()
    smallest, largest = float(profile.log_batch.min()), float(profile.log_batch.max())
    margin = math.log(_NEAR)
    below = interval.high == INF or best > largest + margin
    above = interval.low == -INF or best < smallest - margin
    sizes = distinct_batch_sizes(profile.log_batch)
    if above and best < smallest and _rises(profile, confidence):
        return _blank(sizes, confidence, "no trade-off", _RISES)
    if below and above:
        return _blank(sizes, confidence, "unresolved", _SCATTER, 0.0, INF)
    if below:
        low = math.exp(min(interval.low, largest))
        return _blank(sizes, confidence, "all below the turn", f"{_BELOW} {low:.3g}: add larger batches", low, INF)
    if above:
        high = math.exp(max(interval.high, smallest))
        return _blank(sizes, confidence, "all above the turn", f"{_ABOVE} {high:.3g}: add smaller batches", 0.0, high)
    log_steps_min = profile.log_steps_min(best)
    return TradeoffFit(
        steps_min=math.exp(log_steps_min),
        examples_min=math.exp(log_steps_min + best),
        critical_batch=math.exp(best),
        critical_batch_low=math.exp(min(interval.low, best)),
        critical_batch_high=math.exp(max(interval.high, best)),
        log_steps_min_se=interval.log_steps_min_se,
        log_examples_min_se=interval.log_examples_min_se,
        log_critical_batch_se=interval.log_critical_batch_se,
        batch_sizes=sizes,
        confidence=confidence,
        status="ok",
        message=_range_note(best, smallest, largest),
    )


_RISES = "larger batches needed more steps: there is no trade-off to fit; the learning rates may be too small for them"
_BELOW = "the batch sizes do not reach past the turn, B_crit is more than"
_ABOVE = "the batch sizes do not reach below the turn, B_crit is less than"
_SCATTER = "the points scatter too much to tell on which side of the turn the batch sizes lie: add seeds or batch sizes"


def _range_note(best: float, smallest: float, largest: float) -> str:
    if best > largest:
        return "the turn lies just above the largest batch size"
    if best < smallest:
        return "the turn lies just below the smallest batch size"
    return "the turn lies within the batch sizes"


def _rises(profile: Profile, confidence: float) -> bool:
    """Whether log S rises with log B: the slope of a straight line, by Student's t."""
    w, x = profile.weights, profile.log_batch
    centred = x - w @ x / w.sum()
    spread = float(w @ centred**2)
    slope = float((w * centred) @ profile.log_steps) / spread
    flat = profile.log_steps - w @ profile.log_steps / w.sum()
    variance = float(w @ (flat - slope * centred) ** 2) / profile.degrees_of_freedom / spread
    return slope - float(stdtrit(profile.degrees_of_freedom, 0.5 + confidence / 2)) * math.sqrt(variance) > 1e-9


def _profile(
    steps: ArrayLike | Sequence[float],
    examples: ArrayLike | Sequence[float],
    weights: ArrayLike | Sequence[float] | None,
) -> Profile:
    named = {"steps": steps, "examples": examples} | ({} if weights is None else {"weights": weights})
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in named.items()}
    for name, values in arrays.items():
        if values.ndim != 1 or values.shape != arrays["steps"].shape:
            shapes = ", ".join(f"{n} {a.shape}" for n, a in arrays.items())
            raise ValueError(f"{shapes}: give one-dimensional sequences of the same length")
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name} must all be positive and finite: leave out runs that did not reach the goal")
    log_steps = np.log(arrays["steps"])
    w = arrays.get("weights", np.ones_like(log_steps))
    return Profile(log_steps, np.log(arrays["examples"]) - log_steps, w / w.mean() if len(w) else w)


def tradeoff_curve(fit: pd.Series, smallest: float, largest: float, points: int = 60) -> pd.DataFrame:
    """Points on the hyperbola (S / S_min - 1)(E / E_min - 1) = 1, from half the smallest batch to twice the largest.

    Args:
        fit: one row of `SweepFit.fits`.

    Returns:
        goal, updates, examples, critical_batch.
    """
    batch, turn = np.geomspace(smallest / 2, largest * 2, points), fit["critical_batch"]
    updates, examples = fit["steps_min"] * (1 + turn / batch), fit["examples_min"] * (1 + batch / turn)
    return pd.DataFrame({"goal": fit["goal"], "updates": updates, "examples": examples, "critical_batch": turn})


def overhead_batch(
    batch_sizes: ArrayLike, steps: ArrayLike, factor: float, *, of: Literal["steps", "examples"]
) -> float:
    """The batch size at which steps, or examples, are `factor` times the fewest.

    Steps are fewest at the largest batch size and fall towards it; examples are fewest at the smallest and rise from
    it. Between batch sizes the curve is interpolated in logs. On the trade-off of McCandlish et al. 2018, eq. 2.11,
    twice the fewest steps is B_crit itself, and 20 % more than the fewest examples is B_crit / 5.

    Args:
        batch_sizes: (n,) in examples.
        steps: (n,) steps to the target at each.
        factor: above 1.
        of: what is `factor` times its least.

    Returns:
        The batch size; NaN where the curve does not reach that factor.

    Raises:
        ValueError: numbers that are not positive and finite, or a factor that is not above 1.

    >>> sizes = 4.0 ** np.arange(-4, 13)
    >>> round(overhead_batch(sizes, 100 * (1 + 64 / sizes), 2, of="steps"))
    64
    """
    log_sizes, log_steps = (np.log(np.asarray(x, dtype=np.float64)) for x in (batch_sizes, steps))
    if not (np.isfinite(log_sizes).all() and np.isfinite(log_steps).all()) or not factor > 1:
        raise ValueError("batch sizes and steps must be positive and finite, and the factor above 1")
    order = np.argsort(log_sizes)
    log_sizes, log_steps = log_sizes[order], log_steps[order]
    cost = log_steps[::-1] if of == "steps" else log_steps + log_sizes
    places = log_sizes[::-1] if of == "steps" else log_sizes
    excess = cost - cost.min() - math.log(factor)
    # From the end where the cost is least, the first crossing that is not taken back.
    last = np.flatnonzero(excess < 0)[-1]
    if last == len(excess) - 1:
        return math.nan
    share = excess[last] / (excess[last] - excess[last + 1])
    return float(np.exp(places[last] + share * (places[last + 1] - places[last])))
