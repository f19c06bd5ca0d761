"""Problems by name, each with a place to look for every optimiser's rate; what is not there is named."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn

from rl_scaling.config import ConfigError, parse, to_dict
from rl_scaling.domains.base import Control, Ended, Hardware
from rl_scaling.domains.supervised.config import AdaptiveExamplesConfig, Budget, ScheduleConfig, SupervisedConfig
from rl_scaling.domains.supervised.data import Dataset, load_dataset
from rl_scaling.domains.supervised.domain import Supervised
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.problems import (
    PROBLEMS,
    SEARCHED,
    OptimizerName,
    Problem,
    SupervisedTask,
    find_problem,
    optimizer_of,
    rate_power,
)
from rl_scaling.records import LossRecord
from rl_scaling.store import list_runs
from rl_scaling.sweeps.search import Dimension, sobol_points
from tests.domains.supervised.few import run_together


@pytest.mark.parametrize("name", get_args(OptimizerName))
def test_every_optimiser_with_or_without_an_average_learns_at_its_centre_after_a_warm_up(name: OptimizerName) -> None:
    optimizer = optimizer_of(name, find_problem("digits-mlp").rate_of(name))
    assert optimizer.label == name
    assert rate_power(name) == (0.5 if name.startswith(("adam", "rmsprop")) else 1.0)
    config = SupervisedConfig(optimizer=optimizer, schedule=ScheduleConfig(warmup_updates=5), updates=60)
    rows = [row for _, row in run_together([config], load_dataset("digits")) if isinstance(row, LossRecord)]
    rates = [row.current_learning_rate / optimizer.learning_rate for row in rows[1:7]]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])
    assert rows[-1].validation_loss < 0.6 * rows[0].validation_loss


def test_the_ids_of_shipped_runs_follow_from_the_names() -> None:
    config = SupervisedConfig(optimizer=optimizer_of("sgd+ema", 0.0103), batch_size=4, updates=6000)
    assert config.run_id == "0a0200aa267c"


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_task_can_be_made(name: str) -> None:
    task = find_problem(name)
    data = load_dataset(task.dataset)
    make_model(task.model, data.image_shape, data.num_classes, seed=0)
    for optimizer in task.rates:
        assert optimizer_of(optimizer, task.rate_of(optimizer)).learning_rate > 0


def linear(image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))


def few_digits(device: torch.device) -> Dataset:
    digits = load_dataset("digits", device=device)
    return dataclasses.replace(digits, name="few-digits", validation=digits.test)


def test_a_problem_with_a_model_and_data_of_its_own_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = f"{__name__}:linear", f"{__name__}:few_digits"
    problem = Problem("few-digits", "linear", {"sgd": 0.5}, model_source=model, dataset_source=data)
    monkeypatch.setitem(PROBLEMS, "few-linear", problem)
    config = find_problem("few-linear").base("sgd", updates=3)
    domain, hardware = Supervised(), Hardware(device="cpu")
    domain.refuse([config], hardware, 1)
    *_, last, ended = (event for _, event in domain.run([config], [None], Control(), hardware))
    assert ended == Ended()
    assert isinstance(last, LossRecord)
    assert (config.task, last.updates) == ("few-digits-linear sgd", 3)
    assert len(domain.data(config).validation) == 300


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="no task 'digits-lstm': digits-mlp, digits-cnn"):
        find_problem("digits-lstm")
    with pytest.raises(ConfigError, match="digits-mlp has no learning rate for adam: leave it at sgd"):
        Problem("digits", "mlp", {"sgd": 0.1}).rate_of("adam")


RESULTS = Path(__file__).parents[3] / "results"
MLP = find_problem("digits-mlp")


def plan_of(optimizer: OptimizerName = "sgd", **changes: Any) -> SupervisedTask:
    options = {"batch_sizes": (32,), "examples": 1200, "epochs": 2, "updates": 50, **changes}
    return SupervisedTask(base=MLP.base(optimizer), learning_rates=MLP.learning_rates(optimizer, count=3), **options)


def ids_of(plan: SupervisedTask) -> list[str]:
    rates = plan.learning_rates.grid(32)
    return [plan.config(32, rate, seed).run_id for rate in rates for seed in (0, 1)]


@pytest.mark.parametrize(
    ("optimizer", "budget", "ids"),
    [
        ("adam+ema", None, "ebf7f0753465 0be83ea2fa6b efe4925d8650 45b4307d3883 2fc55619a2bd 970bd2720182"),
        ("nesterov", None, "faa6b1afe85b 41c220339581 040af4118c7b d7ffbc7282ef 922c9a08857c 66789b7738d2"),
        ("adam+ema", 2.5, "9dba6113083f c6a9831885a0 0faa7b8444bd 612107b36395 06ba8ffe3906 5ea1f856b464"),
        ("nesterov", 2.5, "1d077c24e1ab b7ef9b925033 bbe21b1d587d c964adb72639 ae19847fefde 43efda4b29df"),
    ],
)
def test_runs_of_a_grid_keep_their_ids(optimizer: OptimizerName, budget: float | None, ids: str) -> None:
    assert ids_of(plan_of(optimizer, budget=Budget(budget, "epochs") if budget else None)) == ids.split()


@pytest.mark.parametrize(
    ("optimizer", "ids"),
    [
        ("adam+ema", "03961c5e2aae 3bda33f349cd 3357ccfa522e c5b8cd533b14 7137266e514a c660476d8815"),
        ("nesterov", "c09958077b72 1fce1ebc5c25 938cbf4fefd6 fc80340a04bb 3af27726f5e2 c84a08b7033b"),
    ],
)
def test_points_of_a_search_keep_their_ids(optimizer: OptimizerName, ids: str) -> None:
    plan = plan_of(optimizer)
    points = sobol_points([Dimension(*bounds) for bounds in plan.search_space(32, 64.0, True)], 0, 3)
    configs = [plan.config(32, seed=seed, **point) for point in points for seed in (0, 1)]
    assert [config.run_id for config in configs] == ids.split()


def test_the_grid_of_a_problem_is_that_of_the_shipped_runs() -> None:
    infos = list_runs(RESULTS / "digits-mlp")
    plan = SupervisedTask(
        base=MLP.base("momentum"),
        batch_sizes=(1, 4, 16, 64, 256, 1024),
        learning_rates=MLP.learning_rates("momentum", count=7),
        examples=1200,
        epochs=MLP.epochs,
        updates=MLP.updates,
        goals=MLP.goals,
    )
    made = {
        plan.config(size, rate, seed).run_id
        for size in plan.batch_sizes
        for rate in plan.learning_rates.grid(size)
        for seed in (0, 1)
    }
    assert len(made) == 84
    assert made <= {info.run_id for info in infos}
    assert plan.task == "digits-mlp momentum"


def test_a_search_has_the_coefficients_that_there_are_and_a_width() -> None:
    assert [name for name, *_ in plan_of("sgd").search_space(32, 64.0, False)] == ["learning_rate"]
    ((_, low, high),) = plan_of("sgd").search_space(64, 16.0, False)
    assert (low, high) == pytest.approx((0.35 / 4, 0.35 * 4))
    names = [name for name, *_ in plan_of("adam+ema").search_space(32, 64.0, True)]
    assert names == list(SEARCHED)
    with pytest.raises(ConfigError, match="leave the budget out"):
        plan_of(budget=Budget(5, "steps")).search_space(32, 64.0, False)


def test_a_task_comes_back_from_plain_data() -> None:
    plan = plan_of("adam", budget=Budget(5, "steps"), goals=(0.5,))
    assert parse(SupervisedTask, _without_kind(json.loads(json.dumps(to_dict(plan)))), "task") == plan
    adaptive = plan_of(adaptive=AdaptiveExamplesConfig(exchange_rate=50))
    assert parse(SupervisedTask, _without_kind(json.loads(json.dumps(to_dict(adaptive)))), "task") == adaptive


def _without_kind(plain: dict[str, Any]) -> dict[str, Any]:
    plain["base"].pop("kind", None)
    return {name: value for name, value in plain.items() if name != "kind"}


def test_an_adaptive_batch_begins_at_its_smallest_size_at_the_rates_of_the_grid_there() -> None:
    rule = AdaptiveExamplesConfig(exchange_rate=50, min_batch_size=16)
    plan = plan_of(adaptive=rule)
    configs = plan.adaptive_configs(3)
    assert [config.learning_rate for config in configs] == plan.learning_rates.grid(16)
    assert {(config.batch_size, config.adaptive, config.seed, config.updates) for config in configs} == {
        (16, rule, 3, 150)
    }
    assert plan_of().adaptive_configs(0) == ()


def test_a_base_keeps_its_own_schedule_unless_it_is_tuned() -> None:
    schedule = ScheduleConfig(warmup_updates=5)
    plan = plan_of()
    plan = dataclasses.replace(plan, base=dataclasses.replace(plan.base, schedule=schedule))
    assert plan.config(32, 0.1, 0).schedule == schedule
    assert plan.config(32, 0.1, 0, final_factor=0.1, decay_share=0.5).schedule.decay_updates == 38


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"batch_sizes": ()}, "no batch sizes"),
        ({"batch_sizes": (0, 4)}, "batch size 0"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": 1e307}, "epochs is 1e.307"),
        ({"examples": 0}, "examples is 0"),
        ({"budget": Budget(5, "steps"), "adaptive": AdaptiveExamplesConfig(exchange_rate=5)}, "give no budget"),
    ],
)
def test_what_is_no_task_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        plan_of(**changes)


def test_what_cannot_be_tuned_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no temperature to tune: learning_rate, one_minus_momentum"):
        plan_of().config(32, 0.1, 0, temperature=1.0)
    with pytest.raises(ConfigError, match="sgd has no momentum"):
        plan_of().config(32, 0.1, 0, one_minus_momentum=0.5)
