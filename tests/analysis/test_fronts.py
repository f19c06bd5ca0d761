from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_scaling.analysis.fronts import rate_table, reaches, seed_table, split_runs
from rl_scaling.records import COLUMNS
from tests.analysis import reference
from tests.analysis.made_runs import TASK, front, made_run, reach, steady_run, steady_sweep

GOALS = [2.0, 4.0, 6.0]


def rates_of(runs: pd.DataFrame) -> pd.DataFrame:
    return rate_table(seed_table(reaches(split_runs(runs), GOALS)))


@settings(max_examples=15)
@given(
    times=st.lists(
        st.tuples(
            st.sampled_from([20, 80]),
            st.sampled_from([1e-4, 1e-3, 1e-2]),
            st.integers(0, 2),
            st.floats(10, 1000),
            st.sampled_from([3.0, 5.0, 7.0]),
        ),
        min_size=1,
        max_size=14,
        unique_by=lambda run: run[:3],
    )
)
def test_equals_the_choice_made_by_loops(times: list[tuple[int, float, int, float, float]]) -> None:
    runs = {(b, rate, seed): steady_run(b, rate, seed, per_point, last) for b, rate, seed, per_point, last in times}
    table = pd.concat(runs.values(), ignore_index=True)
    hits_of = {key: reach(run, GOALS).dropna() for key, run in runs.items()}
    reached = {key: dict(zip(hits["goal"], hits["updates"], strict=True)) for key, hits in hits_of.items()}
    expected = reference.front(reached, GOALS)
    found = front(table.sample(frac=1, random_state=0), GOALS)
    assert dict.fromkeys(zip(found["goal"], found["batch_size"], strict=True)) == dict.fromkeys(sorted(expected))
    for row in found.to_dict("records"):
        rate, updates = expected[row["goal"], row["batch_size"]]
        assert row["updates"] == pytest.approx(updates, rel=1e-9)
        assert row["examples"] == pytest.approx(updates * row["batch_size"], rel=1e-9)
        if row["learning_rate"] != rate:  # a tie, told apart by rounding
            own = [
                hits[row["goal"]]
                for key, hits in reached.items()
                if key[:2] == (row["batch_size"], row["learning_rate"])
            ]
            assert np.exp(np.log(own).mean()) == pytest.approx(updates, rel=1e-9)


def test_seeds_count_by_their_geometric_mean() -> None:
    times = {0: 100.0, 1: 400.0}
    runs = steady_sweep(lambda batch, rate, seed: times[seed], batch_sizes=[20], seeds=[0, 1])
    found = front(runs, GOALS)
    np.testing.assert_allclose(found["updates"], np.array(GOALS) * 200, rtol=1e-9)
    assert found["seeds"].tolist() == [2, 2, 2]


def test_a_rate_counts_only_if_all_its_seeds_reached_the_goal() -> None:
    lucky = pd.concat([steady_run(20, 1e-3, 0, 10, 9), steady_run(20, 1e-3, 1, 10, 3, status="diverged")])
    slow = pd.concat([steady_run(20, 1e-4, seed, 50, 9) for seed in (0, 1)])
    found = front(pd.concat([lucky, slow], ignore_index=True), GOALS)
    assert found["learning_rate"].tolist() == [1e-3, 1e-4, 1e-4]
    rates = rates_of(pd.concat([lucky, slow], ignore_index=True))
    at_4 = rates[(rates["goal"] == 4) & (rates["learning_rate"] == 1e-3)].iloc[0]
    assert (at_4["status"], at_4["seeds"], at_4["reached"]) == ("diverged", 2, 1)
    assert math.isnan(at_4["updates"])


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_still_going_says_nothing_about_goals_it_has_not_reached(status: str) -> None:
    runs = pd.concat([steady_run(20, 1e-3, 0, 10, 9), steady_run(20, 1e-3, 1, 10, 3, status=status)], ignore_index=True)
    found = front(runs, GOALS)
    assert found["seeds"].tolist() == [2, 1, 1]
    alone = rates_of(steady_run(20, 1e-3, 1, 10, 3, status=status))
    assert alone["status"].tolist() == ["reached", "unfinished", "unfinished"]


@pytest.mark.parametrize(
    ("status", "word"), [("done", "not reached"), ("stopped", "stopped"), ("diverged", "diverged")]
)
def test_why_a_rate_does_not_count(status: str, word: str) -> None:
    assert rates_of(steady_run(20, 1e-3, 0, 10, 3, status=status))["status"].tolist() == ["reached", word, word]


def test_the_best_rate_may_lie_at_the_edge_of_the_grid() -> None:
    times = {1e-4: 30.0, 1e-3: 10.0, 1e-2: 20.0}
    runs = steady_sweep(lambda batch, rate, seed: times[rate], batch_sizes=[20], rates=list(times))
    assert not front(runs, GOALS)["at_edge"].any()
    assert front(runs[runs["learning_rate"] < 1e-2], GOALS)["at_edge"].all()
    assert front(runs[runs["learning_rate"] == 1e-3], GOALS)["at_edge"].all()
    failed = steady_run(20, 1e-1, 0, 20, 1, status="diverged")
    inside = pd.concat([runs[runs["learning_rate"] <= 1e-3], failed], ignore_index=True)
    assert not front(inside, GOALS)["at_edge"].any()


def test_the_same_seed_run_twice_counts_once() -> None:
    short = steady_run(20, 1e-3, 0, 10, 5, run_id="short")
    long = steady_run(20, 1e-3, 0, 10, 9, run_id="long")
    found = front(pd.concat([short, long], ignore_index=True), GOALS)
    assert found["seeds"].tolist() == [1, 1, 1]
    assert len(found) == 3


def test_tasks_do_not_mix_and_have_goals_of_their_own() -> None:
    runs = pd.concat([steady_run(20, 1e-3, 0, 10, 9), steady_run(20, 1e-3, 0, 5, 9, task="Other")], ignore_index=True)
    found = front(runs, {TASK: [2.0], "Other": [4.0, 5.0]})
    assert list(zip(found["task"], found["goal"], strict=True)) == [(TASK, 2.0), ("Other", 4.0), ("Other", 5.0)]


def test_an_empty_table_gives_an_empty_front() -> None:
    runs = made_run(20, 1e-3, 0, updates=[], score=[], episodes=[])
    assert front(runs, GOALS).empty
    assert "at_edge" in front(runs, GOALS).columns


def test_a_table_without_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="no column run_id, task, status, domain"):
        front(pd.DataFrame(columns=pd.Index(COLUMNS)), GOALS)
