from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rl_scaling.ratio import RatioEstimate, block_starts, invert, ratio_of_means

weight_lists = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=40)


@pytest.mark.parametrize(("n", "blocks"), [(2, 20), (7, 20), (20, 20), (60, 20), (100, 5)])
def test_blocks_of_equal_size_give_the_ordinary_jackknife(n: int, blocks: int) -> None:
    rng = np.random.default_rng(n)
    num, den = rng.normal(1, 2, n), rng.uniform(1, 3, n)
    g = min(n, blocks)
    ratio = num.sum() / den.sum()
    kept = [np.delete(np.arange(n), part) for part in np.split(np.arange(n), g)]
    left_out = np.array([num[k].sum() / den[k].sum() for k in kept])
    variance = (g - 1) / g * np.sum((left_out - ratio) ** 2)
    half_width = stats.t.ppf(0.95, g - 1) * math.sqrt(variance)

    estimate = ratio_of_means(num, den, blocks=blocks, confidence=0.9)
    assert estimate.ratio == pytest.approx(ratio)
    assert estimate.standard_error == pytest.approx(math.sqrt(variance))
    assert estimate.degrees_of_freedom == pytest.approx(g - 1)
    assert (estimate.low, estimate.high) == pytest.approx((ratio - half_width, ratio + half_width))
    assert estimate.bias == pytest.approx((g - 1) * (left_out.mean() - ratio))


@pytest.mark.parametrize("n", [40, 43, 59])
def test_unequal_blocks_are_near_the_delete_m_jackknife(n: int) -> None:
    """Busing, Meijer and van der Leeden 1999; the two differ only in how blocks of different size are weighed."""
    rng = np.random.default_rng(n)
    num, den = rng.normal(1, 2, n), rng.uniform(1, 3, n)
    parts = np.split(np.arange(n), block_starts(np.ones(n), 20)[1:])
    ratio = num.sum() / den.sum()
    h = np.array([n / len(part) for part in parts])
    left_out = np.array([np.delete(num, p).sum() / np.delete(den, p).sum() for p in parts])
    centre = len(h) * ratio - np.sum((1 - 1 / h) * left_out)
    variance = np.mean((h * ratio - (h - 1) * left_out - centre) ** 2 / (h - 1))
    estimate = ratio_of_means(num, den)
    assert estimate.standard_error == pytest.approx(math.sqrt(variance), rel=0.08)
    assert estimate.ratio - estimate.bias == pytest.approx(centre)


@given(weights=weight_lists, blocks=st.integers(2, 25))
def test_the_variance_of_a_weighted_mean_is_unbiased(weights: list[float], blocks: int) -> None:
    """The estimated variance is a quadratic form of the measurements; its expectation is the trace of the form."""
    w = np.array(weights)
    unit_vectors = np.eye(len(w))
    variances = [ratio_of_means(e, np.ones(len(w)), w, blocks=blocks).standard_error ** 2 for e in unit_vectors]
    assert sum(variances) == pytest.approx(np.sum(w**2) / w.sum() ** 2)


@given(weights=weight_lists, blocks=st.integers(2, 25))
def test_degrees_of_freedom_do_not_exceed_the_blocks(weights: list[float], blocks: int) -> None:
    estimate = ratio_of_means(np.linspace(0, 1, len(weights)), np.ones(len(weights)), weights, blocks=blocks)
    assert 1 - 1e-9 <= estimate.degrees_of_freedom <= min(blocks, len(weights)) - 1 + 1e-9


@given(weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=80), blocks=st.integers(2, 30))
def test_blocks_are_few_and_never_empty(weights: list[float], blocks: int) -> None:
    starts = block_starts(np.array(weights), blocks)
    assert starts[0] == 0
    assert len(starts) <= min(blocks, len(weights))
    assert np.all(np.diff(starts) > 0)
    assert starts[-1] < len(weights)


@given(n=st.integers(1, 500), blocks=st.integers(2, 30))
def test_blocks_of_equal_weights_differ_by_one_at_most(n: int, blocks: int) -> None:
    starts = block_starts(np.ones(n), blocks)
    lengths = np.diff(np.append(starts, n))
    assert len(starts) == min(n, blocks)
    assert lengths.max() - lengths.min() <= 1


def test_blocks_of_a_moving_average_are_of_about_equal_weight() -> None:
    weights = np.exp(-np.arange(400)[::-1] / 50)
    sums = np.add.reduceat(weights, block_starts(weights, 20)) / weights.sum()
    assert len(sums) == 20
    assert sums == pytest.approx(np.full(20, 0.05), abs=0.02)


@given(num_scale=st.floats(1e-6, 1e6), den_scale=st.floats(1e-6, 1e6), weight_scale=st.floats(1e-3, 1e3))
def test_units_carry_through(num_scale: float, den_scale: float, weight_scale: float) -> None:
    rng = np.random.default_rng(0)
    num, den, w = rng.normal(1, 1, 30), rng.uniform(1, 2, 30), rng.uniform(0.5, 1, 30)
    one = ratio_of_means(num, den, w)
    other = ratio_of_means(num * num_scale, den * den_scale, w * weight_scale)
    unit = num_scale / den_scale
    assert (other.ratio, other.low, other.high) == pytest.approx((one.ratio * unit, one.low * unit, one.high * unit))


@pytest.mark.parametrize(
    ("num", "den"),
    [([1.0], [2.0]), ([0.0, 0.0], [0.0, 0.0]), ([1.0, 1.0], [-1.0, 0.5]), ([1.0, 2.0], [0.0, 3.0])],
)
def test_where_nothing_is_known_the_interval_is_the_whole_line(num: list[float], den: list[float]) -> None:
    estimate = ratio_of_means(num, den)
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    inverse = invert(estimate)
    assert (inverse.low, inverse.high, inverse.resolved) == (0, math.inf, False)
    assert math.isnan(inverse.value)


def test_inverse_of_a_positive_interval() -> None:
    inverse = invert(RatioEstimate(ratio=0.5, half_width=0.3, standard_error=0.1, degrees_of_freedom=9, bias=0))
    assert (inverse.value, inverse.low, inverse.high) == pytest.approx((2, 1 / 0.8, 1 / 0.2))
    assert inverse.resolved


@pytest.mark.parametrize(("ratio", "low"), [(0.2, 2.0), (0.0, 1 / 0.3), (-0.1, 1 / 0.3), (-10.0, 1 / 0.3)])
def test_a_bound_never_claims_more_than_the_measurements_could_tell(ratio: float, low: float) -> None:
    inverse = invert(RatioEstimate(ratio=ratio, half_width=0.3, standard_error=0.1, degrees_of_freedom=9, bias=0))
    assert not inverse.resolved
    assert inverse.low == pytest.approx(low)
    assert inverse.high == math.inf


@pytest.mark.parametrize(
    ("num", "den", "weights", "message"),
    [
        ([], [], None, "no measurements"),
        ([1.0], [1.0, 2.0], None, "must be one"),
        ([[1.0]], [[1.0]], None, "must be one"),
        ([1.0, 2.0], [1.0, 2.0], [1.0, 0.0], "positive"),
        ([1.0, 2.0], [1.0, 2.0], [1.0, math.nan], "positive"),
    ],
)
def test_wrong_series_are_refused(
    num: list[float], den: list[float], weights: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ratio_of_means(num, den, weights)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks"):
        ratio_of_means([1.0, 2.0], [1.0, 1.0], blocks=1)
    for confidence in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(ValueError, match="confidence"):
            ratio_of_means([1.0, 2.0], [1.0, 1.0], confidence=confidence)
