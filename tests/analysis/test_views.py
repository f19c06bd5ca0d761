"""What is drawn of many runs: tables, thinned curves, best learning rates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl_scaling.analysis import ScoreSmoother
from rl_scaling.analysis.views import (
    FEWEST_POINTS,
    OTHER_POINTS,
    POINTS_PER_BEST_RUN,
    prepare,
    shown_rates,
    thin,
)
from tests.report.synthetic import best_rate, known_fit, run_rows, sweep_rows


@given(st.integers(0, 5000), st.integers(2, 300))
def test_thinning_keeps_both_ends_and_never_repeats(count: int, points: int) -> None:
    kept = thin(count, points)
    assert len(kept) == min(count, points) or len(kept) <= points
    assert (np.diff(kept) > 0).all()
    if count:
        assert kept[0] == 0
        assert kept[-1] == count - 1


def test_scores_are_smoothed_run_by_run() -> None:
    records = pd.concat([run_rows(b, 1e-3, seed, rows=20) for b in (20, 80) for seed in (0, 1)])
    shuffled = records.sample(frac=1, random_state=0)
    series = prepare(shuffled, known_fit(records, []).fronts, horizon=10.0)
    assert len(series.runs) == 4
    for run in series.runs.to_dict("records"):
        smoother = ScoreSmoother(10.0)
        own = records[records["run_id"] == run["run_id"]]
        naive = [smoother.update(s, n) for s, n in zip(own["score"], own["episodes"], strict=True)]
        found = series.rows.loc[series.rows["run"] == run["run"], "smoothed"].tolist()
        assert found == pytest.approx(naive, nan_ok=True)
        assert run["final_score"] == pytest.approx(naive[-1])
        assert run["examples"] == own["examples"].max()


def test_runs_of_two_stores_with_one_id_stay_apart() -> None:
    one = run_rows(20, 1e-3, 0, rows=5)
    two = one.assign(store="/elsewhere")
    series = prepare(pd.concat([one, two]), known_fit(one, []).fronts, horizon=5.0)
    assert len(series.runs) == 2
    assert series.curves.groupby("run").size().tolist() == [5, 5]


def test_the_best_rate_is_that_of_the_highest_goal_then_of_the_score() -> None:
    records = sweep_rows((20, 80), seeds=(0,), rows=20, frames=400_000)
    series = prepare(records, known_fit(records, []).fronts, horizon=5.0)
    assert dict(
        zip(
            *[shown_rates(series.runs, known_fit(records, []).fronts)[n] for n in ("batch_size", "learning_rate")],
            strict=True,
        )
    ) == {20: best_rate(20), 80: best_rate(80)}
    fronts = pd.DataFrame(
        {
            "task": records["task"].iloc[0],
            "goal": [1.0, 3.0, 2.0],
            "batch_size": 20,
            "learning_rate": [0.1, 0.3, 0.2],
            "setting": "",
        }
    )
    chosen = shown_rates(series.runs, fronts).set_index("batch_size")["learning_rate"].to_dict()
    assert chosen == {20: 0.3, 80: best_rate(80)}


def test_thousands_of_runs_stay_small() -> None:
    """Every best run is drawn, the others as far as there is room, and what is left out is counted."""
    base = run_rows(20, 1e-3, 0, rows=FEWEST_POINTS)
    number = range(1400)
    trials = pd.DataFrame(
        {"run_id": [f"{i}" for i in number], "learning_rate": [1e-3 + max(0, i - 19) for i in number]}
    )
    many = base.drop(columns=list(trials.columns)).merge(trials, how="cross")
    fronts = base[["task", "batch_size", "learning_rate", "setting"]].head(1).assign(goal=1.0)
    series = prepare(many, fronts, horizon=50.0)
    drawn = series.curves.groupby("run").size()
    best = series.runs.loc[series.runs["best"], "run"]
    assert len(best) == 20
    assert set(best) <= set(drawn.index)
    assert len(series.curves) <= OTHER_POINTS + POINTS_PER_BEST_RUN * 20
    assert len(drawn) + (series.runs["points"] == 0).sum() == 1400
    assert drawn.min() >= FEWEST_POINTS
    assert len(drawn) < 1400


def test_tasks_are_taken_apart() -> None:
    records = pd.concat([run_rows(20, 1e-3, 0, rows=5), run_rows(20, 1e-3, 1, rows=7, task="Pong a2c")])
    series = prepare(records, known_fit(records, []).fronts, horizon=5.0)
    pong = series.only(series.runs["task"] == "Pong a2c")
    assert (len(pong.runs), len(pong.rows), len(pong.curves)) == (1, 7, 7)
