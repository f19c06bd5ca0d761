"""Examples that come in clusters: groups that keep them whole, and what the dependence within them costs.

Frames of one environment, tokens of one sequence and samples of one document depend on each other. Groups of gradients
must then be made of whole clusters: what groups share is taken for signal.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cluster_groups(keys: Iterable[Hashable] | NDArray[np.generic], groups: int) -> NDArray[np.intp]:
    """Deals examples to groups so that no cluster is split and groups have about equal numbers of examples.

    Clusters are dealt by size, largest first, each to the group that has the fewest examples so far. Then the fullest
    group has at most one cluster more than the emptiest. The same keys give the same groups.

    Args:
        keys: (n,) the cluster of each example: the number of its environment or sequence, the name of its document;
            as a list, an array or a tensor.
        groups: how many groups, 2 or more.

    Returns:
        (n,) the group of each example, 0 to groups - 1; every group has at least one cluster.

    Raises:
        ValueError: fewer than two groups, or fewer clusters than groups.

    >>> cluster_groups(["a", "a", "b", "c", "c", "c", "d"], groups=2)
    array([1, 1, 1, 0, 0, 0, 0])
    """
    if groups < 2:
        raise ValueError(f"groups is {groups}: the noise scale compares groups and needs at least two")
    numbers: dict[Hashable, int] = {}
    values = getattr(keys, "tolist", lambda: keys)()  # arrays and tensors of any library
    clusters = np.array([numbers.setdefault(key, len(numbers)) for key in values], dtype=np.intp)
    if len(numbers) < groups:
        raise ValueError(
            f"{len(numbers)} clusters cannot fill {groups} groups unsplit: give fewer groups or more clusters"
        )
    sizes = np.bincount(clusters)
    group_of = np.empty(len(sizes), dtype=np.intp)
    filled = [(0, group) for group in range(groups)]
    for cluster in np.argsort(-sizes, kind="stable"):
        examples, group = heapq.heappop(filled)
        group_of[cluster] = group
        heapq.heappush(filled, (examples + int(sizes[cluster]), group))
    return group_of[clusters]


def cluster_slices(edges: Sequence[int] | NDArray[np.integer[Any]], groups: int) -> list[slice]:
    """Slices of rows, each of neighbouring clusters that stay whole, with about as many clusters in each.

    Args:
        edges: (m + 1,) where each of m clusters begins, and where the last one ends.
        groups: how many slices; no more than there are clusters are made.

    >>> cluster_slices([0, 10, 20, 30, 40, 50], groups=2)
    [slice(0, 20, None), slice(20, 50, None)]
    """
    clusters = len(edges) - 1
    chosen = np.linspace(0, clusters, min(groups, clusters) + 1).round().astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(np.asarray(edges)[chosen])]


def design_effect(cluster_trace: float, example_trace: float) -> float:
    """How many times noisier a batch of clusters is than one of as many independent examples (Kish 1965).

    Args:
        cluster_trace: tr(Sigma) per example from groups of whole clusters.
        example_trace: tr(Sigma) of single examples.

    Returns:
        Their ratio: 1 for independent examples; NaN where the trace of examples is not positive.

    >>> design_effect(2200.0, 400.0)
    5.5
    """
    return cluster_trace / example_trace if example_trace > 0 else math.nan


def design_effect_of_clusters(sizes: Sequence[float], correlation: float) -> float:
    """The design effect of clusters whose examples all have the same correlation with each other (Kish 1965).

    1 + (sum b_i^2 / sum b_i - 1) * correlation for clusters of b_i examples; with equal clusters of b examples
    1 + (b - 1) * correlation.

    Raises:
        ValueError: no clusters, a size that is not positive, or a correlation outside [0, 1].

    >>> design_effect_of_clusters([16] * 64, 0.3)
    5.5
    """
    if len(sizes) == 0 or not min(sizes) > 0:
        raise ValueError("give one or more clusters of one or more examples")
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation is {correlation}: give a number from 0 to 1")
    return 1 + (math.fsum(size * size for size in sizes) / math.fsum(sizes) - 1) * correlation


def effective_sample_size(examples: float, effect: float) -> float:
    """The number of independent examples that dependent ones are worth; NaN where the design effect is not positive.

    >>> effective_sample_size(1024, 5.5)
    186.1818...
    """
    return examples / effect if effect > 0 else math.nan
