"""Forecasts from one run, against runs whose whole trade-off is known, and on the sweep that is shipped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rl_scaling.analysis.advise import (
    KEPT_WEIGHTS,
    TRAINING,
    beside_sweep,
    choose_run,
    concerns,
    has_gained,
    measured_run,
    predict_tasks,
    with_kept_weights,
)
from rl_scaling.analysis.costs import CostModel
from rl_scaling.analysis.sweep_fit import fit_runs
from rl_scaling.records import Measure
from rl_scaling.store import load_runs
from tests.analysis.made_runs import adaptive_run_along
from tests.analysis.test_costs import GOALS, SHIPPED, growing, line, run_of


def test_the_best_run_is_taken_unless_another_is_named() -> None:
    runs = pd.concat([run_of(80.0, 0.3), run_of(1280.0, 30.0), adaptive_run_along(100.0, growing)], ignore_index=True)
    chosen = choose_run(runs, GOALS)
    assert chosen.run["batch_size"] == 80
    assert chosen.run["goals"] == GOALS
    other = str(runs.loc[runs["batch_size"] == 1280, "run_id"].iloc[0])
    assert choose_run(runs, GOALS, run_id=other).run["batch_size"] == 1280
    for run_id, message in (("nowhere", "0 runs begin"), ("adaptive", "adaptive batch"), ("", "3 runs begin")):
        with pytest.raises(ValueError, match=message):
            choose_run(runs, GOALS, run_id=run_id)
    with pytest.raises(ValueError, match="all runs have an adaptive batch"):
        choose_run(adaptive_run_along(100.0, growing), GOALS)
    with pytest.raises(ValueError, match="a run of A2C"):
        choose_run(run_of(80.0).assign(**{"agent.kind": "ppo"}), GOALS)
    with pytest.raises(ValueError, match="no noise scale"):
        choose_run(run_of(80.0).assign(noise_measurements=0), GOALS)


def test_a_run_can_be_cut_short() -> None:
    run = run_of(80.0)
    chosen = choose_run(run, GOALS, examples=run["examples"].iloc[99])
    assert chosen.run["goals"] == [2.0, 5.0]
    nothing = choose_run(run, GOALS, examples=run["examples"].iloc[20])
    assert nothing.run["goals"] == []
    assert nothing.run["updates"] == run["updates"].iloc[20]
    assert any("reached no goal" in concern for concern in concerns(CostModel(nothing.path), nothing))


def said(runs: pd.DataFrame, run_id: str | None = None) -> str:
    chosen = choose_run(runs, GOALS, run_id=run_id)
    return "; ".join(concerns(CostModel(chosen.path), chosen))


def test_reasons_for_doubt() -> None:
    assert "still growing" in said(run_of(80.0))
    assert "one learning rate" in said(run_of(80.0))
    assert "not resolved" in said(run_of(80.0, 30.0))
    assert "not moved" in said(run_of(80.0).assign(score=np.sin(np.arange(160.0))))
    assert "measured 40 times" in said(run_of(80.0).assign(noise_measurements=40 / 160))


def with_rate(rate: float, slower: float) -> pd.DataFrame:
    run = run_of(80.0, steps=1000.0 * slower)
    return run.assign(learning_rate=rate, run_id=f"rate {rate:g}")


def test_a_learning_rate_too_far_off_is_named() -> None:
    runs = pd.concat([with_rate(1e-3, 1.0), with_rate(2e-3, 1.6), with_rate(5e-4, 1.1)], ignore_index=True)
    assert "0.002 is too far off: 0.001 was faster" in said(runs, "rate 0.002")
    assert "rate" not in said(runs, "rate 0.001")
    assert "too far off" not in said(runs, "rate 0.0005")
    assert "at the edge" in said(runs[runs["run_id"] != "rate 0.0005"], "rate 0.001")


def test_a_score_has_gained_when_it_is_better_beyond_its_scatter() -> None:
    score = Measure("frames", "score")
    noise = np.random.default_rng(0).standard_normal(90)
    assert not has_gained(pd.DataFrame({"score": noise}), score)
    assert has_gained(pd.DataFrame({"score": noise + np.arange(90) / 20}), score)
    assert has_gained(pd.DataFrame({"loss": noise - np.arange(90) / 20}), Measure("examples", "loss"))
    assert not has_gained(pd.DataFrame({"score": [1.0, 2.0, 9.0]}), score)


def test_the_sweep_stands_beside_the_prediction() -> None:
    runs = pd.concat([run_of(b) for b in (20.0, 80.0, 320.0, 1280.0)], ignore_index=True)
    chosen = choose_run(runs, GOALS, run_id="Made a2c-80-")
    found = beside_sweep(chosen, line(), runs, confidence=0.95, horizon=50)
    assert len(found) == 4 * len(GOALS)
    # N counts as constant within a stretch, which is 1 % off sixteen batch sizes away.
    np.testing.assert_allclose(found["ratio"], 1, atol=0.02)
    np.testing.assert_allclose(found["predicted_critical_batch"], found["critical_batch"], rtol=0.03)
    np.testing.assert_allclose(found["predicted_hours"], found["hours"], rtol=0.02)
    assert found["own"].sum() == len(GOALS)
    assert beside_sweep(chosen, line(), run_of(80.0), confidence=0.95, horizon=50).empty


def test_a_slower_seed_whose_noise_scale_is_known_better_is_the_one() -> None:
    """The fastest seed of a setting is luck, and says no more than the others."""
    fast, slow = run_of(80.0, 0.5, seed=0), run_of(80.0, 0.05, seed=1).assign(seed=1, run_id="slow")
    slow[["updates", "examples"]] *= 1.1
    off = run_of(80.0, seed=2).assign(seed=2, run_id="off", learning_rate=fast["learning_rate"].iloc[0] / 2)
    off[["updates", "examples"]] *= 1.2
    assert choose_run(pd.concat([fast, slow, off], ignore_index=True), GOALS).run["run_id"] == "slow"


@pytest.mark.parametrize("seeds", [[0], [0, 1]])
def test_the_shipped_sweep(seeds: list[int]) -> None:
    """With one seed, where what was measured is the run itself, a prediction passes through it: docs/advise.md."""
    runs = load_runs(SHIPPED)
    runs = runs[runs["seed"].isin(seeds)].reset_index(drop=True)
    assert sorted(runs["seed"].unique()) == seeds
    chosen = choose_run(runs, [2, 3, 4, 5, 6, 7, 8])
    found = beside_sweep(chosen, None, runs, confidence=0.95, horizon=50)
    own = found[found["own"]]
    assert len(own) == 7
    if len(seeds) == 1:
        np.testing.assert_allclose(own["ratio"], 1, rtol=0.05)
    assert {20, 40, 120} <= set(found["batch_size"])
    assert (found["predicted_updates_low"] <= found["predicted_updates"]).all()
    assert (found["predicted_updates"] <= found["predicted_updates_high"]).all()


def kept_weights(run: pd.DataFrame, places: list[float], error: float = 0.02) -> pd.DataFrame:
    """Measurements with the weights of a run kept, at parts of its updates: exact values, with intervals."""
    rows = []
    for place in places:
        row = run.iloc[round(place * (len(run) - 1))] if place else None
        value = growing(place)
        found = {"of_run": "" if row is None else row["run_id"], "of_updates": 0 if row is None else row["updates"]}
        found |= {"noise_scale": value, "noise_scale_low": value / (1 + error), "noise_scale_high": value * (1 + error)}
        rows.append({**found, "task": run["task"].iloc[0], "confidence": 0.95})
    return pd.DataFrame(rows)


def test_kept_weights_say_what_the_meter_says() -> None:
    run = run_of(1280.0)  # a large batch, whose updates are nearly those without noise
    chosen = choose_run(run, GOALS)
    measured = kept_weights(run, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    found = with_kept_weights(chosen, measured)
    assert found.source_of(GOALS[-1]) == KEPT_WEIGHTS
    exact, kept = CostModel(chosen.path).critical_batch, CostModel(found.path).critical_batch
    assert kept.value == pytest.approx(exact.value, rel=0.05)
    assert 1 < kept.high / kept.low < 1.05


def test_kept_weights_of_the_start_alone_or_of_another_run_are_not_used() -> None:
    run = run_of(80.0)
    chosen = choose_run(run, GOALS)
    for measured in (None, kept_weights(run, []), kept_weights(run, [0.0]), kept_weights(run, [0.0, 0.1])):
        assert with_kept_weights(chosen, measured).path is chosen.path
    other = kept_weights(run, [0.0, 0.5, 1.0]).assign(of_run="other")
    assert with_kept_weights(chosen, other).source_of(GOALS[-1]) == TRAINING
    assert measured_run(other, run) is None
    assert measured_run(kept_weights(run, [0.0, 0.5]), run) == run["run_id"].iloc[0]
    open_above = kept_weights(run, [0.0, 0.9]).assign(noise_scale=np.nan, noise_scale_high=np.inf)
    turn = CostModel(with_kept_weights(chosen, open_above).paths[GOALS[-1]]).critical_batch
    assert turn.high > 3 * turn.value


def test_each_task_with_a_sweep_is_predicted_by_one_run() -> None:
    runs = pd.concat([run_of(b) for b in (20.0, 80.0, 320.0, 1280.0)], ignore_index=True)
    fits = fit_runs(runs, GOALS).fits
    (one,) = predict_tasks(runs, fits)
    assert (one.goal, one.source, one.domain) == (GOALS[-1], TRAINING, "rl")
    assert one.log_error == pytest.approx(0, abs=0.03)
    run = runs[runs["batch_size"] == 1280].reset_index(drop=True)
    (one,) = predict_tasks(runs, fits, frozen=kept_weights(run, [0.0, 0.3, 0.6, 0.9]))
    assert (one.source, one.run_id) == (KEPT_WEIGHTS, run["run_id"].iloc[0])
    assert one.log_error == pytest.approx(0, abs=0.06)
    assert predict_tasks(runs.assign(noise_measurements=0), fits) == []
    assert predict_tasks(run, fit_runs(run, GOALS).fits) == [], "nothing was swept"
