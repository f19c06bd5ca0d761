"""Unbiased estimates of |G|^2 and tr(Sigma) from one batch (McCandlish et al. 2018, eq. A.1 and A.2).

G is the true gradient, Sigma the covariance of one example's gradient. The gradients themselves are not needed,
only squared norms of means of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

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
