from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis import GoalTracker, ScoreSmoother
from rl_scaling.analysis.goals import goals_of
from tests.analysis.made_runs import made_run, reach, smooth
from tests.analysis.reference import first_crossing, smoothed_episode_by_episode

SCORES = st.floats(-1e4, 1e4) | st.just(math.nan)
ROWS = st.lists(st.tuples(SCORES, st.integers(0, 40)), max_size=25)
HORIZONS = st.floats(0.5, 300)


@given(rows=ROWS, horizon=HORIZONS)
def test_equals_the_weighted_mean_over_episodes_written_out(rows: list[tuple[float, int]], horizon: float) -> None:
    scores, episodes = [s for s, _ in rows], [n for _, n in rows]
    expected = smoothed_episode_by_episode(scores, episodes, horizon)
    np.testing.assert_allclose(smooth(scores, episodes, horizon=horizon), expected, rtol=1e-9, atol=1e-7)


@given(rows=ROWS, horizon=HORIZONS)
def test_row_by_row_equals_all_at_once_bit_for_bit(rows: list[tuple[float, int]], horizon: float) -> None:
    smoother = ScoreSmoother(horizon)
    incremental = [smoother.update(score, episodes) for score, episodes in rows]
    together = smooth([s for s, _ in rows], [n for _, n in rows], horizon=horizon)
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


GOALS = [1.0, 2.0, 4.0, 8.0, -3.0]
ROW = st.tuples(st.integers(1, 50), st.floats(-10, 10) | st.just(math.nan), st.integers(0, 30))
RUNS = st.lists(ROW, min_size=1, max_size=25)


def table(rows: list[tuple[int, float, int]], batch_size: int = 20) -> pd.DataFrame:
    updates = np.cumsum([u for u, _, _ in rows])
    return made_run(batch_size, 1e-3, 0, updates=updates, score=[s for _, s, _ in rows], episodes=[n for *_, n in rows])


@given(rows=RUNS)
def test_equals_the_first_crossing_found_by_a_loop(rows: list[tuple[int, float, int]]) -> None:
    run = table(rows)
    found = reach(run, GOALS, horizon=20)
    columns = (run["updates"].tolist(), run["score"].tolist(), run["episodes"].tolist())
    expected = [first_crossing(*columns, goal, 20) for goal in sorted(GOALS)]
    # A goal within rounding of a smoothed score may fall on either side of it: no such goals are drawn here.
    np.testing.assert_allclose(found["updates"], expected, rtol=1e-6)
    np.testing.assert_allclose(found["examples"], found["updates"] * 20, rtol=1e-9)


@given(rows=RUNS, direction=st.sampled_from(["max", "min"]))
def test_the_tracker_finds_bit_for_bit_the_same(rows: list[tuple[int, float, int]], direction: Any) -> None:
    run = table(rows)
    tracker = GoalTracker(GOALS, direction=direction, horizon=20)
    reported, moment = [], 0.0
    for row in run.to_dict("records"):
        open_before = moment
        new = tracker.update(row["updates"], row["examples"], row["score"], row["episodes"])
        assert all(tracker.reached[goal].updates >= open_before for goal in new)
        moment = tracker.updates
        reported += new
    found = reach(run, GOALS, direction=direction, horizon=20).dropna()
    assert reported == found["goal"].tolist() == list(tracker.reached)
    assert [r.updates for r in tracker.reached.values()] == found["updates"].tolist()
    assert [r.examples for r in tracker.reached.values()] == found["examples"].tolist()
    assert [r.at_start for r in tracker.reached.values()] == found["at_start"].tolist()


@given(rows=RUNS)
def test_losses_are_scores_upside_down(rows: list[tuple[int, float, int]]) -> None:
    run = table(rows)
    down = reach(run.assign(score=-run["score"]), [-goal for goal in GOALS], direction="min")
    pd.testing.assert_frame_equal(down.assign(goal=-down["goal"]), reach(run, GOALS))


@given(
    rows=st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), min_size=2, max_size=40),
    horizon=st.floats(1, 100),
    start=st.floats(-5, 5),
)
def test_a_steadily_rising_score_is_met_without_lag(rows: list[tuple[int, int]], horizon: float, start: float) -> None:
    updates = np.cumsum([u for u, _ in rows])
    run = made_run(20, 1e-3, 0, updates=updates, score=start + updates / 10, episodes=[n for _, n in rows])
    found = reach(run, np.arange(-5, 100, 1.0).tolist(), horizon=horizon).dropna()
    met = found[~found["at_start"]]
    np.testing.assert_allclose(met["updates"], 10 * (met["goal"] - start), rtol=1e-7, atol=1e-5)


def test_recording_half_as_often_moves_a_goal_by_much_less_than_a_row() -> None:
    rng = np.random.default_rng(3)
    updates = np.arange(1, 401) * 10.0
    score = 20 * (1 - np.exp(-updates / 1500)) + 0.2 * rng.standard_normal(400)
    fine = made_run(20, 1e-3, 0, updates=updates, score=score, episodes=5)
    halves = score.reshape(-1, 2).mean(axis=1)
    coarse = made_run(20, 1e-3, 0, updates=updates[1::2], score=halves, episodes=10)
    goals = [5.0, 10.0, 15.0]
    assert np.abs(reach(fine, goals)["updates"] - reach(coarse, goals)["updates"]).max() < 10


def test_a_goal_passed_before_the_score_is_known_is_marked() -> None:
    run = made_run(20, 1e-3, 0, updates=[10.0, 20.0, 30.0], score=[5.0, 5.0, 9.0], episodes=20)
    found = reach(run, [3.0, 6.0, 9.5])
    assert found["at_start"].tolist() == [True, False, False]
    assert found["updates"].isna().tolist() == [False, False, True]


def test_goals_are_given_for_all_tasks_or_for_each() -> None:
    assert goals_of("a", [3, 1, 2, 1]) == (1.0, 2.0, 3.0)
    assert goals_of("a", {"a": [3, 1]}, "min") == (3.0, 1.0)
    with pytest.raises(ValueError, match="no goals for the task 'b'"):
        goals_of("b", {"a": [1]})
    with pytest.raises(ValueError, match="goal nan is not a finite number"):
        goals_of("a", [math.nan])
    with pytest.raises(ValueError, match="direction is 'up'"):
        goals_of("a", [1], "up")  # pyright: ignore[reportArgumentType]
