"""Runs one at a time: as the batched program trains them, those that it refuses, and batches that follow the noise."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rl_scaling.config import ConfigError, to_dict
from rl_scaling.domains.base import Control, Ended
from rl_scaling.domains.supervised.config import (
    AdaptiveExamplesConfig,
    OptimizerConfig,
    ScheduleConfig,
    SupervisedConfig,
)
from rl_scaling.domains.supervised.data import load_dataset
from rl_scaling.domains.supervised.domain import trains_together
from rl_scaling.domains.supervised.noise import b_noise
from rl_scaling.domains.supervised.single import SingleRun
from rl_scaling.records import LossRecord
from tests.domains.supervised.few import few_digits, run_alone, run_together

FIXED = SupervisedConfig(optimizer=OptimizerConfig(learning_rate=0.1), batch_size=8, updates=200)
RULE = AdaptiveExamplesConfig(exchange_rate=50, window_measurements=20, change_every_updates=10)
ADAPTIVE = dataclasses.replace(FIXED, adaptive=RULE)
MOMENTUM = OptimizerConfig(name="momentum", learning_rate=0.02, momentum=0.9)


def rows(config: SupervisedConfig, *, alone: bool = True) -> list[LossRecord]:
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
    alone, together = rows(config), rows(config, alone=False)
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
    data = few_digits()
    config = dataclasses.replace(
        SupervisedConfig(optimizer=MOMENTUM, batch_size=32, updates=4),
        **changes,
    )
    assert not trains_together(config, data)

    def losses(config: SupervisedConfig) -> list[float]:
        return [row.validation_loss for _, row in run_alone(config, data) if isinstance(row, LossRecord)]

    torch.manual_seed(1)
    first = losses(config)
    torch.manual_seed(2)
    assert losses(config) == first
    other = losses(dataclasses.replace(config, seed=1))
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
    values = [row.hessian_noise_scale for row in rows(config)]
    assert math.isfinite(values[0])
    assert math.isnan(values[1] + values[2])
    run = SingleRun(config, data)
    for _ in range(3):
        run.update()
    assert values[3] == pytest.approx(b_noise(run.model, data.train).b_noise.value, rel=1e-5, nan_ok=True)


def test_the_batch_follows_and_the_learning_rate_with_it() -> None:
    found = rows(ADAPTIVE)
    sizes = [row.current_batch_size for row in found[1:]]
    assert sizes[0] == 8
    assert max(sizes) > 16
    assert all(8 <= size <= 1024 for size in sizes)
    for row in found[1:]:  # A.3 with B* = 64 and alpha = 1
        assert row.current_learning_rate == pytest.approx(0.1 * (1 + 64 / 8) / (1 + 64 / row.current_batch_size))
    assert 1600 <= found[-1].examples < 1600 + sizes[-1]
    assert found[-1].updates < 200
    assert [row.validation_loss for row in rows(ADAPTIVE)] == [row.validation_loss for row in found]


def test_a_batch_that_may_not_change_trains_as_a_fixed_one() -> None:
    bound = dataclasses.replace(RULE, min_batch_size=8, max_batch_size=8)
    names = ("updates", "examples", "validation_loss", "current_learning_rate", "current_batch_size")
    for config in (dataclasses.replace(FIXED, adaptive=bound), FIXED):
        found = rows(config)
        expected = rows(dataclasses.replace(FIXED, noise_every_updates=1))
        for name in names:
            values = [getattr(row, name) for row in found]
            assert values == pytest.approx([getattr(row, name) for row in expected], rel=1e-5, nan_ok=True), name


def test_the_noise_scale_is_that_of_the_batched_program() -> None:
    config = dataclasses.replace(FIXED, batch_size=64, updates=40, noise_every_updates=2)
    data = load_dataset("digits")
    together = [row for _, row in run_together([config], data) if isinstance(row, LossRecord)]
    alone = rows(config)
    assert sum(row.noise_measurements for row in alone) == 20
    for name in ("noise_measurements", "grad_sq_norm", "trace_cov"):
        expected = [getattr(row, name) for row in together]
        assert [getattr(row, name) for row in alone] == pytest.approx(expected, rel=1e-3, nan_ok=True), name
    last = next(row for row in reversed(alone) if row.noise_measurements)
    assert last.noise_scale_low > 0
    assert last.noise_scale_low <= last.noise_scale <= last.noise_scale_high


def test_its_task_is_that_of_fixed_batches_and_old_configs_stay_what_they_were() -> None:
    assert ADAPTIVE.task == FIXED.task == "digits-mlp sgd"
    assert ADAPTIVE.setting == "adaptive r=50 change_every_updates=10 window_measurements=20"
    assert "adaptive" not in to_dict(FIXED)
    assert ADAPTIVE.run_id != FIXED.run_id


def test_what_cannot_follow_is_refused() -> None:
    data = load_dataset("digits")
    assert not trains_together(ADAPTIVE, data)
    with pytest.raises(ConfigError, match="train an adaptive batch by itself"):
        next(run_together([ADAPTIVE], data))
    with pytest.raises(ConfigError, match="constant schedule"):
        dataclasses.replace(ADAPTIVE, schedule=ScheduleConfig(warmup_updates=5))
    with pytest.raises(ConfigError, match="give 8 to 1024"):
        dataclasses.replace(ADAPTIVE, batch_size=4)
    with pytest.raises(ConfigError, match="one example for each group"):
        dataclasses.replace(RULE, min_batch_size=4)
    large = dataclasses.replace(RULE, max_batch_size=2000)
    with pytest.raises(ConfigError, match="a batch of 2,000 is larger than the 1,200"):
        rows(dataclasses.replace(ADAPTIVE, sampling="epoch", adaptive=large))
    with pytest.raises(ConfigError, match="cannot be measured while it trains"):
        rows(dataclasses.replace(ADAPTIVE, model="resnet32"))


def test_one_example_has_no_noise_scale_to_measure() -> None:
    found = rows(dataclasses.replace(FIXED, batch_size=1, updates=3, noise_every_updates=1))
    assert [row.noise_measurements for row in found] == [0, 0, 0, 0]
