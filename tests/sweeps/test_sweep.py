"""Carrying out plans: side by side, beside other processes, and what is said of what there is.

What every domain has alike is in `test_every_domain`.
"""

from __future__ import annotations

import dataclasses
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from rl_scaling import SweepPlan, sweep
from rl_scaling.analysis import fit_runs
from rl_scaling.cli import main
from rl_scaling.config import ConfigError
from rl_scaling.domains.rl.config import AdaptiveBatchConfig
from rl_scaling.store import Store, load_runs
from rl_scaling.sweeps.executors import make_executor
from rl_scaling.sweeps.executors.serial import SerialExecutor
from rl_scaling.sweeps.sweep import Sweep, run_sweeps
from tests.sweeps.plans import AGENT, cartpole, digits, model, tiny


def run(plan: SweepPlan, folder: Path, **options: Any) -> Sweep:
    return sweep(plan, folder, "serial", **options)


def started(plan: SweepPlan, folder: Path, **options: Any) -> Sweep:
    begun = Sweep(plan, Store(folder), **options)
    begun.begin()
    return begun


def test_sweeps_share_their_slots_and_a_store_is_not_mixed_up(tmp_path: Path) -> None:
    one = tiny("supervised", digits(updates=2_000, batch_sizes=(32,), rates={"fixed": (0.1,)}))
    sweeps = [started(one, tmp_path / "one"), started(tiny("nqm"), tmp_path / "four")]
    at_once: list[tuple[int, ...]] = []
    run_sweeps(
        sweeps,
        make_executor("processes", 2),
        on_change=lambda both: at_once.append(tuple(len(sweep.running) for sweep in both)),
    )
    assert max(map(sum, at_once)) == 2
    assert (1, 1) in at_once, "a worker that the first sweep leaves idle goes to the second"
    for name, trials in (("one", 1), ("four", 4)):
        runs = load_runs(tmp_path / name)
        assert runs["run_id"].nunique() == trials
        assert set(runs["status"]) == {"done"}


def test_runs_that_could_train_together_are_divided_where_slots_would_be_idle(tmp_path: Path) -> None:
    task = cartpole(rates={"fixed": (1e-3, 2e-3, 3e-3)})
    begun = started(tiny("rl", task), tmp_path)
    jobs = [begun.next_job(idle=4), begun.next_job(idle=3), begun.next_job(idle=2), begun.next_job(idle=1)]
    assert [len(job.configs) for job in jobs if job] == [2, 1, 2, 1], "two batch sizes, two slots each"
    assert begun.next_job() is None
    whole = started(tiny("rl", task), tmp_path / "whole")
    assert [len(job.configs) for job in (whole.next_job(idle=2), whole.next_job()) if job] == [3, 3]


def test_sweeps_that_share_slots_stop_together(tmp_path: Path) -> None:
    sweeps = [started(tiny("supervised", digits(updates=10**6)), tmp_path / name) for name in "ab"]
    run_sweeps(sweeps, SerialExecutor(), asked_to_stop=lambda: bool(list(tmp_path.rglob("records.jsonl"))))
    assert [one.stopped_by for one in sweeps] == ["request", "request"]
    assert not sweeps[0].running
    assert not list((tmp_path / "b").rglob("config.json"))


def test_the_deadline_is_heard_between_records(tmp_path: Path) -> None:
    swept = run(tiny("supervised", digits(updates=10**6)), tmp_path, deadline_seconds=0.5)
    assert swept.stopped_by == "deadline"
    assert swept.to_do == 4


def test_adaptive_batches_are_run_too_and_extend_or_stop_nothing(tmp_path: Path) -> None:
    adaptive = AdaptiveBatchConfig(exchange_rate=1e4, min_envs=4, max_envs=8, group_envs=4, change_every_updates=10)
    task = cartpole(1_000, rates={"fixed": (), "count": 1}, goals=(15.0,), adaptive=(adaptive,))
    swept = run(tiny("rl", task), tmp_path, stop_early=True)
    followed = [t for t in swept.trials.values() if t.identity.adaptive]
    assert [t.status for t in followed] == ["done"]
    assert followed[0].label.startswith("adaptive r=10000 ")
    runs = load_runs(tmp_path)
    assert 40.0 in set(runs.loc[runs["setting"] != "", "current_batch_size"])
    assert list(swept.trials) == [config.run_id for _, config in swept.tuner.first()]
    fits = fit_runs(runs, [15.0])
    assert set(fits.fronts["setting"]) <= {""}
    assert set(fits.adaptive["setting"]) == {adaptive.setting}


