"""The simple noise scale B_simple = tr(Sigma) / |G|^2 (McCandlish et al. 2018, eq. 2.9), with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rl_scaling.estimates import digits_apart, number
from rl_scaling.noise.clusters import design_effect, effective_sample_size
from rl_scaling.statistics.block_length import MOST_BLOCKS
from rl_scaling.statistics.jackknife import invert, ratio_of_means

FloatArray = NDArray[np.float64]


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
        confidence: of the interval.
        skipped: measurements that could not be used, passed on to the result.

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
