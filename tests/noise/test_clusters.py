from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.noise.clusters import (
    cluster_groups,
    design_effect,
    design_effect_of_clusters,
    effective_sample_size,
)


@given(keys=st.lists(st.integers(0, 12), min_size=2, max_size=80), groups=st.integers(2, 8))
def test_clusters_stay_whole_and_groups_are_about_equal(keys: list[int], groups: int) -> None:
    if len(set(keys)) < groups:
        with pytest.raises(ValueError, match="fewer groups or more clusters"):
            cluster_groups(keys, groups)
        return
    found = cluster_groups(keys, groups)
    assert found.shape == (len(keys),)
    assert all(len({int(g) for g, k in zip(found, keys, strict=True) if k == key}) == 1 for key in set(keys))
    filled = np.bincount(found, minlength=groups)
    largest = max(keys.count(key) for key in set(keys))
    assert filled.min() > 0
    assert filled.max() - filled.min() <= largest


def test_equal_clusters_fill_equal_groups() -> None:
    environments = np.repeat(np.arange(64), 5)
    assert np.bincount(cluster_groups(environments, 16)).tolist() == [20] * 16


def test_keys_of_any_kind_give_the_same_groups() -> None:
    keys = [3, 3, 1, 2, 2, 2, 1, 0]
    names = [("document", key) for key in keys]
    expected = cluster_groups(keys, 3).tolist()
    for same in (names, np.array(keys), torch.tensor(keys), np.array([f"n{key}" for key in keys]), iter(keys)):
        assert cluster_groups(same, 3).tolist() == expected


def test_one_group_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        cluster_groups([1, 2, 3], 1)


@pytest.mark.statistical
def test_the_design_effect_of_correlated_clusters_of_different_size() -> None:
    """Variance of the mean of 40,000 batches over that of independent examples: standard error 0.7 %, four allowed."""
    sizes, correlation, rng = [1, 2, 5, 12], 0.4, np.random.default_rng(0)
    total = np.zeros(40_000)
    for size in sizes:
        shared = math.sqrt(correlation) * rng.standard_normal(len(total))
        own = math.sqrt(1 - correlation) * rng.standard_normal((size, len(total)))
        total += size * shared + own.sum(axis=0)
    effect = float(np.var(total)) / sum(sizes)
    assert design_effect_of_clusters(sizes, correlation) == pytest.approx(effect, rel=0.028)
    assert design_effect_of_clusters([1] * 9, correlation) == 1


def test_what_is_not_known_is_nan() -> None:
    assert design_effect(3.0, 1.5) == 2
    assert math.isnan(design_effect(3.0, 0.0))
    assert math.isnan(effective_sample_size(100, math.nan))
    assert effective_sample_size(100, 4) == 25


@pytest.mark.parametrize(("sizes", "correlation"), [([], 0.1), ([0, 1], 0.1), ([2], -0.1), ([2], 1.1)])
def test_impossible_clusters_are_refused(sizes: list[float], correlation: float) -> None:
    with pytest.raises(ValueError, match=r"clusters|correlation"):
        design_effect_of_clusters(sizes, correlation)
