"""One run of any model: batch normalisation, dropout, augmentation and adaptive batches, which stacking refuses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rl_scaling.config import ConfigError
from rl_scaling.domains.supervised.batched.forward import example_losses
from rl_scaling.domains.supervised.config import SupervisedConfig
from rl_scaling.domains.supervised.data.dataset import Dataset, Split, augment, draw_augmentation
from rl_scaling.domains.supervised.loop import Evaluation, Program
from rl_scaling.domains.supervised.models import model_of, project_channels
from rl_scaling.domains.supervised.noise import b_noise
from rl_scaling.domains.supervised.recipe import (
    ExampleStream,
    flat,
    load_memory,
    load_weights,
    make_average,
    make_optimizer,
    memory_of,
)
from rl_scaling.noise import GradientNoise
from rl_scaling.noise.torch.adapter import TOTAL

_IMAGES_AT_ONCE = 1_000
# Data sets whose mirror images mean something else, or nothing.
_OF_DIGITS = ("digits", "mnist", "svhn", "svhn-extra")


class SingleRun(Program):
    """A run that trains by torch's own optimiser; channels kept at norm 1 are put back after every update.

    Raises:
        ConfigError: the model does not fit the images, the noise scale that an adaptive batch follows cannot be
            measured, or by epoch a batch is larger than the data.
    """

    running_estimates = True

    def __init__(self, config: SupervisedConfig, data: Dataset):
        super().__init__([config], data)
        self.model = model_of(config, data).to(data.train.device)
        self._config = config
        self._optimizer = make_optimizer(config.optimizer, self.model)
        self._average = make_average(config.optimizer, self.model)
        self._stream = ExampleStream(config, len(data.train))
        self._gradients = self._gradient_noise()

    def evaluate(self) -> list[Evaluation]:
        shown = self._average.module if self._average is not None else self.model
        training_loss, _ = _mean_loss(shown, self.data.training_sample)
        return [Evaluation(training_loss, *_mean_loss(shown, self.data.validation))]

    def b_noise(self) -> float:
        return b_noise(self.model, self.data.train).b_noise.value

    def _gradient_noise(self) -> GradientNoise | None:
        """None where the noise scale is not asked for, or cannot be measured."""
        noise = self.runs[0].noise
        if noise is None:
            return None
        try:
            return GradientNoise(self.model, groups=noise.groups, every=1, window=1)
        except ValueError as error:
            self.runs[0].noise = None
            if self._config.adaptive is None:
                return None
            raise ConfigError(f"the noise scale of this model cannot be measured while it trains: {error}") from error

    def _step(self, size: int, rates: list[float]) -> Tensor:
        """Its draws follow from the run's seed and the update alone."""
        config, model, noise = self._config, self.model, self.runs[0].noise
        for group in self._optimizer.param_groups:
            group["lr"] = rates[0]
        model.train()
        rows = self._stream.take(self.examples, size)
        inputs, targets = self.data.train.batch(rows)
        generator = torch.Generator().manual_seed(config.seed * 2**32 + self.updates)
        if config.augment:
            mirror = config.dataset not in _OF_DIGITS
            inputs = augment(inputs, draw_augmentation(len(rows), generator, mirror=mirror))
        self._optimizer.zero_grad()
        measured = self._gradients if noise is not None and noise.due(self.updates) else None
        with nullcontext() if measured is None else measured.measure(size):
            with torch.random.fork_rng():
                torch.manual_seed(generator.initial_seed())
                outputs = model(inputs)
            loss = example_losses(model, outputs, inputs, targets, config.label_smoothing).mean()
            loss.backward()
        if noise is not None and measured is not None and (latest := measured.meter[TOTAL].latest) is not None:
            noise.add(latest)
        self._optimizer.step()
        project_channels(model)
        if self._average is not None:
            self._average.update_parameters(model)
        return loss.detach().double().reshape(1)

    def _state(self, place: int) -> dict[str, Any]:
        return {
            "weights": flat(self.model),
            "buffers": {name: buffer.detach().cpu().clone() for name, buffer in self.model.named_buffers()},
            "memory": memory_of(self._optimizer, self._config.optimizer),
            "average": None if self._average is None or not self.updates else flat(self._average.module),
        }

    def _load(self, states: Sequence[Mapping[str, Any]]) -> None:
        (state,) = states
        load_weights(self.model, state["weights"])
        for name, buffer in self.model.named_buffers():
            buffer.detach().copy_(state["buffers"][name])
        load_memory(self._optimizer, self._config.optimizer, state["memory"], self.updates)
        if self._average is not None:
            load_weights(self._average.module, state["average"])
            for averaged, buffer in zip(self._average.module.buffers(), self.model.buffers(), strict=True):
                averaged.detach().copy_(buffer)
            self._average.n_averaged.fill_(self.updates)


@torch.no_grad()
def _mean_loss(model: nn.Module, split: Split) -> tuple[float, float]:
    """Loss without smoothing, and share that is classified right (NaN for an autoencoder), over a whole split."""
    model.eval()
    losses, right = 0.0, 0.0
    for first in range(0, len(split), _IMAGES_AT_ONCE):
        inputs, targets = split.batch(slice(first, first + _IMAGES_AT_ONCE))
        outputs = model(inputs)
        losses += float(example_losses(model, outputs, inputs, targets).double().sum())
        right += float((outputs.argmax(1) == targets).sum()) if outputs.dim() == 2 else math.nan
    return losses / len(split), right / len(split)
