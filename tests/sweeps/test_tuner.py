"""Which runs a sweep makes follows from its plan and from what its trials have become, with nothing trained here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rl_scaling.config import ConfigError, RunDescription
from rl_scaling.domains.rl.config import AdaptiveBatchConfig
from rl_scaling.domains.supervised.config import AdaptiveExamplesConfig, Budget
from rl_scaling.records import LossRecord, Status, TrainingRecord
from rl_scaling.sweeps.plan import Search, SweepPlan
from rl_scaling.sweeps.tuner import Trial, Tuner
from tests.sweeps.plans import MLP, cartpole, digits, tiny

ADAPTIVE = AdaptiveBatchConfig(exchange_rate=200, min_envs=4, max_envs=8, group_envs=4)


def scored(updates: int, score: float) -> TrainingRecord:
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


def lost(updates: int, loss: float, **more: Any) -> LossRecord:
    values: dict[str, Any] = {"loss": loss, "validation_loss": loss, "training_loss": loss, **more}
    return LossRecord(updates=updates, examples=32 * updates, wall_seconds=0.0, **values)


def add(tuner: Tuner, found: Sequence[tuple[int, RunDescription]]) -> list[Trial]:
    made = []
    for place, config in found:
        made.append(Trial(config, place, config.length, tuner.plan.tasks[place].goals))
        tuner.trials[config.run_id] = made[-1]
    return made


def begun(plan: SweepPlan) -> tuple[Tuner, list[Trial]]:
    tuner = Tuner(plan, {})
    return tuner, add(tuner, list(tuner.first()))


def end(trial: Trial, status: Status = "done", updates: int = 50, loss: float = 0.1) -> None:
    trial.hear(lost(0, 2.3))
    trial.hear(lost(updates, loss))
    trial.status = status


def configs_of(tuner: Tuner) -> list[Any]:
    return [config for _, config in tuner.first()]


def test_trials_are_the_grid_each_once() -> None:
    configs = configs_of(Tuner(tiny("rl", cartpole(rates={"fixed": (), "count": 3}), seeds=(0, 1)), {}))
    assert len(configs) == len({c.run_id for c in configs}) == 2 * 2 * 3
    assert {(c.environment.num_envs, c.seed) for c in configs} == {(4, 0), (4, 1), (8, 0), (8, 1)}


def test_adaptive_batches_come_last_and_begin_small() -> None:
    plan = tiny("rl", cartpole(adaptive=(ADAPTIVE,)), seeds=(0, 1))
    configs = configs_of(Tuner(plan, {}))
    assert configs[:8] == configs_of(Tuner(tiny("rl", seeds=(0, 1)), {}))
    assert [(c.environment.num_envs, c.adaptive) for c in configs[8:]] == [(4, ADAPTIVE)] * 4
    assert [c.agent.learning_rate for c in configs[8:]] == 2 * [1e-3, 3e-3]


@pytest.mark.parametrize("goals", [{"goals": (1.9,)}, {"goals": (), "budget": Budget(30, "steps")}])
def test_a_rate_is_added_beyond_the_edge_that_is_best(goals: dict[str, Any]) -> None:
    rates = {"fixed": (), "count": 2, "spacing": 4.0, "max_extensions": 1}
    tuner, trials = begun(tiny("supervised", digits(batch_sizes=(32,), rates=rates, **goals)))
    low, high = sorted(trials, key=lambda trial: trial.identity.learning_rate)
    end(low, updates=20)
    assert tuner.more() == [], "not before the whole grid has ended"
    end(high, updates=10, loss=0.05)
    ((_, added),) = tuner.more()
    assert added.identity.learning_rate == float(f"{4 * high.identity.learning_rate:.3g}")
    assert (added.task, added.identity.batch_size, added.length) == (high.identity.task, 32, high.length)
    (further,) = add(tuner, tuner.more())
    end(further, updates=5, loss=0.01)
    assert tuner.more() == [], "one extension is enough"
    assert any("is the highest tried: try higher ones" in remark for remark in tuner.remarks())


def test_a_run_whose_batch_changes_tries_no_rate_of_the_grid() -> None:
    rates = {"fixed": (), "count": 2, "spacing": 4.0, "max_extensions": 1}
    adaptive = AdaptiveExamplesConfig(exchange_rate=30.0, min_batch_size=32, max_batch_size=128)
    task = digits(batch_sizes=(32,), rates=rates)
    tuner, trials = begun(tiny("supervised", task))
    for number, trial in enumerate(trials):
        end(trial, updates=20 - number)
    before, said = tuner.more(), tuner.remarks()
    assert before
    config: Any = trials[0].config
    optimizer = dataclasses.replace(config.optimizer, learning_rate=100.0)
    (far,) = add(tuner, [(0, dataclasses.replace(config, optimizer=optimizer, adaptive=adaptive))])
    assert far.identity.task == trials[0].identity.task
    end(far, updates=1)
    assert (tuner.more(), tuner.remarks()) == (before, said)


def test_grown_grids_come_first_then_further_seeds_at_the_rate_that_leads() -> None:
    tuner, (slow, fast) = begun(tiny("supervised", digits(batch_sizes=(32,)), best_seeds=(5,)))
    end(slow, updates=40)
    end(fast, updates=10)
    (further,) = add(tuner, tuner.more())
    assert (further.identity.learning_rate, further.identity.seed) == (fast.identity.learning_rate, 5)
    end(further, updates=1000, loss=2.2)
    ((_, other),) = tuner.more()
    assert other.identity.learning_rate == slow.identity.learning_rate, "the leader fell behind with its further seed"


def test_without_a_goal_reached_the_rate_that_came_nearest_has_further_seeds() -> None:
    tuner, (near, far) = begun(tiny("supervised", digits(batch_sizes=(32,), goals=(1e-9,)), best_seeds=(5,)))
    end(near, loss=0.1)
    end(far, loss=0.2)
    assert [config.identity.learning_rate for _, config in tuner.more()] == [near.identity.learning_rate]


def test_a_further_seed_runs_on_though_a_rival_was_faster_with_one() -> None:
    task = cartpole(batch_sizes=(20,), goals=(20.0, 25.0))
    tuner, (first, rival) = begun(tiny("rl", task, best_seeds=(1,)))
    (further,) = add(tuner, [(0, task.config(20, first.identity.learning_rate, 1))])
    for trial, slow in ((first, 2), (rival, 1), (further, 60)):
        for row in range(1, 40):
            trial.hear(scored(slow * row, row if trial is not further else 1.0))
        trial.status = "done" if trial is not further else "running"
    assert tuner.can_win(further), "the rival may fall behind with a further seed of its own"
    for row in range(1, 40):
        further.hear(scored(60 * (40 + row), 40.0))
    assert not tuner.can_win(further), "all its goals are reached"


def test_rows_said_again_take_the_place_of_the_first() -> None:
    def heard(rows: list[tuple[int, float]]) -> Trial:
        task = cartpole(goals=(5.0, 50.0))
        trial = Trial(task.base, 0, 1_000, task.goals)
        for row in rows:
            trial.hear(scored(*row))
        return trial

    early = [(1, 1.0), (2, 2.0), (3, 3.0)]
    dropped, again = [(4, 90.0), (5, 99.0)], [(4, 4.0), (5, 6.0), (6, 12.0)]
    resumed, straight = heard(early + dropped + again), heard(early + again)
    assert 50.0 not in resumed.tracker.reached, "a goal reached in rows that were dropped was not reached"
    assert resumed.progress == straight.progress
    assert resumed.tracker.smoothed == straight.tracker.smoothed
    assert resumed.units == 60
    assert heard(early + early).units == heard(early).units == 30


@pytest.mark.parametrize(
    ("status", "loss", "short"),
    [
        ("stopped", 2.0, True),
        ("stopped", 0.1, False),
        ("done", 2.0, True),
        ("diverged", 2.0, False),
        (None, 2.0, False),
    ],
)
def test_what_was_ended_before_its_end_with_a_goal_open_has_ended_short(
    status: Status | None, loss: float, short: bool
) -> None:
    task = digits()
    trial = Trial(task.config(32, 0.1, 0), 0, 60 * 32, (1.9,))
    end(trial, updates=30, loss=loss)
    trial.status = status
    assert trial.ended_short == short
    whole = Trial(task.config(32, 0.1, 0), 0, 60 * 32, (1.9,))
    end(whole, updates=60, loss=2.0)
    assert not whole.ended_short
    assert whole.units_left == 0


# --- searches -----------------------------------------------------------------------------------------------------


def searched(**options: Any) -> SweepPlan:
    rates = {"fixed": ()}
    momentum = dataclasses.replace(
        digits(batch_sizes=(64,), goals=(0.5,)),
        base=MLP.base("momentum"),
        learning_rates=MLP.learning_rates("momentum", **rates),
    )
    return tiny("supervised", momentum, seeds=(0, 1), search=Search(**options))


def test_what_diverges_is_replaced_by_further_points() -> None:
    tuner, trials = begun(searched(trials=4))
    assert len(trials) == 4 * 2
    for number, trial in enumerate(trials):
        end(trial, "diverged" if number in (2, 3, 5) else "done")  # points 1 and 2
    more = add(tuner, tuner.more())
    assert len(more) == 2 * 2
    for trial in more:
        end(trial)
    assert tuner.more() == []


def test_it_ends_where_nearly_everything_diverges() -> None:
    tuner, trials = begun(searched(trials=2))
    drawn = 0
    while trials:
        for trial in trials:
            end(trial, "diverged")
        drawn += len(trials) // 2
        trials = add(tuner, tuner.more())
    assert drawn == 3 * 2


def test_the_bound_that_the_best_is_near_is_named() -> None:
    tuner, trials = begun(searched(trials=16, decay=True))
    best = max(trials, key=lambda trial: trial.identity.learning_rate)
    for trial in trials:
        end(trial, updates=5 if trial.setting == best.setting else 50)
    (rate, *_) = tuner.remarks()
    assert rate.startswith("digits-mlp momentum schedule=linear, batch 64: learning_rate")
    assert "upper bound" in rate


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: begun(tiny("supervised", digits(budget=Budget(1, "epochs")), search=Search())),
            "a search is for targets",
        )
    ],
)
def test_what_cannot_be_searched_is_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make()


def test_without_goals_the_best_of_each_quantity_at_the_end_leads() -> None:
    task = digits(batch_sizes=(32,), goals=(), budget=Budget(30, "steps"))
    tuner, (first, second) = begun(tiny("supervised", task, best_seeds=(9,)))
    for trial, training, validation in ((first, 0.1, 0.9), (second, 0.2, 0.3)):
        trial.hear(lost(30, training, validation_loss=validation, validation_accuracy=math.nan))
        trial.status = "done"
    rates = sorted(config.identity.learning_rate for _, config in tuner.more())
    assert rates == sorted([first.identity.learning_rate, second.identity.learning_rate])
