"""What a sweep will take follows from what was measured, trial by trial."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rl_scaling.agents.config import A2CConfig, PPOConfig
from rl_scaling.analysis.throughput import fit_throughput
from rl_scaling.domains.rl.config import RunConfig
from rl_scaling.envs.config import AtariConfig
from rl_scaling.store import Store
from rl_scaling.sweeps.forecast import Forecast, Speed, TrialCost, forecast, wall_seconds
from rl_scaling.sweeps.plan import LearningRates, SweepPlan
from tests.store.builders import PROVENANCE, record

# A rollout takes 10 ms and 1 ms for each of its frames, an environment 2 s to start.
LINE = pd.DataFrame({"batch_size": [20, 80], "seconds": [0.03, 0.09], "error": [0.0, 0.0]})
SPEED = Speed(rollout=fit_throughput(LINE), start_seconds=2.0, side_by_side=2, game="Pong")
A2C_PLAN = SweepPlan(
    base=RunConfig(environment=AtariConfig(game="Pong"), agent=A2CConfig(network="small"), frames=10_000),
    num_envs=(4, 8),
    best_seeds=(1,),
    learning_rates=LearningRates(fixed=(1e-3, 2e-3)),
)


def _run(config: RunConfig, folder: Path) -> None:
    """What a run of 50 rows, one an update, leaves on disk."""
    with Store(folder).open_run(config, PROVENANCE) as writer:
        for updates in range(1, 51):
            writer.append(record(updates))
        writer.seal("done")


def test_trials_frames_and_seconds_add_up(tmp_path: Path) -> None:
    found = forecast(A2C_PLAN, Store(tmp_path), SPEED, workers=2)
    assert (found.trials, found.frames) == (6, 60_000)
    smaller, larger = 500 * 0.03 + 8, 250 * 0.05 + 16
    assert found.seconds == pytest.approx(3 * (smaller + larger), rel=1e-6)
    assert found.longest_seconds == pytest.approx(larger, rel=1e-6)
    assert wall_seconds([found], 2) == pytest.approx(found.seconds / 2)
    assert wall_seconds([found], 100) == pytest.approx(found.longest_seconds)


def test_extensions_of_grids_come_on_top_and_fixed_rates_have_none(tmp_path: Path) -> None:
    plan = dataclasses.replace(A2C_PLAN, best_seeds=(), learning_rates=LearningRates(count=3, max_extensions=2))
    found = forecast(plan, Store(tmp_path), SPEED, workers=2)
    assert found.trials == 6
    assert found.extension_seconds == pytest.approx(found.seconds * 2 / 3)
    assert wall_seconds([found], 2, extended=True) == pytest.approx(found.seconds * 5 / 6)
    fixed = dataclasses.replace(plan, learning_rates=LearningRates(fixed=(1e-3,), max_extensions=0))
    assert forecast(fixed, Store(tmp_path), SPEED, workers=2).extension_seconds == 0


def test_ppo_takes_its_time_per_rollout(tmp_path: Path) -> None:
    agent = PPOConfig(rollout_steps=10, minibatches=2, epochs=3)
    plan = dataclasses.replace(A2C_PLAN, base=dataclasses.replace(A2C_PLAN.base, agent=agent), best_seeds=())
    found = forecast(plan, Store(tmp_path), SPEED, workers=1)
    assert found.seconds == pytest.approx(2 * (250 * 0.05 + 8 + 125 * 0.09 + 16), rel=1e-6)


def test_what_is_done_is_not_counted_and_the_disk_is_what_it_takes(tmp_path: Path) -> None:
    plan = dataclasses.replace(
        A2C_PLAN,
        base=dataclasses.replace(
            A2C_PLAN.base,
            environment=AtariConfig(game="Pong", max_start_steps=0),
            frames=1_000,
            record_every_frames=20,
        ),
        num_envs=(4,),
        best_seeds=(),
    )
    before = forecast(plan, Store(tmp_path), SPEED, workers=1)
    first, second = plan.trials()
    _run(first, tmp_path)
    after = forecast(plan, Store(tmp_path), SPEED, workers=1)
    assert (before.trials, after.trials) == (2, 1)
    assert before.open_bytes == after.open_bytes > 2 * 4 * 680_000, "one trial at a time, its checkpoint twice"
    kept = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    said = before.kept_bytes - after.kept_bytes
    assert 0.5 < said / kept < 2, (said, kept)
    _run(second, tmp_path)
    assert forecast(plan, Store(tmp_path), SPEED, workers=1).seconds == 0


def test_nothing_left_takes_no_time() -> None:
    assert wall_seconds([Forecast.of([], workers=2)], 2) == 0
    assert np.isfinite(wall_seconds([], 2))


def test_costs_of_any_domain_add_up_and_the_largest_run_side_by_side() -> None:
    costs = [TrialCost(seconds, 10 * seconds, 3.0, 100 / seconds) for seconds in (1.0, 5.0, 2.0)]
    found = Forecast.of(costs, workers=2, note="by hand")
    assert (found.trials, found.seconds, found.longest_seconds) == (3, 8, 5)
    assert (found.memory_bytes, found.kept_bytes, found.open_bytes) == (70, 9, 150)
    assert (found.disk_bytes, found.note) == (159, "by hand")
    assert wall_seconds([found], 2) == 5
