from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rl_scaling.analysis import fit_runs, noise_over_training
from rl_scaling.analysis.noise_scale import NoiseRows
from tests.analysis.made_runs import made_run, reach, steady_sweep
from tests.analysis.reference import pooled_ratio

# The correction for the bias of a ratio, the square of its relative error, is below this in these tables.
RATIO_BIAS = 0.01


def measured(runs: pd.DataFrame, *, noise_scale: float = 300.0, spread: float = 0.2) -> pd.DataFrame:
    """Adds measurements scattered about a known noise scale, with a hole every seventh row."""
    rng = np.random.default_rng(0)
    rows = len(runs)
    hole = np.arange(rows) % 7 == 3
    counts = np.where(hole, 0, rng.integers(1, 9, rows))
    # It is |G|^2 that is hard to measure: tr(Sigma) never scatters so far that its mean could be negative.
    trace = 0.5 * noise_scale * (1 + min(spread, 0.2) * rng.standard_normal(rows))
    return runs.assign(
        noise_measurements=counts,
        grad_sq_norm=np.where(hole, math.nan, 0.5 * (1 + spread * rng.standard_normal(rows))),
        trace_cov=np.where(hole, math.nan, trace),
        trace_cov_examples=np.where(np.arange(rows) % 3 == 0, trace / 4, math.nan),
    )


def sweep(**options: float) -> pd.DataFrame:
    runs = steady_sweep(lambda b, rate, seed: 100 * (1 + 80 / b), batch_sizes=[20, 80, 320], rates=[1e-3], seeds=[0, 1])
    return measured(runs, **options)


def test_a_part_of_the_gradient_has_a_noise_scale_of_its_own() -> None:
    runs = sweep()
    moments = {"value_grad_sq_norm": 3.0 * runs["grad_sq_norm"], "value_trace_cov": 6.0 * runs["trace_cov"]}
    whole, value = (NoiseRows(runs.assign(**moments), part).pool(np.arange(len(runs))) for part in (None, "value"))
    assert value.value == pytest.approx(2 * whole.value)
    assert (value.low, value.high) == pytest.approx((2 * whole.low, 2 * whole.high))
    assert math.isnan(value.design_effect)
    assert value.measurements == whole.measurements


def test_a_goals_noise_scale_is_pooled_between_the_goal_before_and_this_one() -> None:
    runs = sweep()
    fits = fit_runs(runs, [3.0, 6.0], resamples=10).fits
    parts: list[list[pd.DataFrame]] = [[], []]
    for _, run in runs.groupby("run_id"):
        # Phases end at the moments of the goals, not at the later rows by which the smoothed score showed them.
        moments = reach(run, [3.0, 6.0])["examples"].tolist()
        assert moments[0] < moments[1]
        ends = [int((run["examples"] <= moment).sum()) - 1 for moment in moments]
        parts[0].append(run.iloc[: ends[0] + 1])
        parts[1].append(run.iloc[ends[0] + 1 : ends[1] + 1])
    for k in (0, 1):
        expected = pooled_ratio(pd.concat(parts[k]))
        assert fits["noise_scale"][k] == pytest.approx(expected, rel=RATIO_BIAS)
        assert fits["noise_scale_low"][k] < expected < fits["noise_scale_high"][k]
        assert fits["noise_scale_low"][k] < 300 < fits["noise_scale_high"][k]
        assert fits["design_effect"][k] == pytest.approx(4, rel=1e-9)


def test_two_goals_reached_by_one_row_share_it() -> None:
    parts = [
        made_run(20, 1e-3, seed, updates=[10.0, 20.0, 30.0], score=[0.0, 5.0, 5.0], episodes=30) for seed in range(4)
    ]
    runs = measured(pd.concat(parts, ignore_index=True), spread=0.0)
    fits = fit_runs(runs, [1.0, 1.1]).fits
    assert fits["noise_scale"].tolist() == pytest.approx([300, 300])


def test_one_row_alone_gives_no_interval_and_so_no_number() -> None:
    runs = measured(made_run(20, 1e-3, 0, updates=[10.0, 20.0], score=[1.0, 5.0], episodes=30), spread=0.0)
    row = fit_runs(runs, [0.5]).fits.iloc[0]
    assert math.isnan(row["noise_scale"])
    assert (row["noise_scale_low"], row["noise_scale_high"]) == (0, math.inf)


def test_only_runs_on_the_front_count() -> None:
    runs = sweep()
    slow = measured(
        steady_sweep(lambda b, rate, seed: 900.0, batch_sizes=[20, 80, 320], rates=[1e-5]), noise_scale=9_000
    )
    alone = fit_runs(runs, [3.0]).fits
    together = fit_runs(pd.concat([runs, slow], ignore_index=True), [3.0]).fits
    assert together["noise_scale"][0] == alone["noise_scale"][0]


def test_what_cannot_be_resolved_is_a_bound() -> None:
    fits = fit_runs(sweep(spread=40.0), [3.0]).fits
    assert math.isnan(fits["noise_scale"][0])
    assert fits["noise_scale_low"][0] > 0
    assert fits["noise_scale_high"][0] == math.inf


def test_without_measurements_nothing_is_said() -> None:
    runs = sweep().assign(noise_measurements=0, grad_sq_norm=math.nan, trace_cov=math.nan, trace_cov_examples=math.nan)
    fits = fit_runs(runs, [3.0]).fits
    assert fits[["noise_scale", "noise_scale_low", "noise_scale_high", "design_effect"]].isna().all(axis=None)
    assert noise_over_training(runs).empty


def test_over_training_every_row_falls_in_one_bin() -> None:
    runs = sweep()
    found = noise_over_training(runs, bins=5)
    assert found["measurements"].sum() == runs["noise_measurements"].sum()
    for row in found.to_dict("records"):
        inside = runs[(runs["examples"] > row["bin_low"]) & (runs["examples"] <= row["bin_high"])]
        assert row["noise_scale"] == pytest.approx(pooled_ratio(inside), rel=RATIO_BIAS)
        assert row["measurements"] == inside["noise_measurements"].sum()


def test_refuses_bad_bins() -> None:
    with pytest.raises(ValueError, match="bins is 0"):
        noise_over_training(sweep(), bins=0)
    with pytest.raises(ValueError, match="no column trace_cov"):
        noise_over_training(sweep().drop(columns=["trace_cov"]))


def test_moments_that_are_known_have_no_error() -> None:
    """An exact run gives the noise scale without an interval; what changes along it is no scatter."""
    exact = pd.DataFrame(
        {
            "batch_size": 4,
            "noise_measurements": [1, 2, 3],
            "grad_sq_norm": [4.0, 1.0, 0.5],
            "trace_cov": 8.0,
            "trace_cov_examples": np.nan,
            "noise_scale": [2.0, 8.0, 16.0],
            "noise_scale_low": np.nan,
        }
    )
    pooled = NoiseRows(exact).pool(np.arange(3))
    assert pooled.value == pooled.low == pooled.high == pytest.approx(6 * 8.0 / (4.0 + 2 * 1.0 + 3 * 0.5))
