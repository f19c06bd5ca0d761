"""Runs that share data, model, kind of optimiser and batch size, as one program over the rows of one matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.batched.forward import (
    StackedAdam,
    StackedAverage,
    StackedOptimizer,
    StackedRMSprop,
    StackedSGD,
)
from rl_scaling.domains.supervised.batched.training import StackedTraining
from rl_scaling.domains.supervised.config import OptimizerConfig, SupervisedConfig, kind_of
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.domains.supervised.loop import Evaluation, Program
from rl_scaling.domains.supervised.models import model_of
from rl_scaling.domains.supervised.recipe import ExampleStream
from rl_scaling.noise.estimate import moments_from_groups
from rl_scaling.noise.meter import Measurement


class StackedRuns(Program):
    """Runs that differ in what is tuned and in the seed.

    Raises:
        ConfigError: no configs, configs that differ in more, or runs that only `SingleRun` trains.
    """

    def __init__(self, configs: Sequence[SupervisedConfig], data: Dataset):
        first = _require_alike(configs)
        super().__init__(configs, data)
        optimizer, average = stacked_optimizer([config.optimizer for config in configs])
        models = [model_of(config, data) for config in configs]
        self.training = StackedTraining(
            models, data.train, optimizer, average=average, label_smoothing=first.label_smoothing
        )
        self._streams = [ExampleStream(config, len(data.train)) for config in configs]

    def evaluate(self) -> list[Evaluation]:
        """See `Program.evaluate`."""
        seen = self.training.evaluate(self.data.training_sample, averaged=True)
        validation = self.training.evaluate(self.data.validation, averaged=True)
        columns = (seen.losses.tolist(), validation.losses.tolist(), validation.accuracies.tolist())
        return [Evaluation(*row) for row in zip(*columns, strict=True)]

    def _step(self, size: int, rates: list[float]) -> Tensor:
        rows = torch.stack([stream.rows(self.updates) for stream in self._streams])
        noise = self.runs[0].noise
        groups = math.gcd(size, noise.groups) if noise is not None and noise.due(self.updates) else 0
        rates_there = torch.tensor(rates, dtype=torch.float64).to(self.data.train.device)
        step = self.training.step(rows, rates_there, groups=groups if groups > 1 else 0)
        if step.group_sq_norms is not None and step.batch_sq_norms is not None:
            norms = zip(step.group_sq_norms.tolist(), step.batch_sq_norms.tolist(), strict=True)
            for run, rate, (group_sq_norms, batch_sq_norm) in zip(self.runs, rates, norms, strict=True):
                moments = moments_from_groups(group_sq_norms, batch_sq_norm, size / groups)
                if run.noise is not None:
                    run.noise.add(Measurement(*moments, math.nan, size, rate))
        return step.losses.double()

    def _state(self, place: int) -> dict[str, Any]:
        return {"buffers": {}, **self.training.row(place)}

    def _load(self, states: Sequence[Mapping[str, Any]]) -> None:
        self.training.load_rows(states, self.updates)

    def _keep(self, places: Sequence[int]) -> None:
        self._streams = [self._streams[place] for place in places]
        self.training.keep(places)


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
    if first.adaptive is not None:
        raise ConfigError("runs that train together keep their batch size: train an adaptive batch by itself")
    if len({kind_of(config) for config in configs}) > 1:
        raise ConfigError("runs that train together may differ in seed, rate, momentum, average and schedule alone")
    if first.augment:
        raise ConfigError("runs that train together cannot augment their images: leave augment off")
    if first.b_noise_every_rows:
        raise ConfigError("runs that train together measure no B_noise: leave b_noise_every_rows at 0")
    return first
