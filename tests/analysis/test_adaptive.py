"""Adaptive runs beside fixed ones: off the fronts, on the same axes, with gamma observed and predicted."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rl_scaling.analysis import fit_runs, front
from rl_scaling.analysis.adaptive import ADAPTIVE_COLUMNS, observed_gamma
from rl_scaling.analysis.noise_scale import NoiseRows, batch_sizes
from tests.analysis.made_runs import TASK, adaptive_run_along, run_along

BATCHES = (20.0, 80.0, 320.0, 1280.0)
GOALS = [2.0, 4.0, 8.0]


def growing(s: float) -> float:
    """N = 100 + 800 s: B_crit of the first x of training is 100 + 400 x."""
    return 100.0 + 800.0 * s


def gamma(x: float) -> float:
    """D.5 over the first x of training: the integral of sqrt(100 + 800 s) is ((100 + 800 x)^1.5 - 1000) / 1200."""
    return ((100 + 800 * x) ** 1.5 - 1000) ** 2 / 1200**2 / (x * (100 * x + 400 * x**2))


def sweep(error: float = 0.0) -> pd.DataFrame:
    fixed = [run_along(lambda _, b=b: b, growing, measurement_error=error) for b in BATCHES]
    adaptive = [adaptive_run_along(r, growing, measurement_error=error) for r in (50.0, 800.0)]
    return pd.concat([*fixed, *adaptive], ignore_index=True)


def test_gamma_comes_out_as_it_went_in() -> None:
    found = fit_runs(sweep(), GOALS)
    fits = found.fits.set_index("goal")
    assert fits["status"].tolist() == ["ok"] * 3
    np.testing.assert_allclose(fits["critical_batch"], [180, 260, 420], rtol=1e-3)
    expected = [gamma(goal / 10) for goal in GOALS]
    assert expected == sorted(expected, reverse=True)
    assert expected[-1] < 0.95
    # Within a stretch N changes too, which is left out.
    np.testing.assert_allclose(fits["gamma_predicted"], expected, atol=0.01)
    table = found.adaptive
    assert table.columns.tolist() == ADAPTIVE_COLUMNS
    assert len(table) == 6
    for _, rows in table.groupby("setting"):
        np.testing.assert_allclose(rows["gamma_observed"], expected, rtol=0.01)
        np.testing.assert_allclose(rows["gamma_predicted"], expected, atol=0.01)
    # The larger r, the fewer updates and the more frames.
    cheap, dear = (rows.set_index("goal") for _, rows in table.groupby("setting"))  # r = 50, r = 800
    assert (cheap["updates"] > dear["updates"]).all()
    assert (cheap["examples"] < dear["examples"]).all()


def test_adaptive_runs_change_no_front_and_no_fit() -> None:
    runs = sweep(error=0.2)
    fixed = runs[runs["exchange_rate"].isna()]
    both, alone = fit_runs(runs, GOALS, resamples=50), fit_runs(fixed, GOALS, resamples=50)
    pd.testing.assert_frame_equal(both.fits, alone.fits)
    pd.testing.assert_frame_equal(both.fronts, alone.fronts)
    pd.testing.assert_frame_equal(both.learning_rates, alone.learning_rates)
    pd.testing.assert_frame_equal(front(runs, GOALS), front(fixed, GOALS))
    assert alone.adaptive.empty
    assert alone.adaptive.columns.tolist() == ADAPTIVE_COLUMNS


def test_adaptive_runs_alone_say_what_they_can() -> None:
    found = fit_runs(adaptive_run_along(100.0, growing), GOALS)
    assert found.fronts.empty
    assert found.fits["status"].tolist() == ["not reached"] * 3
    assert found.adaptive["gamma_observed"].isna().all()
    np.testing.assert_allclose(found.adaptive["gamma_predicted"], [gamma(goal / 10) for goal in GOALS], atol=0.01)


def test_a_measurement_weighs_by_the_batch_it_was_made_with() -> None:
    run = adaptive_run_along(100.0, growing, rows=10)
    sizes = batch_sizes(run)
    np.testing.assert_allclose(sizes, run["current_batch_size"])
    ratio = NoiseRows(run).ratio(np.arange(10)).ratio
    assert ratio == pytest.approx(np.average(run["grad_sq_norm"], weights=sizes))
    np.testing.assert_array_equal(batch_sizes(run.assign(current_batch_size=np.nan)), run["batch_size"])
    np.testing.assert_array_equal(batch_sizes(run.drop(columns="current_batch_size")), run["batch_size"])


FIT = pd.Series(
    {
        "steps_min": 100.0,
        "examples_min": 1e4,
        "log_steps_min_se": 0.1,
        "log_examples_min_se": 0.2,
        "log_critical_batch_se": 0.25,
    }
)


def test_observed_gamma_and_its_interval() -> None:
    found = observed_gamma(200, 1.8e4, FIT)
    assert found.value == pytest.approx(0.8)
    assert found.low < 0.5
    assert found.high > 1.1
    assert observed_gamma(90, 1.8e4, FIT).value == 0  # fewer updates than the fitted fewest
    assert math.isnan(observed_gamma(200, 1.8e4, FIT * math.nan).value)
    assert observed_gamma(200, 1.8e4, FIT * [1, 1, math.nan, 1, 1]).value == pytest.approx(0.8)


@pytest.mark.statistical
def test_the_interval_of_observed_gamma_covers() -> None:
    """500 fits about the truth with their stated errors: the 95 % interval covers 92 to 98 % (error rate 1 in 500)."""
    rng = np.random.default_rng(1)
    covariance = [[0.1**2, -0.00625], [-0.00625, 0.2**2]]
    hits = 0
    for _ in range(500):
        steps, examples = np.exp(rng.multivariate_normal(np.log([100.0, 1e4]), covariance))
        se = math.sqrt(0.1**2 + 0.2**2 + 2 * 0.00625)
        fit = FIT * 0 + [steps, examples, 0.1, 0.2, se]
        found = observed_gamma(200, 1.8e4, fit)
        hits += found.low <= 0.8 <= found.high
    assert 0.92 * 500 <= hits <= 0.98 * 500


def test_the_task_is_shared() -> None:
    assert set(sweep()["task"]) == {TASK}
