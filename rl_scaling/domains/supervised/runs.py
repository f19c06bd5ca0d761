"""From configs to rows: runs that share a data set, a model, an optimiser and a batch size, trained together."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.alone import train_alone
from rl_scaling.domains.supervised.batched import (
    Ended,
    Noise,
    Progress,
    StackedAverage,
    Trial,
    require_stackable,
    train_trials,
)
from rl_scaling.domains.supervised.batched.optimizers import StackedAdam, StackedOptimizer, StackedRMSprop, StackedSGD
from rl_scaling.domains.supervised.config import OptimizerConfig, SupervisedConfig
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.domains.supervised.models import make_model
from rl_scaling.domains.supervised.sampling import ExampleStream
from rl_scaling.domains.supervised.schedules import LearningRate
from rl_scaling.records import LossRecord

# Rows of a run: enough to tell its updates to a target to within a few percent.
ROWS = 100
GROUPS = 8


def run_together(
    configs: Sequence[SupervisedConfig], data: Dataset, *, target: float = -math.inf, noise_every_updates: int = 20
) -> Iterator[tuple[int, LossRecord | Ended]]:
    """Train runs that differ in what is tuned and in the seed, in one batched program.

    Args:
        configs: one or more.
        data: what they train on.
        target: a run whose quantity, of those of its rows, has come down to this stops.
        noise_every_updates: one update in so many measures the noise scale, in 8 groups or as many as divide the batch.

    Yields:
        (number of the run, row), the first before any update so that a run which diverges at once has one, and at last
        (number, end) for each. `wall_seconds` is a run's share of the time.

    Raises:
        ConfigError: no configs, configs that differ in more, augmentation, or models that cannot train together.
    """
    first = _require_alike(configs)
    optimizer, average = stacked_optimizer([config.optimizer for config in configs])
    rates = [LearningRate(config) for config in configs]
    groups = math.gcd(first.batch_size, GROUPS)
    rows = train_trials(
        [_trial(config, data, rate) for config, rate in zip(configs, rates, strict=True)],
        data,
        optimizer,
        record_every=max(1, first.updates // ROWS),
        average=average,
        label_smoothing=first.label_smoothing,
        noise=Noise(every_updates=noise_every_updates, groups=groups) if groups > 1 else None,
        stop=lambda _, row: getattr(row, first.quantity) <= target,
    )
    begun = time.perf_counter()
    for number, row in rows:
        share = (time.perf_counter() - begun) / len(configs)
        if isinstance(row, Ended):
            yield number, row
        else:
            size, rate = (first.batch_size, rates[number](row.updates - 1)) if row.updates else (math.nan, math.nan)
            yield number, _record(row, row.updates * first.batch_size, size, rate, share)
            rates[number].hear(row.training_loss)


def run_alone(
    config: SupervisedConfig,
    data: Dataset,
    *,
    target: float = -math.inf,
    b_noise_every_rows: int = 0,
    noise_every_updates: int = 0,
) -> Iterator[tuple[int, LossRecord | Ended]]:
    """Train one run of any model, in the form of `run_together`; noise scales are measured if asked for.

    Args:
        config: any; only here the batch may be adaptive.
        data: what it trains on.
        target: the run stops when its quantity, of those of its rows, has come down to this.
        b_noise_every_rows: measure B_noise at the first row and then at one in so many; 0: never.
        noise_every_updates: measure B_simple at one update in so many, in 8 groups; 0: never. An adaptive batch has
            its own.

    Yields:
        (0, row), the first before any update, and at last (0, end).

    Raises:
        ConfigError: what `train_alone` refuses.
    """
    rate, begun = LearningRate(config), time.perf_counter()
    every = max(1, config.updates // ROWS)

    def seen_enough(row: Progress) -> bool:
        return getattr(row, config.quantity) <= target

    rows = train_alone(
        config,
        data,
        rate,
        record_every=every,
        stop=seen_enough,
        b_noise_every_rows=b_noise_every_rows,
        noise_every_updates=noise_every_updates,
    )
    for row in rows:
        if isinstance(row, Ended):
            yield 0, row
        else:
            kept = ("noise_scale", "noise_scale_low", "noise_scale_high")
            record = _record(row, row.examples, row.batch_size, row.learning_rate, time.perf_counter() - begun)
            yield 0, dataclasses.replace(record, **{name: getattr(row, name) for name in kept})
            rate.hear(row.training_loss)


def trains_together(config: SupervisedConfig, data: Dataset) -> bool:
    """Whether `run_together` takes runs like this one, or only `run_alone` does.

    Raises:
        ConfigError: there is no such model, or it does not fit the images.
    """
    options = {"dropout": config.dropout} if config.dropout else {}
    model = make_model(config.model, data.image_shape, data.num_classes, seed=0, **options)
    try:
        require_stackable(model)
    except ConfigError:
        return False
    return not config.augment and config.adaptive is None


def stacked_optimizer(configs: Sequence[OptimizerConfig]) -> tuple[StackedOptimizer, StackedAverage | None]:
    """The optimiser of runs that train together, each with its coefficients, and the average of their weights."""
    first, ema = configs[0], _column(configs, "ema")
    momentum, second = _column(configs, "momentum"), _column(configs, "second_moment")
    made: StackedOptimizer
    match first.name:
        case "adam":
            made = StackedAdam(beta1=momentum, beta2=second, eps=first.epsilon)
        case "rmsprop":
            made = StackedRMSprop(alpha=second, eps=first.epsilon)
        case name:
            made = StackedSGD(momentum=momentum, nesterov=name == "nesterov")
    return made, StackedAverage(ema) if first.ema else None


def _column(configs: Sequence[OptimizerConfig], name: str) -> Tensor | float:
    """A coefficient of each, or one number where it is the same for all."""
    values = [getattr(config, name) for config in configs]
    return torch.tensor(values, dtype=torch.float64) if len(set(values)) > 1 else values[0]


def _require_alike(configs: Sequence[SupervisedConfig]) -> SupervisedConfig:
    if not configs:
        raise ConfigError("there is nothing to train: give one config or more")
    first = configs[0]
    for config in configs:
        optimizer = dataclasses.replace(
            first.optimizer,
            learning_rate=config.optimizer.learning_rate,
            momentum=config.optimizer.momentum,
            ema=config.optimizer.ema,
        )
        same = dataclasses.replace(first, optimizer=optimizer, schedule=config.schedule, seed=config.seed)
        if same != config or optimizer.label != first.optimizer.label:
            raise ConfigError("runs that train together may differ in seed, rate, momentum, average and schedule alone")
    if first.augment:
        raise ConfigError("runs that train together cannot augment their images: leave augment off")
    if first.adaptive is not None:
        raise ConfigError("runs that train together keep their batch size: train an adaptive batch alone")
    return first


def _trial(config: SupervisedConfig, data: Dataset, rate: LearningRate) -> Trial:
    options = {"dropout": config.dropout} if config.dropout else {}
    model = make_model(config.model, data.image_shape, data.num_classes, seed=config.seed, **options)
    stream = ExampleStream(config, len(data.train))
    return Trial(model, stream.rows, rate, config.updates)


def _record(row: Progress, examples: int, batch_size: float, rate: float, seconds: float) -> LossRecord:
    return LossRecord(
        updates=row.updates,
        examples=examples,
        wall_seconds=seconds,
        loss=row.loss,
        training_loss=row.training_loss,
        validation_loss=row.validation_loss,
        validation_accuracy=row.validation_accuracy,
        current_learning_rate=rate,
        current_batch_size=batch_size,
        examples_per_second=examples / seconds if examples and seconds else math.nan,
        noise_measurements=row.noise_measurements,
        grad_sq_norm=row.grad_sq_norm,
        trace_cov=row.trace_cov,
        hessian_noise_scale=row.hessian_noise_scale,
    )
