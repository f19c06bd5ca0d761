"""One run at a time, for any model: batch normalisation, dropout and augmentation, which batched training refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from rl_scaling.domains.supervised.batched import Ended, Progress
from rl_scaling.domains.supervised.batched.losses import example_losses
from rl_scaling.domains.supervised.config import SupervisedConfig
from rl_scaling.domains.supervised.curvature import b_noise
from rl_scaling.domains.supervised.data.augmentation import augment, draw_augmentation
from rl_scaling.domains.supervised.data.dataset import Dataset, Split
from rl_scaling.domains.supervised.measured import BatchSize, NoiseColumns, run_noise
from rl_scaling.domains.supervised.models import make_model, project_channels
from rl_scaling.domains.supervised.optimizers import make_average, make_optimizer
from rl_scaling.domains.supervised.sampling import ExampleStream

_IMAGES_AT_ONCE = 1_000
# Data sets whose mirror images mean something else, or nothing.
_OF_DIGITS = ("digits", "mnist", "svhn", "svhn-extra")


@dataclass(frozen=True, kw_only=True)
class ProgressAlone(Progress):
    """A row of a run that trains alone.

    Attributes:
        examples: so far.
        batch_size, learning_rate: of the last update; NaN before any.
        noise_scale, noise_scale_low, noise_scale_high: the running estimate of B_simple in examples, with its interval.
    """

    examples: int
    batch_size: float
    learning_rate: float
    noise_scale: float
    noise_scale_low: float
    noise_scale_high: float


def train_alone(
    config: SupervisedConfig,
    data: Dataset,
    rate: Callable[[int], float],
    *,
    record_every: int,
    stop: Callable[[Progress], bool] = lambda _: False,
    b_noise_every_rows: int = 0,
    noise_every_updates: int = 0,
) -> Iterator[ProgressAlone | Ended]:
    """Train one run by torch's own optimiser; channels that are kept at norm 1 are put back after every update.

    Args:
        config: model, optimiser, batches, augmentation and updates.
        data: to train and to validate on.
        rate: the learning rate of an update, before what an adaptive batch makes of it.
        record_every: updates of the batch size at the start between two rows; the last update has a row as well.
        stop: asked after every row but the first: whether the run has seen enough.
        b_noise_every_rows: measure B_noise at the first row and then at one in so many; 0: never.
        noise_every_updates: measure B_simple at one update in so many; 0: never. An adaptive batch has its own.

    Yields:
        Rows, the first before any update, and at last how it ended.

    Raises:
        ConfigError: the model does not fit the images, its noise scale cannot be measured, or by epoch a batch is
            larger than the data.
    """
    run, number = _Run(config, data, noise_every_updates), 0
    yield run.row(math.nan, curved=b_noise_every_rows > 0)
    between, losses = record_every * config.batch_size, []
    while run.examples < config.examples:
        before = run.examples // between
        loss = run.update(rate(run.updates))
        if not math.isfinite(loss):
            yield Ended(updates=run.updates - 1, status="diverged", weights=run.weights())
            return
        losses.append(loss)
        last = run.examples >= config.examples
        if last or run.examples // between > before:
            number += 1
            row = run.row(sum(losses) / len(losses), curved=b_noise_every_rows > 0 and number % b_noise_every_rows == 0)
            losses.clear()
            yield row
            if last or stop(row):
                yield Ended(updates=run.updates, status="done" if last else "stopped", weights=run.weights())
                return


class _Run:
    """Model, optimiser, batches and noise scale of one run."""

    def __init__(self, config: SupervisedConfig, data: Dataset, noise_every_updates: int):
        options = {"dropout": config.dropout} if config.dropout else {}
        model = make_model(config.model, data.image_shape, data.num_classes, seed=config.seed, **options)
        self.model = model.to(data.train.device)
        self.config, self.data = config, data
        self.optimizer, self.average = make_optimizer(config.optimizer, model), make_average(config.optimizer, model)
        self.stream, self.batch = ExampleStream(config, len(data.train)), BatchSize(config)
        self.noise = run_noise(config, model, noise_every_updates)
        self.updates = self.examples = 0
        self._last = (math.nan, math.nan)

    def update(self, rate: float) -> float:
        """One update; the mean loss of its batch."""
        size, rate = self.batch.examples, rate * self.batch.rate_factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self._step(self.stream.take(self.examples, size))
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.updates, self.examples, self._last = self.updates + 1, self.examples + size, (size, rate)
        if self.noise is not None:
            self.noise.after_update()
        self.batch.after_update(self.updates, self.noise)
        return loss

    def _step(self, rows: Tensor) -> float:
        """Its draws follow from the run's seed and the update alone."""
        config, model = self.config, self.model
        model.train()
        inputs, targets = self.data.train.batch(rows)
        generator = torch.Generator().manual_seed(config.seed * 2**32 + self.updates)
        if config.augment:
            mirror = config.dataset not in _OF_DIGITS
            inputs = augment(inputs, draw_augmentation(len(rows), generator, mirror=mirror))
        self.optimizer.zero_grad()
        with nullcontext() if self.noise is None else self.noise.around(len(rows)):
            with torch.random.fork_rng():
                torch.manual_seed(generator.initial_seed())
                outputs = model(inputs)
            loss = example_losses(model, outputs, inputs, targets, config.label_smoothing).mean()
            loss.backward()
        self.optimizer.step()
        project_channels(model)
        return float(loss.detach())

    def row(self, loss: float, *, curved: bool) -> ProgressAlone:
        """A row about the weights, or their average; B_noise is at the weights, which train."""
        shown = self.average.module if self.average is not None else self.model
        training_loss, _ = _mean_loss(shown, self.data.training_sample)
        validation_loss, accuracy = _mean_loss(shown, self.data.validation)
        noise = NoiseColumns() if self.noise is None else self.noise.columns()
        return ProgressAlone(
            updates=self.updates,
            examples=self.examples,
            batch_size=self._last[0],
            learning_rate=self._last[1],
            loss=loss,
            training_loss=training_loss,
            validation_loss=validation_loss,
            validation_accuracy=accuracy,
            hessian_noise_scale=b_noise(self.model, self.data.train).b_noise.value if curved else math.nan,
            **asdict(noise),
        )

    def weights(self) -> dict[str, Tensor]:
        """A copy."""
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


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
