"""Noise scales of weights that were kept: against the meter's own estimate, and apart from runs that learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rl_scaling.agents.config import A2CConfig
from rl_scaling.analysis import fit_runs, frozen_noise_scales
from rl_scaling.analysis.frozen import COLUMNS, is_frozen, that_learn
from rl_scaling.domains.rl.config import FrozenConfig, RunConfig
from rl_scaling.envs.config import AtariConfig
from rl_scaling.noise import estimate_noise_scale
from rl_scaling.records import FROZEN, TrainingRecord
from rl_scaling.statistics.jackknife import invert, ratio_of_means
from rl_scaling.store import Store, load_runs

AGENT = A2CConfig(network="small", learning_rate=1e-3)
RUN = RunConfig(environment=AtariConfig(game="Pong", num_envs=4), agent=AGENT, frames=4_000, measure_at="goals")
START = FrozenConfig(environment=AtariConfig(game="Pong", num_envs=64), agent=AGENT)
AT_GOAL = FrozenConfig(
    environment=START.environment, agent=AGENT, of_run=RUN.run_id, of_updates=40, of_frames=800, goal=-20.0
)
ROWS = 20


def record(number: int, random: np.random.Generator, **changes: Any) -> TrainingRecord:
    values: dict[str, Any] = {
        "episodes": 0,
        "score": math.nan,
        "grad_sq_norm": random.normal(1.0, 0.2),
        "trace_cov": random.normal(500, 20),
        "trace_cov_frames": 100.0,
        "policy_grad_sq_norm": random.normal(0.5, 0.1),
        "policy_trace_cov": 300.0,
        "grad_curvature": random.normal(2.0, 0.2),
        "noise_curvature": random.normal(2_000, 100),
    }
    return TrainingRecord(
        updates=number,
        frames=320 * number,
        wall_seconds=float(number),
        frames_per_second=320.0,
        episode_frames=math.nan,
        policy_loss=0.0,
        value_loss=0.0,
        entropy=1.0,
        grad_norm=1.0,
        current_learning_rate=1e-3,
        noise_measurements=1,
        current_batch_size=320.0,
        **(values | changes),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frozen")
    random = np.random.default_rng(0)
    for config in (RUN, START, AT_GOAL):
        with Store(folder).open_run(config, {}) as writer:
            for number in range(1, ROWS + 1):
                games = {"episodes": 2, "score": -20.0 + number % 2} if number > 10 else {}
                writer.append(record(number, random, **games))
            writer.seal("done")
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> pd.DataFrame:
    return load_runs(folder)


def test_runs_that_learn_are_apart(runs: pd.DataFrame) -> None:
    assert is_frozen(runs).sum() == 2 * ROWS
    learning = that_learn(runs)
    assert set(learning["run_id"]) == {RUN.run_id}
    assert that_learn(learning) is learning
    assert FROZEN in START.identity.variant.split()
    assert START.identity.frozen
    assert not RUN.identity.frozen


def test_estimates_are_those_of_the_rows(folder: Path, runs: pd.DataFrame) -> None:
    table = frozen_noise_scales(runs)
    assert list(table["place"]) == ["at the start", "at -20"]
    assert list(table["of_frames"]) == [0, 800]
    rows = Store(folder).read_rows(START.run_id)
    columns = {n: [getattr(row, n) for row in rows] for n in ("grad_sq_norm", "trace_cov", "policy_grad_sq_norm")}
    found, expected = table.iloc[0], estimate_noise_scale(columns["grad_sq_norm"], columns["trace_cov"])
    assert found["noise_scale"] == pytest.approx(expected.b_simple)
    assert found["noise_scale_low"] == pytest.approx(expected.low)
    assert found["design_effect"] == pytest.approx(expected.trace_cov / 100)
    part = estimate_noise_scale(columns["policy_grad_sq_norm"], [300.0] * ROWS)
    assert found["policy_noise_scale"] == pytest.approx(part.b_simple)
    assert math.isnan(found["value_noise_scale"])
    curvatures = [[getattr(row, name) for row in rows] for name in ("grad_curvature", "noise_curvature")]
    hessian = invert(ratio_of_means(*curvatures))
    assert found["hessian_noise_scale"] == pytest.approx(hessian.value)
    assert found["hessian_noise_scale_high"] == pytest.approx(hessian.high)
    assert found["score"] == pytest.approx(-19.5)
    assert (found["frames"], found["measurements"], found["of_run"]) == (320 * ROWS, ROWS, "")


def test_confidence_widens_intervals(runs: pd.DataFrame) -> None:
    narrow, wide = (frozen_noise_scales(runs, confidence=level).iloc[0] for level in (0.8, 0.99))
    assert wide["noise_scale_low"] < narrow["noise_scale_low"]
    assert wide["hessian_noise_scale_high"] > narrow["hessian_noise_scale_high"]


def test_they_stand_beside_the_fits_of_the_task_and_in_none_of_them(runs: pd.DataFrame) -> None:
    fit = fit_runs(runs, {RUN.task: (-20.5, -19.0)})
    assert set(fit.fits["task"]) == {RUN.task}
    assert set(fit.fronts["task"]) <= {RUN.task}
    assert list(fit.frozen["task"]) == [RUN.task, RUN.task]
    assert len(fit.of_tasks(["another"]).frozen) == 0
    plain = fit_runs(that_learn(runs), {RUN.task: (-20.5, -19.0)})
    pd.testing.assert_frame_equal(plain.fits, fit.fits)


def test_without_any_the_table_is_empty(runs: pd.DataFrame) -> None:
    table = frozen_noise_scales(that_learn(runs))
    assert len(table) == 0
    assert tuple(table.columns) == COLUMNS
