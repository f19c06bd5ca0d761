"""Runs that share data, model, kind of optimiser and batch size as one program over the rows of one matrix.

And whether that pays, by trying both ways for a moment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.batched.forward import (
    StackedAdam,
    StackedAverage,
    StackedOptimizer,
    StackedRMSprop,
    StackedSGD,
    example_losses,
)
from rl_scaling.domains.supervised.batched.training import StackedTraining
from rl_scaling.domains.supervised.config import OptimizerConfig, SupervisedConfig, kind_of
from rl_scaling.domains.supervised.data.dataset import Dataset
from rl_scaling.domains.supervised.loop import Evaluation, Program
from rl_scaling.domains.supervised.models import make_model, model_of
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
        seen, _ = self.training.evaluate(self.data.training_sample)
        columns = (seen, *self.training.evaluate(self.data.validation))
        return [Evaluation(*row) for row in torch.stack(columns, dim=1).tolist()]

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


_PROBE_ROUNDS = 3
_PROBE_SECONDS = 0.05  # for each way in each round, at the least one update


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Updates per second of both ways, medians over rounds in which they took turns.

    Attributes:
        batch_size: images per update and trial.
        trials: trained together.
        alone: updates per second of one trial at a time.
        together: updates per second of all trials of the batched program, added up.
        ratio: median over the rounds of together over alone.
        low, high: quartiles of the rounds.
    """

    batch_size: int
    trials: int
    alone: float
    together: float
    ratio: float
    low: float
    high: float


def measure_gain(
    models: Sequence[nn.Module],
    data: Dataset,
    batch_size: int,
    *,
    rounds: int = _PROBE_ROUNDS,
    seconds: float = _PROBE_SECONDS,
) -> Gain:
    """Plain SGD in both ways in turns, on real batches, from the weights of the models, which are not changed.

    Args:
        models: one per trial.
        batch_size: images per update and trial.
        rounds: in which each way has its turn.

    Raises:
        ConfigError: the models cannot train together.
    """
    together, alone = _together(models, data, batch_size), _alone(models[0], data, batch_size)
    rates = []
    for step in (together, alone):
        step()
    for number in range(rounds):
        turns = [(0, alone, 1), (1, together, len(models))]
        pair = [0.0, 0.0]
        for place, step, trials in turns[:: 1 if number % 2 else -1]:
            pair[place] = trials * _per_second(step, seconds, data.train.device)
        rates.append(pair)
    table = np.array(rates)
    low, ratio, high = np.percentile(table[:, 1] / table[:, 0], [25, 50, 75])
    alone_rate, together_rate = np.median(table, axis=0)
    figures = {"alone": alone_rate, "together": together_rate, "ratio": ratio, "low": low, "high": high}
    return Gain(batch_size=batch_size, trials=len(models), **{name: float(value) for name, value in figures.items()})


def last_that_pays(gains: Sequence[Gain]) -> int | None:
    """The largest batch size up to which training together was never slower; None: not even at the first.

    >>> rates = {1: 9.0, 8: 5.0, 64: 0.9, 256: 1.1}
    >>> found = [Gain(batch_size=b, trials=2, alone=1, together=r, ratio=r, low=r, high=r) for b, r in rates.items()]
    >>> last_that_pays(found)
    8
    """
    paying = list(takewhile(lambda gain: gain.ratio > 1, sorted(gains, key=lambda gain: gain.batch_size)))
    return paying[-1].batch_size if paying else None


def together_pays(
    model: str, options: tuple[tuple[str, object], ...], data: Dataset, batch_size: int, trials: int
) -> bool:
    """Whether this many trials of a model train faster together than one after the other, here and now.

    The answer is found by a probe of a fraction of a second and kept for the process.

    Args:
        options: of the model, as sorted pairs.
        data: its images.
        batch_size: images per update and trial.
        trials: that could train together.

    Raises:
        ConfigError: the model cannot train together with others.
    """
    return trials > 1 and _probe(model, options, data, batch_size, trials) > 1


@lru_cache(maxsize=256)
def _probe(model: str, options: tuple[tuple[str, object], ...], data: Dataset, batch_size: int, trials: int) -> float:
    one = make_model(model, data.image_shape, data.num_classes, seed=0, **dict(options))
    return measure_gain([one] * trials, data, batch_size).ratio


def _together(models: Sequence[nn.Module], data: Dataset, batch_size: int) -> Callable[[], object]:
    training = StackedTraining(models, data.train, StackedSGD())
    generator = torch.Generator().manual_seed(0)
    rates = torch.full((len(models),), 1e-3, device=data.train.device)
    shape = (len(models), batch_size)
    return lambda: training.step(torch.randint(len(data.train), shape, generator=generator), rates)


def _alone(model: nn.Module, data: Dataset, batch_size: int) -> Callable[[], object]:
    """A plain loop of torch, as a trial alone runs."""
    own = deepcopy(model).to(data.train.device)
    optimizer = torch.optim.SGD(own.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)

    def step() -> Tensor:
        inputs, targets = data.train.batch(torch.randint(len(data.train), (batch_size,), generator=generator))
        loss = example_losses(own, own(inputs), inputs, targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _per_second(step: Callable[[], object], seconds: float, device: torch.device) -> float:
    """Calls per second, measured for about this many seconds."""
    begun, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - begun < seconds:
        step()
        calls += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return calls / (time.perf_counter() - begun)