def test_an_unfinished_second_extension_is_taken_up_again(tmp_path: Path) -> None:
    # So low a grid that each higher rate is better: it is extended as far as it may be.
    rates = {"fixed": (1e-4, 1e-3), "spacing": 3, "max_extensions": 2}
    plan = tiny("supervised", digits(batch_sizes=(32,), rates=rates))
    first = run(plan, tmp_path)
    added = [t for t in first.trials.values() if t.identity.learning_rate not in rates["fixed"]]
    assert len(added) == 2
    shutil.rmtree(tmp_path / added[-1].config.run_id)
    again = run(plan, tmp_path)
    assert {t.config.run_id: t.status for t in again.trials.values()} == dict.fromkeys(first.trials, "done")


def test_a_rate_that_learns_nothing_has_the_first_seed_alone(tmp_path: Path) -> None:
    task = digits(rates={"fixed": (1e-5, 0.1, 0.3)})
    run(tiny("supervised", task, best_seeds=(1, 2)), tmp_path)
    runs = load_runs(tmp_path)
    assert set(runs.loc[runs["learning_rate"] == 1e-5, "seed"]) == {0}
    assert set(runs["seed"]) == {0, 1, 2}


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_a_trial_that_another_process_runs_is_waited_for(executor: str, tmp_path: Path) -> None:
    plan = tiny("nqm")
    held = model().config(8, 0.1, 0)
    first = next(iter(started(plan, tmp_path).trials.values())).config
    assert first.identity.batch_size == held.batch_size
    writer = Store(tmp_path).open_run(first, {})
    threading.Timer(3.0, writer.close).start()
    swept = sweep(plan, tmp_path, executor, slots=2)
    assert [t.status for t in swept.trials.values()] == ["done"] * 4


def test_two_sweeps_of_one_store_wait_for_each_other(tmp_path: Path) -> None:
    """Both have listed their trials before either begins; neither fails, and no trial is run twice."""
    plan = tiny("supervised", digits(updates=300))
    sweeps = [started(plan, tmp_path) for _ in range(2)]
    rows: list[tuple[int, str, int]] = []
    threads = [
        threading.Thread(
            target=run_sweeps,
            args=([one], make_executor("processes", 1)),
            kwargs={"on_event": lambda _, run_id, event, n=n: rows.append((n, run_id, getattr(event, "updates", -1)))},
        )
        for n, one in enumerate(sweeps)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in sweeps:
        assert {t.status for t in one.trials.values()} == {"done"}
        assert {t.failure for t in one.trials.values()} == {""}
        assert {t.units for t in one.trials.values()} == {300 * 32, 300 * 128}, "what the other ran is known too"
    trained = [(run_id, updates) for _, run_id, updates in rows if updates >= 0]
    assert len(trained) == len(set(trained))
    assert not list(tmp_path.glob("*.replaced*"))


def test_divergence_is_a_result(tmp_path: Path) -> None:
    base = dataclasses.replace(cartpole().base, agent=dataclasses.replace(AGENT, max_grad_norm=1e38))
    task = cartpole(base=base, batch_sizes=(20,), rates={"fixed": (1e38,)})
    (trial,) = run(tiny("rl", task), tmp_path).trials.values()
    assert trial.status == "diverged"
    assert not trial.failure


def test_one_failing_trial_does_not_end_the_others(tmp_path: Path) -> None:
    plan = tiny("rl", cartpole(batch_sizes=(20,)))
    blocked = cartpole().config(20, 1e-3, 0).run_id
    tmp_path.joinpath(blocked).write_text("a file where the run's folder should be")
    swept = run(plan, tmp_path)
    assert swept.trials[blocked].failure
    assert "\n" not in swept.trials[blocked].failure
    assert [t.status for t in swept.trials.values() if not t.failure] == ["done"]


def test_a_folder_of_another_problem_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    run(tiny("nqm"), tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match=r"holds runs of NQM: give another folder \(--out\)"):
        run(tiny("supervised"), tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_goals_of_an_earlier_sweep_do_not_keep_runs_from_stopping_at_todays(tmp_path: Path) -> None:
    run(tiny("supervised", digits(goals=(1.0,)), stop_at_goals=True), tmp_path)
    swept = run(tiny("supervised", digits(goals=(2.2,)), seeds=(5,), stop_at_goals=True), tmp_path)
    assert all(t.status == "stopped" and t.units < t.length for t in swept.trials.values())


def test_a_search_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", "supervised", "--optimizers", "momentum", "--batch-sizes", "128", "--seeds", "0"]
    command += ["--search", "sobol", "--trials", "4", "--decay", "--updates", "20", "--epochs", "1", "--targets", "2.2"]
    command += ["--executor", "serial", "--out", str(tmp_path)]
    assert main(command) == 0
    runs = load_runs(tmp_path)
    assert set(runs["task"]) == {"digits-mlp momentum schedule=linear"}
    sound = runs[runs["status"] != "diverged"]
    assert sound["setting"].nunique() == 4
    capsys.readouterr()
    assert main(command) == 0
    assert "0 to do" in capsys.readouterr().err
    assert main(["fit", str(tmp_path)]) == 0
    assert "2.2" in capsys.readouterr().out, "the goals that the sweep kept are those of its runs"
