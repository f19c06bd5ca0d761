from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_scaling.analysis import FIT_COLUMNS, fit_runs, fit_tradeoff, fits_to_json
from tests.analysis.made_runs import TASK, made_loss_run, made_run, off_by, steady_run, steady_sweep

BATCHES = [20, 40, 80, 160, 320]
RATES = [5e-4, 1e-3, 2e-3]


def exact(batch: int, rate: float, seed: int) -> float:
    """Updates for one point of score: S_min = 100 and B_crit = 60 at every goal, best at 1e-3."""
    return 100 * (1 + 60 / batch) * off_by(rate, 1e-3)


def noisy(batch: int, rate: float, seed: int) -> float:
    rng = np.random.default_rng([batch, int(rate * 1e6), seed])
    return exact(batch, rate, seed) * math.exp(0.1 * rng.standard_normal())


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_runs_on_the_curve_give_it_back(seeds: list[int]) -> None:
    found = fit_runs(steady_sweep(exact, batch_sizes=BATCHES, rates=RATES, seeds=seeds), [3, 5], resamples=50)
    assert found.fits["status"].tolist() == ["ok", "ok"]
    np.testing.assert_allclose(found.fits["critical_batch"], 60, rtol=1e-8)
    np.testing.assert_allclose(found.fits["steps_min"], [300, 500], rtol=1e-8)
    np.testing.assert_allclose(found.fits["examples_min"], [18_000, 30_000], rtol=1e-8)
    assert (found.fronts["learning_rate"] == 1e-3).all()
    assert not found.fronts["at_edge"].any()
    assert (found.fronts["seeds"] == len(seeds)).all()
    assert found.fits["batch_sizes"].tolist() == [5, 5]
    assert found.fits["interval"].tolist() == ["residuals" if len(seeds) == 1 else "seeds"] * 2


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_runs_about_the_curve_give_an_interval_around_it(seeds: int) -> None:
    fits = fit_runs(steady_sweep(noisy, batch_sizes=BATCHES, rates=RATES, seeds=range(seeds)), [4]).fits
    row = fits.iloc[0]
    assert row["status"] == "ok"
    assert row["critical_batch_low"] < 60 < row["critical_batch_high"]
    assert row["critical_batch_low"] < row["critical_batch"] < row["critical_batch_high"]
    assert 0 < row["log_critical_batch_se"] < 0.5
    assert row["interval"] == ("residuals" if seeds == 1 else "seeds")


def test_the_order_of_rows_does_not_matter_and_nothing_is_random() -> None:
    runs = steady_sweep(noisy, batch_sizes=BATCHES, rates=RATES, seeds=[0, 1])
    first, second = fit_runs(runs, [2, 4]), fit_runs(runs.sample(frac=1, random_state=1), [4, 2])
    pd.testing.assert_frame_equal(first.fits, second.fits)
    pd.testing.assert_frame_equal(first.fronts, second.fronts)
    pd.testing.assert_frame_equal(first.learning_rates, second.learning_rates)


def test_learning_rate_curves_have_every_rate_and_say_why_one_is_missing() -> None:
    runs = pd.concat(
        [steady_sweep(exact, batch_sizes=[20], rates=RATES), steady_run(20, 1e-2, 0, 9, 1.5, status="diverged")],
        ignore_index=True,
    )
    rates = fit_runs(runs, [3]).learning_rates
    assert rates["learning_rate"].tolist() == [*RATES, 1e-2]
    assert rates["status"].tolist() == ["reached"] * 3 + ["diverged"]
    np.testing.assert_allclose(rates["updates"][:3], [3 * exact(20, rate, 0) for rate in RATES], rtol=1e-9)
    assert math.isnan(rates["updates"][3])


def test_statuses_of_goals() -> None:
    runs = pd.concat(
        [steady_run(b, 1e-3, 0, exact(b, 1e-3, 0), last) for b, last in ((20, 12.0), (80, 12.0), (320, 5.0))],
        ignore_index=True,
    )
    fits = fit_runs(runs, [0.1, 4, 9, 50]).fits.set_index("goal")
    assert fits["status"].tolist() == ["too few batch sizes", "ok", "too few batch sizes", "not reached"]
    assert "left out" in fits["message"].tolist()[0]
    assert fits["batch_sizes"].tolist() == [0, 3, 2, 0]
    assert fits["interval"].tolist() == ["none", "residuals", "none", "none"]
    assert fits["message"].tolist()[3] == "no run reached the goal"
    assert "edge of the grid" in fits["message"].tolist()[1]


