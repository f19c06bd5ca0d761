"""Problems by name, each with a place to look for every optimiser's rate; what is not there is named."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import pytest
import torch
from torch import nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.base import Control, Ended, Hardware
from rl_scaling.domains.supervised.config import ScheduleConfig, SupervisedConfig
from rl_scaling.domains.supervised.data import Dataset, load_dataset
from rl_scaling.domains.supervised.domain import Supervised
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.problems import (
    PROBLEMS,
    OptimizerName,
    Problem,
    find_problem,
    optimizer_of,
    rate_power,
)
from rl_scaling.domains.supervised.runs import run_together
from rl_scaling.records import LossRecord


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
