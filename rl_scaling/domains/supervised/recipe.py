"""What an update of a run takes: a batch of examples, a learning rate, and an optimiser of torch.

Batches and rates are pure functions of the config and of the place in the run. A checkpoint has weights, averages and
the optimiser's memory as one vector each, over all parameters in their order, under torch's names of the memory: the
same whether a run trained alone or stacked with others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn, optim
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.config import OptimizerConfig, SupervisedConfig

_BLOCK = 8_192
_REPLACEMENT, _EPOCH = 0, 1


class ExampleStream:
    """An endless stream of rows of the training data, cut into batches one after the other.

    By epoch it is one permutation after another, so that a batch may reach from one epoch into the next and no example
    is left out.

    Args:
        config: its sampling, batch size and seed are used.
        examples: rows there are.

    Raises:
        ConfigError: no examples, or by epoch a batch that is larger than the data.
    """

    def __init__(self, config: SupervisedConfig, examples: int):
        if examples < 1:
            raise ConfigError("there are no examples to train on")
        self._by_epoch = config.sampling == "epoch"
        if self._by_epoch and config.largest_batch > examples:
            raise ConfigError(
                f"a batch of {config.largest_batch:,} is larger than the {examples:,} training examples: give at most "
                "that, or sample with replacement"
            )
        self._examples, self._batch_size, self._seed = examples, config.batch_size, config.seed
        self._length = examples if self._by_epoch else _BLOCK
        # Batches come in order: the block of the last one is nearly always that of the next.
        self._block = functools.lru_cache(maxsize=2)(self._draw)

    def rows(self, update: int) -> Tensor:
        """(batch,) int64 rows of the batch of an update, counted from 0."""
        return self.take(update * self._batch_size, self._batch_size)

    def take(self, start: int, count: int) -> Tensor:
        """(count,) int64 rows from a place in the stream."""
        first, last = start // self._length, (start + count - 1) // self._length
        blocks = [self._block(number) for number in range(first, last + 1)]
        offset = start - first * self._length
        return torch.cat(blocks)[offset : offset + count] if len(blocks) > 1 else blocks[0][offset : offset + count]

    def _draw(self, number: int) -> Tensor:
        kind = _EPOCH if self._by_epoch else _REPLACEMENT
        random = np.random.default_rng([self._seed, kind, number])
        drawn = random.permutation(self._examples) if self._by_epoch else random.integers(self._examples, size=_BLOCK)
        return torch.from_numpy(drawn.astype(np.int64))


class LearningRate:
    """The learning rate of each update of one run, which hears the training loss where its schedule depends on it.

    McCandlish et al. 2018, A.4.1, divide ImageNet's rate by 10 when the smoothed training error comes down to each of
    three thresholds, so that batch sizes are compared at the same place of training. Here it is the loss over the
    training data at a run's records, which needs no smoothing.

    Attributes:
        passed: thresholds that the loss has come down to.
    """

    def __init__(self, config: SupervisedConfig):
        self._config = config
        self.passed = 0

    def __call__(self, update: int) -> float:
        return learning_rate_at(self._config, update) * self._config.schedule.factor**self.passed

    def hear(self, training_loss: float) -> None:
        """Take in the loss over the training data; what was passed once stays passed."""
        self.passed = max(self.passed, sum(training_loss <= t for t in self._config.schedule.thresholds))


def learning_rate_at(config: SupervisedConfig, update: int) -> float:
    """The learning rate of an update, counted from 0, before what a training loss has triggered.

    Linear decay is rate * (1 - (1 - kappa) t / T) for t <= T and kappa * rate after (Zhang et al. 2019, F.3). Halving
    is constant for the first half of the updates and then halved every further twentieth (Smith, Elsen and De 2020).
    """
    schedule, rate = config.schedule, config.learning_rate
    warmup = min(1.0, (update + 1) / schedule.warmup_updates) if schedule.warmup_updates else 1.0
    if schedule.name == "linear":
        share = min(1.0, update / schedule.decay_updates)
        return warmup * rate * (1 - (1 - schedule.final_factor) * share)
    if schedule.name == "halving":
        twentieths = math.floor(20 * update / config.updates)
        return warmup * rate * 0.5 ** max(0, twentieths - 9)
    return warmup * rate


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> optim.Optimizer:
    """The optimiser of a config for all weights of a model."""
    weights, rate = model.parameters(), config.learning_rate
    if config.name == "adam":
        return optim.Adam(weights, lr=rate, betas=(config.momentum, config.second_moment), eps=config.epsilon)
    if config.name == "rmsprop":
        return optim.RMSprop(weights, lr=rate, alpha=config.second_moment, eps=config.epsilon)
    return optim.SGD(weights, lr=rate, momentum=config.momentum, nesterov=config.name == "nesterov")


def make_average(config: OptimizerConfig, model: nn.Module) -> AveragedModel | None:
    """The average of a model's weights, to be updated after every step; None where the config wants none."""
    if not config.ema:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))


def flat(model: nn.Module) -> Tensor:
    """A copy of all parameters as one vector on the CPU."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).cpu().clone()


def load_weights(model: nn.Module, vector: Tensor) -> None:
    """The inverse of `flat`."""
    for parameter, part in zip(model.parameters(), _parts(vector, model.parameters()), strict=True):
        parameter.detach().copy_(part)


def memory_of(optimizer: optim.Optimizer, config: OptimizerConfig) -> dict[str, Tensor]:
    """What the optimiser remembers, one vector per name; nothing before its first step."""
    states = [optimizer.state[parameter] for parameter in _parameters(optimizer)]
    if not all(states):
        return {}
    return {
        name: torch.cat([state[name].detach().flatten() for state in states]).cpu().clone() for name in _names(config)
    }


def load_memory(optimizer: optim.Optimizer, config: OptimizerConfig, memory: Mapping[str, Tensor], steps: int) -> None:
    """The inverse of `memory_of` for a fresh optimiser; what is not there is 0."""
    parameters = _parameters(optimizer)
    total = sum(parameter.numel() for parameter in parameters)
    for name in _names(config):
        vector = memory.get(name, torch.zeros(total))
        for parameter, part in zip(parameters, _parts(vector, parameters), strict=True):
            optimizer.state[parameter][name] = part.to(parameter).clone()
    if config.name in ("adam", "rmsprop"):
        for parameter in parameters:
            optimizer.state[parameter]["step"] = torch.tensor(float(steps))


def _names(config: OptimizerConfig) -> tuple[str, ...]:
    if config.name == "adam":
        return ("exp_avg", "exp_avg_sq")
    if config.name == "rmsprop":
        return ("square_avg",)
    return ("momentum_buffer",) if config.momentum else ()


def _parameters(optimizer: optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _parts(vector: Tensor, parameters: Iterable[Tensor]) -> list[Tensor]:
    shapes = [parameter.shape for parameter in parameters]
    parts = vector.split([shape.numel() for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
