"""Sweeps run for real, in worker processes, on CartPole."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rl_scaling.agents.config import A2CConfig
from rl_scaling.analysis import GoalTracker, fit_runs
from rl_scaling.domains.rl.config import AdaptiveBatchConfig, NoiseScaleConfig, RunConfig
from rl_scaling.envs.config import GymnasiumConfig
from rl_scaling.records import TrainingRecord
from rl_scaling.store import Store, load_runs
from rl_scaling.sweeps.plan import LearningRates, SweepPlan
from rl_scaling.sweeps.sweep import Sweep, Trial, run_side_by_side
from rl_scaling.sweeps.workers import Worker

AGENT = A2CConfig(network="mlp", rmsprop_epsilon_inside_root=False)


def cartpole(frames: int = 2_000, **changes: Any) -> SweepPlan:
    base = RunConfig(
        environment=GymnasiumConfig(env_id="CartPole-v1"),
        agent=AGENT,
        noise_scale=NoiseScaleConfig(every_updates=5, groups=4),
        frames=frames,
        record_every_frames=500,
    )
    rates = LearningRates(fixed=(1e-3, 3e-3), max_extensions=0)
    return SweepPlan(**{"base": base, "num_envs": (4, 8), "learning_rates": rates, "goals": (20.0,), **changes})


def record(updates: int, score: float) -> TrainingRecord:
    return TrainingRecord(
        updates=updates,
        frames=10 * updates,
        wall_seconds=1.0,
        frames_per_second=1.0,
        episodes=30,
        score=score,
        episode_frames=1.0,
        policy_loss=0.0,
        value_loss=0.0,
        entropy=0.0,
        grad_norm=0.0,
        current_learning_rate=1e-3,
    )


def run(plan: SweepPlan, folder: Path, **options: Any) -> Sweep:
    sweep = Sweep(plan, Store(folder), workers=2, **options)
    sweep.run(lambda sweep: None)
    return sweep


def test_every_trial_is_run_once_and_not_again(tmp_path: Path) -> None:
    plan = cartpole()
    assert all(t.status == "done" for t in run(plan, tmp_path).trials.values())
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/records.parquet")}
    assert len(stamps) == 4
    again = Sweep(plan, Store(tmp_path), workers=2)
    again.run(lambda sweep: pytest.fail("something was run") if sweep.running else None)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/records.parquet")} == stamps
    runs = load_runs(tmp_path)
    assert runs.groupby("run_id")["examples"].max().ge(2_000).all()
    assert set(runs["batch_size"]) == {20, 40}


def test_sweeps_share_their_workers(tmp_path: Path) -> None:
    workers = [Worker(), Worker()]
    one_trial = cartpole(500, num_envs=(4,), learning_rates=LearningRates(fixed=(1e-3,), max_extensions=0))
    sweeps = [
        Sweep(one_trial, Store(tmp_path / "one"), workers=workers),
        Sweep(cartpole(600), Store(tmp_path / "four"), workers=workers),
    ]
    at_once: list[tuple[int, int]] = []
    run_side_by_side(sweeps, lambda both: at_once.append((len(both[0].running), len(both[1].running))))
    assert max(map(sum, at_once)) == 2
    assert (1, 1) in at_once, "a worker that the first sweep leaves idle goes to the second"
    for name, trials, frames in (("one", 1, 500), ("four", 4, 600)):
        runs = load_runs(tmp_path / name)
        assert (runs["run_id"].nunique(), set(runs["config.frames"])) == (trials, {frames})
        assert set(runs["status"]) == {"done"}


def test_sweeps_that_share_workers_stop_together(tmp_path: Path) -> None:
    workers = [Worker(), Worker()]
    sweeps = [Sweep(cartpole(10**6), Store(tmp_path / name), workers=workers) for name in "ab"]
    run_side_by_side(sweeps, lambda both: None, asked_to_stop=lambda: bool(list(tmp_path.rglob("records.jsonl"))))
    assert [sweep.stopped_by for sweep in sweeps] == ["request", "request"]
    assert not sweeps[0].running
    assert not list((tmp_path / "b").rglob("config.json"))


def test_adaptive_batches_are_run_too_and_extend_or_stop_nothing(tmp_path: Path) -> None:
    adaptive = AdaptiveBatchConfig(exchange_rate=1e4, min_envs=4, max_envs=8, group_envs=4, change_every_updates=10)
    rates = LearningRates(count=1, max_extensions=0)
    plan = cartpole(frames=1_000, learning_rates=rates, goals=(15.0,), adaptive=(adaptive,))
    sweep = run(plan, tmp_path, stop_early=True)
    followed = [t for t in sweep.trials.values() if t.config.adaptive]
    assert [t.status for t in followed] == ["done"]
    assert followed[0].label.startswith("adaptive r=10000 ")
    runs = load_runs(tmp_path)
    assert 40.0 in set(runs.loc[runs["setting"] != "", "current_batch_size"])
    assert list(sweep.trials) == [trial.run_id for trial in plan.trials()]
    fits = fit_runs(runs, [15.0])
    assert set(fits.fronts["setting"]) <= {""}
    assert set(fits.adaptive["setting"]) == {adaptive.setting}


def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    plan = cartpole(frames=6_000)
    first = Sweep(plan, Store(tmp_path), workers=2)
    first.run(lambda s: s.interrupt() if any(t.frames for t in s.running) else None)
    assert first.interrupted
    statuses = [t.status for t in first.trials.values()]
    assert "interrupted" in statuses
    assert None in statuses, "trials that had not begun must not begin"
    kept = {run_id: [row.updates for row in Store(tmp_path).read_rows(run_id)] for run_id in first.trials}
    second = run(plan, tmp_path)
    assert all(t.status == "done" for t in second.trials.values())
    for run_id, updates in kept.items():
        assert [row.updates for row in Store(tmp_path).read_rows(run_id)][: len(updates)] == updates


def test_edge_of_the_grid_is_extended(tmp_path: Path) -> None:
    # Rates so small that nothing is learned, then larger: the best lies at the upper edge.
    rates = LearningRates(fixed=(1e-6, 1e-3), spacing=3, max_extensions=1)
    sweep = run(cartpole(frames=4_000, num_envs=(4,), learning_rates=rates, goals=(25.0,)), tmp_path)
    tried = sorted(t.config.agent.learning_rate for t in sweep.trials.values())
    assert len(tried) == 3
    best = max(sweep.trials.values(), key=lambda t: t.goals.smoothed).config.agent.learning_rate
    assert 3e-3 in tried or best < 1e-3


def test_an_unfinished_second_extension_is_taken_up_again(tmp_path: Path) -> None:
    # So low a grid that each higher rate is better: it is extended as far as it may be.
    rates = LearningRates(fixed=(1e-6, 3e-4), spacing=3, max_extensions=2)
    plan = cartpole(frames=4_000, num_envs=(4,), learning_rates=rates, goals=(22.0,))
    first = run(plan, tmp_path)
    added = [t for t in first.trials.values() if t.config.agent.learning_rate not in rates.fixed]
    assert len(added) >= 2
    shutil.rmtree(tmp_path / added[-1].config.run_id)
    again = run(plan, tmp_path)
    assert {t.config.run_id: t.status for t in again.trials.values()} == dict.fromkeys(first.trials, "done")


def seeds_of(sweep: Sweep) -> dict[tuple[int, float], set[int]]:
    seeds: dict[tuple[int, float], set[int]] = {}
    for trial in sweep.trials.values():
        seeds.setdefault((trial.config.batch_size, trial.config.learning_rate), set()).add(trial.config.seed)
    return seeds


def test_further_seeds_are_added_to_a_finished_sweep_at_the_best_rates_alone(tmp_path: Path) -> None:
    plan = cartpole(frames=4_000, learning_rates=LearningRates(fixed=(1e-6, 1e-5, 3e-3)), goals=(25.0,))
    first = run(plan, tmp_path)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/records.parquet")}
    wider = dataclasses.replace(plan, best_seeds=(1, 2))
    sweep = run(wider, tmp_path)
    assert all(t.status == "done" for t in sweep.trials.values())
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    by_rate = seeds_of(sweep)
    fronts = fit_runs(load_runs(tmp_path), plan.goals).fronts
    assert set(fronts["batch_size"]) == {20, 40}
    assert (fronts["seeds"] == 3).all(), "every rate on the front has all the seeds"
    assert all(by_rate[batch, 1e-6] == {0} for batch in (20, 40)), "a rate that learns nothing has the first seed alone"
    assert len(sweep.trials) < 3 * len(first.trials)
    again = Sweep(wider, Store(tmp_path), workers=2)
    again.run(lambda sweep: pytest.fail("something was run") if sweep.running else None)
    assert again.trials.keys() == sweep.trials.keys()


def test_without_a_goal_reached_the_rate_that_came_nearest_has_further_seeds(tmp_path: Path) -> None:
    sweep = run(cartpole(goals=(1e6,), num_envs=(4,), best_seeds=(5,)), tmp_path)
    best = max((t for t in sweep.trials.values() if t.config.seed == 0), key=lambda t: t.goals.smoothed)
    assert {rate: seeds for (_, rate), seeds in seeds_of(sweep).items()} == {
        rate: {0, 5} if rate == best.config.learning_rate else {0} for rate in (1e-3, 3e-3)
    }


def test_a_further_seed_runs_on_though_a_rival_was_faster_with_one(tmp_path: Path) -> None:
    plan = cartpole(num_envs=(4,), goals=(20.0, 25.0), best_seeds=(1,))
    sweep = Sweep(plan, Store(tmp_path), workers=1, stop_early=True)
    first, rival = sweep.trials.values()
    further = Trial(plan.trial(4, first.config.learning_rate, 1), GoalTracker(plan.goals))
    sweep.trials[further.config.run_id] = further
    for trial, slow in ((first, 2), (rival, 1), (further, 60)):
        for row in range(1, 40):
            trial.hear(record(slow * row, row if trial is not further else 1.0))
        trial.status = "done" if trial is not further else "running"
    assert sweep._can_win(further), "the rival may fall behind with a further seed of its own"
    for row in range(1, 40):
        further.hear(record(60 * (40 + row), 40.0))
    assert not sweep._can_win(further), "all its goals are reached"


def test_a_trial_that_another_process_runs_is_waited_for(tmp_path: Path) -> None:
    plan = cartpole(num_envs=(4,))
    held = plan.trials()[0]
    writer = Store(tmp_path).open_run(held, {})
    threading.Timer(3.0, writer.close).start()
    sweep = run(plan, tmp_path)
    assert [t.status for t in sweep.trials.values()] == ["done", "done"]


def test_rows_said_again_take_the_place_of_the_first() -> None:
    def heard(rows: list[tuple[int, float]]) -> Trial:
        trial = Trial(cartpole().base, GoalTracker((5.0, 50.0)))
        for row in rows:
            trial.hear(record(*row))
        return trial

    early = [(1, 1.0), (2, 2.0), (3, 3.0)]
    lost, again = [(4, 90.0), (5, 99.0)], [(4, 4.0), (5, 6.0), (6, 12.0)]
    resumed, straight = heard(early + lost + again), heard(early + again)
    assert 50.0 not in resumed.goals.reached, "a goal reached in rows that were dropped was not reached"
    assert resumed.progress == straight.progress
    assert resumed.goals.smoothed == straight.goals.smoothed
    assert resumed.frames == 60


def test_trials_that_cannot_win_are_stopped_and_the_front_stays(tmp_path: Path) -> None:
    plan = cartpole(frames=8_000, num_envs=(4,), goals=(20.0, 25.0))
    everything, early = run(plan, tmp_path / "all"), run(plan, tmp_path / "early", stop_early=True)
    assert all(t.status == "done" for t in everything.trials.values())
    assert any(t.status == "stopped" for t in early.trials.values())
    assert early.frames_saved > 0
    fronts = [fit_runs(load_runs(tmp_path / name), plan.goals).fronts for name in ("all", "early")]
    columns = ["goal", "batch_size", "learning_rate", "updates", "examples"]
    assert len(fronts[0])
    assert fronts[0][columns].equals(fronts[1][columns])


def test_divergence_is_a_result(tmp_path: Path) -> None:
    plan = cartpole(num_envs=(4,), learning_rates=LearningRates(fixed=(1e38,), max_extensions=0))
    plan = dataclasses.replace(
        plan, base=dataclasses.replace(plan.base, agent=dataclasses.replace(AGENT, max_grad_norm=1e38))
    )
    (trial,) = run(plan, tmp_path).trials.values()
    assert trial.status == "diverged"
    assert not trial.failure


def test_one_failing_trial_does_not_end_the_others(tmp_path: Path) -> None:
    plan = cartpole(num_envs=(4,))
    blocked = plan.trials()[0].run_id
    tmp_path.joinpath(blocked).write_text("a file where the run's folder should be")
    sweep = run(plan, tmp_path)
    assert sweep.trials[blocked].failure
    assert "\n" not in sweep.trials[blocked].failure
    assert [t.status for t in sweep.trials.values() if not t.failure] == ["done"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl-C"])
def test_a_killed_sweep_finishes_when_called_again(tmp_path: Path, number: signal.Signals) -> None:
    command = [
        sys.executable, "-c",
        "import sys; from pathlib import Path; from tests.sweeps.test_sweep import *;"
        "from rl_scaling.cli.sweep import run_sweeps;"
        "run_sweeps([(cartpole(frames=20_000, num_envs=(4,)), Store(Path(sys.argv[1])))], workers=2)",
        str(tmp_path),
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while sum(1 for p in tmp_path.glob("*/records.jsonl") if p.stat().st_size) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, number)
    process.wait(timeout=60)
    rows_before = len(load_runs(tmp_path))
    assert rows_before >= 2
    plan = cartpole(frames=20_000, num_envs=(4,))
    deadline = time.monotonic() + 30
    while any(Store(tmp_path).status(t.run_id) == "running" for t in plan.trials()) and time.monotonic() < deadline:
        time.sleep(0.1)  # orphaned workers end at their next record
    sweep = run(plan, tmp_path)
    assert [t.status for t in sweep.trials.values()] == ["done", "done"]
    runs = load_runs(tmp_path)
    assert runs["run_id"].nunique() == 2
    assert all(rows["updates"].is_monotonic_increasing for _, rows in runs.groupby("run_id"))
