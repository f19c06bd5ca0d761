from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis import TradeoffFit, fit_tradeoff
from rl_scaling.analysis.profile import Profile, minima
from tests.analysis.reference import fit_by_simplex

BATCH = np.array([20.0, 40, 80, 160, 320, 640])


def steps_at(batch: np.ndarray, steps_min: float, critical: float) -> np.ndarray:
    return steps_min * (1 + critical / batch)


def fit(batch: np.ndarray, steps: np.ndarray, **options: float) -> TradeoffFit:
    return fit_tradeoff(steps, batch * steps, **options)


def noisy(seed: int, size: float = 0.1, critical: float = 110.0, batch: np.ndarray = BATCH) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return steps_at(batch, 1000, critical) * np.exp(size * rng.standard_normal(len(batch)))


@given(
    sizes=st.lists(st.floats(0, math.log(1000)), min_size=3, max_size=12),
    steps_min=st.floats(1, 1e6),
    where=st.floats(0, 1),
)
def test_points_on_the_curve_give_it_back(sizes: list[float], steps_min: float, where: float) -> None:
    batch = 10 * np.exp(np.array([0.0, 3.0, 6.0, *sizes]))
    critical = batch.min() * (batch.max() / batch.min()) ** where
    found = fit(batch, steps_at(batch, steps_min, critical))
    assert found.status == "ok"
    assert found.steps_min == pytest.approx(steps_min, rel=1e-9)
    assert found.examples_min == pytest.approx(steps_min * critical, rel=1e-9)
    assert found.critical_batch == pytest.approx(critical, rel=1e-9)
    assert found.critical_batch_low == pytest.approx(critical, rel=1e-6)
    assert found.critical_batch_high == pytest.approx(critical, rel=1e-6)
    assert found.critical_batch_low <= found.critical_batch <= found.critical_batch_high


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_a_search_over_both_parameters(seed: int, weighted: bool) -> None:
    steps = noisy(seed)
    weights = np.arange(1.0, 7.0) if weighted else None
    steps_min, examples_min = fit_by_simplex(steps, BATCH * steps, weights)
    found = fit_tradeoff(steps, BATCH * steps, weights=weights)
    assert found.steps_min == pytest.approx(steps_min, rel=1e-6)
    assert found.examples_min == pytest.approx(examples_min, rel=1e-6)
    assert found.critical_batch == pytest.approx(examples_min / steps_min, rel=1e-6)


@given(seed=st.integers(0, 10_000), a=st.floats(1e-3, 1e3), b=st.floats(1e-3, 1e3), shuffle=st.randoms())
def test_scales_with_the_units_and_ignores_order(seed: int, a: float, b: float, shuffle: object) -> None:
    steps = noisy(seed)
    order = np.random.default_rng(seed).permutation(len(BATCH))
    plain = fit(BATCH, steps)
    other = fit_tradeoff((a * steps)[order], (b * BATCH * steps)[order])
    assert other.status == plain.status
    np.testing.assert_allclose(
        [
            other.steps_min,
            other.examples_min,
            other.critical_batch,
            other.critical_batch_low,
            other.critical_batch_high,
        ],
        np.array([a, b, b / a, b / a, b / a])
        * [
            plain.steps_min,
            plain.examples_min,
            plain.critical_batch,
            plain.critical_batch_low,
            plain.critical_batch_high,
        ],
        rtol=1e-6,
    )
    assert other.log_critical_batch_se == pytest.approx(plain.log_critical_batch_se, rel=1e-6, nan_ok=True)


@pytest.mark.statistical
@pytest.mark.parametrize(("batch", "size"), [(BATCH, 0.1), (BATCH[::2], 0.03), (20 * 4.0 ** np.arange(4), 0.15)])
def test_the_interval_covers_the_truth_19_times_in_20(batch: np.ndarray, size: float) -> None:
    """300 replications: the count has a standard error of 1.3 %, so 3.5 of them are passed by chance once in 2,000."""
    profiles = [
        Profile(np.log(noisy(seed, size, 110.0, batch)), np.log(batch), np.ones(len(batch))) for seed in range(300)
    ]
    covered = [low <= math.log(110) <= high for low, high in (p.interval(0.95) for p in profiles)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.045)


@pytest.mark.statistical
def test_standard_errors_are_the_spread_of_the_fits() -> None:
    """300 replications: the spread has a relative standard error of 4 %, so 15 % is beyond three of them."""
    fits = [fit(BATCH, noisy(seed)) for seed in range(300)]
    assert {f.status for f in fits} == {"ok"}
    for value, error in (
        ("steps_min", "log_steps_min_se"),
        ("examples_min", "log_examples_min_se"),
        ("critical_batch", "log_critical_batch_se"),
    ):
        spread = np.std([math.log(getattr(f, value)) for f in fits], ddof=1)
        stated = math.sqrt(np.mean([getattr(f, error) ** 2 for f in fits]))
        assert stated == pytest.approx(spread, rel=0.15)


def test_fewer_than_three_batch_sizes_give_no_number() -> None:
    for batch in ([20.0, 320.0], [20.0, 320.0, 320.0, 321.0], [40.0]):
        found = fit(np.array(batch), steps_at(np.array(batch), 1000, 80))
        assert found.status == "too few batch sizes"
        assert math.isnan(found.critical_batch)
        assert math.isnan(found.critical_batch_low)
    assert fit_tradeoff([], []).batch_sizes == 0


