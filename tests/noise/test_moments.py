from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.noise import example_trace, moments_from_groups
from tests.noise.reference import pairwise_moments, sq_norms, two_batch_moments


@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 200), min_size=2, max_size=12))
def test_moments_are_those_of_the_gradients_themselves(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    means = rng.normal(0.3, 1, (len(sizes), 7)) * rng.lognormal(0, 2)
    b = np.array(sizes, dtype=float)
    batch = float(sq_norms(np.average(means, axis=0, weights=b)))
    scale = float(sq_norms(means).max()) * float(b.max())
    assert moments_from_groups(sq_norms(means), batch, sizes) == pytest.approx(
        pairwise_moments(means, b), rel=1e-9, abs=1e-12 * scale
    )


@given(
    norms=st.lists(st.floats(0, 1e3), min_size=2, max_size=16),
    batch=st.floats(0, 1e3),
    size=st.integers(1, 10_000),
)
def test_equal_groups_give_equation_a2(norms: list[float], batch: float, size: int) -> None:
    expected = two_batch_moments(float(np.mean(norms)), batch, size, size * len(norms))
    assert moments_from_groups(norms, batch, size) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    one_size_each = moments_from_groups(np.array(norms), batch, np.full(len(norms), size))
    assert one_size_each == pytest.approx(moments_from_groups(norms, batch, size))


@pytest.mark.statistical
@pytest.mark.parametrize("sizes", [[4, 4, 4], [1, 2, 9, 30], [1, 50]])
def test_both_moments_are_unbiased(sizes: list[int]) -> None:
    """Six means within 4 standard errors of the truth: by chance one fails in 2,600 seeds."""
    rng = np.random.default_rng(1)
    gradient = np.array([0.5, -0.2, 0.1])
    root = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.2, 2.0]])
    draws = 20_000
    examples = gradient + rng.standard_normal((draws, sum(sizes), 3)) @ root.T
    groups = np.split(examples, np.cumsum(sizes)[:-1], axis=1)
    norms = np.stack([sq_norms(group.mean(axis=1)) for group in groups], axis=1)
    batch = sq_norms(examples.mean(axis=1))
    moments = np.array([moments_from_groups(n, b, sizes) for n, b in zip(norms.tolist(), batch.tolist(), strict=True)])
    error = moments.std(axis=0) / np.sqrt(draws)
    truth = np.array([gradient @ gradient, np.trace(root @ root.T)])
    assert np.all(np.abs(moments.mean(axis=0) - truth) < 4 * error)
    assert (moments[:, 0] < 0).any(), "an estimate that is never negative is clamped"


def test_example_trace_is_the_excess_of_the_examples_norm() -> None:
    assert example_trace([3.0, 5.0, 10.0], 2.0) == pytest.approx(4.0)
    assert example_trace(np.array([1.0]), 2.0) == pytest.approx(-1.0)


def test_noise_free_groups_have_no_trace() -> None:
    assert moments_from_groups([4.0, 4.0, 4.0], 4.0, [1, 2, 3]) == pytest.approx((4.0, 0.0))


@pytest.mark.parametrize(
    ("norms", "sizes", "message"),
    [([1.0], 4, "at least two"), ([1.0, 2.0], [4, 4, 4], "one size per group"), ([1.0, 2.0], [4, 0], "leave it out")],
)
def test_what_cannot_be_compared_is_refused(norms: list[float], sizes: float | list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moments_from_groups(norms, 1.0, sizes)
    with pytest.raises(ValueError, match="at least one"):
        example_trace([], 1.0)
