"""From the gradients of groups to the noise scale with its interval, and on to a batch size.

One batch gives unbiased estimates of |G|^2 and tr(Sigma) (McCandlish et al. 2018, eq. A.1 and A.2); G is the true
gradient, Sigma the covariance of one example's gradient. The gradients themselves are not needed, only squared norms of
means of them. Over many batches they give B_simple = tr(Sigma) / |G|^2 (eq. 2.9), and that a batch size (appendix D),
whatever the batch is made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_scaling.config import AdaptiveConfig
from rl_scaling.estimates import digits_apart, number
from rl_scaling.noise.clusters import design_effect, effective_sample_size
from rl_scaling.statistics.jackknife import MOST_BLOCKS, invert, ratio_of_means

FloatArray = NDArray[np.float64]


def moments_from_groups(
    group_sq_norms: Sequence[float] | FloatArray,
    batch_sq_norm: float,
    group_sizes: float | Sequence[float] | FloatArray,
) -> tuple[float, float]:
    """|G|^2 and tr(Sigma) from the gradients of k disjoint groups of one batch.

    With groups of b_i examples, N = sum b_i, group means g_i and the overall mean g = sum b_i g_i / N, eq. A.1 gives
    E|g_i|^2 = |G|^2 + tr(Sigma) / b_i and E|g|^2 = |G|^2 + tr(Sigma) / N. Two combinations leave one unknown each, so

        |G|^2     = (N^2 |g|^2 - sum b_i^2 |g_i|^2) / (N^2 - sum b_i^2)
        tr(Sigma) = (sum b_i |g_i|^2 - N |g|^2) / (k - 1)

    are unbiased. The first is the mean of g_i . g_j over pairs of different groups, weighted by b_i b_j; the second the
    weighted variance between groups. Equal groups give eq. A.2 with B_small = b, B_big = k b and
    |G_small|^2 averaged over the groups. The estimate of |G|^2 is negative whenever chance has it so; setting it
    to zero would bias every mean of it.

    Args:
        group_sq_norms: (k,) squared norms of the groups' mean gradients.
        batch_sq_norm: squared norm of the overall mean gradient, in which each group counts by its size.
        group_sizes: examples (frames) in a group: one number for all groups, or (k,).

    Returns:
        (grad_sq_norm, trace_cov). A trace per example, in examples times the unit of a squared norm: trace_cov over
        grad_sq_norm is a number of examples.

    Raises:
        ValueError: fewer than two groups, another number of sizes than groups, or a size that is not positive.

    Three groups of two examples whose mean gradients are (1, 0), (1, 1) and (1, -1), overall (1, 0):

    >>> moments_from_groups([1.0, 2.0, 2.0], 1.0, 2)
    (0.6666666666666666, 2.0)
    """
    k = len(group_sq_norms)
    if k < 2:
        raise ValueError(f"{k} group(s) of gradients: the noise scale compares groups and needs at least two")
    if isinstance(group_sizes, Sequence | np.ndarray):
        sizes = [float(size) for size in group_sizes]
    else:
        sizes = [float(group_sizes)] * k
    if len(sizes) != k:
        raise ValueError(f"{k} groups but {len(sizes)} group sizes: give one size per group")
    if not min(sizes) > 0:
        raise ValueError(f"a group of {min(sizes)} examples has no mean gradient: leave it out")
    total = sum(sizes)
    sum_sq_sizes = once = twice = 0.0
    for size, sq_norm in zip(sizes, group_sq_norms, strict=True):
        sum_sq_sizes += size * size
        once += size * sq_norm
        twice += size * size * sq_norm
    grad_sq_norm = (total * total * batch_sq_norm - twice) / (total * total - sum_sq_sizes)
    return float(grad_sq_norm), float((once - total * batch_sq_norm) / (k - 1))


def example_trace(example_sq_norms: Sequence[float] | FloatArray, grad_sq_norm: float) -> float:
    """tr(Sigma) of single examples, from the gradients of a random few of them.

    E|g_i|^2 = |G|^2 + tr(Sigma) for one example drawn at random (eq. A.1 with B = 1), whatever its dependence on
    others; so the mean of |g_i|^2 less an unbiased estimate of |G|^2 is unbiased. Where examples come in dependent
    clusters (frames of one environment), tr(Sigma) from whole clusters over this one is the design effect.

    Args:
        example_sq_norms: (m,) squared norms of the gradients of m examples drawn at random from the batch.
        grad_sq_norm: unbiased estimate of |G|^2, as from `moments_from_groups`.

    Raises:
        ValueError: no examples.

    >>> example_trace([5.0, 7.0], 1.5)
    4.5
    """
    if len(example_sq_norms) == 0:
        raise ValueError("no example gradients: give the squared norm of at least one")
    return math.fsum(example_sq_norms) / len(example_sq_norms) - grad_sq_norm


@dataclass(frozen=True, kw_only=True)
class NoiseScaleEstimate:
    """What a series of measurements says about the noise scale.

    Attributes:
        b_simple: trace_cov / grad_sq_norm less the bias of that ratio (`jackknife.invert`), in examples (frames); NaN
            while unresolved.
        low, high: its interval at `confidence`. While unresolved high is infinite and low is what B_simple exceeds
            (0: nothing is known).
        grad_sq_norm: mean of the unbiased estimates of |G|^2; may be negative while unresolved.
        trace_cov: mean of the unbiased estimates of tr(Sigma) per example, from whole groups.
        steps: measurements that the estimate rests on.
        resolved: the interval of |G|^2 / tr(Sigma) lies above zero, so that b_simple is a number.
        design_effect: trace_cov over the trace of single examples, from the measurements that have both: 1 for
            independent examples; examples / design_effect is the effective number of independent ones. NaN if never
            measured.
        skipped: measurements left out because a norm was not finite or fewer than two groups had examples.
        confidence: probability that the interval covers the true B_simple.
        batch_size: mean number of examples in a batch; NaN if not known.
        learning_rate: geometric mean of the learning rates given with the measurements; NaN if none were. Learning rate
            and batch size set the temperature that B_simple depends on (M18, appendix C): estimates that differ in
            them are not the same quantity.
    """

    b_simple: float
    low: float
    high: float
    grad_sq_norm: float
    trace_cov: float
    steps: int
    resolved: bool
    design_effect: float
    skipped: int
    confidence: float
    batch_size: float = math.nan
    learning_rate: float = math.nan

    @property
    def effective_examples(self) -> float:
        """Independent examples that a batch is worth: batch_size / design_effect; NaN where one is not known."""
        return effective_sample_size(self.batch_size, self.design_effect)

    def __str__(self) -> str:
        percent = f"{100 * self.confidence:.6g} %"
        if self.resolved:
            digits = digits_apart(self.low, self.high)
            ends = f"{number(self.low, digits)}-{number(self.high, digits)}"
            text = f"B_simple = {number(self.b_simple, max(3, digits))} ({percent}: {ends})"
        else:
            text = f"unresolved, B_simple > {number(self.low, 2)} ({percent})"
        text += f", {self.steps} measurement{'' if self.steps == 1 else 's'}"
        if math.isfinite(self.learning_rate):
            text += f", learning rate {self.learning_rate:.3g}, batch size {number(self.batch_size)}"
        return text + (f", {self.skipped} skipped" if self.skipped else "")


def estimate_noise_scale(
    grad_sq_norms: Sequence[float] | FloatArray,
    trace_covs: Sequence[float] | FloatArray,
    *,
    weights: FloatArray | None = None,
    example_traces: Sequence[float] | FloatArray | None = None,
    blocks: int = MOST_BLOCKS,
    confidence: float = 0.95,
    skipped: int = 0,
) -> NoiseScaleEstimate:
    """B_simple from the per-measurement moments of A.2.

    Numerator and denominator are averaged apart and divided once: a ratio of two unbiased means is biased by
    order 1/n, a mean of n ratios by order 1. The interval is made on |G|^2 / tr(Sigma) by `ratio_of_means`.

    Args:
        grad_sq_norms: (n,) unbiased estimates of |G|^2, in order of time; negative ones included.
        trace_covs: (n,) unbiased estimates of tr(Sigma).
        weights: (n,), positive; None: all alike.
        example_traces: (n,) unbiased estimates of the trace of single examples; NaN where there is none.
        blocks: the largest number of jackknife blocks.

    Raises:
        ValueError: as `ratio_of_means`.

    >>> print(estimate_noise_scale([1.0, 2.0, 3.0, 2.0], [800.0, 900.0, 700.0, 800.0]))
    B_simple = 382 (95 %: 230-1,500), 4 measurements
    >>> print(estimate_noise_scale([1.0, -2.0, 3.0, -1.0], [800.0, 900.0, 700.0, 800.0]))
    unresolved, B_simple > 210 (95 %), 4 measurements
    """
    squares, traces = np.asarray(grad_sq_norms, dtype=np.float64), np.asarray(trace_covs, dtype=np.float64)
    inverse = invert(ratio_of_means(squares, traces, weights, blocks=blocks, confidence=confidence))
    w = np.ones_like(squares) if weights is None else weights
    return NoiseScaleEstimate(
        b_simple=inverse.value,
        low=inverse.low,
        high=inverse.high,
        grad_sq_norm=float(w @ squares / w.sum()),
        trace_cov=float(w @ traces / w.sum()),
        steps=len(squares),
        resolved=inverse.resolved,
        design_effect=_design_effect(traces, example_traces, w),
        skipped=skipped,
        confidence=confidence,
    )


def _design_effect(
    traces: FloatArray, example_traces: Sequence[float] | FloatArray | None, weights: FloatArray
) -> float:
    """Only measurements with both traces count: gradients shrink during training, the two must be of the same age."""
    if example_traces is None:
        return math.nan
    examples = np.asarray(example_traces, dtype=np.float64)
    both = np.isfinite(examples)
    return design_effect(float(weights[both] @ traces[both]), float(weights[both] @ examples[both]))


# A window's estimate lags behind a batch that changes by more than this at once.
_MOST_CHANGE = 2.0


def next_size(
    adaptive: AdaptiveConfig,
    now: int,
    estimate: NoiseScaleEstimate,
    *,
    fewest: int,
    most: int,
    step: int = 1,
    each: float = 1.0,
) -> int:
    """The size of the next batches for B = sqrt(r B_simple), D.6.

    While B_simple is unresolved its lower bound stands for it if that asks for a larger batch; otherwise nothing
    changes. The size is rounded towards what it is now, so that an estimate near the middle between two of them does
    not move it to and fro, and it changes by a factor of 2 at most.

    Args:
        adaptive: r and tolerance.
        now: the size, counted in what the batch grows by: examples, or environments.
        estimate: of B_simple in examples (frames).
        fewest, most: bounds, multiples of step.
        step: sizes are multiples of this.
        each: examples (frames) that one of what is counted brings to an update.
    """
    noise_scale = estimate.b_simple if estimate.resolved else estimate.low
    wanted = math.sqrt(adaptive.exchange_rate * max(noise_scale, 0.0)) / each
    ratio = wanted / now
    if 1 / adaptive.tolerance < ratio < adaptive.tolerance or (ratio < 1 and not estimate.resolved):
        return now
    bounded = min(max(wanted, now / _MOST_CHANGE, fewest), now * _MOST_CHANGE, most)
    return step * (math.floor(bounded / step) if ratio > 1 else math.ceil(bounded / step))