@pytest.mark.parametrize("size", [0.0, 0.02])
def test_all_below_the_turn_gives_a_lower_bound_only(size: float) -> None:
    found = fit(BATCH, noisy(1, size, critical=20_000))
    assert found.status == "all below the turn"
    assert math.isnan(found.critical_batch)
    assert math.isnan(found.steps_min)
    assert 100 < found.critical_batch_low <= 640 * (1 + 1e-9)
    assert found.critical_batch_high == math.inf
    assert "more than" in found.message


@pytest.mark.parametrize("size", [0.0, 0.02])
def test_all_above_the_turn_gives_an_upper_bound_only(size: float) -> None:
    found = fit(BATCH, noisy(1, size, critical=0.5))
    assert found.status == "all above the turn"
    assert math.isnan(found.critical_batch)
    assert 20 * (1 - 1e-9) <= found.critical_batch_high < 100
    assert found.critical_batch_low == 0
    assert "less than" in found.message


def test_the_limits_of_the_curve_are_not_mistaken_for_a_fit() -> None:
    assert fit(BATCH, np.full(6, 700.0)).status == "all above the turn"
    assert fit(BATCH, np.full(6, 700.0)).critical_batch_high == pytest.approx(20)
    assert fit(BATCH, 1e5 / BATCH).status == "all below the turn"
    assert fit(BATCH, 1e6 / BATCH**1.5).status == "all below the turn"


def test_steps_that_rise_with_the_batch_are_no_trade_off() -> None:
    found = fit(BATCH, 100 * BATCH**0.3)
    assert found.status == "no trade-off"
    assert math.isnan(found.critical_batch_high)


def test_scatter_too_large_for_either_side_is_unresolved() -> None:
    found = fit(np.array([20.0, 80.0, 160.0]), np.array([400.0, 100.0, 500.0]))
    assert found.status == "unresolved"
    assert (found.critical_batch_low, found.critical_batch_high) == (0, math.inf)
    assert math.isnan(found.critical_batch)


@pytest.mark.parametrize(("critical", "status"), [(1100.0, "ok"), (1500.0, "all below the turn")])
def test_a_turn_within_a_factor_two_of_the_batch_sizes_counts_as_seen(critical: float, status: str) -> None:
    assert fit(BATCH, steps_at(BATCH, 1000, critical)).status == status


@pytest.mark.statistical
def test_one_sided_designs_are_rarely_given_a_number() -> None:
    """The truth is 12 times beyond the largest batch: at most 2.5 % of the intervals may end; 6 % of 300 is 4 sigma."""
    fits = [fit(BATCH[:4], noisy(seed, 0.1, critical=2000, batch=BATCH[:4])) for seed in range(300)]
    assert np.mean([f.status == "ok" for f in fits]) < 0.06
    assert np.mean([f.critical_batch_low <= 2000 for f in fits]) > 0.94


def test_a_higher_confidence_widens_the_interval() -> None:
    narrow, wide = fit(BATCH, noisy(0), confidence=0.8), fit(BATCH, noisy(0), confidence=0.99)
    assert wide.critical_batch_low < narrow.critical_batch_low < narrow.critical_batch
    assert narrow.critical_batch < narrow.critical_batch_high < wide.critical_batch_high
    assert narrow.critical_batch == wide.critical_batch


def test_repeating_all_points_narrows_the_interval() -> None:
    once = fit(BATCH, noisy(0))
    twice = fit(np.tile(BATCH, 2), np.tile(noisy(0), 2))
    assert twice.critical_batch == pytest.approx(once.critical_batch, rel=1e-9)
    assert twice.critical_batch_high < once.critical_batch_high
    assert twice.batch_sizes == 6


def test_many_fits_at_once_equal_one_by_one() -> None:
    steps = np.log(np.stack([noisy(seed, 0.2) for seed in range(40)]))
    steps[0, 2] = math.nan
    steps[1, :4] = math.nan
    weights = np.arange(1.0, 7.0) / 3.5
    found = minima(steps, np.log(BATCH), weights)
    assert math.isnan(found[1])
    for row in [0, *range(2, 40)]:
        there = np.isfinite(steps[row])
        expected = Profile(steps[row][there], np.log(BATCH)[there], weights[there]).minimum()
        assert found[row] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("steps", "examples", "options", "match"),
    [
        ([1.0, 2.0], [1.0], {}, "same length"),
        ([[1.0]], [[1.0]], {}, "one-dimensional"),
        ([1.0, 0.0, 2.0], [1.0, 1.0, 1.0], {}, "steps must all be positive"),
        ([1.0, 1.0, 2.0], [1.0, math.nan, 1.0], {}, "examples must all be positive"),
        ([1.0, 1.0, 2.0], [1.0, 1.0, 1.0], {"weights": [1, 1, -1]}, "weights must all be positive"),
        ([1.0, 1.0, 2.0], [1.0, 1.0, 1.0], {"confidence": 95}, "confidence is 95"),
    ],
)
def test_refuses_bad_input_in_one_line(
    steps: list[float], examples: list[float], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        fit_tradeoff(steps, examples, **options)
    assert "\n" not in str(caught.value)