def test_a_goal_that_only_some_seeds_reached_is_not_reached() -> None:
    runs = pd.concat([steady_run(20, 1e-3, 0, 10, 9), steady_run(20, 1e-3, 1, 10, 3)], ignore_index=True)
    fits = fit_runs(runs, [5]).fits
    assert fits["message"][0] == "no learning rate reached the goal with all its seeds"


@pytest.mark.parametrize(
    ("turn", "status"), [(1e5, "all below the turn"), (0.01, "all above the turn")], ids=["below", "above"]
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_one_sided_sweeps_say_so(turn: float, status: str, seeds: int) -> None:
    def updates(batch: int, rate: float, seed: int) -> float:
        rng = np.random.default_rng([batch, seed])
        return 100 * (1 + turn / batch) * math.exp(0.02 * rng.standard_normal())

    fits = fit_runs(steady_sweep(updates, batch_sizes=BATCHES, seeds=range(seeds)), [4]).fits
    assert fits["status"][0] == status
    assert fits[["steps_min", "examples_min", "critical_batch"]].isna().all(axis=None)


def test_losses_go_down() -> None:
    runs = steady_sweep(exact, batch_sizes=BATCHES)
    fits = fit_runs(runs.assign(loss=10 - runs["score"], quantity="loss", unit="examples"), [7, 5]).fits
    assert fits["goal"].tolist() == [7, 5]
    np.testing.assert_allclose(fits["steps_min"], [300, 500], rtol=1e-8)


def test_losses_are_taken_as_they_are() -> None:
    """One row beyond the target is enough, episodes are not asked for, and rows without a loss say nothing."""
    rows = pd.DataFrame({"updates": [0, 10, 20, 30], "loss": [1.0, math.nan, 0.5, 0.4]})
    runs = pd.concat([made_loss_run(batch, rows) for batch in (4, 8)], ignore_index=True)
    found = fit_runs(runs.drop(columns=["score", "episodes"]), [0.75, 0.45])
    assert found.fits[["goal", "unit", "quantity"]].to_numpy().tolist() == [
        [0.75, "examples", "loss"],
        [0.45, "examples", "loss"],
    ]
    # Harder first, as 0.45 < 0.75; interpolated between rows that have a loss.
    np.testing.assert_allclose(found.fronts["updates"], [25, 25, 10, 10])
    np.testing.assert_allclose(found.fronts["examples"], [100, 200, 40, 80])


def test_a_run_that_starts_beyond_its_target_takes_one_update() -> None:
    rows = pd.DataFrame({"updates": [0, 10], "loss": [0.1, 0.05]})
    front = fit_runs(made_loss_run(4, rows), [0.2]).fronts
    assert front[["updates", "examples", "at_start"]].to_numpy().tolist() == [[1, 4, True]]


def test_settings_are_rivals_and_not_averaged() -> None:
    """Two momenta at the same learning rate are two choices, of which the faster one is on the front."""
    rows = pd.DataFrame({"updates": [0, 10, 20], "loss": [1.0, 0.6, 0.2]})
    slow = [made_loss_run(batch, rows, "momentum=0") for batch in (4, 8, 16)]
    fast = [made_loss_run(b, rows.assign(updates=rows["updates"] / 2), "momentum=0.9") for b in (4, 8, 16)]
    found = fit_runs(pd.concat([*slow, *fast], ignore_index=True), [0.6])
    assert found.fronts["setting"].tolist() == ["momentum=0.9"] * 3
    np.testing.assert_allclose(found.fronts["updates"], [5, 5, 5])
    assert len(found.learning_rates) == 6


def test_runs_of_one_task_count_in_one_unit() -> None:
    runs = steady_sweep(exact, batch_sizes=[20, 40])
    mixed = runs.assign(unit=np.where(runs["batch_size"] == 20, "frames", "examples"))
    with pytest.raises(ValueError, match="differ in what they count"):
        fit_runs(mixed, [3])


def test_seeds_weigh_points() -> None:
    runs = pd.concat(
        [steady_sweep(noisy, batch_sizes=BATCHES), steady_sweep(noisy, batch_sizes=[20, 80], seeds=range(1, 9))],
        ignore_index=True,
    )
    found = fit_runs(runs, [4])
    assert found.fits["interval"][0] == "residuals"
    points = found.fronts
    assert points["seeds"].tolist() == [9, 1, 9, 1, 1]
    weighted = fit_tradeoff(points["updates"], points["examples"], weights=points["seeds"])
    assert found.fits["critical_batch"][0] == pytest.approx(weighted.critical_batch, rel=1e-9)
    assert found.fits["critical_batch_high"][0] == pytest.approx(weighted.critical_batch_high, rel=1e-9)


def test_json_is_strict_and_has_the_agreed_keys() -> None:
    runs = steady_sweep(exact, batch_sizes=BATCHES, last=6)
    rows = fits_to_json(fit_runs(runs, [4, 99]).fits)
    read = json.loads(json.dumps(rows, allow_nan=False))
    agreed = {
        "task",
        "goal",
        "steps_min",
        "examples_min",
        "critical_batch",
        "critical_batch_low",
        "critical_batch_high",
    }
    assert all(agreed | {"status"} <= set(row) == set(FIT_COLUMNS) for row in read)
    assert read[0]["critical_batch"] == pytest.approx(60)
    assert isinstance(read[0]["batch_sizes"], int)
    assert (read[1]["status"], read[1]["critical_batch"], read[1]["noise_scale_high"]) == ("not reached", None, None)
    assert (read[0]["task"], read[0]["goal"]) == (TASK, 4.0)


def test_no_runs_and_no_goals_give_empty_tables() -> None:
    nothing = fit_runs(made_run(20, 1e-3, 0, updates=[], score=[], episodes=[]), [1, 2])
    assert nothing.fits.columns.tolist() == list(FIT_COLUMNS)
    assert nothing.fits.empty
    assert nothing.fronts.empty
    assert fits_to_json(nothing.fits) == []
    assert fit_runs(steady_run(20, 1e-3, 0, 10, 5), []).fits.empty


def test_refuses_bad_arguments() -> None:
    runs = steady_run(20, 1e-3, 0, 10, 5)
    with pytest.raises(ValueError, match="confidence is 95"):
        fit_runs(runs, [1], confidence=95)
    with pytest.raises(ValueError, match="resamples is 0"):
        fit_runs(runs, [1], resamples=0)
    with pytest.raises(ValueError, match="no goals for the task"):
        fit_runs(runs, {"another": [1]})


def test_frames_that_are_used_again_count_once_in_examples_and_each_time_in_batches() -> None:
    """PPO with 4 epochs: the same updates with a quarter of the frames, and the same critical batch size."""

    def sweep(uses: int) -> pd.DataFrame:
        runs = steady_sweep(lambda batch, rate, seed: 100 * (1 + 200 / batch), batch_sizes=[25, 100, 400, 1600])
        runs["examples_used"] = runs["examples"]
        return runs.assign(examples=runs["examples"] / uses)

    once, often = (fit_runs(sweep(uses), [5.0]).fits.iloc[0] for uses in (1, 4))
    assert (once["status"], often["status"]) == ("ok", "ok")
    assert often["critical_batch"] == pytest.approx(once["critical_batch"], rel=1e-6)
    assert often["critical_batch"] == pytest.approx(200, rel=1e-2)
    assert often["steps_min"] == pytest.approx(once["steps_min"], rel=1e-6)
    assert often["examples_min"] == pytest.approx(once["examples_min"] / 4, rel=1e-6)
    kept_no_count = sweep(1).drop(columns="examples_used")
    assert fit_runs(kept_no_count, [5.0]).fits.iloc[0]["examples_min"] == once["examples_min"]


def test_reuse_has_a_noise_scale_of_its_own_and_no_gamma() -> None:
    rows = np.random.default_rng(0).normal(1, 0.05, 60)
    measured = {"noise_measurements": 5, "grad_sq_norm": rows / 100, "trace_cov": 1.0}
    again = {"reuse_grad_sq_norm": rows / 400, "reuse_trace_cov": 1.0}

    def fit_of(uses: float, **columns: Any) -> pd.Series:
        runs = steady_sweep(lambda batch, rate, seed: 100, batch_sizes=[64, 128, 256], **columns)
        return fit_runs(runs.assign(examples_used=uses * runs["examples"]), [5.0, 9.0]).fits.iloc[1]

    once, often = fit_of(1, **measured), fit_of(4, **measured, **again)
    assert once["noise_scale"] == pytest.approx(100, rel=0.1)
    assert often["noise_scale"] == once["noise_scale"]
    assert often["noise_scale_reuse"] == pytest.approx(400, rel=0.1)
    assert often["noise_scale_reuse_low"] < often["noise_scale_reuse"] < often["noise_scale_reuse_high"]
    assert np.isnan(once["noise_scale_reuse_low"])
    assert np.isfinite(once["gamma_predicted"])
    assert np.isnan(often["gamma_predicted"])
