from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis import ScoreSmoother, smooth
from tests.analysis.reference import smoothed_episode_by_episode

SCORES = st.floats(-1e4, 1e4) | st.just(math.nan)
ROWS = st.lists(st.tuples(SCORES, st.integers(0, 40)), max_size=25)
HORIZONS = st.floats(0.5, 300)


@given(rows=ROWS, horizon=HORIZONS)
def test_equals_the_weighted_mean_over_episodes_written_out(rows: list[tuple[float, int]], horizon: float) -> None:
    scores, episodes = [s for s, _ in rows], [n for _, n in rows]
    expected = smoothed_episode_by_episode(scores, episodes, horizon)
    np.testing.assert_allclose(smooth(scores, episodes, horizon=horizon), expected, rtol=1e-9, atol=1e-7)


@given(rows=ROWS, horizon=HORIZONS, minimum=st.none() | st.floats(0, 50))
def test_row_by_row_equals_all_at_once_bit_for_bit(
    rows: list[tuple[float, int]], horizon: float, minimum: float | None
) -> None:
    smoother = ScoreSmoother(horizon, minimum)
    incremental = [smoother.update(score, episodes) for score, episodes in rows]
    together = smooth([s for s, _ in rows], [n for _, n in rows], horizon=horizon, minimum=minimum)
    assert np.array_equal(incremental, together, equal_nan=True)


@given(rows=ROWS, horizon=HORIZONS, parts=st.integers(1, 5))
def test_does_not_depend_on_how_often_rows_were_recorded(
    rows: list[tuple[float, int]], horizon: float, parts: int
) -> None:
    coarse = smooth([s for s, _ in rows], [n * parts for _, n in rows], horizon=horizon)
    fine = smooth(
        [s for s, _ in rows for _ in range(parts)], [n for _, n in rows for _ in range(parts)], horizon=horizon
    )
    np.testing.assert_allclose(fine[parts - 1 :: parts], coarse, rtol=1e-9, atol=1e-7)


def test_a_row_without_episodes_carries_the_value() -> None:
    assert smooth([3.0, math.nan, 5.0], [100, 0, 0], horizon=50).tolist() == [3.0, 3.0, 3.0]


def test_no_value_before_half_the_horizon_and_no_bias_towards_zero_after() -> None:
    values = smooth([7.0] * 5, [6] * 5, horizon=50)
    assert np.isnan(values[:4]).all()
    assert values[4] == pytest.approx(7.0, rel=1e-12)


@pytest.mark.parametrize("score", [math.inf, -math.inf, math.nan])
def test_a_score_that_is_not_finite_counts_as_not_observed(score: float) -> None:
    assert smooth([1.0, score, 2.0], [30, 30, 30]).tolist() == smooth([1.0, 1.0, 2.0], [30, 0, 30]).tolist()


def test_the_first_value_comes_with_exactly_half_the_horizon() -> None:
    assert math.isnan(ScoreSmoother(horizon=50).update(7.0, 24))
    assert ScoreSmoother(horizon=50).update(7.0, 25) == 7.0
    assert smooth([7.0], [25], horizon=50).tolist() == [7.0]


def test_forgets_by_one_e_fold_per_horizon() -> None:
    smoother = ScoreSmoother(horizon=10)
    smoother.update(0.0, 10_000)
    assert smoother.update(1.0, 10) == pytest.approx(1 - math.exp(-1), rel=1e-12)


def test_no_rows() -> None:
    assert smooth([], []).shape == (0,)


@pytest.mark.parametrize("horizon", [0, -1, math.nan, math.inf])
def test_refuses_a_bad_horizon(horizon: float) -> None:
    with pytest.raises(ValueError, match="horizon is"):
        ScoreSmoother(horizon)


def test_refuses_bad_episodes_and_lengths() -> None:
    with pytest.raises(ValueError, match="episodes is -1"):
        ScoreSmoother().update(1.0, -1)
    with pytest.raises(ValueError, match="number of episodes is negative"):
        smooth([1.0], [-1])
    with pytest.raises(ValueError, match="one of each per row"):
        smooth([1.0], [1, 2])
    with pytest.raises(ValueError, match="minimum is -2"):
        ScoreSmoother(10, -2)
