from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from rl_scaling.statistics.jackknife import (
    FEWEST_BLOCKS,
    MOST_BLOCKS,
    RatioEstimate,
    block_starts,
    choose_blocks,
    invert,
    ratio_of_means,
    trend,
    without_trend,
)

weight_lists = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=40)


@pytest.mark.parametrize(("n", "blocks"), [(2, 20), (7, 20), (12, 32), (12, 4)])
def test_short_series_get_the_ordinary_jackknife(n: int, blocks: int) -> None:
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


@pytest.mark.parametrize("n", [20, 60, 320])
def test_independent_measurements_get_short_blocks_and_lose_a_line(n: int) -> None:
    """The jackknife over blocks of equal size, its values less the line that least squares fits them over time."""
    rng = np.random.default_rng(n)
    num, den = rng.normal(1, 2, n), rng.uniform(1, 3, n)
    estimate = ratio_of_means(num, den)
    g = {20: 20, 60: 32, 320: 32}[n]
    parts = np.split(np.arange(n), block_starts(np.ones(n), g)[1:])
    left_out = np.array([np.delete(num, p).sum() / np.delete(den, p).sum() for p in parts])
    times = np.array([p.mean() for p in parts])
    residuals = left_out - np.polynomial.Polynomial.fit(times, left_out, 1)(times)
    # g / (g - 2): two parameters; (g - 1) / g: each value is made without its own block.
    variance = (g - 1) ** 2 / g / (g - 2) * np.sum(residuals**2)
    # The values are taken about the ratio, not about their own mean; blocks of different size are weighed differently.
    tolerance = 1e-4 if n % g == 0 else 0.04
    assert estimate.standard_error == pytest.approx(math.sqrt(variance), rel=tolerance)
    assert estimate.degrees_of_freedom == pytest.approx(g - 2, rel=0.05)


def test_an_even_drift_does_not_lengthen_the_interval() -> None:
    rng = np.random.default_rng(0)
    steady, den = 1 + 0.1 * rng.standard_normal(400), np.ones(400)
    drifting = steady + np.linspace(-0.9, 0.9, 400)
    without, with_drift = ratio_of_means(steady, den), ratio_of_means(drifting, den)
    assert with_drift.ratio == pytest.approx(without.ratio)
    assert with_drift.half_width == pytest.approx(without.half_width, rel=1e-6)


def test_dependence_lengthens_the_interval() -> None:
    """Blocks of ten equal measurements: a tenth as many independent ones, an interval sqrt(10) times as long."""
    rng = np.random.default_rng(1)
    few = rng.normal(1, 0.3, 200)
    once, repeated = ratio_of_means(few, np.ones(200)), ratio_of_means(np.repeat(few, 10), np.ones(2_000))
    assert repeated.ratio == pytest.approx(once.ratio)
    assert repeated.half_width == pytest.approx(once.half_width, rel=0.25)
    assert repeated.degrees_of_freedom > 10


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
    # Mills' ratio at five standard errors
    assert inverse.value == pytest.approx(stats.norm.sf(5) / stats.norm.pdf(5) / 0.1)
    assert (inverse.low, inverse.high) == pytest.approx((1 / 0.8, 1 / 0.2))
    assert inverse.resolved


@pytest.mark.parametrize("relative_error", [1e-12, 0.01, 0.1, 0.2])
def test_the_inverse_of_a_normal_estimate_has_no_bias(relative_error: float) -> None:
    """By quadrature; at 0.2 the estimates that are not resolved, 1 in 400 and all of them large, are missing."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    kept = 1 + nodes * relative_error > 2.2 * relative_error
    values = [
        invert(RatioEstimate(1 + x * relative_error, 2.2 * relative_error, relative_error, 30, 0)).value
        for x in nodes[kept]
    ]
    assert np.average(values, weights=weights[kept]) == pytest.approx(1, abs=0.006)


@given(relative_error=st.floats(1e-9, 1e3), confidence=st.floats(0.01, 0.999))
def test_the_value_is_inside_its_interval(relative_error: float, confidence: float) -> None:
    half_width = stats.norm.ppf(0.5 + confidence / 2) * relative_error
    inverse = invert(RatioEstimate(1.0, half_width, relative_error, 30, 0))
    if inverse.resolved:
        assert inverse.low <= inverse.value <= 1 <= inverse.high


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


def autoregressive(n: int, coefficient: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(n + 500)
    return np.asarray(lfilter([1], [1, -coefficient], noise))[500:]


@given(n=st.integers(1, 300), most=st.integers(2, 60), coefficient=st.floats(-0.9, 0.99), window=st.floats(1, 1e4))
def test_blocks_keep_to_their_limits(n: int, most: int, coefficient: float, window: float) -> None:
    weights = np.exp(-np.arange(n)[::-1] / window)
    blocks = choose_blocks(weights * autoregressive(n, coefficient), weights, most)
    assert 1 <= len(blocks.starts) <= min(n, most)
    assert 0 <= blocks.missed <= 0.6


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.8, 0.95])
def test_blocks_are_long_against_the_dependence(coefficient: float) -> None:
    """AR(1): (G / g0) = 2 phi / (1 - phi^2); the estimate scatters, so its median over 40 series."""
    n = 4_000
    found = [choose_blocks(autoregressive(n, coefficient, seed), np.ones(n)) for seed in range(40)]
    delay = 2 * coefficient / (1 - coefficient**2)
    expected = np.clip(n / max(1.5 * (n * delay**2) ** (1 / 3), 1), FEWEST_BLOCKS, MOST_BLOCKS)
    assert np.median([len(blocks.starts) for blocks in found]) == pytest.approx(expected, rel=0.2)
    missed = delay * expected / n
    assert np.median([blocks.missed for blocks in found]) == pytest.approx(missed, rel=0.25)


def test_short_series_have_a_block_for_each_measurement() -> None:
    assert choose_blocks(np.arange(12.0), np.ones(12)).starts.tolist() == list(range(12))


def test_series_without_scatter_count_as_independent() -> None:
    blocks = choose_blocks(np.zeros(100), np.ones(100))
    assert (len(blocks.starts), blocks.missed) == (MOST_BLOCKS, 0)


@given(n=st.integers(2, 50), slope=st.floats(-100, 100), window=st.floats(1, 100))
def test_a_straight_line_is_taken_out_whole(n: int, slope: float, window: float) -> None:
    weights = np.exp(-np.arange(n)[::-1] / window)
    values = slope * np.arange(n)
    deviations = weights * (values - weights @ values / weights.sum())
    left = without_trend(deviations, trend(weights, np.arange(n)))
    assert np.abs(left).max() <= 1e-9 * max(1.0, abs(slope)) * n
