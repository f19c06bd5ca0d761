"""Runs trained together against a plain loop of torch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn.functional import cross_entropy

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.recipe import ExampleStream, make_average, make_optimizer
from rl_scaling.domains.supervised.runs import run_together
from rl_scaling.records import LossRecord

OPTIMIZERS = [
    OptimizerConfig(name="sgd", learning_rate=0.1),
    OptimizerConfig(name="momentum", learning_rate=0.02, momentum=0.9),
    OptimizerConfig(name="nesterov", learning_rate=0.02, momentum=0.9),
    OptimizerConfig(name="adam", learning_rate=2e-3, momentum=0.9, second_moment=0.999),
    OptimizerConfig(name="adam", learning_rate=2e-3),
    OptimizerConfig(name="rmsprop", learning_rate=1e-3),
    OptimizerConfig(name="sgd", learning_rate=0.1, ema=0.9),
]


def rows_of(configs: list[SupervisedConfig]) -> dict[int, list[LossRecord]]:
    """Rows after the first, which is before any update."""
    rows: dict[int, list[LossRecord]] = {number: [] for number in range(len(configs))}
    for number, row in run_together(configs, load_dataset("digits")):
        if isinstance(row, LossRecord) and row.updates:
            rows[number].append(row)
    return rows


def by_plain_torch(config: SupervisedConfig) -> tuple[list[float], float]:
    """The loss of every batch, and the validation loss at the end."""
    data = load_dataset("digits")
    model = make_model(config.model, data.image_shape, data.num_classes, seed=config.seed)
    optimizer, average = make_optimizer(config.optimizer, model), make_average(config.optimizer, model)
    stream, losses = ExampleStream(config, len(data.train)), []
    for update in range(config.updates):
        inputs, targets = data.train.batch(stream.rows(update))
        loss = cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(model)
        losses.append(loss.item())
    inputs, targets = data.validation.batch(torch.arange(len(data.validation)))
    with torch.no_grad():
        return losses, cross_entropy((average or model)(inputs), targets).item()


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.label)
def test_a_run_is_that_of_a_plain_loop(optimizer: OptimizerConfig) -> None:
    config = SupervisedConfig(optimizer=optimizer, batch_size=8, updates=30, seed=3, noise_every_updates=20)
    tuned = {name: 0.5 for name in ("momentum", "ema") if getattr(optimizer, name)}
    other = dataclasses.replace(config, optimizer=dataclasses.replace(optimizer, learning_rate=1e-3, **tuned), seed=4)
    rows = rows_of([other, config])[1]
    losses, validation_loss = by_plain_torch(config)
    assert [row.updates for row in rows] == list(range(1, 31))
    assert [row.loss for row in rows] == pytest.approx(losses, rel=1e-4)
    assert rows[-1].validation_loss == pytest.approx(validation_loss, rel=1e-4)
    assert rows[-1].examples == 240
    assert all(row.noise_measurements == (row.updates == 1 or row.updates == 21) for row in rows)


def test_a_rate_falls_where_the_training_loss_triggers_it() -> None:
    schedule = ScheduleConfig(name="triggered", thresholds=(1.5, 0.8), factor=0.5)
    config = SupervisedConfig(optimizer=OPTIMIZERS[0], schedule=schedule, batch_size=32, updates=200)
    rows = rows_of([config])[0]
    passed = [sum(before.training_loss <= t for t in schedule.thresholds) for before in rows[:-1]]
    assert set(passed) == {0, 1, 2}
    expected = [0.1 * 0.5 ** max(passed[: n + 1]) for n in range(len(passed))]
    assert [row.current_learning_rate for row in rows[1:]] == pytest.approx(expected)


def test_rows_hold_losses_without_smoothing_and_the_accuracy() -> None:
    optimizer = OptimizerConfig(learning_rate=0.3)
    config = SupervisedConfig(optimizer=optimizer, batch_size=64, updates=400, label_smoothing=0.3)
    last = rows_of([config])[0][-1]
    # Smoothed, no loss can be below that of the smoothed targets themselves: 1.13 nats here.
    smoothed = torch.full((10,), 0.03) + 0.7 * torch.eye(10)[0]
    assert float(torch.special.entr(smoothed).sum()) < last.loss
    assert last.training_loss < last.validation_loss < 0.8
    assert 0.9 < last.validation_accuracy <= 1


def test_what_cannot_train_together_is_refused() -> None:
    config = SupervisedConfig(optimizer=OPTIMIZERS[0])
    for others, complaint in (
        ([], "nothing to train"),
        ([config, dataclasses.replace(config, batch_size=8)], "may differ in seed, rate"),
        ([config, dataclasses.replace(config, optimizer=OPTIMIZERS[-1])], "may differ in seed, rate"),
        ([dataclasses.replace(config, augment=True)], "augment"),
        ([dataclasses.replace(config, b_noise_every_rows=1)], "measure no B_noise"),
        ([dataclasses.replace(config, model="resnet32")], "one at a time"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            rows_of(others)
