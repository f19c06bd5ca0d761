import dataclasses
from pathlib import Path

import pytest

from rl_scaling.config import ConfigError, parse
from rl_scaling.domains.supervised.config import (
    AdaptiveExamplesConfig,
    Budget,
    OptimizerConfig,
    ScheduleConfig,
    SupervisedConfig,
    doubled,
)
from rl_scaling.store import list_runs

RESULTS = Path(__file__).parents[3] / "results"


def _config(**changes: object) -> SupervisedConfig:
    return dataclasses.replace(SupervisedConfig(optimizer=OptimizerConfig(learning_rate=0.1)), **changes)


def test_optimisers_are_tasks_and_coefficients_are_settings() -> None:
    config = _config(optimizer=OptimizerConfig(name="momentum", learning_rate=0.1, momentum=0.9, ema=0.99))
    assert config.task == "digits-mlp momentum+ema"
    assert config.setting == "momentum=0.9 ema=0.99"
    assert _config().task == "digits-mlp sgd"
    assert _config().setting == ""
    adam = OptimizerConfig(name="adam", learning_rate=1, second_moment=0.999)
    assert _config(optimizer=adam).task == "digits-mlp adam-without-momentum"
    unusual = OptimizerConfig(name="adam", learning_rate=1, momentum=0.9)
    assert _config(optimizer=unusual).task == "digits-mlp adam second_moment=0.99"


def test_one_and_1_0_are_one_question_and_another_seed_is_another() -> None:
    assert _config(updates=1e3).run_id == _config(updates=1000).run_id
    assert _config(seed=1).run_id != _config().run_id


def test_what_targets_are_about_is_part_of_the_task() -> None:
    config = _config(quantity="training_loss")
    assert config.task == "digits-mlp sgd quantity=training_loss"
    assert (config.identity.quantity, config.identity.measure.direction) == ("training_loss", "min")


@pytest.mark.parametrize(("store", "tasks"), [("digits-mlp", 6), ("digits-cnn", 5), ("digits-budgets", 12)])
def test_old_runs_are_still_the_same_question(store: str, tasks: int) -> None:
    """All runs that are shipped, of every optimiser, budget and with a batch that changes."""
    runs = list_runs(RESULTS / store)
    assert len({info.identity.task for info in runs}) == tasks
    assert any(info.config.get("adaptive") for info in runs) == (store == "digits-mlp")
    for info in runs:
        parts = {name: value for name, value in info.config.items() if name != "kind"}
        config = parse(SupervisedConfig, parts, "run's config")
        assert (config.run_id, repr(config.identity)) == (info.run_id, repr(info.identity))


def test_what_is_measured_is_asked_but_makes_no_task_of_its_own() -> None:
    configs = [
        _config(),
        _config(noise_every_updates=20),
        _config(noise_every_updates=0),
        _config(b_noise_every_rows=5),
    ]
    assert len({config.run_id for config in configs}) == 4
    assert {config.task for config in configs} == {"digits-mlp sgd"}
    assert _config(noise_every_updates=4).run_id == _config().run_id


def test_an_adaptive_batch_has_its_own_measuring() -> None:
    rule = AdaptiveExamplesConfig(exchange_rate=50)
    assert _config(adaptive=rule, noise_every_updates=0).run_id == _config(adaptive=rule).run_id


def test_budgets_cost_the_same_epochs_or_steps_and_double() -> None:
    assert [Budget(5, "epochs").updates(examples=1200, batch_size=size) for size in (16, 1000)] == [375, 6]
    assert [Budget(5, "steps").updates(examples=1200, batch_size=size) for size in (16, 1000)] == [5, 5]
    assert [budget.words for budget in doubled(Budget(2.5, "epochs"), 2)] == ["2.5 epochs", "5 epochs", "10 epochs"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: OptimizerConfig(name="lion", learning_rate=1), "no optimizer 'lion'"),
        (lambda: OptimizerConfig(name="momentum", learning_rate=1), "such as 0.9"),
        (lambda: OptimizerConfig(learning_rate=1, momentum=0.9), "sgd has no momentum"),
        (lambda: OptimizerConfig(learning_rate=float("nan")), "learning_rate is nan"),
        (lambda: ScheduleConfig(name="linear"), "needs 1 or more"),
        (lambda: _config(quantity="score"), "no targets of 'score'"),
        (lambda: _config(batch_size=0), "batch_size is 0"),
        (lambda: _config(budget="much"), "budget is 'much': give for instance '10 epochs'"),
        (lambda: _config(noise_every_updates=-1), "noise_every_updates is -1: give 0"),
        (lambda: _config(b_noise_every_rows=-1), "b_noise_every_rows is -1: give 0"),
        (lambda: Budget(0, "epochs"), "a budget of 0 epochs is none"),
        (lambda: Budget(1.5, "steps"), "whole for steps"),
    ],
)
def test_what_cannot_be_run_is_refused(make: object, says: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=says):
        make()


def test_fields_that_were_added_leave_the_ids_of_runs_as_they_were() -> None:
    # A run of results/digits-mlp.
    config = SupervisedConfig(optimizer=OptimizerConfig(learning_rate=0.0103, ema=0.95), batch_size=4, updates=6000)
    assert config.run_id == "0a0200aa267c"


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        ({"name": "triggered"}, "needs some"),
        ({"thresholds": (0.5,)}, "belong to the triggered"),
        ({"name": "triggered", "thresholds": (0.1, 0.5)}, "losses that fall"),
        ({"name": "triggered", "thresholds": (0.5,), "factor": 1.0}, "between 0 and 1"),
    ],
)
def test_triggers_that_make_no_sense_are_refused(schedule: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ScheduleConfig(**schedule)  # pyright: ignore[reportArgumentType]
