"""Runs one at a time: as the batched program trains them, and the models that it refuses."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rl_scaling.domains.base import Control, Ended
from rl_scaling.domains.supervised.config import OptimizerConfig, ScheduleConfig, SupervisedConfig
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.noise import b_noise
from rl_scaling.domains.supervised.runs import run_alone, run_together, trains_together
from rl_scaling.domains.supervised.single import SingleRun
from rl_scaling.records import LossRecord

MOMENTUM = OptimizerConfig(name="momentum", learning_rate=0.02, momentum=0.9)


def rows(config: SupervisedConfig, *, alone: bool) -> list[LossRecord]:
    data = load_dataset("digits")
    found = run_alone(config, data) if alone else run_together([config], data)
    return [row for _, row in found if isinstance(row, LossRecord)]


@pytest.mark.parametrize(
    "config",
    [
        SupervisedConfig(optimizer=MOMENTUM, batch_size=16, updates=20, label_smoothing=0.1),
        SupervisedConfig(
            optimizer=dataclasses.replace(MOMENTUM, ema=0.9),
            schedule=ScheduleConfig(name="triggered", thresholds=(2.0,), warmup_updates=5),
            batch_size=64,
            updates=20,
            sampling="epoch",
        ),
    ],
    ids=["smoothed", "averaged and triggered"],
)
def test_it_trains_as_the_batched_program_does(config: SupervisedConfig) -> None:
    alone, together = rows(config, alone=True), rows(config, alone=False)
    assert len(alone) == len(together) == 21
    for name in ("updates", "examples", "loss", "training_loss", "validation_loss", "validation_accuracy"):
        found, expected = ([getattr(row, name) for row in kind] for kind in (alone, together))
        assert found == pytest.approx(expected, rel=1e-4, nan_ok=True), name
    found, expected = ([row.current_learning_rate for row in kind] for kind in (alone, together))
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    "changes",
    [{"model": "resnet32"}, {"model": "cnn", "dropout": 0.4}, {"model": "mlp", "augment": True}],
    ids=["ghost batch normalisation", "dropout", "augmentation"],
)
def test_what_does_not_train_together_trains_alone_the_same_way_each_time(changes: dict[str, object]) -> None:
    data = load_dataset("digits")
    config = dataclasses.replace(
        SupervisedConfig(optimizer=MOMENTUM, batch_size=32, updates=4),
        **changes,
    )
    assert not trains_together(config, data)
    torch.manual_seed(1)
    first = [row.validation_loss for row in rows(config, alone=True)]
    torch.manual_seed(2)
    assert [row.validation_loss for row in rows(config, alone=True)] == first
    other = [row.validation_loss for row in rows(dataclasses.replace(config, seed=1), alone=True)]
    assert len(first) == 5
    assert other != first


def test_channels_are_on_their_spheres_after_every_update() -> None:
    optimizer = dataclasses.replace(MOMENTUM, learning_rate=0.5)
    run = SingleRun(SupervisedConfig(model="resnet32", optimizer=optimizer, batch_size=32), load_dataset("digits"))
    for _ in range(2):
        run.update()
        norms = [w.detach().flatten(1).norm(dim=1) for w in run.model.parameters() if w.dim() == 4]
        torch.testing.assert_close(torch.cat(norms), torch.ones(sum(map(len, norms))))


def test_it_ends_when_it_diverges_or_is_asked_to_stop() -> None:
    config = SupervisedConfig(optimizer=MOMENTUM, batch_size=64, updates=300)
    control, found = Control(), list[LossRecord]()
    for number, event in run_alone(config, load_dataset("digits"), control):
        if isinstance(event, LossRecord):
            found.append(event)
            control.stop |= {number} if event.validation_loss <= 1.0 else set()
    assert found[-1].validation_loss <= 1.0 < found[-2].validation_loss
    assert found[-1].updates < 300
    wild = dataclasses.replace(config, optimizer=dataclasses.replace(MOMENTUM, learning_rate=1e30))
    *_, (_, ended) = run_alone(wild, load_dataset("digits"))
    assert isinstance(ended, Ended)
    assert ended.status == "diverged"


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_b_noise_is_that_of_the_weights_at_its_rows(ema: float) -> None:
    optimizer = dataclasses.replace(MOMENTUM, ema=ema)
    config = SupervisedConfig(optimizer=optimizer, batch_size=32, updates=3, b_noise_every_rows=3)
    data = load_dataset("digits")
    values = [row.hessian_noise_scale for row in rows(config, alone=True)]
    assert math.isfinite(values[0])
    assert math.isnan(values[1] + values[2])
    run = SingleRun(config, data)
    for _ in range(3):
        run.update()
    assert values[3] == pytest.approx(b_noise(run.model, data.train).b_noise.value, rel=1e-5, nan_ok=True)
